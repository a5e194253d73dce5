/* The process that renews: real lock, real program (a script of the test's), and vault's end of the messages. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../unit/state.h"
#include "cli/renewer.h"
#include "proto/netmsg.h"
#include "session/renewlock.h"
#include "vault/renew.h"

static struct {
	struct state state;
	struct creds creds;
	struct renewer *r;
	struct loginwatch watch;
	int vault[2]; /* [0] the launcher's end */
	char dir[128];
} t;

static void write_script(const char *text)
{
	AUTO_FREE(char, path);
	int fd;

	path = xasprintf("%s/claude", t.dir);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	CHECK(fd >= 0);
	CHECK_INT(fd_write_all(fd, text, strlen(text)), ==, 0);
	(void)close(fd);
}

static void begin(const char *script)
{
	struct strv logins = { 0 };

	memset(&t, 0, sizeof(t));
	state_begin(&t.state);
	CHECK_INT(setenv("XDG_RUNTIME_DIR", "", 1), ==, 0);
	(void)snprintf(t.dir, sizeof(t.dir), "%s", t.state.dir);
	write_script(script);
	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, t.vault), ==, 0);
	t.creds.n_sources = 1;
	t.creds.sources[0] = (struct creds_source){ .kind = SOURCE_ANTHROPIC,
						    .fd = -1,
						    .name = ".credentials.json",
						    .path = xasprintf("%s/.credentials.json", t.dir),
						    .program = xasprintf("%s/claude", t.dir) };
	strv_add(&logins, t.creds.sources[0].path);
	loginwatch_begin(&logins, &t.watch);
	strv_done(&logins);
	t.r = renewer_new(&t.creds, &t.state.root, &t.watch);
	CHECK(t.r != NULL);
}

static void end(void)
{
	renewer_free(t.r);
	loginwatch_done(&t.watch);
	creds_done(&t.creds);
	(void)close(t.vault[0]);
	(void)close(t.vault[1]);
	state_end(&t.state);
}

/* Vault asks, the launcher serves it as its loop does. */
static struct vault_renewed ask_of(struct renewer *r, unsigned prov, unsigned act, unsigned program)
{
	struct vault_renew m = { NET_CTL_RENEW, (uint8_t)prov, (uint8_t)act, (uint8_t)program };
	struct vault_renewed a = { 0 };

	(void)renewer_ask(r, &m, t.vault[0]);
	for (int i = 0; i < 6000; i++) {
		ssize_t n = recv(t.vault[1], &a, sizeof(a), MSG_DONTWAIT);

		if (n == sizeof(a))
			return a;
		if (renewer_fd(r, 0) >= 0)
			(void)renewer_read(r, 0, t.vault[0]);
		(void)usleep(10000);
	}
	fail_msg("no answer");
	return a;
}

#define ASK(act, program) ask_of(t.r, PROV_ANTHROPIC, act, program)

static void unlock(void)
{
	struct vault_renew m = { NET_CTL_RENEW, PROV_ANTHROPIC, VAULT_RENEW_UNLOCK, 0 };

	(void)renewer_ask(t.r, &m, t.vault[0]);
}

/* It is heard when the process comes to it. */
static void until_unlocked(void)
{
	struct renewlock l;
	AUTO_FD(fd);

	renewlock_init(&l, t.state.root.locks_fd, "anthropic", t.creds.sources[0].path);
	for (int i = 0; i < 6000 && (fd = renewlock_try(&l)) < 0; i++)
		(void)usleep(10000);
	CHECK_INT(fd, >=, 0);
}

static bool made(const char *name)
{
	struct stat st;
	AUTO_FREE(char, path);

	path = xasprintf("%s/%s", t.dir, name);
	return stat(path, &st) == 0;
}

