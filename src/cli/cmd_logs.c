/* agent-vm logs: what a session logged, live or ended.
 *
 * Lines of the roles begin with a time of one fixed form, so the files are merged by comparing text; a line without one
 * belongs to the line before it. A file that begins without (the console) comes after the others, whole. What stands in
 * the files may be the guest's words: control bytes are shown as \xNN, and lines are cut at LINE_MAX_BYTES. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "cli/cmd.h"
#include "cli/sessions.h"

#define LINE_MAX_BYTES 8192
#define STAMP_LEN 24 /* 2026-11-23T20:01:02.345Z */

static const char *const roles[] = { "launcher", "vmm", "wire", "gate", "vault", "image", "console" };

struct logs_args {
	bool denied, list, json;
	const char *role;
};

static const char *const role_choices[] = { "launcher", "vmm", "wire", "gate", "vault", "image", "console", "audit", NULL };

static const struct opt logs_opts[] = {
	{ "denied", OPT_FLAG, offsetof(struct logs_args, denied), NULL,
	  "only what was refused, with the option that would open it, or the agent-vm why that tells it" },
	{ "role", OPT_CHOICE, offsetof(struct logs_args, role), "NAME", "only the log of that part", 0,
	  "One of launcher, vmm, wire, gate, vault, image, console, audit: image is what the pull of the launch said, audit what "
	  "the session opened over the network, and what it was refused.", "console", role_choices },
	{ "list", OPT_FLAG, offsetof(struct logs_args, list), NULL, "list the sessions that have logs, of all projects" },
	{ "json", OPT_FLAG, offsetof(struct logs_args, json), NULL, "print one JSON array with the same facts" },
	{ NULL },
};

struct source {
	const char *role;
	FILE *f;
	char line[LINE_MAX_BYTES];
	size_t len; /* of the line at hand, without its newline */
	char stamp[STAMP_LEN + 1];
	bool stamped; /* its first line had a time */
	bool have;
};

/* Where lines go: at once, as text or as elements of a JSON array, so that no log is ever held in memory. */
struct out {
	bool json;
	size_t n; /* elements so far */
};

/* @line is taken. */
static void emit_json(struct out *out, json_t *line)
{
	AUTO_FREE(char, text);

	text = json_dumps(line, 0);
	(void)printf("%s\n %s", out->n++ == 0 ? "[" : ",", text ? text : "null");
	json_decref(line);
}

static void emit_end(const struct out *out)
{
	if (out->json)
		(void)puts(out->n > 0 ? "\n]" : "[]");
}

static bool stamp_at(const char *line, size_t n)
{
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";

	if (n < STAMP_LEN)
		return false;
	for (size_t i = 0; i < STAMP_LEN; i++)
		if (form[i] == 'd' ? line[i] < '0' || line[i] > '9' : line[i] != form[i])
			return false;
	return true;
}

/* The next line, or the next piece of a very long one. */
static void source_next(struct source *s)
{
	size_t n = 0;
	int c = EOF;

	while (n < sizeof(s->line) && (c = getc(s->f)) != EOF && c != '\n')
		s->line[n++] = (char)c;
	s->have = n > 0 || c == '\n';
	/* The carriage return of a console is no news. */
	if (n > 0 && c == '\n' && s->line[n - 1] == '\r')
		n--;
	s->len = n;
	if (s->have && stamp_at(s->line, n))
		memcpy(s->stamp, s->line, STAMP_LEN);
}

