#include "state.h"

static const struct session_info three[] = {
	{ .name = "agent-vm-7d73bf4fdeae-4711", .hash = "7d73bf4fdeae", .live = true },
	{ .name = "agent-vm-7d73bf4fdeae-4711-2", .hash = "7d73bf4fdeae", .live = true },
	{ .name = "agent-vm-a0317725f24b-99", .hash = "a0317725f24b", .live = true },
};

static const char *found(const char *what, const char *here, bool newest, int want)
{
	struct session_list list = { (struct session_info *)three, 3, { NULL } };
	const struct session_info *s = NULL;
	static struct err err;
	int r;

	err.text[0] = '\0';
	r = session_find(&list, what, here, newest, &s, &err);
	CHECK_INT(r, ==, want);
	CHECK(r == 0 ? s != NULL : s == NULL && err.text[0]);
	return r == 0 ? s->name : err.text;
}

TEST(session_by_name_prefix_and_path)
{
	CHECK_STR(found("agent-vm-7d73bf4fdeae-4711", NULL, false, 0), three[0].name);
	CHECK_STR(found("7d73bf4fdeae-4711", NULL, false, 0), three[0].name);
	CHECK_STR(found("7d73bf4fdeae-4711-2", NULL, false, 0), three[1].name);
	CHECK_STR(found("7d73bf4fdeae-4711-", NULL, false, 0), three[1].name);
	CHECK_STR(found("a031", NULL, false, 0), three[2].name);
	CHECK(strstr(found("a03", NULL, false, -ENOENT), "too short"));
	CHECK_STR(found("", NULL, false, -ENOENT), "session: its name is empty; agent-vm ps lists them");
	CHECK(strstr(found("a032", NULL, false, -ENOENT), "7d73bf4fdeae-4711, 7d73bf4fdeae-4711-2, a0317725f24b-99"));
	CHECK(strstr(found("7d73", NULL, false, -ENOTUNIQ), "7d73bf4fdeae-4711, 7d73bf4fdeae-4711-2"));
	CHECK(!strstr(found("7d73", NULL, false, -ENOTUNIQ), "a031"));
	CHECK_STR(found("7d73", NULL, true, 0), three[0].name);
	CHECK(strstr(found("\x1b[2J" "abcd", NULL, false, -ENOENT), "\\x1b"));

	CHECK_STR(found("/some/project", NULL, false, 0), three[2].name);
	CHECK_STR(found("/some/project/", NULL, false, 0), three[2].name);
	(void)found("/some/other", NULL, false, -ENOENT);
	(void)found("/home/user/proj", NULL, false, -ENOTUNIQ);
	CHECK_STR(found("/home/user/proj", NULL, true, 0), three[0].name);

	CHECK_STR(found(NULL, "a0317725f24b", false, 0), three[2].name);
	(void)found(NULL, "7d73bf4fdeae", false, -ENOTUNIQ);
	CHECK_STR(found(NULL, "7d73bf4fdeae", true, 0), three[0].name);
	CHECK(strstr(found(NULL, "0dab8028dcfb", false, -ENOENT), "none for this project"));
}

TEST(dot_is_the_current_project)
{
	struct session s = SESSION_INIT;
	const struct session_info *info = NULL;
	struct session_list list;
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_INT(registry_list(&t.root, SESSIONS_LIVE, &list, &err), ==, 0);
	CHECK_INT(session_find(&list, ".", NULL, false, &info, &err), ==, 0);
	CHECK_STR(info->name, s.info.name);
	CHECK_INT(session_find(&list, "../proj", NULL, false, &info, &err), ==, 0);
	CHECK_INT(session_find(&list, "../other", NULL, false, &info, &err), ==, -ENOENT);
	CHECK(session_by_name(&list, s.info.name) == info);
	session_list_done(&list);
	session_done(&s);
	state_end(&t);
}

