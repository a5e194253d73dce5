/* --repo, --github, --api, --env. */
#include "cli/specs.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <string.h>
#include <strings.h>

#include "base/str.h"

static const char *const repo_level_str[] = {
	[REPO_READ] = "read", [REPO_WRITE] = "write", [REPO_ADMIN] = "admin",
};
static_assert(ARRAY_SIZE(repo_level_str) == REPO_LEVELS, "repo_level_str[] is incomplete");

static bool ends_with(const char *s, size_t n, const char *end)
{
	return n >= strlen(end) && memcmp(s + n - strlen(end), end, strlen(end)) == 0;
}

/* OWNER/NAME, exactly. Source: github page, section 2.1. */
static int slug_parse(const char *s, size_t n, struct repo *ret)
{
	const char *slash = memchr(s, '/', n), *name;
	size_t owner_len, name_len;

	if (!slash)
		return -EINVAL;
	owner_len = (size_t)(slash - s);
	name = slash + 1;
	name_len = n - owner_len - 1;
	if (owner_len == 0 || owner_len >= sizeof(ret->owner) || !isalnum((unsigned char)*s))
		return -EINVAL;
	for (size_t i = 0; i < owner_len; i++)
		if (!isalnum((unsigned char)s[i]) && s[i] != '-' && s[i] != '_')
			return -EINVAL;
	if (name_len == 0 || name_len >= sizeof(ret->name) || (name_len <= 2 && memcmp(name, "..", name_len) == 0) ||
	    ends_with(name, name_len, ".git") || ends_with(name, name_len, ".wiki"))
		return -EINVAL;
	for (size_t i = 0; i < name_len; i++)
		if (!isalnum((unsigned char)name[i]) && !strchr("._-", name[i]))
			return -EINVAL;
	*ret = (struct repo){ .level = REPO_WRITE };
	memcpy(ret->owner, s, owner_len);
	memcpy(ret->name, name, name_len);
	return 0;
}

/* Skips @prefix, without regard to case. */
static bool skip(const char **s, size_t *n, const char *prefix)
{
	size_t len = strlen(prefix);

	if (*n < len || strncasecmp(*s, prefix, len) != 0)
		return false;
	*s += len;
	*n -= len;
	return true;
}

int repo_url_parse(const char *s, size_t n, struct repo *ret)
{
	const char *at;
	bool url = true;

	if (skip(&s, &n, "https://") || skip(&s, &n, "http://")) {
		at = memchr(s, '@', n);
		if (at && !memchr(s, '/', (size_t)(at - s))) {
			n -= (size_t)(at + 1 - s);
			s = at + 1;
		}
		if (!skip(&s, &n, "github.com:443/") && !skip(&s, &n, "github.com:80/") && !skip(&s, &n, "github.com/"))
			return -EINVAL;
	} else if (skip(&s, &n, "ssh://git@")) {
		if (!skip(&s, &n, "ssh.github.com:443/") && !skip(&s, &n, "github.com:22/") &&
		    !skip(&s, &n, "github.com/"))
			return -EINVAL;
	} else if (skip(&s, &n, "git://github.com/")) {
		;
	} else if ((at = memchr(s, '@', n)) != NULL) {
		/* git@github.com:O/R, and the form of organisations' SSH certificates, org-N@github.com:O/R */
		if ((size_t)(at - s) != 3 || memcmp(s, "git", 3) != 0) {
			if (at - s < 5 || memcmp(s, "org-", 4) != 0)
				return -EINVAL;
			for (const char *p = s + 4; p < at; p++)
				if (!isdigit((unsigned char)*p))
					return -EINVAL;
		}
		n -= (size_t)(at + 1 - s);
		s = at + 1;
		if (!skip(&s, &n, "github.com:"))
			return -EINVAL;
		if (n > 0 && *s == '/') {
			s++;
			n--;
		}
	} else {
		url = false;
	}
	if (url && n > 0 && s[n - 1] == '/')
		n--;
	if (url && ends_with(s, n, ".git"))
		n -= 4;
	return slug_parse(s, n, ret);
}