static int source_open(struct source *s, int dirfd, const char *role)
{
	AUTO_FREE(char, name);
	AUTO_FD(fd);
	struct stat st;

	*s = (struct source){ .role = role };
	name = str_starts(role, "audit.") ? xstrdup(role) : xasprintf("%s.log", role);
	fd = file_open_beneath(dirfd, name, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
		return -EINVAL;
	s->f = fdopen(fd, "r");
	if (!s->f)
		return -errno;
	(void)TAKE_FD(fd);
	source_next(s);
	s->stamped = s->stamp[0] != '\0';
	return 0;
}

static void emit(struct out *out, const char *role, const char *line, size_t n)
{
	AUTO_FREE(char, shown);

	shown = str_escape(line, n);
	if (out->json)
		emit_json(out, json_pack("{s:s, s:s}", "role", role, "line", shown));
	else
		(void)printf("%s: %s\n", role, shown);
}

/* @before: a's line comes first. Files without times come last, in their order. */
static bool before(const struct source *a, const struct source *b)
{
	if (a->stamped != b->stamped)
		return a->stamped;
	return a->stamped && strcmp(a->stamp, b->stamp) < 0;
}

static int show_roles(int dirfd, const char *only, struct out *out)
{
	AUTO_FREE(struct source, v);
	size_t n = 0;

	v = xcalloc(ARRAY_SIZE(role_choices), sizeof(*v));
	if (only && source_open(&v[n], dirfd, only) == 0)
		n++;
	for (size_t i = 0; !only && i < ARRAY_SIZE(roles); i++)
		if (source_open(&v[n], dirfd, roles[i]) == 0)
			n++;
	for (;;) {
		struct source *first = NULL;

		for (size_t i = 0; i < n; i++)
			if (v[i].have && (!first || before(&v[i], first)))
				first = &v[i];
		if (!first)
			break;
		emit(out, first->role, first->line, first->len);
		source_next(first);
	}
	for (size_t i = 0; i < n; i++)
		(void)fclose(v[i].f);
	return 0;
}

/* ---- refusals ---- */

static const char *member(const json_t *line, const char *key)
{
	const char *s = json_string_value(json_object_get(line, key));

	return s ? s : "";
}

/* The words of a rule for people; NULL: the rule's own. A question for a name was refused by those that say @dns. */
static const struct rule_words {
	const char *rule, *words;
	bool dns;
} rule_words[] = {
	{ "private", "private network", false },
	{ "rebind", NULL, true },
	{ "name", "name that is not asked outside", true },
	{ "reverse", "address of a private network", true },
	{ "never", NULL, true },
	{ "rate", "too many new names", true },
	{ "type", "type that is not asked", true },
	{ "no-network", "no network", true },
	{ "foreign-name", "address of an inspected host under another name", false },
};

static const struct rule_words *words_of(const char *rule)
{
	for (size_t i = 0; i < ARRAY_SIZE(rule_words); i++)
		if (strcmp(rule_words[i].rule, rule) == 0)
			return &rule_words[i];
	return NULL;
}

/* Of gate or vault about a host that a login goes to. */
static bool is_request(const json_t *line)
{
	return strcmp(member(line, "k"), "request") == 0 || strcmp(member(line, "k"), "echo") == 0;
}

/* What the self-probe was refused is no news. A name whose answer lost addresses was refused, too. */
static bool is_denied(const json_t *line)
{
	const struct rule_words *w = words_of(member(line, "rule"));
	const char *verdict = member(line, "verdict");

	if (json_is_true(json_object_get(line, "probe")))
		return false;
	if (strcmp(member(line, "k"), "dns") == 0)
		return w && w->dns;
	if (is_request(line))
		return strcmp(verdict, "refuse") == 0;
	return strcmp(member(line, "k"), "refused") == 0 ||
	       (*verdict && strcmp(verdict, "allow") != 0 && strcmp(verdict, "inspect") != 0);
}

static json_int_t number(const json_t *line, const char *key)
{
	return json_integer_value(json_object_get(line, key));
}

/* "192.168.1.10:5432 (db.lan)"; caller owns. */
static char *where(const json_t *line)
{
	const char *dst = member(line, "dst"), *name = member(line, "name");
	json_int_t port = number(line, "port");
	bool v6 = strchr(dst, ':');

	if (port <= 0)
		return xasprintf("%s%s%s%s", dst, *name ? " (" : "", name, *name ? ")" : "");
	return xasprintf("%s%s%s:%lld%s%s%s", v6 ? "[" : "", dst, v6 ? "]" : "", (long long)port, *name ? " (" : "", name,
			 *name ? ")" : "");
}

/* "1.5 MB", as people read amounts of traffic. */
static char *amount(json_int_t bytes)
{
	static const char *const units[] = { "B", "kB", "MB", "GB", "TB" };
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1000 && u + 1 < ARRAY_SIZE(units); u++)
		v /= 1000;
	return xasprintf(u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
}

/* One line of the audit for people:
 *
 *   20:01:02  tcp  104.16.3.35:80 (www.example.org)  allow  up 1.8 kB  down 90.2 kB  412 ms  fin
 *   20:01:07  dns  evil.example A  NOERROR  kept 0  left out 1 (rebind)
 *   20:01:09  refused  tcp 192.168.1.10:5432 (db.lan)  private  3x
 *   20:01:30  request  POST api.anthropic.com/v1/messages  forward  200  up 1.8 kB  down 90.2 kB  412 ms
 *   20:02:00  published  127.0.0.1:3000 from 127.0.0.1:50312  up 120 B  down 4.1 kB  18 ms  fin */
static char *audit_text(const json_t *line)
{
	const char *t = member(line, "t"), *k = member(line, "k"), *rule = member(line, "rule"), *end = member(line, "end");
	bool probe = json_is_true(json_object_get(line, "probe"));
	AUTO_FREE(char, at);
	AUTO_FREE(char, up);
	AUTO_FREE(char, down);
	AUTO_FREE(char, rest);

	at = where(line);
	up = amount(number(line, "up"));
	down = amount(number(line, "down"));
	if (strcmp(k, "dns") == 0)
		rest = xasprintf("%s %s  %s  kept %lld  left out %lld%s%s%s", member(line, "q"), member(line, "type"), member(line, "rcode"),
				 (long long)number(line, "kept"), (long long)number(line, "dropped"), *rule ? " (" : "", rule,
				 *rule ? ")" : "");
	else if (strcmp(k, "refused") == 0)
		rest = xasprintf("%s %s  %s", member(line, "p"), at, rule);
	else if (strcmp(k, "renewal") == 0)
		rest = xasprintf("%s by %s  %s  %lld ms", member(line, "provider"), member(line, "program"), member(line, "how"),
				 (long long)number(line, "ms"));
	else if (strcmp(k, "echo") == 0)
		rest = xasprintf("%s%s  a secret came back (%s) and was overwritten", member(line, "host"), member(line, "path"),
				 member(line, "form"));
	else if (is_request(line))
		rest = xasprintf("%s %s%s  %s%s%s  %lld  up %s  down %s  %lld ms", member(line, "method"), member(line, "host"),
				 member(line, "path"), member(line, "verdict"), *member(line, "code") ? " " : "", member(line, "code"),
				 (long long)number(line, "status"), up, down, (long long)number(line, "ms"));
	else if (strcmp(k, "published") == 0)
		rest = xasprintf("%s%s%s from %s  up %s  down %s  %lld ms  %s", member(line, "p"), *member(line, "p") ? " " : "",
				 member(line, "listen"), member(line, "peer"), up, down,
				 (long long)number(line, "ms"), end);
	else if (json_object_get(line, "up"))
		rest = xasprintf("%s  %s  up %s  down %s  %lld ms  %s", at, member(line, "verdict"), up, down,
				 (long long)number(line, "ms"), *end ? end : "open");
	else
		rest = xasprintf("%s  %s  %lld ms  %s", at, member(line, "verdict"), (long long)number(line, "ms"), *end ? end : "open");
	if (number(line, "n") > 1)
		return xasprintf("%.8s  %s  %s  %lldx%s", strlen(t) >= 19 ? t + 11 : t, k, rest, (long long)number(line, "n"),
				 probe ? "  self-probe" : "");
	return xasprintf("%.8s  %s  %s%s", strlen(t) >= 19 ? t + 11 : t, k, rest, probe ? "  self-probe" : "");
}

/* Why, in words. Of an answer: what was left out, and whether anything stayed. Caller owns. */
static char *why(const json_t *line)
{
	const char *rule = member(line, "rule"), *first = member(line, "first"), *group = member(line, "group");
	const struct rule_words *w = words_of(*first ? group : rule);
	const char *text = w && w->words ? w->words : *first ? group : *rule ? rule : member(line, "code");
	json_int_t kept = number(line, "kept"), dropped = number(line, "dropped");

	if (!*first)
		return xstrdup(text);
	if (dropped + kept == 1)
		return xasprintf("%s left out, %s", first, text);
	return xasprintf("%lld of %lld addresses left out, first %s, %s", (long long)dropped, (long long)(dropped + kept), first, text);
}

/* As a shell takes it for one word: a path is what the guest asked for. Caller owns. */
static char *shell_word(const char *word)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._/:@%+=,";
	char *text;

	if (word[strspn(word, plain)] == '\0')
		return xstrdup(word);
	text = xstrdup("'");
	for (;; word++) {
		AUTO_FREE(char, part);

		part = xstrndup(word, strcspn(word, "'"));
		str_append(&text, part);
		word += strlen(part);
		if (*word == '\0')
			break;
		str_append(&text, "'\\''");
	}
	str_append(&text, "'");
	return text;
}

