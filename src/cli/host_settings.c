#include "cli/host_settings.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/jread.h"
#include "vault/secret.h"

#define COPIES "host-settings"
#define BYTES_MAX (32 << 20) /* cli page 11.2 */
#define ENTRIES_MAX 4000
#define DEPTH_MAX 8
#define LINKS_MAX 400
#define TEXT_MAX (1 << 20)
#define MEMBERS_MAX 64

const char *const host_settings_folders[] = { "claude",	      "claude/skills", "claude/agents", "claude/commands", "claude/output-styles",
					      "codex/prompts", "codex/skills",	 "opencode-config/agent", "opencode-config/agents", "opencode-config/command",
					      "opencode-config/commands", NULL };

/* What is taken of each agent's folder; its copy has the name that the folder has in the state. */
static const struct source {
	const char *variable, *below_home, *more; /* $VARIABLE/MORE, else HOME/BELOW_HOME */
	const char *copy;
	const char *names[6];
} sources[] = {
	{ "CLAUDE_CONFIG_DIR", ".claude", "", "claude", { "CLAUDE.md", "skills", "agents", "commands", "output-styles" } },
	{ "CODEX_HOME", ".codex", "", "codex", { "prompts", "skills" } },
	{ "XDG_CONFIG_HOME", ".config/opencode", "/opencode", "opencode-config", { "agent", "agents", "command", "commands" } },
};

struct taking {
	struct host_settings *h;
	struct strv *notes;
	uint64_t left;
	unsigned entries;
	bool full;
};

/* Names under which programs keep logins, in folders of skills too. */
static bool holds_logins(const char *name)
{
	static const char *const starts[] = { ".credentials", "credentials", "auth.json", ".env", ".netrc", ".npmrc", ".pypirc", ".git-credentials",
					      "id_rsa", "id_ed25519", "id_ecdsa", "secrets" };
	static const char *const ends[] = { ".pem", ".key", ".p12", ".pfx" };
	size_t n = strlen(name);

	for (size_t i = 0; i < ARRAY_SIZE(starts); i++)
		if (str_starts(name, starts[i]))
			return true;
	for (size_t i = 0; i < ARRAY_SIZE(ends); i++)
		if (n > strlen(ends[i]) && strcmp(name + n - strlen(ends[i]), ends[i]) == 0)
			return true;
	return false;
}

static void left_out(struct taking *t, const char *path, const char *why)
{
	AUTO_FREE(char, shown);

	shown = str_escape(path, strlen(path));
	strv_addf(t->notes, "%s: %s, so the guest does not get it", shown, why);
}

