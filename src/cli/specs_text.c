/* --repo, --github, --api, --env. */
#include "cli/specs.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "base/str.h"

int repo_parse(const char *s, struct repo *ret, struct err *err)
{
	AUTO_FREE(char, shown);
	const char *level = strrchr(s, '=');
	struct span text = SPAN(s, level ? (size_t)(level - s) : strlen(s));
	enum gh_level l = level ? gh_level_find(span_str(level + 1)) : GH_WRITE;
	struct gh_slug slug;

	if (!gh_slug_parse(text, &slug) && !gh_remote_parse(text, &slug)) {
		shown = str_escape(text.p, text.n);
		/* A name alone lacks its owner. */
		return err_set(err, -EINVAL, "not OWNER/REPO and not a GitHub URL; write --repo OWNER/%s",
			       gh_is_name(text) ? shown : "REPO");
	}
	if (l == GH_LEVELS) {
		shown = str_escape(level + 1, strlen(level + 1));
		return err_set(err, -EINVAL, "'%s' is no level; levels are read, write and admin", shown);
	}
	*ret = (struct repo){ .level = l };
	memcpy(ret->owner, slug.owner.p, slug.owner.n);
	memcpy(ret->name, slug.name.p, slug.name.n);
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

/* "*" stands for any bytes; as many and as long ones as gate takes. */
static bool are_globs(const char *s)
{
	for (size_t n = 0; n < GH_GLOBS_MAX; n++) {
		size_t len = strcspn(s, ",");

		if (len == 0 || len > GH_GLOB_MAX)
			return false;
		if (s[len] == '\0')
			return true;
		s += len + 1;
	}
	return false;
}

int github_switch_check(const char *s, struct err *err)
{
	static const char refs[] = "push-refs=";
	static const struct pair_row rows[] = {
		{ "merge", "on off" },
		{ "ci", "on off" },
		{ "wiki", "on off" },
		{ "push-refs", NULL },
		{ "protect-workflows", "on off" },
		{ "public-graphql-lane", "on off" },
		{ "foreign-credentials", "refuse anon" },
	};

	int r = pair_check(rows, ARRAY_SIZE(rows), s, "KEY=VALUE", "switch", "--github merge=off", err);

	if (r == 0 && str_starts(s, refs) && !are_globs(s + strlen(refs)))
		return err_set(err, -EINVAL, "not globs of refs with commas between them; write it as in --github push-refs=refs/heads/*");
	return r;
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