/* The command that says what decided and which option would open it; of an echo the method is not known. Caller owns. */
static char *why_command(const json_t *line, const char *verb)
{
	const char *method = member(line, "method");
	AUTO_FREE(char, url);
	AUTO_FREE(char, url_word);
	AUTO_FREE(char, method_word);

	url = xasprintf("https://%s%s", member(line, "host"), member(line, "path"));
	url_word = shell_word(url);
	method_word = shell_word(method);
	return xasprintf("agent-vm why --verb %s%s%s %s", verb, *method ? " -X " : "", method_word, url_word);
}

/* 20:01:09  3x  tcp 192.168.1.10:5432 (db.lan)  private network  --allow-egress 192.168.1.10:5432
 * 20:01:10  1x  GET api.anthropic.com/v1/files  path-denied  agent-vm why --verb claude -X GET https://api.anthropic.com/v1/files
 * 20:01:12  1x  dns intra.corp A  10.1.2.3 left out, private network  --allow-egress intra.corp */
static char *denied_text(const json_t *line, const char *verb)
{
	const char *t = member(line, "t"), *dst = member(line, "dst"), *q = member(line, "q");
	const char *open = member(line, "open"), *p = member(line, "p");
	json_int_t n = number(line, "n");
	AUTO_FREE(char, what);
	AUTO_FREE(char, because);
	AUTO_FREE(char, command);

	if (*dst)
		what = where(line);
	else if (*q)
		what = xasprintf("dns %s %s", q, member(line, "type"));
	else
		what = xasprintf("%s %s%s", member(line, "method"), member(line, "host"), member(line, "path"));
	if (is_request(line)) {
		command = why_command(line, verb);
		return xasprintf("%.8s  %lldx  %s  %s  %s", strlen(t) >= 19 ? t + 11 : t, (long long)(n > 0 ? n : 1), what,
				 member(line, "code"), command);
	}
	because = why(line);
	return xasprintf("%.8s  %lldx  %s%s%s  %s  %s", strlen(t) >= 19 ? t + 11 : t, (long long)(n > 0 ? n : 1), p,
			 *p ? " " : "", what, because, *open ? open : "cannot be opened");
}