TEST(live_and_ended_are_told_apart)
{
	struct session a = SESSION_INIT, b = SESSION_INIT;
	struct session_list list;
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(session_create(&a, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_INT(session_create(&b, &t.root, &t.project, "shell", NULL, &err), ==, 0);
	CHECK_INT(registry_list(&t.root, SESSIONS_ENDED, &list, &err), ==, 0);
	CHECK_INT(list.n, ==, 0);
	session_list_done(&list);
	CHECK_INT(session_end(&a, SESSION_START_FAILED, 1, "no kernel"), ==, 0);
	CHECK_INT(registry_list(&t.root, SESSIONS_LIVE, &list, &err), ==, 0);
	CHECK_INT(list.n, ==, 1);
	CHECK(list.v[0].live && strcmp(list.v[0].verb, "shell") == 0);
	session_list_done(&list);
	CHECK_INT(registry_list(&t.root, SESSIONS_LIVE | SESSIONS_ENDED, &list, &err), ==, 0);
	CHECK_INT(list.n, ==, 2);
	for (size_t i = 0; i < 2; i++)
		CHECK_INT(list.v[i].live, ==, list.v[i].result == SESSION_RUNNING);
	session_list_done(&list);
	session_done(&a);
	session_done(&b);
	state_end(&t);
}

/* Ends @age_s before @now_s, with @kib of logs. */
static void ended(struct state *t, const char *hash, int pid, int64_t ended_s, enum session_result result, size_t kib)
{
	AUTO_FREE(char, bytes);
	char name[SESSION_NAME_MAX + 1];
	struct session_info info;
	AUTO_FD(dir);

	session_name(hash, pid, 1, name);
	CHECK_INT(mkdirat(t->root.logs_fd, name, 0700), ==, 0);
	dir = registry_open_logs(&t->root, name);
	session_info_from_name(name, &info);
	info.started_ms = info.ended_ms = ended_s * 1000;
	info.result = result;
	CHECK_INT(session_info_write(dir, &info, true), ==, 0);
	session_info_done(&info);
	bytes = xcalloc(kib + 1, 1024);
	CHECK_INT(file_replace_at(dir, "console.log", bytes, kib * 1024, 0600), ==, 0);
}

static bool kept(struct state *t, const char *hash, int pid)
{
	char name[SESSION_NAME_MAX + 1];

	session_name(hash, pid, 1, name);
	return exists(t->root.logs_fd, name);
}

#define A "7d73bf4fdeae"
#define B "a0317725f24b"
#define NOW 2000000000

TEST(logs_of_the_last_sessions_of_each_project_stay)
{
	struct logs_rule rule = LOGS_RULE_DEFAULT;
	struct state t;

	state_begin(&t);
	for (int i = 1; i <= 25; i++)
		ended(&t, A, i, NOW - 1000 * i, SESSION_EXIT, 1);
	ended(&t, B, 1, NOW - 100000, SESSION_EXIT, 1);
	ended(&t, A, 100, NOW - 90000, SESSION_START_FAILED, 1);
	ended(&t, A, 101, NOW - 8 * 86400, SESSION_START_FAILED, 1);
	CHECK_INT(logs_retain(&t.root, &rule, NOW), ==, 6);
	for (int i = 1; i <= 25; i++)
		CHECK_INT(kept(&t, A, i), ==, i <= 20);
	CHECK(kept(&t, B, 1));
	CHECK(kept(&t, A, 100));
	CHECK(!kept(&t, A, 101));
	CHECK_INT(logs_retain(&t.root, &rule, NOW), ==, 0);
	state_end(&t);
}

TEST(logs_go_by_age_and_by_size)
{
	struct logs_rule rule = LOGS_RULE_DEFAULT;
	struct state t;

	state_begin(&t);
	ended(&t, A, 1, NOW - 14 * 86400 - 1, SESSION_EXIT, 1);
	ended(&t, A, 2, NOW - 14 * 86400, SESSION_EXIT, 1);
	ended(&t, A, 3, NOW - 14 * 86400 - 1, SESSION_LOST, 1);
	CHECK_INT(logs_retain(&t.root, &rule, NOW), ==, 2);
	CHECK(!kept(&t, A, 1) && kept(&t, A, 2) && !kept(&t, A, 3));

	rule.max_bytes = 1 << 20;
	ended(&t, B, 1, NOW - 5, SESSION_EXIT, 900);	      /* too large together with the next, but fresh */
	ended(&t, B, 2, NOW - 6, SESSION_EXIT, 900);	      /* the same */
	ended(&t, B, 3, NOW - 5000, SESSION_EXIT, 1);	      /* no room any more */
	ended(&t, B, 4, NOW - 6000, SESSION_START_FAILED, 1); /* a failed launch stays */
	CHECK_INT(logs_retain(&t.root, &rule, NOW), ==, 2);
	CHECK(kept(&t, B, 1) && kept(&t, B, 2) && !kept(&t, B, 3) && kept(&t, B, 4) && !kept(&t, A, 2));
	state_end(&t);
}

TEST(logs_of_live_sessions_stay)
{
	struct logs_rule rule = { 0 };
	struct session s = SESSION_INIT;
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_INT(logs_retain(&t.root, &rule, NOW), ==, 0);
	CHECK(exists(t.root.logs_fd, s.info.name));
	session_done(&s);
	state_end(&t);
}