TEST(lock_run_unlock)
{
	struct renewer *other;
	struct vault_renewed a;

	begin("#!/bin/sh\necho \"$@\" > \"$(dirname \"$0\")/ran\"\necho said it >&2\nexit 1\n");
	other = renewer_new(&t.creds, &t.state.root, &t.watch);
	a = ASK(VAULT_RENEW_LOCK, 0);
	CHECK_INT(a.result, ==, 0);
	CHECK_INT(a.age_ms, ==, -1);
	CHECK_INT(a.act, ==, VAULT_RENEW_LOCK);
	/* Another session of the user, of whatever project. */
	a = ask_of(other, PROV_ANTHROPIC, VAULT_RENEW_LOCK, 0);
	CHECK_INT(a.result, ==, -EWOULDBLOCK);
	a = ask_of(other, PROV_ANTHROPIC, VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS);
	CHECK_INT(a.result, ==, -ENOLCK);
	CHECK(!made("ran"));
	a = ASK(VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS);
	CHECK_INT(a.result, ==, 0);
	CHECK_STR(a.errors, "said it\n");
	CHECK(made("ran"));
	unlock();
	for (int i = 0; i < 1000 && (a = ask_of(other, PROV_ANTHROPIC, VAULT_RENEW_LOCK, 0)).result != 0; i++)
		(void)usleep(10000);
	CHECK_INT(a.result, ==, 0);
	CHECK(a.age_ms >= 0 && a.age_ms < 20000);
	renewer_free(other);
	end();
}

static size_t changed(void)
{
	struct strv left = { 0 };
	size_t n;

	loginwatch_compare(&t.watch, &left);
	n = left.n;
	strv_done(&left);
	return n;
}

TEST(what_its_program_writes_is_no_change_by_others)
{
	begin("#!/bin/sh\necho new > \"$(dirname \"$0\")/.credentials.json\"\n");
	CHECK_INT(ASK(VAULT_RENEW_LOCK, 0).result, ==, 0);
	CHECK_INT(ASK(VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS).result, ==, 0);
	CHECK(made(".credentials.json"));
	CHECK_INT(changed(), ==, 0);
	CHECK_INT(unlink(t.creds.sources[0].path), ==, 0);
	CHECK_INT(changed(), ==, 1);
	end();
}

/* As another session of the user sees it. */
static bool wrote(void)
{
	return renewer_wrote(&t.state.root, SOURCE_ANTHROPIC, t.creds.sources[0].path);
}

TEST(what_it_writes_is_known_to_other_sessions_until_somebody_else_writes)
{
	struct loginwatch other;
	struct strv logins = { 0 }, left = { 0 };
	int fd;

	begin("#!/bin/sh\necho new > \"$(dirname \"$0\")/.credentials.json\"\n");
	strv_add(&logins, t.creds.sources[0].path);
	loginwatch_begin(&logins, &other);
	other.ours = renewer_wrote;
	other.arg = &t.state.root;
	CHECK(!wrote());
	CHECK_INT(ASK(VAULT_RENEW_LOCK, 0).result, ==, 0);
	CHECK_INT(ASK(VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS).result, ==, 0);
	CHECK(wrote()); /* the lock is still held */
	unlock();
	loginwatch_compare(&other, &left);
	CHECK_INT(left.n, ==, 0);
	until_unlocked();
	CHECK(wrote());
	loginwatch_compare(&other, &left);
	CHECK_INT(left.n, ==, 0);
	CHECK(!renewer_wrote(&t.state.root, SOURCE_OPENAI, t.creds.sources[0].path));
	CHECK(!renewer_wrote(&t.state.root, SOURCE_OPENCODE, t.creds.sources[0].path));
	fd = open(t.creds.sources[0].path, O_WRONLY | O_TRUNC);
	CHECK_INT(fd_write_all(fd, "by another\n", 11), ==, 0);
	(void)close(fd);
	CHECK(!wrote());
	loginwatch_compare(&other, &left);
	CHECK_INT(left.n, ==, 1);
	CHECK(strstr(left.v[0], "/.credentials.json (new)"));
	/* A renewal that writes nothing does not make it its own. */
	write_script("#!/bin/sh\nexit 0\n");
	CHECK_INT(ASK(VAULT_RENEW_LOCK, 0).result, ==, 0);
	CHECK_INT(ASK(VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS).result, ==, 0);
	unlock();
	until_unlocked();
	CHECK(!wrote());
	CHECK_INT(unlink(t.creds.sources[0].path), ==, 0);
	CHECK(!wrote());
	strv_done(&left);
	strv_done(&logins);
	loginwatch_done(&other);
	end();
}

