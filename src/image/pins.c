#include "image/pins.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/macros.h"

#define REGISTRY_DEFAULT "https://registry.npmjs.org"
#define NPMRC_MAX (1 << 20)
#define URL_MAX_BYTES 1500

const char pins_lock[] =
#include "image/agents.lock.inc"
	;

static char *text_of(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s ? xstrdup(s) : NULL;
}

static int read_pin(const json_t *program, const json_t *platform, struct pin *p)
{
	json_int_t bytes = json_integer_value(json_object_get(platform, "bytes"));
	json_t *rules = json_object_get(platform, "rules"), *rule;
	size_t i;

	p->program = text_of(program, "program");
	p->umbrella = text_of(program, "umbrella");
	p->dependency = text_of(platform, "dependency");
	p->package = text_of(platform, "package");
	p->version = text_of(platform, "version");
	p->integrity = text_of(platform, "integrity");
	p->bytes = bytes > 0 ? (uint64_t)bytes : 0;
	json_array_foreach(rules, i, rule)
		if (json_is_string(rule))
			strv_add(&p->rules, json_string_value(rule));
	return p->program && p->umbrella && p->package && p->version && p->integrity && p->bytes > 0 && p->rules.n > 0 ?
		       0 : -EBADMSG;
}

int pins_find(const char *lock, const char *program, const char *arch, struct pin *ret, struct err *err)
{
	json_t *j = json_loads(lock, JSON_REJECT_DUPLICATES, NULL), *entry;
	struct pin p = { NULL };
	int r = -ENOENT;
	size_t i;

	if (json_integer_value(json_object_get(j, "format")) != 1)
		r = -EBADMSG;
	json_array_foreach(json_object_get(j, "programs"), i, entry) {
		const char *name = json_string_value(json_object_get(entry, "program"));
		const json_t *platform = json_object_get(json_object_get(entry, "platforms"), arch);

		if (r == -ENOENT && name && strcmp(name, program) == 0 && platform)
			r = read_pin(entry, platform, &p);
	}
	json_decref(j);
	if (r < 0) {
		pin_done(&p);
		return err_set(err, r, r == -ENOENT ? "%s: no package of it for %s is pinned in this version; leave it out with --base, or pull an image" :
						      "agents.lock: no pin of %s for %s in it can be read; install agent-vm again", program, arch);
	}
	*ret = p;
	return 0;
}

void pin_done(struct pin *p)
{
	free(p->program);
	free(p->umbrella);
	free(p->dependency);
	free(p->package);
	free(p->version);
	free(p->integrity);
	strv_done(&p->rules);
	*p = (struct pin){ NULL };
}

char *npmrc_registry(const char *text)
{
	char *found = NULL;

	while (*text) {
		size_t line = strcspn(text, "\n"), n, from = strspn(text, " \t");
		const char *at = text + from;

		text += line + (text[line] == '\n');
		if (from + 8 > line || strncmp(at, "registry", 8) != 0)
			continue;
		at += 8 + strspn(at + 8, " \t");
		if (*at != '=')
			continue;
		at += 1 + strspn(at + 1, " \t\"");
		n = strcspn(at, " \t\r\n\"");
		if (n == 0)
			continue;
		free(found);
		found = xstrndup(at, n);
	}
	return found;
}

static char *from_npmrc(void)
{
	const char *home = getenv("HOME");
	AUTO_FREE(char, path);
	AUTO_FREE(char, text);
	AUTO_FD(fd);

	if (!home || *home != '/')
		return NULL;
	path = xasprintf("%s/.npmrc", home);
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	return fd >= 0 && fd_read_file(fd, NPMRC_MAX, &text, NULL) == 0 ? npmrc_registry(text) : NULL;
}

static bool is_address(const char *s)
{
	if (strlen(s) > URL_MAX_BYTES || !(str_starts(s, "https://") || str_starts(s, "http://")))
		return false;
	for (const char *c = s; *c; c++)
		if (*c <= ' ' || *c > '~' || strchr("?#@\"\\", *c))
			return false;
	return true;
}

int pins_registry(char **ret, struct err *err)
{
	const char *set = getenv("npm_config_registry");
	AUTO_FREE(char, url);
	size_t n;

	url = set && *set ? xstrdup(set) : from_npmrc();
	if (!url)
		url = xstrdup(REGISTRY_DEFAULT);
	n = strlen(url);
	while (n > 0 && url[n - 1] == '/')
		url[--n] = '\0';
	if (!is_address(url)) {
		AUTO_FREE(char, shown);

		shown = str_escape(url, MIN(strlen(url), (size_t)200));
		return err_set(err, -EINVAL, "npm registry %s: not an http(s) address without user, query or variables; set npm_config_registry",
			       shown);
	}
	*ret = TAKE_PTR(url);
	return 0;
}