static void show_audit_file(int dirfd, const char *name, const char *verb, bool denied, struct out *out)
{
	AUTO_FREE(struct source, s);

	s = xcalloc(1, sizeof(*s));
	if (source_open(s, dirfd, name) < 0)
		return;
	for (; s->have; source_next(s)) {
		json_t *line = json_loadb(s->line, s->len, 0, NULL);
		AUTO_FREE(char, text);
		AUTO_FREE(char, shown);

		if (!line || (denied && !is_denied(line))) {
			json_decref(line);
			continue;
		}
		if (out->json) {
			emit_json(out, line);
			continue;
		}
		text = denied ? denied_text(line, verb) : audit_text(line);
		shown = str_escape(text, strlen(text));
		(void)puts(shown);
		json_decref(line);
	}
	(void)fclose(s->f);
}

/* The older file first, if it grew that long. */
static void show_audit(int dirfd, const char *verb, bool denied, struct out *out)
{
	show_audit_file(dirfd, "audit.jsonl.1", verb, denied, out);
	show_audit_file(dirfd, "audit.jsonl", verb, denied, out);
}

/* ---- the list ---- */

static void time_text(int64_t ms, char *ret, size_t n)
{
	time_t s = (time_t)(ms / 1000);
	struct tm tm;

	if (!localtime_r(&s, &tm) || strftime(ret, n, "%Y-%m-%d %H:%M:%S", &tm) == 0)
		(void)snprintf(ret, n, "?");
}