TEST(what_is_out_of_order_is_answered_and_runs_nothing)
{
	struct vault_renewed a;

	begin("#!/bin/sh\n: > \"$(dirname \"$0\")/ran\"\n");
	a = ask_of(t.r, PROV_OPENAI, VAULT_RENEW_LOCK, 0);
	CHECK_INT(a.result, ==, -EINVAL);
	a = ask_of(t.r, 200, VAULT_RENEW_LOCK, 0);
	CHECK_INT(a.result, ==, -EINVAL);
	a = ASK(VAULT_RENEW_RUN, RENEW_CODEX_EXEC);
	CHECK_INT(a.result, ==, -EINVAL);
	a = ASK(VAULT_RENEW_RUN, 99);
	CHECK_INT(a.result, ==, -EINVAL);
	a = ASK(77, 0);
	CHECK_INT(a.result, ==, -EINVAL);
	a = ASK(VAULT_RENEW_RUN, RENEW_CLAUDE_PROMPT);
	CHECK_INT(a.result, ==, -ENOLCK);
	CHECK(!made("ran"));
	a = ask_of(NULL, PROV_ANTHROPIC, VAULT_RENEW_LOCK, 0);
	CHECK_INT(a.result, ==, -EINVAL);
	end();
}

TEST(it_keeps_no_lock_of_the_launcher_and_ends_with_it)
{
	struct vault_renew run = { NET_CTL_RENEW, PROV_ANTHROPIC, VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS };
	AUTO_FREE(char, text);
	AUTO_FREE(char, pidfile);
	int lock, again, fd = -1;
	uint64_t pid = 0;

	begin("#!/bin/sh\ntrap '' TERM\necho $$ > \"$(dirname \"$0\")/pid.new\"\nmv \"$(dirname \"$0\")/pid.new\" "
	      "\"$(dirname \"$0\")/pid\"\n"
	      "while :; do sleep 0.1; done\n");
	lock = lock_file_at(t.state.root.locks_fd, "of-the-session", 0);
	CHECK(lock >= 0);
	CHECK_INT(ASK(VAULT_RENEW_LOCK, 0).result, ==, 0);
	(void)close(lock);
	again = lock_file_at(t.state.root.locks_fd, "of-the-session", 0);
	CHECK_INT(again, >=, 0);
	(void)close(again);
	CHECK_INT(renewer_ask(t.r, &run, t.vault[0]), ==, -1);
	for (int i = 0; i < 3000 && !made("pid"); i++)
		(void)usleep(10000);
	pidfile = xasprintf("%s/pid", t.dir);
	fd = open(pidfile, O_RDONLY | O_CLOEXEC);
	CHECK_INT(fd_read_file(fd, 64, &text, NULL), ==, 0);
	text[strcspn(text, "\n")] = '\0';
	CHECK_INT(str_u64(text, INT32_MAX, &pid), ==, 0);
	(void)close(fd);
	CHECK(is_running((pid_t)pid));
	renewer_free(t.r);
	t.r = NULL;
	for (int i = 0; i < 3000 && is_running((pid_t)pid); i++)
		(void)usleep(10000);
	CHECK(!is_running((pid_t)pid));
	/* And its lock is free for others. */
	until_unlocked();
	end();
}

/* --- kill -9 (credentials page 14, no. 27) --- */

#define OLD "{\"claudeAiOauth\":{\"accessToken\":\"old\"}}\n"

/* Begins to write, as its own program would, and comes to no end. */
static const char half[] = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\nprintf '{\"claudeAi' > .credentials.json.tmp\n"
			   "echo \"$PPID $$\" > pids.new\nmv pids.new pids\nwhile :; do sleep 0.1; done\n";

