#include "state.h"

#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

TEST(session_has_its_folders_and_record_and_leaves_only_logs)
{
	static const char *const words[] = { "--env", "A=geheim", "--env=B=geheim", "--env", "C", "--mount", "/a=b", NULL };
	struct session_info info = { .hash = "" };
	struct session s = SESSION_INIT;
	AUTO_FREE(char, text);
	AUTO_FREE(char, name);
	struct state t;
	struct err err;
	int sock = -1;

	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", words, &err), ==, 0);
	CHECK(s.lock_fd >= 0 && (fcntl(s.lock_fd, F_GETFD) & FD_CLOEXEC));
	CHECK(exists(t.root.fd, t.project.hash));
	CHECK(exists(t.root.projects_fd, t.project.hash));
	CHECK_INT(session_listen(s.dir_fd, SESSION_SOCK, &sock), ==, 0);
	CHECK_INT(file_replace_at(s.dir_fd, SESSION_DISK, "d", 1, 0600), ==, 0);
	CHECK_INT(file_replace_at(s.log_fd, "launcher.log", "l\n", 2, 0600), ==, 0);
	session_add_row(&s, "project", "rw /home/user/proj");
	CHECK_INT(session_set_vm(&s, "img", "qemu", xstrdup("/sys/fs/cgroup/a\xff/b")), ==, 0);
	CHECK_INT(session_add_child(&s, "vault", getpid()), ==, 0);
	CHECK_INT(file_read_beneath(s.dir_fd, SESSION_JSON, 1 << 20, &text, NULL), ==, 0);
	CHECK(!strstr(text, "geheim"));
	CHECK_INT(session_info_read(s.dir_fd, &info, &err), ==, 0);
	CHECK_STR(info.name, s.info.name);
	CHECK_STR(info.project, t.project.path);
	CHECK_STR(info.verb, "claude");
	CHECK_STR(info.monitor, "qemu");
	CHECK_STR(info.cgroup, "/sys/fs/cgroup/a\xff/b");
	CHECK_INT(info.launcher.pid, ==, getpid());
	CHECK(info.launcher.start == s.info.launcher.start && info.launcher.start > 0);
	CHECK(info.launcher.pid_ns == s.info.launcher.pid_ns && info.launcher.pid_ns > 0);
	CHECK_STR(info.launcher.boot_id, s.info.launcher.boot_id);
	CHECK_INT(info.n_children, ==, 1);
	CHECK_STR(info.children[0].role, "vault");
	CHECK_INT(info.n_rows, ==, 1);
	CHECK_STR(info.options.v[1], "A=***");
	CHECK_STR(info.options.v[2], "--env=B=***");
	CHECK_STR(info.options.v[4], "C");
	CHECK_STR(info.options.v[6], "/a=b");
	session_info_done(&info);

	name = xstrdup(s.info.name);
	/* Not the session's own group, whatever it is: left alone, and told. */
	CHECK_INT(session_end(&s, SESSION_EXIT, 7, "caus\xff" "e"), ==, -EINVAL);
	CHECK_INT(session_end(&s, SESSION_LOST, 1, "again"), ==, 0);
	CHECK(!exists(t.root.sessions_fd, name));
	CHECK_INT(session_write_json(&s), ==, -EINVAL);
	session_done(&s);
	session_done(&s);
	ended_info(&t, name, &info);
	CHECK_INT(info.result, ==, SESSION_EXIT);
	CHECK_INT(info.exit_status, ==, 7);
	CHECK_STR(info.cause, "caus\\xffe");
	CHECK(info.ended_ms >= info.started_ms && info.started_ms > 0);
	session_info_done(&info);
	(void)close(sock);
	state_end(&t);
}

TEST(forked_child_cannot_end_the_session)
{
	struct session s = SESSION_INIT;
	struct state t;
	struct err err;
	pid_t pid;

	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "shell", NULL, &err), ==, 0);
	pid = fork();
	if (pid == 0) {
		session_done(&s);
		_exit(0);
	}
	CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
	CHECK(exists(s.dir_fd, SESSION_JSON));
	CHECK(!registry_is_gone(&t.root, s.info.name));
	session_done(&s);
	state_end(&t);
}

