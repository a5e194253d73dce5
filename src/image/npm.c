#include "image/npm.h"

#include <errno.h>
#include <jansson.h>
#include <stdbool.h>
#include <string.h>

#include "base/base64.h"
#include "base/macros.h"
#include "base/str.h"

#define NAME_MAX_BYTES 214
#define VERSION_MAX_BYTES 100
#define URL_MAX_BYTES 2000
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"
#define INTEGRITY_LEN BASE64_LEN(NPM_SHA512)

static bool part_is_good(const char *s, size_t n)
{
	return n > 0 && s[0] != '.' && s[0] != '_' && strspn(s, LOWER DIGITS "-._~") >= n;
}

static bool name_is_good(const char *s)
{
	const char *slash = strchr(s, '/');

	if (strlen(s) > NAME_MAX_BYTES)
		return false;
	if (*s != '@')
		return part_is_good(s, strlen(s));
	return slash && part_is_good(s + 1, (size_t)(slash - s - 1)) && part_is_good(slash + 1, strlen(slash + 1));
}

static bool version_is_good(const char *s)
{
	return *s && *s != '.' && strlen(s) <= VERSION_MAX_BYTES && s[strspn(s, LOWER "ABCDEFGHIJKLMNOPQRSTUVWXYZ" DIGITS "-.+")] == '\0';
}

int npm_spec_parse(const char *spec, char **ret_name, char **ret_version)
{
	const char *at = strrchr(spec, '@');
	AUTO_FREE(char, name);

	if (!at || at == spec)
		return -EINVAL;
	name = xstrndup(spec, (size_t)(at - spec));
	if (!name_is_good(name) || !version_is_good(at + 1))
		return -EINVAL;
	*ret_name = TAKE_PTR(name);
	*ret_version = xstrdup(at + 1);
	return 0;
}

char *npm_url(const char *registry, const char *name, const char *version)
{
	const char *slash = strchr(name, '/');

	if (!slash)
		return xasprintf("%s/%s/%s", registry, name, version);
	return xasprintf("%s/%.*s%%2f%s/%s", registry, (int)(slash - name), name, slash + 1, version);
}

int npm_integrity_parse(const char *text, uint8_t ret[NPM_SHA512])
{
	const char *at = strstr(text, "sha512-");

	if (!at || (at != text && at[-1] != ' '))
		return -EINVAL;
	at += strlen("sha512-");
	if (strlen(at) < INTEGRITY_LEN || (at[INTEGRITY_LEN] != '\0' && at[INTEGRITY_LEN] != ' ' && at[INTEGRITY_LEN] != '?'))
		return -EINVAL;
	return base64_decode(BASE64_STD, SPAN(at, INTEGRITY_LEN), ret, NPM_SHA512) == NPM_SHA512 ? 0 : -EINVAL;
}

char *npm_integrity_text(const uint8_t sha512[NPM_SHA512])
{
	static const char name[] = "sha512-";
	char *text = xmalloc(sizeof(name) + INTEGRITY_LEN), *digits = text + sizeof(name) - 1;

	memcpy(text, name, sizeof(name));
	digits[base64_encode(BASE64_STD, SPAN(sha512, NPM_SHA512), digits)] = '\0';
	return text;
}

static int bad(struct err *err, const char *why)
{
	return err_set(err, -EBADMSG, "npm metadata: %s; is npm_config_registry the address of an npm registry?", why);
}

/* A URL that may be asked: http(s), visible ASCII, no user in it. */
static bool url_is_good(const char *s)
{
	const char *host = strstr(s, "://");

	if (strlen(s) > URL_MAX_BYTES || !(str_starts(s, "https://") || str_starts(s, "http://")))
		return false;
	for (const char *c = s; *c; c++)
		if (*c <= ' ' || *c > '~')
			return false;
	host += 3;
	return memchr(host, '@', strcspn(host, "/?#")) == NULL;
}

/* Bytes of scheme, host and port. */
static size_t origin(const char *url)
{
	const char *host = strstr(url, "://") + 3;

	return (size_t)(host - url) + strcspn(host, "/?#");
}

static bool tarball_is_good(const char *url, const char *registry)
{
	size_t n = origin(registry);

	if (!url_is_good(url))
		return false;
	return str_starts(url, "https://") || (origin(url) == n && strncmp(url, registry, n) == 0);
}

static int read_version(json_t *j, const char *registry, struct npm_version *ret, struct err *err)
{
	json_t *dist = json_object_get(j, "dist");
	const char *name = json_string_value(json_object_get(j, "name"));
	const char *version = json_string_value(json_object_get(j, "version"));
	const char *tarball = json_string_value(json_object_get(dist, "tarball"));
	const char *integrity = json_string_value(json_object_get(dist, "integrity"));

	if (!name || !version || !name_is_good(name) || !version_is_good(version))
		return bad(err, "without name and version");
	if (!integrity || npm_integrity_parse(integrity, ret->sha512) < 0)
		return bad(err, "without a sha512 integrity");
	if (!tarball || !url_is_good(registry) || !tarball_is_good(tarball, registry))
		return bad(err, "without a tarball's address that can be trusted (https, or the registry's own)");
	ret->name = xstrdup(name);
	ret->version = xstrdup(version);
	ret->tarball = xstrdup(tarball);
	return 0;
}

int npm_metadata_parse(const char *p, size_t n, const char *registry, struct npm_version *ret, struct err *err)
{
	json_t *j = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
	int r = json_is_object(j) ? read_version(j, registry, ret, err) : bad(err, "no JSON object");

	json_decref(j);
	return r;
}

void npm_version_done(struct npm_version *v)
{
	free(v->name);
	free(v->version);
	free(v->tarball);
	*v = (struct npm_version){ NULL };
}

int npm_dependency(const char *p, size_t n, const char *dependency, char **ret_name, char **ret_version, struct err *err)
{
	json_t *j = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
	const char *v = json_string_value(json_object_get(json_object_get(j, "optionalDependencies"), dependency));
	int r = 0;

	if (!v) {
		r = bad(err, "without the optional dependency for this architecture");
	} else if (str_starts(v, "npm:")) {
		if (npm_spec_parse(v + 4, ret_name, ret_version) < 0)
			r = bad(err, "an optional dependency that cannot be read");
	} else if (!version_is_good(v) || !name_is_good(dependency)) {
		r = bad(err, "an optional dependency without an exact version");
	} else {
		*ret_name = xstrdup(dependency);
		*ret_version = xstrdup(v);
	}
	json_decref(j);
	return r;
}