static void write_login(const char *text)
{
	int fd = open(t.creds.sources[0].path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	CHECK_INT(fd_write_all(fd, text, strlen(text)), ==, 0);
	(void)close(fd);
}

static char *content(const char *name)
{
	AUTO_FREE(char, path);
	char *text = NULL;
	AUTO_FD(fd);

	path = xasprintf("%s/%s", t.dir, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	CHECK_INT(fd_read_file(fd, 256, &text, NULL), ==, 0);
	return text;
}

/* A launcher in the middle of a renewal. Its exit status: 0 when it hears that its process is lost. */
static pid_t launcher(void)
{
	struct vault_renew run = { NET_CTL_RENEW, PROV_ANTHROPIC, VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS };
	struct vault_renewed a = { 0 };
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid > 0)
		return pid;
	/* A vault of its own. */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, t.vault) < 0 || ASK(VAULT_RENEW_LOCK, 0).result != 0)
		_exit(2);
	(void)renewer_ask(t.r, &run, t.vault[0]);
	for (int i = 0; i < 3000; i++, (void)usleep(10000)) {
		if (recv(t.vault[1], &a, sizeof(a), MSG_DONTWAIT) == sizeof(a))
			_exit(a.act == VAULT_RENEW_RUN && a.result == -EIO ? 0 : 3);
		if (renewer_fd(t.r, 0) >= 0)
			(void)renewer_read(t.r, 0, t.vault[0]);
	}
	_exit(4);
}

static size_t work_folders(void)
{
	int fd = openat(t.state.root.locks_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fdopendir(fd);
	size_t n = 0;

	CHECK(d);
	for (struct dirent *e; (e = readdir(d));)
		n += str_starts(e->d_name, "renew-");
	(void)closedir(d);
	return n;
}

TEST(whoever_is_killed_in_the_middle_leaves_a_free_lock_and_a_whole_file)
{
	enum { LAUNCHER = 1, PROCESS = 2 };

	for (int who = LAUNCHER; who <= (LAUNCHER | PROCESS); who++) {
		uint64_t process = 0, program = 0;
		struct vault_renewed a = { 0 };
		AUTO_FREE(char, pids);
		AUTO_FREE(char, login);
		AUTO_FREE(char, next);
		int status = 0;
		pid_t pid;
		char *sep;

		begin(half);
		write_login(OLD);
		pid = launcher();
		for (int i = 0; i < 2000 && !made("pids"); i++)
			(void)usleep(10000);
		pids = content("pids");
		sep = strchr(pids, ' ');
		CHECK(sep);
		*sep = '\0';
		sep[1 + strcspn(sep + 1, "\n")] = '\0';
		CHECK(str_u64(pids, INT32_MAX, &process) == 0 && str_u64(sep + 1, INT32_MAX, &program) == 0);
		CHECK(is_running((pid_t)process) && is_running((pid_t)program) && (pid_t)process != pid);
		a = ASK(VAULT_RENEW_LOCK, 0);
		CHECK_INT(a.result, ==, -EWOULDBLOCK);

		if (who & LAUNCHER)
			CHECK_INT(kill(pid, SIGKILL), ==, 0);
		if (who & PROCESS)
			(void)kill((pid_t)process, SIGKILL); /* with the launcher gone it may be quicker */
		CHECK_INT(waitpid(pid, &status, 0), ==, pid);
		if (who == PROCESS)
			CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
		for (int i = 0; i < 3000 && (is_running((pid_t)process) || is_running((pid_t)program)); i++)
			(void)usleep(10000);
		CHECK(!is_running((pid_t)process) && !is_running((pid_t)program));
		login = content(".credentials.json");
		CHECK_STR(login, OLD);

		/* The next session. */
		renewer_free(t.r);
		t.r = renewer_new(&t.creds, &t.state.root, &t.watch);
		CHECK_INT(work_folders(), ==, 0);
		write_script("#!/bin/sh\ncd \"$(dirname \"$0\")\"\necho new > .credentials.json.tmp\nmv "
			     ".credentials.json.tmp .credentials.json\n");
		a = ASK(VAULT_RENEW_LOCK, 0);
		CHECK_INT(a.result, ==, 0);
		CHECK(a.age_ms >= 0); /* so that vault starts no second program at once */
		CHECK_INT(ASK(VAULT_RENEW_RUN, RENEW_CLAUDE_STATUS).result, ==, 0);
		next = content(".credentials.json");
		CHECK_STR(next, "new\n");
		end();
	}
}