TEST(second_session_of_one_process_gets_a_name_of_its_own)
{
	struct session a = SESSION_INIT, b = SESSION_INIT, c = SESSION_INIT;
	struct strv notes = { NULL }, names = { NULL };
	struct state t;
	struct err err;

	state_begin(&t);
	CHECK_INT(session_create(&a, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_INT(session_create(&b, &t.root, &t.project, "shell", NULL, &err), ==, 0);
	CHECK(strcmp(b.info.name + strlen(b.info.name) - 2, "-2") == 0);
	CHECK_INT(session_others_note(&b, &notes, &names), ==, 1);
	CHECK_INT(names.n, ==, 1);
	CHECK_STR(names.v[0], a.info.name);
	CHECK(str_starts(notes.v[0], "another session runs in this project: claude, pid "));
	CHECK(strstr(notes.v[0], "; history and settings are shared"));
	strv_done(&notes);
	session_done(&a);
	CHECK_INT(session_others_note(&b, &notes, &names), ==, 0);
	CHECK_INT(names.n, ==, 1);
	strv_done(&names);
	/* The logs of the first are still there, so its name is not used again. */
	CHECK_INT(session_create(&c, &t.root, &t.project, "shell", NULL, &err), ==, 0);
	CHECK(strcmp(c.info.name + strlen(c.info.name) - 2, "-3") == 0);
	session_done(&b);
	session_done(&c);
	state_end(&t);
}

TEST(sockets_in_a_very_deep_folder)
{
	struct session s = SESSION_INIT;
	AUTO_FREE(char, path);
	struct state_root root;
	char byte = 0;
	struct state t;
	struct err err;
	int listener = -1, client = -1, conn;

	state_begin(&t);
	path = xasprintf("%s/%0200d/%0200d", t.dir, 1, 2);
	CHECK_INT(state_root_open(path, true, &root, &err), ==, 0);
	CHECK_INT(session_create(&s, &root, &t.project, "claude", NULL, &err), ==, 0);
	CHECK_INT(session_listen(s.dir_fd, SESSION_SOCK, &listener), ==, 0);
	CHECK_INT(session_connect(s.dir_fd, SESSION_SOCK, &client), ==, 0);
	conn = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	CHECK_INT(conn, >=, 0);
	CHECK_INT(write(client, "x", 1), ==, 1);
	CHECK_INT(read(conn, &byte, 1), ==, 1);
	CHECK_INT(byte, ==, 'x');
	CHECK_INT(session_connect(s.log_fd, SESSION_SOCK, &client), ==, -ENOENT);
	(void)close(conn);
	(void)close(client);
	(void)close(listener);
	session_done(&s);
	state_root_close(&root);
	state_end(&t);
}

TEST(path_of_any_bytes_survives_the_record)
{
	struct session_info info = { .hash = "7d73bf4fdeae", .name = "agent-vm-7d73bf4fdeae-1" }, back = { .hash = "" };
	AUTO_FREE(char, text);
	struct err err;
	json_t *obj;

	info.project = xstrdup("/srv/a\xff\x1b" "b");
	info.verb = xstrdup("claude");
	obj = session_info_to_json(&info);
	CHECK_STR(json_string_value(json_object_get(obj, "project")), "/srv/a\\xff\\x1bb");
	text = json_dumps(obj, 0);
	json_decref(obj);
	CHECK_INT(session_info_parse(text, strlen(text), &back, &err), ==, 0);
	CHECK_STR(back.project, info.project);
	session_info_done(&back);
	session_info_done(&info);
}

TEST(record_of_a_newer_version_is_refused)
{
	static const char newer[] = "{\"version\": 2, \"name\": \"agent-vm-7d73bf4fdeae-1\"}";
	static const char *const bad[] = { "", "[]", "{}", "{\"version\": 1}", "{\"version\": 0}", "{\"version\"", "\xff" };
	struct session_info info = { .hash = "x" };
	struct err err;

	CHECK_INT(session_info_parse(newer, strlen(newer), &info, &err), ==, -EOPNOTSUPP);
	CHECK(strstr(err.text, "newer"));
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		CHECK_INT(session_info_parse(bad[i], strlen(bad[i]), &info, &err), ==, -EBADMSG);
	CHECK_STR(info.hash, "x");
}

/* A writer is killed at any moment, again and again: what stands there is always whole. */
TEST(record_is_whole_whenever_the_writer_dies)
{
	struct session_info info;
	struct session s = SESSION_INIT;
	volatile int *written = mmap(NULL, sizeof(*written), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct state t;
	struct err err;

	CHECK(written != MAP_FAILED);
	state_begin(&t);
	CHECK_INT(session_create(&s, &t.root, &t.project, "claude", NULL, &err), ==, 0);
	for (int i = 0; i < 60; i++) {
		pid_t pid;

		*written = 0;
		pid = fork();
		if (pid == 0) {
			s.owner = getpid();
			for (;;) {
				session_add_row(&s, "row", "a text that makes the file longer each time it is written");
				(void)session_write_json(&s);
				(*written)++;
			}
		}
		/* How long one write takes is the machine's affair. */
		while (*written == 0 && waitpid(pid, NULL, WNOHANG) == 0)
			(void)usleep(100);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 1000000L + 731000L * (i % 17) }, NULL);
		CHECK_INT(kill(pid, SIGKILL), ==, 0);
		CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
		if (session_info_read(s.dir_fd, &info, &err) < 0)
			fail_msg("after %d: %s", i, err.text);
		CHECK_INT(info.n_rows, >, 0);
		session_info_done(&info);
	}
	(void)munmap((void *)written, sizeof(*written));
	CHECK_INT(session_write_json(&s), ==, 0);
	session_done(&s);
	state_end(&t);
}

TEST(project_lock_names_its_holder)
{
	AUTO_FREE(char, who);
	AUTO_FD(fd);
	struct state t;
	struct err err;

	state_begin(&t);
	fd = project_lock_try(&t.root, t.project.hash, "agent-vm-x-1, pid 1", &err);
	CHECK_INT(fd, >=, 0);
	CHECK_INT(project_lock_try(&t.root, t.project.hash, "me", &err), ==, -EWOULDBLOCK);
	CHECK(strstr(err.text, "agent-vm-x-1, pid 1") && strstr(err.text, "agent-vm stop"));
	who = project_lock_holder(&t.root, t.project.hash);
	CHECK_STR(who, "agent-vm-x-1, pid 1");
	state_end(&t);
}

static void heard(const char *holder, void *arg)
{
	(void)snprintf(arg, 64, "%s", holder);
}

static bool at_once(void *arg)
{
	return true;
}

TEST(project_lock_is_waited_for)
{
	char said[64] = "";
	struct state t;
	struct err err;
	int fd, status, pipefd[2], go[2];
	char byte;
	pid_t pid;

	state_begin(&t);
	CHECK_INT(pipe2(pipefd, O_CLOEXEC), ==, 0);
	CHECK_INT(pipe2(go, O_CLOEXEC), ==, 0);
	pid = fork();
	if (pid == 0) {
		fd = project_lock_try(&t.root, t.project.hash, "child", NULL);
		(void)close(go[1]);
		(void)fd_write_all(pipefd[1], "x", 1);
		(void)fd_read_exact(go[0], &byte, 1);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 400000000L }, NULL);
		_exit(fd < 0);
	}
	CHECK_INT(fd_read_exact(pipefd[0], &byte, 1), ==, 0);
	CHECK_INT(project_lock_wait(&t.root, t.project.hash, "me", 0, 1000, NULL, at_once, NULL, &err), ==, -ECANCELED);
	CHECK_INT(project_lock_wait(&t.root, t.project.hash, "me", 0, 50, heard, NULL, said, &err), ==, -EWOULDBLOCK);
	CHECK_STR(said, "child");
	said[0] = '\0';
	CHECK_INT(fd_write_all(go[1], "x", 1), ==, 0);
	fd = project_lock_wait(&t.root, t.project.hash, "me", 20000, 60000, heard, NULL, said, &err);
	CHECK_INT(fd, >=, 0);
	CHECK_STR(said, "");
	(void)close(fd);
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	CHECK_INT(status, ==, 0);
	(void)close(pipefd[0]);
	(void)close(pipefd[1]);
	(void)close(go[0]);
	(void)close(go[1]);
	state_end(&t);
}
