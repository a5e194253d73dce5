#include "state.h"

TEST(dead_session_is_cleared_away_and_its_logs_say_lost)
{
	struct session_info info;
	unsigned int n = 0;
	struct launcher l;
	struct state t;
	struct err err;

	state_begin(&t);
	l = launcher_start(&t, "claude", false);
	CHECK_INT(registry_reap(&t.root, 0, &n, &err), ==, 0);
	CHECK_INT(n, ==, 0);
	CHECK(is_running(l.child));
	CHECK(exists(t.root.sessions_fd, l.name));
	launcher_kill(&l);
	CHECK(is_running(l.child));
	CHECK_INT(registry_reap(&t.root, 50, &n, &err), ==, 0);
	CHECK_INT(n, ==, 1);
	CHECK(!is_running(l.child));
	CHECK(!exists(t.root.sessions_fd, l.name));
	ended_info(&t, l.name, &info);
	CHECK_INT(info.result, ==, SESSION_LOST);
	CHECK_STR(info.verb, "claude");
	CHECK(info.cause && info.ended_ms > 0);
	session_info_done(&info);
	CHECK_INT(registry_reap(&t.root, 0, &n, &err), ==, 0);
	CHECK_INT(n, ==, 0);
	state_end(&t);
}

/* Rewrites a dead session's record so that its child is @id. */
static void child_forge(struct state *t, const char *name, const struct proc_id *id)
{
	struct session_info info;
	AUTO_FD(dir);
	struct err err;

	dir = registry_open_session(&t->root, name);
	CHECK_INT(session_info_read(dir, &info, &err), ==, 0);
	info.launcher.pid_ns = id->pid_ns;
	memcpy(info.launcher.boot_id, id->boot_id, sizeof(id->boot_id));
	info.n_children = 1;
	info.children[0].id = *id;
	CHECK_INT(session_info_write(dir, &info, true), ==, 0);
	session_info_done(&info);
}

/* The sleeper lives or not after a reaping in which @id stands for a child. */
static bool survives(const struct proc_id *id)
{
	unsigned int n = 0;
	struct launcher l;
	struct state t;
	struct err err;
	bool lives;

	state_begin(&t);
	l = launcher_start(&t, "shell", false);
	launcher_kill(&l);
	CHECK_INT(kill(l.child, SIGKILL), ==, 0);
	child_forge(&t, l.name, id);
	CHECK_INT(registry_reap(&t.root, 0, &n, &err), ==, 0);
	CHECK_INT(n, ==, 1);
	CHECK(!exists(t.root.sessions_fd, l.name));
	lives = waitpid(id->pid, NULL, WNOHANG) == 0;
	state_end(&t);
	return lives;
}

TEST(only_the_recorded_process_is_killed)
{
	struct proc_id id, other;
	pid_t pid = sleeper();

	CHECK_INT(proc_id_of(pid, &id), ==, 0);
	other = id;
	other.start--;
	CHECK(survives(&other));
	other = id;
	other.start = 0;
	CHECK(survives(&other));
	other = id;
	other.boot_id[0] = other.boot_id[0] == '0' ? '1' : '0';
	CHECK(survives(&other));
	other = id;
	other.pid_ns++;
	CHECK(survives(&other));
	CHECK(is_running(pid));
	CHECK(!survives(&id));
}

TEST(children_get_time_to_end_by_themselves)
{
	struct session_info info;
	struct launcher l;
	struct state t;
	struct err err;
	int64_t start;
	pid_t helper;

	state_begin(&t);
	l = launcher_start(&t, "claude", false);
	launcher_kill(&l);
	start = now_ns();
	helper = fork();
	if (helper == 0) {
		(void)usleep(200000);
		(void)kill(l.child, SIGTERM);
		_exit(0);
	}
	CHECK_INT(registry_reap(&t.root, 20000, NULL, &err), ==, 0);
	CHECK_INT((now_ns() - start) / 1000000, <, 10000);
	CHECK_INT((now_ns() - start) / 1000000, >=, 100);
	CHECK_INT(waitpid(helper, NULL, 0), ==, helper);
	ended_info(&t, l.name, &info);
	CHECK_INT(info.result, ==, SESSION_LOST);
	session_info_done(&info);
	state_end(&t);
}

TEST(reapers_at_once_are_harmless)
{
	enum { SESSIONS = 6, REAPERS = 4 };
	struct launcher l[SESSIONS];
	pid_t reapers[REAPERS];
	struct session_info info;
	struct launcher alive;
	struct state t;
	int status;

	state_begin(&t);
	for (int i = 0; i < SESSIONS; i++)
		l[i] = launcher_start(&t, "claude", false);
	alive = launcher_start(&t, "shell", false);
	for (int i = 0; i < SESSIONS; i++)
		launcher_kill(&l[i]);
	for (int i = 0; i < REAPERS; i++) {
		reapers[i] = fork();
		if (reapers[i] == 0)
			_exit(registry_reap(&t.root, 100, NULL, NULL) < 0);
	}
	for (int i = 0; i < REAPERS; i++) {
		CHECK_INT(waitpid(reapers[i], &status, 0), ==, reapers[i]);
		CHECK_INT(status, ==, 0);
	}
	for (int i = 0; i < SESSIONS; i++) {
		CHECK(!exists(t.root.sessions_fd, l[i].name));
		CHECK(!is_running(l[i].child));
		ended_info(&t, l[i].name, &info);
		CHECK_INT(info.result, ==, SESSION_LOST);
		session_info_done(&info);
	}
	CHECK(exists(t.root.sessions_fd, alive.name));
	CHECK(is_running(alive.child));
	CHECK_INT(kill(alive.pid, SIGTERM), ==, 0);
	CHECK_INT(waitpid(alive.pid, NULL, 0), ==, alive.pid);
	CHECK(!exists(t.root.sessions_fd, alive.name));
	state_end(&t);
}

