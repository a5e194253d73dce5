#include "session/mount_spec.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/str.h"
#include "session/guest_path.h"
#include "session/path.h"

void mount_spec_done(struct mount_spec *m)
{
	free(m->typed);
	free(m->host);
	free(m->guest);
	*m = (struct mount_spec){ 0 };
}

void mount_done(struct mount *m)
{
	free(m->typed);
	free(m->host);
	free(m->guest);
	*m = (struct mount){ 0 };
}

static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* [a, b) without white space around it, "\:" turned into ":". Caller owns. */
static char *side(const char *a, const char *b)
{
	char *s, *to;

	while (a < b && is_space(*a))
		a++;
	while (b > a && is_space(b[-1]))
		b--;
	s = to = xmalloc((size_t)(b - a) + 1);
	for (; a < b; a++) {
		if (*a == '\\' && a + 1 < b && a[1] == ':')
			a++;
		*to++ = *a;
	}
	*to = '\0';
	return s;
}

/* The ':' at @p divides: it is not the second byte of "\:". */
static bool divides(const char *start, const char *p)
{
	return *p == ':' && (p == start || p[-1] != '\\');
}

int mount_spec_parse(const char *typed, struct mount_spec *ret, struct findings *found)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, host);
	AUTO_FREE(char, guest);
	const char *end = typed + strlen(typed), *p;
	bool ro = false;

	shown = path_shown(typed);
	for (p = end; p > typed && !divides(typed, p - 1); p--)
		;
	if (p > typed) {
		AUTO_FREE(char, last);

		last = side(p, end);
		if (strcmp(last, "ro") == 0 || strcmp(last, "rw") == 0) {
			ro = last[1] == 'o';
			end = p - 1;
		}
	}
	for (p = typed; p < end && !divides(typed, p); p++)
		;
	host = side(typed, p);
	if (*host == '\0') {
		findings_add(found, FINDING_TYPED, "--mount %s: the host side is empty; write --mount HOST[:GUEST][:ro|:rw]",
			     shown);
		return -EINVAL;
	}
	if (p < end) {
		guest = side(p + 1, end);
		if (*guest == '\0') {
			findings_add(found, FINDING_TYPED,
				     "--mount %s: the guest side is empty; leave out the ':' or write an absolute path after it",
				     shown);
			return -EINVAL;
		}
	}
	*ret = (struct mount_spec){
		.typed = xstrdup(typed), .host = TAKE_PTR(host), .guest = TAKE_PTR(guest), .ro = ro
	};
	return 0;
}

/* The guest path, or NULL with a finding. */
static char *guest_side(const struct mount_spec *spec, const char *host_tidy, const char *shown, struct findings *found)
{
	AUTO_FREE(char, guest);
	AUTO_FREE(char, why);

	if (spec->guest && spec->guest[0] != '/') {
		AUTO_FREE(char, g);

		g = path_shown(spec->guest);
		findings_add(found, FINDING_TYPED,
			     "--mount %s: the guest path %s is not absolute; write it from / on (a ':' in a name is written \\:)",
			     shown, g);
		return NULL;
	}
	guest = spec->guest ? path_tidy("/", spec->guest) : xstrdup(host_tidy);
	why = guest_path_forbidden(guest);
	if (why) {
		findings_add(found, FINDING_TYPED, "--mount %s: %s; choose another guest path, --mount HOST:GUEST", shown, why);
		return NULL;
	}
	return TAKE_PTR(guest);
}

int mount_resolve(const struct mount_spec *spec, const char *cwd, const char *home, struct mount *ret,
		  struct findings *found)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, tidy);
	AUTO_FREE(char, raw);
	AUTO_FREE(char, real);
	AUTO_FREE(char, guest);
	struct stat st;
	int r;

	shown = path_shown(spec->typed);
	if (strcmp(spec->host, "~") == 0 || str_starts(spec->host, "~/")) {
		if (!home) {
			findings_add(found, FINDING_TYPED, "--mount %s: there is no home folder; write the whole path", shown);
			return -EINVAL;
		}
		raw = path_join(home, spec->host[1] ? spec->host + 2 : "");
	} else {
		raw = spec->host[0] == '/' ? xstrdup(spec->host) : path_join(cwd, spec->host);
	}
	tidy = path_tidy("/", raw);
	/* The kernel's reading, links before "..", decides which folder it is. */
	real = realpath(raw, NULL);
	if (!real || stat(real, &st) < 0) {
		r = -errno;
		if (r == -ENOENT)
			findings_add(found, FINDING_WORLD,
				     "--mount %s: no such file or directory; create it or correct the path", shown);
		else if (r == -EACCES)
			findings_add(found, FINDING_WORLD, "--mount %s: permission denied; give your user access to it", shown);
		else
			findings_add(found, FINDING_WORLD, "--mount %s: %s; correct the path", shown, strerror(-r));
		return r;
	}
	if (!S_ISDIR(st.st_mode)) {
		if (S_ISREG(st.st_mode))
			findings_add(found, FINDING_WORLD, "--mount %s: is a file, not a folder; mount the folder that it is in",
				     shown);
		else
			findings_add(found, FINDING_WORLD, "--mount %s: is not a folder; mount a folder", shown);
		return -ENOTDIR;
	}
	if (access(real, R_OK | X_OK) < 0) {
		r = -errno;
		findings_add(found, FINDING_WORLD, "--mount %s: not readable (%s); give your user access to it", shown,
			     strerror(-r));
		return r;
	}
	guest = guest_side(spec, tidy, shown, found);
	if (!guest)
		return -EINVAL;
	*ret = (struct mount){
		.typed = xstrdup(spec->typed), .host = TAKE_PTR(real), .guest = TAKE_PTR(guest), .ro = spec->ro
	};
	return 0;
}

void mounts_check(const struct mount *v, size_t n, const char *project_guest, struct findings *found)
{
	if (n > MOUNTS_MAX)
		findings_add(found, FINDING_TYPED, "--mount: %zu of them, and %d are possible; mount a folder that holds several",
			     n, MOUNTS_MAX);
	for (size_t i = 0; i < n; i++) {
		AUTO_FREE(char, shown);
		AUTO_FREE(char, guest);
		size_t from = found->n;

		shown = path_shown(v[i].typed);
		guest = path_shown(v[i].guest);
		if (strcmp(v[i].guest, project_guest) == 0) {
			findings_add(found, FINDING_TYPED,
				     "--mount %s: the project is at %s in the guest; choose another guest path, --mount HOST:GUEST",
				     shown, guest);
			findings_blame(found, from, "mount", v[i].word);
			continue;
		}
		for (size_t j = 0; j < i; j++) {
			AUTO_FREE(char, other);

			if (strcmp(v[i].guest, v[j].guest) != 0)
				continue;
			other = path_shown(v[j].typed);
			findings_add(found, FINDING_TYPED,
				     "--mount %s: --mount %s is at %s in the guest already; choose another guest path", shown,
				     other, guest);
			findings_blame(found, from, "mount", v[i].word);
			break;
		}
	}
}
