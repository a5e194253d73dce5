#include "proto/ghrepo.h"

#include <strings.h>

#include "base/macros.h"

const char *const gh_level_str[GH_LEVELS] = { [GH_READ] = "read", [GH_WRITE] = "write", [GH_ADMIN] = "admin" };

enum gh_level gh_level_find(struct span s)
{
	int l = 0;

	while (l < GH_LEVELS && !span_is(s, gh_level_str[l]))
		l++;
	return (enum gh_level)l;
}

static bool is_alnum(uint8_t c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool gh_is_owner(struct span s)
{
	if (s.n == 0 || s.n > GH_OWNER_MAX || !is_alnum(s.p[0]))
		return false;
	for (size_t i = 1; i < s.n; i++)
		if (!is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_')
			return false;
	return true;
}

/* In lower case, as the hosts want it; "app.GIT" is a name of its own. */
static bool ends(struct span s, const char *lit)
{
	size_t n = strlen(lit);

	return s.n >= n && memcmp(s.p + s.n - n, lit, n) == 0;
}

bool gh_is_name(struct span s)
{
	if (s.n == 0 || s.n > GH_NAME_MAX || span_is(s, ".") || span_is(s, "..") || ends(s, ".git") || ends(s, ".wiki"))
		return false;
	for (size_t i = 0; i < s.n; i++)
		if (!is_alnum(s.p[i]) && s.p[i] != '-' && s.p[i] != '_' && s.p[i] != '.')
			return false;
	return true;
}

static uint8_t lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

bool gh_same(struct span a, struct span b)
{
	if (a.n != b.n)
		return false;
	for (size_t i = 0; i < a.n; i++)
		if (lower(a.p[i]) != lower(b.p[i]))
			return false;
	return true;
}

bool gh_slug_parse(struct span text, struct gh_slug *ret)
{
	const uint8_t *slash = text.n > 0 ? memchr(text.p, '/', text.n) : NULL;
	struct gh_slug s;

	if (!slash)
		return false;
	s.owner = SPAN(text.p, (size_t)(slash - text.p));
	s.name = SPAN(slash + 1, text.n - s.owner.n - 1);
	if (!gh_is_owner(s.owner) || !gh_is_name(s.name))
		return false;
	*ret = s;
	return true;
}

/* Cuts @s at the first byte of @set: what stands before it, and in @ret_rest what follows with that byte. */
static struct span until(struct span s, const char *set, struct span *ret_rest)
{
	size_t n = 0;

	while (n < s.n && (s.p[n] == '\0' || !strchr(set, s.p[n])))
		n++;
	*ret_rest = SPAN(s.p + n, s.n - n);
	return SPAN(s.p, n);
}

static bool drop_front(struct span *s, const char *lit)
{
	size_t n = strlen(lit);

	if (s->n < n || !gh_same(SPAN(s->p, n), span_str(lit)))
		return false;
	*s = SPAN(s->p + n, s->n - n);
	return true;
}

/* "git", or "org-N" and "N" of an enterprise's SSH. */
static bool is_ssh_user(struct span s)
{
	if (span_is(s, "git"))
		return true;
	(void)drop_front(&s, "org-");
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < '0' || s.p[i] > '9')
			return false;
	return s.n > 0;
}

/* USER@HOST; without an "@" the user has no bytes and no address. */
static struct span split_user(struct span authority, struct span *ret_user)
{
	size_t at = authority.n;

	while (at > 0 && authority.p[at - 1] != '@')
		at--;
	*ret_user = SPAN(at > 0 ? authority.p : NULL, at > 0 ? at - 1 : 0);
	return SPAN(authority.p + at, authority.n - at);
}

static bool is_host(struct span s, const char *const *names)
{
	for (; *names; names++)
		if (gh_same(s, span_str(*names)))
			return true;
	return false;
}

static bool parse_path(struct span path, struct gh_slug *ret)
{
	if (path.n > 0 && path.p[0] == '/')
		path = SPAN(path.p + 1, path.n - 1);
	if (ends(path, "/"))
		path.n--;
	if (ends(path, ".git"))
		path.n -= strlen(".git");
	return gh_slug_parse(path, ret);
}

bool gh_remote_parse(struct span url, struct gh_slug *ret)
{
	static const char *const http[] = { "github.com", "github.com:443", NULL };
	static const char *const ssh[] = { "github.com", "github.com:22", "ssh.github.com:443", NULL };
	static const char *const git[] = { "github.com", NULL };
	static const struct {
		const char *scheme;
		const char *const *hosts;
		bool ssh;
	} forms[] = { { "https://", http, false },
		      { "http://", http, false },
		      { "git://", git, false },
		      { "ssh://", ssh, true } };
	struct span user, host, path;

	for (size_t i = 0; i < url.n; i++)
		if (url.p[i] <= ' ' || url.p[i] >= 0x7f || url.p[i] == '\\')
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
		if (!drop_front(&url, forms[i].scheme))
			continue;
		host = split_user(until(url, "/?#", &path), &user);
		return is_host(host, forms[i].hosts) && (!forms[i].ssh || is_ssh_user(user)) && parse_path(path, ret);
	}
	host = split_user(until(url, ":", &path), &user);
	return path.n > 0 && path.p[0] == ':' && is_host(host, git) && is_ssh_user(user) &&
	       parse_path(SPAN(path.p + 1, path.n - 1), ret);
}