static void copy_file(struct taking *t, int from, const char *name, int to, const char *path)
{
	AUTO_FREE(char, content);
	AUTO_FD(in);
	AUTO_FD(out);
	struct stat st;
	size_t n;

	in = file_open_beneath(from, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (in < 0 || fstat(in, &st) < 0 || !S_ISREG(st.st_mode)) {
		left_out(t, path, in == -ELOOP ? "is a link" : "is no file that can be read");
		return;
	}
	if (fd_read_file(in, t->left, &content, &n) < 0) {
		t->full = true;
		return;
	}
	t->left -= n;
	out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (out < 0 || fd_write_all(out, content, n) < 0 || fchmod(out, st.st_mode & 0100 ? 0755 : 0644) < 0)
		left_out(t, path, "cannot be copied");
}

static void copy_tree(struct taking *t, int from, const char *name, int to, const char *path, int depth)
{
	AUTO_FD(made);
	struct dirent *e;
	struct stat st;
	DIR *d;
	int fd;

	if (t->full || t->entries++ >= ENTRIES_MAX || depth > DEPTH_MAX) {
		t->full = true;
		return;
	}
	if (holds_logins(name) || fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (!S_ISDIR(st.st_mode)) {
		if (S_ISLNK(st.st_mode))
			left_out(t, path, "is a link");
		else
			copy_file(t, from, name, to, path);
		return;
	}
	fd = file_open_beneath(from, name, O_RDONLY | O_DIRECTORY, 0);
	d = fd < 0 ? NULL : fdopendir(fd);
	if (d && dir_make_at(to, name, 0755) == 0)
		made = file_open_beneath(to, name, O_RDONLY | O_DIRECTORY, 0);
	while (made >= 0 && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
			AUTO_FREE(char, below);

			below = xasprintf("%s/%s", path, e->d_name);
			copy_tree(t, fd, e->d_name, made, below, depth + 1);
		}
	if (d)
		(void)closedir(d);
}

static void add_link(struct taking *t, const char *folder, const char *name)
{
	if (t->h->links.n < LINKS_MAX && str_is_utf8(name, strlen(name)))
		strv_addf(&t->h->links, "%s/%s", folder, name);
}

/* What was copied of one name: a file is one link, a folder one for each entry. */
static void link_copies(struct taking *t, const struct source *s, const char *name, int copies)
{
	AUTO_FREE(char, folder);
	struct dirent *e;
	struct stat st;
	DIR *d;
	int fd;

	if (fstatat(copies, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return;
	if (!S_ISDIR(st.st_mode)) {
		add_link(t, s->copy, name);
		return;
	}
	folder = xasprintf("%s/%s", s->copy, name);
	fd = openat(copies, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	d = fd < 0 ? NULL : fdopendir(fd);
	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			add_link(t, folder, e->d_name);
	if (d)
		(void)closedir(d);
}

static char *source_path(const struct source *s, const char *home)
{
	const char *v = getenv(s->variable);

	return v && *v == '/' ? xasprintf("%s%s", v, s->more) : xasprintf("%s/%s", home, s->below_home);
}

static void take_source(struct taking *t, const struct source *s, const char *home, int all)
{
	AUTO_FREE(char, path);
	AUTO_FD(from);
	AUTO_FD(to);

	path = source_path(s, home);
	from = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (from < 0 || dir_make_at(all, s->copy, 0755) < 0)
		return;
	to = file_open_beneath(all, s->copy, O_RDONLY | O_DIRECTORY, 0);
	for (const char *const *name = s->names; to >= 0 && *name; name++) {
		AUTO_FREE(char, below);

		below = xasprintf("%s/%s", path, *name);
		copy_tree(t, from, *name, to, below, 1);
		link_copies(t, s, *name, to);
	}
}

/* --- Claude's settings.json --- */

/* Taste. What is not named here may hold a login today or in the agent's next version, or name a program of the host. */
static bool is_taste(struct span name)
{
	static const char *const names[] = {
		"$schema", "alwaysThinkingEnabled", "attribution", "autoCompactEnabled", "cleanupPeriodDays", "editorMode", "effortLevel",
		"enabledPlugins", "fastMode", "includeCoAuthoredBy", "language", "model", "outputStyle", "prefersReducedMotion",
		"respectGitignore", "showThinkingSummaries", "showTurnDuration", "spinnerTipsEnabled", "spinnerVerbs",
		"terminalProgressBarEnabled", "theme", "verbose",
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (jread_string_is(name, names[i]))
			return true;
	return false;
}

/* The text of a string value, for secret_free(); "" for one that is none, NULL when no memory can be locked for it. */
static char *plain_text(struct span v)
{
	char *s = secret_alloc(v.n + 1);
	ssize_t n = s ? jread_string(v, (uint8_t *)s, v.n) : 0;

	if (s)
		s[n > 0 ? n : 0] = '\0';
	return s;
}

/* A URL with a login in front of its host. */
static bool has_userinfo(struct span v)
{
	char *s = plain_text(v);
	bool found = !s;

	for (const char *at = s; at && !found && (at = strstr(at, "://")); at += strlen("://"))
		found = at[3 + strcspn(at + 3, "/@")] == '@';
	secret_free(s);
	return found;
}

static bool names_login(struct span name)
{
	static const char *const within[] = { "token", "key", "secret", "password", "headers", "helper", "auth", "credential", "command" };
	char *s = plain_text(name);
	bool found = !s || strcasecmp(s, "env") == 0;

	for (size_t i = 0; i < ARRAY_SIZE(within) && !found; i++)
		found = strcasestr(s, within[i]) != NULL;
	secret_free(s);
	return found;
}

/* As deep as jread_check() has let it be. */
static bool holds_login(struct span v)
{
	struct span name, below;

	switch (jread_type(v)) {
	case JREAD_STRING:
		return has_userinfo(v);
	case JREAD_ARRAY:
		while (jread_next_element(&v, &below))
			if (holds_login(below))
				return true;
		return false;
	case JREAD_OBJECT:
		while (jread_next_member(&v, &name, &below))
			if ((jread_type(below) >= JREAD_STRING && names_login(name)) || has_userinfo(name) || holds_login(below))
				return true;
		return false;
	default:
		return false;
	}
}

static void take_members_of(struct taking *t, const char *path, struct span text)
{
	struct span all, name, v;

	if (jread_check(text, 32, &all) < 0 || jread_type(all) != JREAD_OBJECT) {
		AUTO_FREE(char, where);

		where = xasprintf("%s/settings.json", path);
		left_out(t, where, "is no JSON object");
		return;
	}
	while (t->h->members.n < 2 * MEMBERS_MAX && jread_next_member(&all, &name, &v)) {
		uint8_t plain[128];
		ssize_t len = jread_string(name, plain, sizeof(plain));

		if (len <= 0 || !is_taste(name))
			continue;
		if (holds_login(v)) {
			AUTO_FREE(char, where);

			where = xasprintf("%s/settings.json: %.*s", path, (int)len, plain);
			left_out(t, where, "may hold a login");
			continue;
		}
		strv_take(&t->h->members, xstrndup((const char *)plain, (size_t)len));
		strv_take(&t->h->members, xstrndup((const char *)v.p, v.n));
	}
}

/* The file may hold keys ("env"): it is read where secrets lie, and only what is taken is copied out of there. */
static void take_members(struct taking *t, const char *home)
{
	AUTO_FREE(char, path);
	AUTO_FD(dir);
	AUTO_FD(fd);
	uint8_t *text;
	size_t n;
	int r;

	path = source_path(&sources[0], home);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	fd = dir < 0 ? -1 : file_open_beneath(dir, "settings.json", O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd == -ELOOP) {
		str_append(&path, "/settings.json");
		left_out(t, path, "is a link");
	}
	if (fd < 0)
		return;
	r = secret_read_file(fd, TEXT_MAX, &text, &n);
	if (r == 0) {
		take_members_of(t, path, SPAN(text, n));
		secret_free(text);
	} else if (r == -ENOMEM) {
		str_append(&path, "/settings.json");
		left_out(t, path, "no memory can be locked to read it");
	}
}

/* A text that goes in front of ours in a file that both share. */
static char *take_text(struct taking *t, const struct source *s, const char *home, const char *name)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, text);
	AUTO_FD(dir);
	size_t n;
	int r;

	path = source_path(s, home);
	dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	r = dir < 0 ? -ENOENT : file_read_beneath(dir, name, TEXT_MAX, &text, &n);
	if (r == 0 && str_is_utf8(text, n) && !memchr(text, '\0', n))
		return TAKE_PTR(text);
	if (r != -ENOENT) {
		str_append(&path, "/");
		str_append(&path, name);
		left_out(t, path, r == -ELOOP ? "is a link" : "is no text that can be read");
	}
	return NULL;
}

static bool has_any(const struct source *s, const char *home)
{
	AUTO_FREE(char, path);
	AUTO_FD(from);
	struct stat st;

	path = source_path(s, home);
	from = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (const char *const *name = s->names; from >= 0 && *name; name++)
		if (fstatat(from, *name, &st, AT_SYMLINK_NOFOLLOW) == 0)
			return true;
	return false;
}

bool host_settings_folder(const char *home, int dir_fd, const char *dir_path, struct host_settings *ret)
{
	*ret = (struct host_settings){ 0 };
	for (size_t i = 0; home && !ret->dir && i < ARRAY_SIZE(sources); i++)
		if (has_any(&sources[i], home) && dir_make_at(dir_fd, COPIES, 0700) == 0)
			ret->dir = xasprintf("%s/" COPIES, dir_path);
	return ret->dir;
}

void host_settings_take(const char *home, int dir_fd, struct host_settings *h, struct strv *notes)
{
	static const struct source copilot = { "COPILOT_HOME", ".copilot", "", NULL, { NULL } };
	struct taking t = { .h = h, .notes = notes, .left = BYTES_MAX };
	AUTO_FD(all);

	if (!home)
		return;
	all = h->dir ? file_open_beneath(dir_fd, COPIES, O_RDONLY | O_DIRECTORY, 0) : -1;
	for (size_t i = 0; all >= 0 && i < ARRAY_SIZE(sources); i++)
		take_source(&t, &sources[i], home, all);
	if (t.full)
		strv_addf(notes, "your own settings of the agents: more than 32 MiB, %d files or %d folders deep; the guest does not get all of "
			  "them", ENTRIES_MAX, DEPTH_MAX);
	take_members(&t, home);
	h->codex = take_text(&t, &sources[1], home, "AGENTS.md");
	h->opencode = take_text(&t, &sources[2], home, "AGENTS.md");
	h->copilot = take_text(&t, &copilot, home, "copilot-instructions.md");
}

void host_settings_done(struct host_settings *h)
{
	free(h->dir);
	free(h->codex);
	free(h->opencode);
	free(h->copilot);
	strv_done(&h->links);
	strv_done(&h->members);
}