int repo_parse(const char *s, struct repo *ret, struct err *err)
{
	AUTO_FREE(char, shown);
	struct repo repo, probe;
	const char *level = strrchr(s, '=');
	size_t n = level ? (size_t)(level - s) : strlen(s);

	if (repo_url_parse(s, n, &repo) < 0) {
		AUTO_FREE(char, guess);

		/* A name alone lacks its owner. */
		guess = xasprintf("o/%.*s", (int)MIN(n, 200), s);
		shown = str_escape(s, n);
		return err_set(err, -EINVAL, "not OWNER/REPO and not a GitHub URL; write --repo OWNER/%s",
			       slug_parse(guess, strlen(guess), &probe) == 0 ? shown : "REPO");
	}
	if (level) {
		unsigned i;

		for (i = 0; i < REPO_LEVELS; i++)
			if (strcmp(repo_level_str[i], level + 1) == 0)
				break;
		if (i == REPO_LEVELS) {
			shown = str_escape(level + 1, strlen(level + 1));
			return err_set(err, -EINVAL, "'%s' is no level; levels are read, write and admin", shown);
		}
		repo.level = (enum repo_level)i;
	}
	*ret = repo;
	return 0;
}

/* Is @s (@n bytes) a word of the list "a b c"? */
static bool in_list(const char *list, const char *s, size_t n)
{
	while (*list) {
		size_t len = strcspn(list, " ");

		if (len == n && memcmp(list, s, n) == 0)
			return true;
		list += len + (list[len] == ' ');
	}
	return false;
}

struct pair_row {
	const char *key;
	const char *values; /* divided by spaces; NULL: any text */
};

/* KEY=VALUE against a table; @what and @whose name the two in the message. */
static int pair_check(const struct pair_row *rows, size_t n_rows, const char *s, const char *form, const char *what,
		      const char *example, struct err *err)
{
	AUTO_FREE(char, shown);
	const char *eq = strchr(s, '=');
	size_t n = eq ? (size_t)(eq - s) : 0;
	char keys[256] = "";

	if (!eq || n == 0 || eq[1] == '\0')
		return err_set(err, -EINVAL, "not %s; write it as in %s", form, example);
	for (size_t i = 0; i < n_rows; i++) {
		if (strlen(rows[i].key) == n && memcmp(rows[i].key, s, n) == 0) {
			if (!rows[i].values || in_list(rows[i].values, eq + 1, strlen(eq + 1)))
				return 0;
			shown = str_escape(eq + 1, strlen(eq + 1));
			return err_set(err, -EINVAL, "%s cannot be '%s'; it can be: %s", rows[i].key, shown,
				       rows[i].values);
		}
		/* Tables are constants and shorter than this. */
		(void)strncat(keys, " ", sizeof(keys) - strlen(keys) - 1);
		(void)strncat(keys, rows[i].key, sizeof(keys) - strlen(keys) - 1);
	}
	shown = str_escape(s, n);
	return err_set(err, -EINVAL, "'%s' is no %s; there are:%s", shown, what, keys);
}

int github_switch_check(const char *s, struct err *err)
{
	static const struct pair_row rows[] = {
		{ "merge", "on off" },
		{ "ci", "on off" },
		{ "wiki", "on off" },
		{ "push-refs", NULL },
		{ "protect-workflows", "on off" },
		{ "public-graphql-lane", "on off" },
		{ "foreign-credentials", "refuse" },
	};

	return pair_check(rows, ARRAY_SIZE(rows), s, "KEY=VALUE", "switch", "--github merge=off", err);
}

int api_class_check(const char *s, struct err *err)
{
	static const struct pair_row rows[] = {
		{ "anthropic", "connectors files foreign" },
		{ "openai", "connectors cloud files foreign" },
		{ "opencode", "foreign" },
		{ "copilot", "foreign" },
	};

	return pair_check(rows, ARRAY_SIZE(rows), s, "PROVIDER=CLASS", "provider", "--api anthropic=files", err);
}

size_t env_name_len(const char *s)
{
	size_t n = 0;

	if (!isalpha((unsigned char)*s) && *s != '_')
		return 0;
	while (isalnum((unsigned char)s[n]) || s[n] == '_')
		n++;
	return s[n] == '\0' || s[n] == '=' ? n : 0;
}
