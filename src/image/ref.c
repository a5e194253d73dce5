#include "image/ref.h"

#include <errno.h>
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

static const char bad_port[] = "its port is not a number from 1 to 65535";

/* What is wrong with it, NULL if nothing is. */
static const char *domain_fault(const char *s)
{
	static const char bad_host[] = "its part before the first / is no host[:port]";
	uint64_t port;

	size_t n = strcspn(s, "[]:");

	if (*s == '[') {
		n = strspn(s + 1, "0123456789abcdefABCDEF:.");
		if (n == 0 || s[n + 1] != ']')
			return bad_host;
		s += n + 2;
	} else {
		for (size_t i = 0; i < n; i++)
			if (!is_alnum(s[i]) && s[i] != '-' && s[i] != '.')
				return bad_host;
		if (n == 0 || !is_alnum(s[0]) || !is_alnum(s[n - 1]))
			return bad_host;
		s += n;
	}
	if (*s == '\0')
		return NULL;
	if (*s != ':')
		return bad_host;
	return strspn(s + 1, "0123456789") == strlen(s + 1) && str_u64(s + 1, UINT16_MAX, &port) == 0 && port > 0 ? NULL : bad_port;
}

bool ref_tag_is_good(const char *s)
{
	if (*s == '\0' || strlen(s) > TAG_MAX || *s == '.' || *s == '-')
		return false;
	for (; *s; s++)
		if (!is_alnum(*s) && *s != '_' && *s != '.' && *s != '-')
			return false;
	return true;
}

bool ref_digest_is_good(const char *s)
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

/* Where a reference ends and its parts begin; all point into one copy of the text. */
struct parts {
	char *domain, *path, *tag, *digest;
};

static void split(char *copy, struct parts *ret)
{
	char *slash;

	*ret = (struct parts){ .path = copy };
	ret->digest = strchr(copy, '@');
	if (ret->digest)
		*ret->digest++ = '\0';
	slash = strchr(copy, '/');
	if (slash && first_is_domain(copy, (size_t)(slash - copy))) {
		*slash = '\0';
		ret->domain = copy;
		ret->path = slash + 1;
	}
	slash = strrchr(ret->path, '/');
	ret->tag = strchr(slash ? slash : ret->path, ':');
	if (ret->tag)
		*ret->tag++ = '\0';
}

static bool is_hub(const struct parts *p)
{
	return !p->domain || strcmp(p->domain, REF_HUB) == 0 || strcmp(p->domain, "index." REF_HUB) == 0;
}

/* Docker Hub's names of one component lie below this. */
static const char *hub_prefix(const struct parts *p)
{
	return is_hub(p) && !strchr(p->path, '/') ? "library/" : "";
}

/* Of domain and path in the full form. */
static size_t full_len(const struct parts *p)
{
	return strlen(is_hub(p) ? REF_HUB : p->domain) + 1 + strlen(hub_prefix(p)) + strlen(p->path);
}

/* What is wrong with it, NULL if nothing is. */
static const char *fault(const struct parts *p)
{
	if (p->domain && domain_fault(p->domain))
		return domain_fault(p->domain);
	if (!path_is_good(p->path))
		return "not [HOST/]NAME[:TAG][@sha256:DIGEST] with a name in lower case";
	if (full_len(p) > REF_NAME_MAX)
		return "name longer than 255 bytes";
	if (p->tag && !ref_tag_is_good(p->tag))
		return "its tag is not 1 to 128 letters, digits, '_', '.', '-'";
	if (p->digest && str_starts(p->digest, "sha512:"))
		return "its digest is a sha512; only sha256 is supported";
	if (p->digest && !ref_digest_is_good(p->digest))
		return "its digest is not sha256: and 64 hex digits in lower case";
	return NULL;
}

/* What was probably meant: no scheme, no empty components, a name in lower case. NULL if that is no reference either. */
static char *corrected(const char *text)
{
	AUTO_FREE(char, copy);
	AUTO_FREE(char, again);
	const char *from = strstr(text, "://");
	struct parts p;
	char *to;

	from = from ? from + 3 : text;
	copy = xstrdup(from + strspn(from, "/"));
	to = copy;
	for (const char *s = copy; *s; s++)
		if (*s != '/' || (s[1] != '/' && s[1] != '\0' && s[1] != ':' && s[1] != '@'))
			*to++ = *s;
	*to = '\0';
	again = xstrdup(copy);
	split(again, &p);
	for (char *s = p.path; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
	if (fault(&p))
		return NULL;
	return xasprintf("%s%s%s%s%s%s%s", p.domain ? p.domain : "", p.domain ? "/" : "", p.path, p.tag ? ":" : "",
			 p.tag ? p.tag : "", p.digest ? "@" : "", p.digest ? p.digest : "");
}

static int bad(const char *text, const char *why, struct err *err)
{
	AUTO_FREE(char, meant);
	AUTO_FREE(char, shown);

	shown = str_escape(text, MIN(strlen(text), (size_t)200));
	meant = strlen(text) <= REF_NAME_MAX ? corrected(text) : NULL;
	if (meant && strcmp(meant, text) != 0)
		return err_set(err, -EINVAL, "image %s: %s; write %s", shown, why, meant);
	return err_set(err, -EINVAL, "image %s: %s", shown, why);
}

int ref_parse(const char *text, struct ref *ret, struct err *err)
{
	AUTO_FREE(char, copy);
	const char *why;
	struct parts p;

	if (strlen(text) > REF_MAX)
		return bad(text, "longer than 4096 bytes", err);
	if (strstr(text, "://"))
		return bad(text, "a reference, not a web address", err);
	copy = xstrdup(text);
	split(copy, &p);
	why = fault(&p);
	if (why)
		return bad(text, why, err);
	*ret = (struct ref){
		.domain = xstrdup(is_hub(&p) ? REF_HUB : p.domain),
		.path = xasprintf("%s%s", hub_prefix(&p), p.path),
		.tag = p.tag ? xstrdup(p.tag) : p.digest ? NULL : xstrdup("latest"),
		.digest = p.digest ? xstrdup(p.digest) : NULL,
	};
	return 0;
}

void ref_done(struct ref *r)
{
	free(r->domain);
	free(r->path);
	free(r->tag);
	free(r->digest);
	*r = (struct ref){ 0 };
}

char *ref_full(const struct ref *r)
{
	return xasprintf("%s/%s%s%s%s%s", r->domain, r->path, r->tag ? ":" : "", r->tag ? r->tag : "",
			 r->digest ? "@" : "", r->digest ? r->digest : "");
}

const char *ref_api_host(const struct ref *r)
{
	return strcmp(r->domain, REF_HUB) == 0 ? "registry-1." REF_HUB : r->domain;
}

int ref_normalise(const char *text, char **ret, struct err *err)
{
	struct ref ref;
	int r = ref_parse(text, &ref, err);

	if (r < 0)
		return r;
	*ret = ref_full(&ref);
	ref_done(&ref);
	return 0;
}
