#include "cli/gitid.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/prog.h"
#include "cli/gh.h"
#include "session/gitconfig.h"

#define CACHE_S (24 * 3600)
#define AGAIN_S 3600
#define CACHE_MAX 4096
#define ASK_MS 3000
#define ANSWER_MAX (256 << 10)
#define INCLUDES_MAX 8
#define TEXT_MAX 256

/* One line of text for a person's name or address. */
static bool is_plain(const char *s)
{
	size_t n = s ? strlen(s) : 0;

	for (size_t i = 0; i < n; i++)
		if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
			return false;
	return n > 0 && n <= TEXT_MAX && str_is_utf8(s, n);
}

/* GitHub's rule for names of accounts. */
static bool is_login(const char *s)
{
	size_t n = strlen(s);

	return n > 0 && n <= 39 && s[0] != '-' && s[n - 1] != '-' &&
	       strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* --- the cache --- */

static void read_cache(int cache_fd, int64_t now_s, struct gitid *id)
{
	AUTO_FREE(char, text);
	char *line[3] = { NULL }, *at;
	struct stat st;
	bool is_fresh;

	id->ask = true;
	if (cache_fd < 0 || file_read_beneath(cache_fd, GITID_CACHE, CACHE_MAX, &text, NULL) < 0)
		return;
	is_fresh = fstatat(cache_fd, GITID_CACHE, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtime <= now_s && now_s - st.st_mtime < CACHE_S;
	/* gh had no answer: no_answer(). */
	if (!*text)
		id->ask = !is_fresh;
	at = text;
	for (size_t i = 0; i < 3 && at; i++)
		line[i] = strsep(&at, "\n");
	if (!line[2] || !is_plain(line[0]) || !is_plain(line[1]) || (line[2][0] && !is_login(line[2])))
		return;
	id->name = xstrdup(line[0]);
	id->email = xstrdup(line[1]);
	id->login = line[2][0] ? xstrdup(line[2]) : NULL;
	id->ask = !is_fresh;
}

/* --- the user's own settings; read here, because git would be a process that a launch waits for --- */

struct reading {
	const char *home, *git_dir;
	const char *file; /* that is being read */
	char *name, *email;
	struct strv *settings;
	unsigned files;
};

static bool carried(const struct gitconfig_entry *e)
{
	static const char *const keys[] = { "init.defaultbranch", "merge.conflictstyle", "rebase.autostash", "rebase.autosquash",
					    "core.autocrlf",	  "core.eol",		 "fetch.prune",	     "diff.algorithm" };
	AUTO_FREE(char, key);

	if (e->sub || !is_plain(e->value ? e->value : "true"))
		return false;
	if (strcmp(e->section, "pull") == 0)
		return true;
	if (strcmp(e->section, "alias") == 0)
		return e->value && e->value[0] != '!';
	key = xasprintf("%s.%s", e->section, e->key);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (strcmp(keys[i], key) == 0)
			return true;
	return false;
}

static void read_settings(struct reading *r, const char *path);

/* A path of the settings: below the home, beside the file that names it, or absolute. */
static char *place(const struct reading *r, const char *path)
{
	if (str_starts(path, "~/"))
		return xasprintf("%s/%s", r->home, path + 2);
	return xasprintf("%.*s%s", *path == '/' ? 0 : (int)(strrchr(r->file, '/') + 1 - r->file), r->file, path);
}

/* As git compares folders: "**" is any number of them, all else stays within one. */
static bool folders_match(const char *pattern, const char *path, int flags)
{
	size_t np = strcspn(pattern, "/"), n = strcspn(path, "/");
	AUTO_FREE(char, want);
	AUTO_FREE(char, is);

	if (np == 2 && pattern[0] == '*' && pattern[1] == '*') {
		if (!pattern[2])
			return true;
		for (; !folders_match(pattern + 3, path, flags); path += n + 1) {
			n = strcspn(path, "/");
			if (!path[n])
				return false;
		}
		return true;
	}
	want = xasprintf("%.*s", (int)np, pattern);
	is = xasprintf("%.*s", (int)n, path);
	if (fnmatch(want, is, flags) != 0)
		return false;
	if (!pattern[np] || !path[n])
		return !pattern[np] && !path[n];
	return folders_match(pattern + np + 1, path + n + 1, flags);
}

/* Does the condition of [includeIf "gitdir:..."] hold for the project? No other condition does. */
static bool holds(const struct reading *r, const char *condition)
{
	bool any_case = str_starts(condition, "gitdir/i:");
	AUTO_FREE(char, pattern);
	AUTO_FREE(char, at);

	if (!r->git_dir || (!any_case && !str_starts(condition, "gitdir:")))
		return false;
	condition = strchr(condition, ':') + 1;
	at = str_starts(condition, "~/") || str_starts(condition, "./")
		     ? place(r, condition + (*condition == '.' ? 2 : 0))
		     : xasprintf("%s%s", *condition == '/' ? "" : "**/", condition);
	pattern = xasprintf("%s%s", at, *at && at[strlen(at) - 1] == '/' ? "**" : "");
	return folders_match(pattern, r->git_dir, any_case ? FNM_CASEFOLD : 0);
}

static int take_entry(const struct gitconfig_entry *e, void *arg)
{
	struct reading *r = arg;
	AUTO_FREE(char, path);

	if (!e->sub && strcmp(e->section, "user") == 0 && e->value) {
		char **to = strcmp(e->key, "name") == 0 ? &r->name : strcmp(e->key, "email") == 0 ? &r->email : NULL;

		if (to) {
			free(*to);
			*to = xstrdup(e->value);
		}
	} else if (strcmp(e->key, "path") == 0 && e->value &&
		   (e->sub ? strcmp(e->section, "includeif") == 0 && holds(r, e->sub)
			   : strcmp(e->section, "include") == 0)) {
		path = place(r, e->value);
		read_settings(r, path);
	} else if (carried(e)) {
		strv_addf(r->settings, "%s.%s=%s", e->section, e->key, e->value ? e->value : "true");
	}
	return 0;
}

static void read_settings(struct reading *r, const char *path)
{
	const char *outer = r->file;
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	struct stat st;
	size_t n;

	if (r->files++ >= INCLUDES_MAX)
		return;
	r->file = path;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && fd_read_file(fd, GITCONFIG_MAX, &text, &n) == 0)
		(void)gitconfig_read(text, n, take_entry, r);
	r->file = outer;
}

void gitid_read(int cache_fd, const char *home, const char *git_dir, int64_t now_s, struct gitid *ret)
{
	const char *xdg = getenv("XDG_CONFIG_HOME");
	struct reading r = { .home = home, .git_dir = git_dir, .settings = &ret->settings };
	AUTO_FREE(char, first);
	AUTO_FREE(char, second);
	bool older;

	*ret = (struct gitid){ 0 };
	read_cache(cache_fd, now_s, ret);
	if (!home)
		return;
	first = xdg && *xdg == '/' ? xasprintf("%s/git/config", xdg) : xasprintf("%s/.config/git/config", home);
	second = xasprintf("%s/.gitconfig", home);
	read_settings(&r, first);
	read_settings(&r, second);
	/* What the older program set in guests, and which found its way back. */
	older = r.name && r.email && strcmp(r.name, "agent-vm") == 0 && strcmp(r.email, "agent-vm@msb.local") == 0;
	if (!ret->name && is_plain(r.name) && is_plain(r.email) && !older) {
		ret->name = TAKE_PTR(r.name);
		ret->email = TAKE_PTR(r.email);
	}
	free(r.name);
	free(r.email);
}

void gitid_done(struct gitid *id)
{
	free(id->name);
	free(id->email);
	free(id->login);
	strv_done(&id->settings);
}

/* --- gh --- */

char *gitid_parse(const char *json, size_t n)
{
	json_t *all = json_loadb(json, n, JSON_REJECT_DUPLICATES, NULL);
	const char *login = json_string_value(json_object_get(all, "login"));
	const char *name = json_string_value(json_object_get(all, "name"));
	const char *email = json_string_value(json_object_get(all, "email"));
	json_int_t id = json_integer_value(json_object_get(all, "id"));
	AUTO_FREE(char, made);
	char *text = NULL;

	login = login && is_login(login) ? login : "";
	name = is_plain(name) ? name : login;
	if (!is_plain(email) && *login && id > 0)
		email = made = xasprintf("%lld+%s@users.noreply.github.com", (long long)id, login);
	if (*name && is_plain(email))
		text = xasprintf("%s\n%s\n%s\n", name, email, login);
	json_decref(all);
	return text;
}

/* The cache is used as it is, and looked upon as too old in an hour. */
static void no_answer(int cache_fd)
{
	const struct timespec to[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_sec = time(NULL) - CACHE_S + AGAIN_S } };

	if (utimensat(cache_fd, GITID_CACHE, to, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT &&
	    file_replace_unsynced_at(cache_fd, GITID_CACHE, "", 0, 0600) == 0)
		(void)utimensat(cache_fd, GITID_CACHE, to, AT_SYMLINK_NOFOLLOW);
}

static void ask(int cache_fd, const char *home)
{
	char gh[] = "gh", api[] = "api", option[] = "--hostname", host[] = "github.com", user[] = "user";
	char *const argv[] = { gh, api, option, host, user, NULL };
	AUTO_FREE(char, folder);
	struct prog p = PROG_INIT;
	AUTO_FREE(char, path);
	AUTO_FREE(char, out);
	AUTO_FREE(char, text);
	struct err err;

	folder = gh_folder(getenv, home);
	/* Not there: no login. And what a guest can write could send gh elsewhere with the login. */
	if (!folder || prog_is_shunned(folder) || prog_find("gh", &path) < 0)
		return;
	p.path = path;
	p.argv = argv;
	gh_env(folder, &p.env);
	if (prog_output(&p, ANSWER_MAX, ASK_MS, &out, &err) == 0)
		text = gitid_parse(out, strlen(out));
	if (text)
		(void)file_replace_unsynced_at(cache_fd, GITID_CACHE, text, strlen(text), 0600);
	else
		no_answer(cache_fd);
	strv_done(&p.env);
}

void gitid_ask(int cache_fd, const char *home)
{
	pid_t pid = fork();

	/* The child of a child that is gone: nobody has to wait for it. */
	if (pid > 0)
		(void)waitpid(pid, NULL, 0);
	if (pid != 0)
		return;
	if (fork() != 0)
		_exit(0);
	/* It may outlive the launch, and must not keep what tells others that the session lives. */
	if (dup2(cache_fd, 3) == 3 && close_range(4, ~0U, 0) == 0) {
		int null = open("/dev/null", O_RDWR);

		for (int i = 0; i <= 2; i++)
			(void)dup2(null, i);
		(void)setsid();
		ask(3, home);
	}
	_exit(0);
}

/* --- what the guest gets --- */

static void put_value(char **text, const char *value)
{
	char one[3] = "";

	str_append(text, "\"");
	for (; *value; value++) {
		one[0] = *value == '"' || *value == '\\' ? '\\' : *value;
		one[1] = one[0] == '\\' ? *value : '\0';
		str_append(text, one);
	}
	str_append(text, "\"\n");
}

static void put_key(char **text, const char *section, const char *key, const char *value)
{
	AUTO_FREE(char, head);

	head = xasprintf("[%s]\n\t%s = ", section, key);
	str_append(text, head);
	put_value(text, value);
}

char *gitid_config(const struct gitid *id, bool ro, const char *placeholder)
{
	static const char *const forms[] = { "git@github.com:", "ssh://git@github.com/", "ssh://git@ssh.github.com:443/",
					     "git://github.com/", "http://github.com/" };
	char *text = xstrdup("[safe]\n\tdirectory = *\n[gc]\n\tworktreePruneExpire = never\n");
	AUTO_FREE(char, helper);

	for (size_t i = 0; i < id->settings.n; i++) {
		const char *s = id->settings.v[i], *dot = strchr(s, '.'), *eq = strchr(s, '=');
		AUTO_FREE(char, section);
		AUTO_FREE(char, key);

		section = xstrndup(s, (size_t)(dot - s));
		key = xstrndup(dot + 1, (size_t)(eq - dot - 1));
		put_key(&text, section, key, eq + 1);
	}
	/* With .git/config read-only git cannot record what a branch tracks (cli page 8.4), so push needs no record. */
	if (ro)
		str_append(&text, "[push]\n\tdefault = current\n");
	if (id->name) {
		put_key(&text, "user", "name", id->name);
		put_key(&text, "user", "email", id->email);
	}
	/* Neither SSH nor git's own protocol is let through (github page 2.12, network page 8.3). */
	str_append(&text, "[url \"https://github.com/\"]\n");
	for (size_t k = 0; k < 2 * ARRAY_SIZE(forms); k++) {
		str_append(&text, k < ARRAY_SIZE(forms) ? "\tinsteadOf = " : "\tpushInsteadOf = ");
		put_value(&text, forms[k % ARRAY_SIZE(forms)]);
	}
	str_append(&text, "[url \"https://\"]\n\tinsteadOf = git://\n");
	if (placeholder) {
		helper = xasprintf("!f() { test \"$1\" = get && printf 'username=x-access-token\\npassword=%s\\n'; }; f", placeholder);
		put_key(&text, "credential \"https://github.com\"", "helper", helper);
	}
	return text;
}

char *gitid_hosts(const char *login, const char *placeholder)
{
	return xasprintf("github.com:\n    users:\n        %s:\n            oauth_token: %s\n    oauth_token: %s\n    user: %s\n"
			 "    git_protocol: https\n", login, placeholder, placeholder, login);
}