/* Longer than who waits for the registry sleeps between two tries: else who releases it is always the next to have it, and on a
 * busy machine others wait for longer than they do. */
static void others_turn(void)
{
	(void)usleep(30000);
}

/* Sessions come and go while reapers run: none of them may be taken for dead. */
TEST(makers_and_reapers_do_not_disturb_each_other)
{
	enum { MAKERS = 4, ROUNDS = 25 };
	struct session_list list;
	pid_t pids[MAKERS];
	struct state t;
	struct err err;
	int status, left = MAKERS;

	state_begin(&t);
	for (int i = 0; i < MAKERS; i++) {
		pids[i] = fork();
		if (pids[i] != 0)
			continue;
		for (int k = 0; k < ROUNDS; k++) {
			struct session s = SESSION_INIT;

			if (session_create(&s, &t.root, &t.project, "claude", NULL, NULL) < 0 || !exists(s.dir_fd, SESSION_JSON))
				_exit(1);
			others_turn();
			if (session_write_json(&s) < 0 || session_end(&s, SESSION_EXIT, 0, NULL) < 0)
				_exit(1);
			session_done(&s);
			others_turn();
		}
		_exit(0);
	}
	while (left > 0) {
		pid_t pid;

		CHECK_INT(registry_reap(&t.root, 0, NULL, &err), ==, 0);
		CHECK_INT(registry_list(&t.root, SESSIONS_LIVE | SESSIONS_ENDED, &list, &err), ==, 0);
		CHECK_INT(list.warnings.n, ==, 0);
		session_list_done(&list);
		others_turn();
		pid = waitpid(-1, &status, WNOHANG);
		if (pid > 0) {
			CHECK_INT(status, ==, 0);
			left--;
		}
	}
	CHECK_INT(registry_list(&t.root, SESSIONS_LIVE | SESSIONS_ENDED, &list, &err), ==, 0);
	CHECK_INT(list.n, >=, MAKERS * ROUNDS / 2);
	for (size_t i = 0; i < list.n; i++)
		CHECK_INT(list.v[i].result, ==, SESSION_EXIT);
	session_list_done(&list);
	state_end(&t);
}

TEST(session_of_a_newer_version_is_left_alone)
{
	static const char newer[] = "{\"version\": 2}";
	struct session_list list;
	unsigned int n = 1;
	struct launcher l;
	struct state t;
	struct err err;
	AUTO_FD(dir);

	state_begin(&t);
	l = launcher_start(&t, "claude", false);
	dir = registry_open_session(&t.root, l.name);
	CHECK_INT(file_replace_at(dir, SESSION_JSON, newer, strlen(newer), 0600), ==, 0);
	CHECK_INT(registry_list(&t.root, SESSIONS_LIVE, &list, &err), ==, 0);
	CHECK_INT(list.n, ==, 0);
	CHECK_INT(list.warnings.n, ==, 1);
	CHECK(strstr(list.warnings.v[0], "newer"));
	session_list_done(&list);
	launcher_kill(&l);
	CHECK_INT(registry_reap(&t.root, 0, &n, &err), ==, 0);
	CHECK_INT(n, ==, 0);
	CHECK(exists(t.root.sessions_fd, l.name));
	CHECK(is_running(l.child));
	CHECK_INT(kill(l.child, SIGKILL), ==, 0);
	state_end(&t);
}

TEST(death_in_the_middle_of_making_or_ending)
{
	struct session_info info;
	unsigned int n = 0;
	struct state t;
	struct err err;
	AUTO_FD(logs);

	state_begin(&t);
	/* made, not yet locked, no record */
	CHECK_INT(mkdirat(t.root.sessions_fd, "agent-vm-7d73bf4fdeae-1", 0700), ==, 0);
	/* ended in its record, folder not yet removed */
	CHECK_INT(mkdirat(t.root.sessions_fd, "agent-vm-7d73bf4fdeae-2", 0700), ==, 0);
	CHECK_INT(mkdirat(t.root.logs_fd, "agent-vm-7d73bf4fdeae-2", 0700), ==, 0);
	logs = registry_open_logs(&t.root, "agent-vm-7d73bf4fdeae-2");
	session_info_from_name("agent-vm-7d73bf4fdeae-2", &info);
	info.result = SESSION_EXIT;
	info.exit_status = 5;
	info.started_ms = info.ended_ms = time(NULL) * INT64_C(1000);
	CHECK_INT(session_info_write(logs, &info, true), ==, 0);
	session_info_done(&info);
	CHECK_INT(registry_reap(&t.root, 0, &n, &err), ==, 0);
	CHECK_INT(n, ==, 2);
	CHECK(!exists(t.root.sessions_fd, "agent-vm-7d73bf4fdeae-1"));
	CHECK(!exists(t.root.sessions_fd, "agent-vm-7d73bf4fdeae-2"));
	ended_info(&t, "agent-vm-7d73bf4fdeae-1", &info);
	CHECK_INT(info.result, ==, SESSION_LOST);
	CHECK_STR(info.hash, "7d73bf4fdeae");
	session_info_done(&info);
	ended_info(&t, "agent-vm-7d73bf4fdeae-2", &info);
	CHECK_INT(info.result, ==, SESSION_EXIT);
	CHECK_INT(info.exit_status, ==, 5);
	session_info_done(&info);
	state_end(&t);
}
