#include "image/ref.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"

#define TAG_MAX 128
#define DIGEST_PREFIX "sha256:"
#define DIGEST_HEX 64

static bool is_lower(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
	return is_lower(c) || (c >= 'A' && c <= 'Z');
}

/* [a-z0-9]+ ((\.|_|__|-+)[a-z0-9]+)* */
static bool component_is_good(const char *s, size_t n)
{
	size_t i = 0;

	for (;;) {
		size_t from = i;

		while (i < n && is_lower(s[i]))
			i++;
		if (i == from)
			return false;
		if (i == n)
			return true;
		if (s[i] == '-')
			while (i < n && s[i] == '-')
				i++;
		else if (s[i] == '_')
			i += i + 1 < n && s[i + 1] == '_' ? 2 : 1;
		else if (s[i] == '.')
			i++;
		else
			return false;
	}
}

static bool path_is_good(const char *s)
{
	for (;;) {
		size_t n = strcspn(s, "/");

		if (!component_is_good(s, n))
			return false;
		if (s[n] == '\0')
			return true;
		s += n + 1;
	}
}

static bool domain_is_good(const char *s)
{
	size_t n = strcspn(s, "[]:");

	if (*s == '[') {
		n = strspn(s + 1, "0123456789abcdefABCDEF:.");
		if (n == 0 || s[n + 1] != ']')
			return false;
		s += n + 2;
	} else {
		for (size_t i = 0; i < n; i++)
			if (!is_alnum(s[i]) && s[i] != '-' && s[i] != '.')
				return false;
		if (n == 0 || !is_alnum(s[0]) || !is_alnum(s[n - 1]))
			return false;
		s += n;
	}
	if (*s == '\0')
		return true;
	return *s == ':' && s[1] && strlen(s + 1) <= 5 && strspn(s + 1, "0123456789") == strlen(s + 1);
}

static bool tag_is_good(const char *s)
{
	if (*s == '\0' || strlen(s) > TAG_MAX || *s == '.' || *s == '-')
		return false;
	for (; *s; s++)
		if (!is_alnum(*s) && *s != '_' && *s != '.' && *s != '-')
			return false;
	return true;
}

static bool digest_is_good(const char *s)
{
	if (!str_starts(s, DIGEST_PREFIX))
		return false;
	s += strlen(DIGEST_PREFIX);
	return strlen(s) == DIGEST_HEX && strspn(s, "0123456789abcdef") == DIGEST_HEX;
}

/* The first component is a domain only if it can be no name of Docker Hub's. */
static bool first_is_domain(const char *s, size_t n)
{
	if (n == strlen("localhost") && memcmp(s, "localhost", n) == 0)
		return true;
	for (size_t i = 0; i < n; i++)
		if (s[i] == '.' || s[i] == ':' || (s[i] >= 'A' && s[i] <= 'Z'))
			return true;
	return false;
}

static int bad(const char *ref, const char *why, struct err *err)
{
	AUTO_FREE(char, shown);

	shown = str_escape(ref, MIN(strlen(ref), (size_t)200));
	return err_set(err, -EINVAL, "image %s: %s", shown, why);
}

int ref_normalise(const char *ref, char **ret, struct err *err)
{
	AUTO_FREE(char, copy);
	char *path, *slash, *tag = NULL, *digest, *domain = NULL, *full;

	if (strlen(ref) > REF_MAX)
		return bad(ref, "longer than 4096 bytes", err);
	if (strstr(ref, "://"))
		return bad(ref, "a reference, not a web address; write it without the part up to //", err);
	copy = xstrdup(ref);
	digest = strchr(copy, '@');
	if (digest)
		*digest++ = '\0';
	slash = strchr(copy, '/');
	path = copy;
	if (slash && first_is_domain(copy, (size_t)(slash - copy))) {
		*slash = '\0';
		domain = copy;
		path = slash + 1;
	}
	slash = strrchr(path, '/');
	tag = strchr(slash ? slash : path, ':');
	if (tag)
		*tag++ = '\0';
	if (domain && !domain_is_good(domain))
		return bad(ref, "its part before the first / is no host[:port]", err);
	if (!path_is_good(path))
		return bad(ref, "not [HOST/]NAME[:TAG][@sha256:DIGEST] with a name in lower case", err);
	if ((domain ? strlen(domain) + 1 : 0) + strlen(path) > REF_NAME_MAX)
		return bad(ref, "name longer than 255 bytes", err);
	if (tag && !tag_is_good(tag))
		return bad(ref, "its tag is not 1 to 128 letters, digits, '_', '.', '-'", err);
	if (digest && !digest_is_good(digest))
		return bad(ref, "its digest is not sha256: and 64 hex digits in lower case", err);
	full = xasprintf("%s/%s%s%s%s%s%s", domain ? domain : "docker.io", domain || strchr(path, '/') ? "" : "library/",
			 path, tag || !digest ? ":" : "", tag ? tag : digest ? "" : "latest", digest ? "@" : "",
			 digest ? digest : "");
	*ret = full;
	return 0;
}