static int show_list(const struct state_root *root, const struct session_list *list, bool json)
{
	static const char *const heads[] = { "SESSION", "VERB", "PROJECT", "STARTED", "RESULT", "STATUS", "FOLDER" };
	struct table t;

	if (json) {
		json_t *all = json_array();

		for (size_t i = 0; i < list->n; i++)
			(void)json_array_append_new(all, session_info_to_json(&list->v[i]));
		return sessions_print_json(all);
	}
	table_init(&t, ARRAY_SIZE(heads));
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		table_add(&t, heads[i]);
	for (size_t i = 0; i < list->n; i++) {
		const struct session_info *s = &list->v[i];
		AUTO_FREE(char, folder);
		char started[32], status[16] = "-";

		time_text(s->started_ms, started, sizeof(started));
		if (s->result != SESSION_RUNNING)
			(void)snprintf(status, sizeof(status), "%d", s->exit_status);
		folder = xasprintf("%s/" STATE_RUN "/" STATE_LOGS "/%s", root->path, s->name);
		table_add(&t, sessions_short(s));
		table_add(&t, s->verb);
		table_add(&t, s->project);
		table_add(&t, started);
		table_add(&t, session_result_name(s->result));
		table_add(&t, status);
		table_add(&t, folder);
	}
	table_print(&t, stdout);
	return sessions_flush();
}

/* ---- the verb ---- */

static int show_one(const struct state_root *root, const struct session_list *list, const struct logs_args *a,
		    const char *what, struct err *err)
{
	const struct session_info *info;
	char here[PROJECT_HASH_LEN + 1];
	struct out out = { .json = a->json };
	AUTO_FD(dir);
	int r = 0;

	if (!what)
		r = sessions_here(here, err);
	if (r == 0)
		r = session_find(list, what, here, true, &info, err);
	if (r < 0)
		return sessions_fail(-EIO, err);
	dir = registry_open_logs(root, info->name);
	if (dir < 0) {
		(void)err_set(err, dir, "%s/run/logs/%s: cannot be opened: %s", root->path, info->name, strerror(-dir));
		return sessions_fail(-EIO, err);
	}
	if (a->denied || (a->role && strcmp(a->role, "audit") == 0))
		show_audit(dir, info->verb, a->denied, &out);
	else
		(void)show_roles(dir, a->role, &out);
	emit_end(&out);
	return sessions_flush();
}

static int logs_run(struct cli *cli, void *args, char **rest)
{
	struct state_root root = STATE_ROOT_INIT;
	struct session_list list = { NULL };
	const struct logs_args *a = args;
	struct err err;
	int r, status;

	if (a->denied && a->role)
		return sessions_fail(err_set(&err, -EINVAL, "--denied: excludes --role; write one or the other"), &err);
	if (a->list && (a->denied || a->role || rest[0]))
		return sessions_fail(err_set(&err, -EINVAL, "--list: excludes %s; write one or the other",
					     rest[0] ? "a SESSION" : a->denied ? "--denied" : "--role"),
				     &err);
	r = sessions_root(&root, &err);
	if (r > 0)
		r = registry_list(&root, SESSIONS_LIVE | SESSIONS_ENDED, &list, &err);
	if (r < 0) {
		state_root_close(&root);
		return sessions_fail(r, &err);
	}
	sessions_warn(&list.warnings);
	if (a->list)
		status = show_list(&root, &list, a->json);
	else
		status = show_one(&root, &list, a, rest[0], &err);
	session_list_done(&list);
	state_root_close(&root);
	return status;
}

const struct cmd cmd_logs = {
	.name = "logs",
	.alias = "log",
	.summary = "show what a session logged, ended ones too",
	.usage = "[OPTIONS] [SESSION]",
	.about = "The logs of all parts in the order of time, each line with the part that wrote it; the guest's console, which "
		 "has no times, comes last. SESSION is a name, four or more characters of its beginning, or a project's path; "
		 "without one it is the newest session of the current project.\n\n"
		 "Logs are kept for the last 20 sessions of a project, 14 days and 200 MB in all; those of a launch that failed at "
		 "least 7 days.",
	.examples = "agent-vm logs\tthe newest session of this project\nagent-vm logs --list\twhich sessions there are\n"
		    "agent-vm logs --role console\twhat the guest's kernel said\n"
		    "agent-vm logs --role audit\twhat it reached, with sizes and times\n",
	.opts = logs_opts,
	.args_size = sizeof(struct logs_args),
	.words = CMD_WORDS_MIXED,
	.max_words = 1,
	.run = logs_run,
};
