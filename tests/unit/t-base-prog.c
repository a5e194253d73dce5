#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/prog.h"

static char *sh(const char *line, int timeout_ms, int want)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)line, NULL };
	struct prog p = PROG_INIT;
	struct err err = { 0 };
	char *out = NULL;
	int r;

	p.path = "/bin/sh";
	p.argv = argv;
	r = prog_output(&p, 4096, timeout_ms, &out, &err);
	if (r != want)
		fail_msg("%s: %d, not %d (%s)", line, r, want, err.text);
	return out;
}

static void write_program(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);

	CHECK(fd >= 0 && write(fd, "#!/bin/sh\n", 10) == 10);
	close(fd);
}

TEST(programs_of_a_folder_that_a_guest_can_write_are_passed_over)
{
	char dir[] = "/tmp/t-base-prog-XXXXXX", *old = xstrdup(getenv("PATH")), *ret = NULL;
	AUTO_FREE(char, project);
	AUTO_FREE(char, own);
	AUTO_FREE(char, other);
	AUTO_FREE(char, link);
	AUTO_FREE(char, path);

	CHECK(mkdtemp(dir));
	project = xasprintf("%s/project", dir);
	own = xasprintf("%s/project/agent-vm-t", dir);
	other = xasprintf("%s/projectile/agent-vm-t", dir);
	link = xasprintf("%s/projectile/agent-vm-l", dir);
	path = xasprintf("%s/project:%s/projectile:/usr/bin", dir, dir);
	CHECK(mkdir(project, 0755) == 0);
	*strrchr(other, '/') = '\0';
	CHECK(mkdir(other, 0755) == 0);
	other[strlen(other)] = '/';
	write_program(own);
	CHECK(symlink(own, link) == 0);
	setenv("PATH", path, 1);
	CHECK_INT(prog_find("agent-vm-t", &ret), ==, 0);
	CHECK_STR(ret, own);
	free(ret);
	prog_shun(project);
	CHECK_INT(prog_find("agent-vm-t", &ret), ==, -EPERM);
	/* Through a link that lies elsewhere. */
	CHECK_INT(prog_find("agent-vm-l", &ret), ==, -EPERM);
	/* A name that only begins alike. */
	write_program(other);
	CHECK_INT(prog_find("agent-vm-t", &ret), ==, 0);
	CHECK_STR(ret, other);
	free(ret);
	CHECK_INT(prog_find("agent-vm-none", &ret), ==, -ENOENT);
	prog_shun("/");
	CHECK_INT(prog_find("sh", &ret), ==, 0);
	CHECK(strstr(ret, "project") == NULL);
	free(ret);
	setenv("PATH", old, 1);
	free(old);
	(void)unlink(own);
	(void)unlink(link);
	(void)unlink(other);
	(void)rmdir(project);
	*strrchr(other, '/') = '\0';
	(void)rmdir(other);
	(void)rmdir(dir);
}

TEST(a_program_gets_a_cleaned_environment)
{
	char *out;

	setenv("LD_LIBRARY_PATH", "/nowhere", 1);
	setenv("GIT_DIR", "/nowhere", 1);
	setenv("BASH_ENV", "/nowhere", 1);
	setenv("ENV", "/nowhere", 1);
	setenv("NODE_OPTIONS", "x", 1);
	setenv("MY_TOKEN", "x", 1);
	setenv("https_proxy", "http://proxy.example:1", 1);
	out = sh("env; pwd", 30000, 0);
	CHECK(!strstr(out, "nowhere"));
	CHECK(!strstr(out, "NODE_OPTIONS"));
	CHECK(!strstr(out, "MY_TOKEN"));
	CHECK(strstr(out, "https_proxy=http://proxy.example:1\n"));
	CHECK(strstr(out, "PATH=/usr/local/sbin:"));
	CHECK(strstr(out, "\n/\n"));
	free(out);
}

TEST(a_program_of_the_users_gets_his_environment)
{
	char dir[] = "/tmp/t-base-prog-XXXXXX", *old = xstrdup(getenv("PATH"));
	struct strv env = { 0 }, taken = { 0 };
	AUTO_FREE(char, path);
	AUTO_FREE(char, want);
	AUTO_FREE(char, all);
	AUTO_FREE(char, huge);

	CHECK(mkdtemp(dir));
	prog_shun(dir);
	path = xasprintf("relative:%s:/usr/bin::/nonexistent:/bin", dir);
	setenv("PATH", path, 1);
	setenv("AWS_PROFILE", "work", 1);
	setenv("GNUPGHOME", "/g=1", 1);
	huge = xcalloc(1, 131060);
	memset(huge, 'x', 131050);
	setenv("HUGE", huge, 1);
	prog_user_env(&env);
	unsetenv("HUGE");
	all = xstrdup("\n");
	for (size_t i = 0; i < env.n; i++) {
		CHECK(str_starts(env.v[i], PROG_USER_ENV));
		str_append(&all, env.v[i] + strlen(PROG_USER_ENV));
		str_append(&all, "\n");
		CHECK_INT(putenv(env.v[i]), ==, 0);
	}
	CHECK(strstr(all, "\nAWS_PROFILE=work\n") && strstr(all, "\nGNUPGHOME=/g=1\n") && strstr(all, "\nMY_TOKEN=x\n"));
	CHECK(strstr(all, "\nPATH=/usr/bin:/bin\n") && !strstr(all, dir));
	CHECK(!strstr(all, "nowhere") && !strstr(all, "NODE_OPTIONS") && !strstr(all, "HUGE"));
	/* The other side: all of it is taken, and nothing is left where the role could be made to read it. */
	prog_user_env_take(&taken);
	CHECK_INT(taken.n, ==, env.n);
	prog_user_env_forget();
	for (size_t i = 0; i < env.n; i++)
		CHECK_STR(env.v[i], "");
	CHECK(!getenv(PROG_USER_ENV "AWS_PROFILE"));
	CHECK_STR(getenv("AWS_PROFILE"), "work");
	setenv("PATH", dir, 1);
	strv_done(&env);
	prog_user_env(&env);
	want = xasprintf("%sPATH=/usr/local/sbin:", PROG_USER_ENV);
	CHECK(str_starts(env.v[0], want));
	setenv("PATH", old, 1);
	unsetenv("AWS_PROFILE");
	unsetenv("GNUPGHOME");
	strv_done(&env);
	strv_done(&taken);
	free(old);
	(void)rmdir(dir);
}

/* In the environment that programs get. */
static bool has_head(const char *head)
{
	struct strv env = { 0 };
	bool found = false;

	prog_env(&env);
	for (size_t i = 0; i < env.n; i++)
		found |= str_starts(env.v[i], head);
	strv_done(&env);
	return found;
}

TEST(certificates_where_a_guest_writes_are_not_named_to_programs)
{
	char dir[] = "/tmp/t-base-prog-XXXXXX";
	AUTO_FREE(char, list);

	CHECK(mkdtemp(dir));
	list = xasprintf("/etc/ssl/certs:%s", dir);
	setenv("SSL_CERT_FILE", "/etc/passwd", 1);
	setenv("SSL_CERT_DIR", list, 1);
	CHECK(has_head("SSL_CERT_FILE=/etc/passwd") && has_head("SSL_CERT_DIR="));
	prog_shun(dir);
	CHECK(has_head("SSL_CERT_FILE=/etc/passwd") && !has_head("SSL_CERT_DIR="));
	setenv("SSL_CERT_FILE", dir, 1);
	setenv("SSL_CERT_DIR", "/etc/ssl/certs", 1);
	CHECK(!has_head("SSL_CERT_FILE=") && has_head("SSL_CERT_DIR="));
	unsetenv("SSL_CERT_FILE");
	unsetenv("SSL_CERT_DIR");
	(void)rmdir(dir);
}

TEST(a_program_gets_only_the_descriptors_named)
{
	int low = dup2(1, 7), high = dup2(1, 70);
	char *out = sh("for i in $(seq 0 300); do [ ! -e /proc/$$/fd/$i ] || echo -n \"$i \"; done", 30000, 0);

	CHECK_STR(out, "0 1 2 ");
	free(out);
	close(low);
	close(high);
}

TEST(fd3_and_the_others_arrive_whatever_their_numbers)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"cat <&3; cat; echo err >&2", NULL };
	struct prog p = PROG_INIT;
	int a[2], b[2], c[2];
	struct err err;
	char got[64];
	pid_t pid;

	CHECK_INT(pipe2(a, O_CLOEXEC), ==, 0);
	CHECK_INT(pipe2(b, O_CLOEXEC), ==, 0);
	CHECK_INT(pipe2(c, O_CLOEXEC), ==, 0);
	CHECK_INT(write(a[1], "three ", 6), ==, 6);
	CHECK_INT(write(b[1], "zero ", 5), ==, 5);
	p.path = "/bin/sh";
	p.argv = argv;
	p.fd3 = a[0];
	p.in = b[0];
	p.out = c[1];
	p.errfd = c[1];
	close(a[1]);
	close(b[1]);
	CHECK_INT(prog_start(&p, &pid, &err), ==, 0);
	close(c[1]);
	CHECK_INT(prog_wait(pid), ==, 0);
	CHECK_INT(fd_read_exact(c[0], got, 15), ==, 0);
	CHECK(memcmp(got, "three zero err\n", 15) == 0);
	close(a[0]);
	close(b[0]);
	close(c[0]);
}

TEST(time_size_and_failure_are_told_apart)
{
	int64_t t = now_ns();

	(void)sh("sleep 60 & sleep 60", 200, -ETIMEDOUT);
	CHECK_INT(now_ns() - t, <, 20 * INT64_C(1000000000));
	(void)sh("head -c 5000 /dev/zero", 30000, -EFBIG);
	(void)sh("exit 3", 30000, -EIO);
	free(sh("head -c 4096 /dev/zero", 30000, 0));
}

TEST(stopping_ends_the_whole_group)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"trap 'exit 0' TERM; sleep 60 & echo $!; wait", NULL };
	struct prog p = PROG_INIT;
	char got[32] = "";
	struct err err;
	int out[2];
	pid_t pid;

	CHECK_INT(pipe2(out, O_CLOEXEC), ==, 0);
	p.path = "/bin/sh";
	p.argv = argv;
	p.out = out[1];
	CHECK_INT(prog_start(&p, &pid, &err), ==, 0);
	close(out[1]);
	CHECK_INT(read(out[0], got, sizeof(got) - 1), >, 0);
	(void)prog_stop(pid, 1000);
	/* its child has our end of the pipe; it ends with the group */
	CHECK_INT(read(out[0], got, sizeof(got)), ==, 0);
	close(out[0]);
}

TEST(what_cannot_be_executed_is_an_error_of_the_start)
{
	char *argv[] = { (char *)"x", NULL };
	struct prog p = PROG_INIT;
	struct err err;
	pid_t pid = 0;
	char *path = NULL, *sh = realpath("/bin/sh", NULL);

	p.path = "/nonexistent/x";
	p.argv = argv;
	CHECK_INT(prog_start(&p, &pid, &err), ==, -ENOENT);
	CHECK_INT(pid, ==, 0);
	CHECK_INT(prog_find("no-such-program-here", &path), ==, -ENOENT);
	setenv("PATH", "relative:/bin", 1);
	CHECK_INT(prog_find("sh", &path), ==, 0);
	CHECK_STR(path, sh);
	free(sh);
	free(path);
}

/* One line of a program, and nothing of the next, which may be there already. */
static void read_line(int fd, char *ret, size_t size)
{
	size_t n = 0;

	while (n + 1 < size && read(fd, ret + n, 1) == 1)
		if (ret[n++] == '\n')
			break;
	ret[n] = '\0';
}

/* A parent that starts a program and dies without a word. Returns the program's pid, from what it wrote. */
static pid_t orphan(const struct prog *p, int out)
{
	char text[32];
	pid_t parent = fork(), pid;
	struct err err;

	if (parent == 0) {
		if (prog_start(p, &pid, &err) < 0)
			_exit(1);
		(void)poll(&(struct pollfd){ .fd = out, .events = POLLIN }, 1, 60000); /* its trap is set */
		(void)kill(getpid(), SIGKILL);
	}
	CHECK(parent > 0);
	(void)waitpid(parent, NULL, 0);
	read_line(out, text, sizeof(text));
	CHECK(text[0]);
	return (pid_t)strtol(text, NULL, 10);
}

TEST(a_program_hears_of_its_parents_death_when_it_should)
{
	char *argv[] = { (char *)"sh", (char *)"-c", (char *)"trap 'echo told; exit' TERM; echo $$; while :; do sleep 0.1; done",
			 NULL };
	struct prog p = PROG_INIT;
	char text[32];
	int fds[2];

	CHECK_INT(pipe2(fds, O_CLOEXEC), ==, 0);
	p.path = "/bin/sh";
	p.argv = argv;
	p.out = fds[1];
	p.follows = true;
	(void)orphan(&p, fds[0]);
	read_line(fds[0], text, sizeof(text));
	CHECK_STR(text, "told\n");
	(void)close(fds[0]);
	(void)close(fds[1]);
}

TEST(a_program_that_follows_is_stopped_and_waited_for_like_any_other)
{
	static const struct {
		const char *line;
		int want;
	} cases[] = { { "exit 7", 7 << 8 }, { "kill -9 $$", 137 << 8 }, { "cat", 0 } };

	for (size_t i = 0; i < 3; i++) {
		char *argv[] = { (char *)"sh", (char *)"-c", (char *)cases[i].line, NULL };
		struct prog p = PROG_INIT;
		struct err err;
		char *out;
		int status;

		p.path = "/bin/sh";
		p.argv = argv;
		p.follows = true;
		CHECK_INT(prog_capture(&p, 4096, 30000, &out, &status, &err), ==, 0);
		CHECK_INT(status, ==, cases[i].want);
		free(out);
	}
	{
		char *argv[] = { (char *)"sleep", (char *)"100", NULL };
		struct prog p = PROG_INIT;
		struct err err;
		pid_t pid;

		p.path = "/bin/sleep";
		p.argv = argv;
		p.follows = true;
		CHECK_INT(prog_start(&p, &pid, &err), ==, 0);
		CHECK_INT(prog_stop(pid, 30000), ==, 143 << 8);
		p.path = "/nowhere/x";
		CHECK_INT(prog_start(&p, &pid, &err), ==, -ENOENT);
	}
}

TEST(root_starts_a_program_with_ids_that_are_nobodys)
{
	static const struct {
		const char *line;
		const char *out; /* NULL: refused */
	} cases[] = {
		{ "tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map", " 0 1879048192 65536\n 0 1879048192 65536\n" },
		{ "id -u; id -G", "0\n0\n" },
		{ "cat /etc/shadow", NULL },
		{ "mount -t tmpfs none /mnt", NULL },
		{ "kill -0 \"$1\"", NULL },
		{ ": >/proc/sys/kernel/core_pattern", NULL },
	};
	AUTO_FREE(char, self);

	self = xasprintf("%d", (int)getpid());
	for (size_t i = 0; geteuid() == 0 && i < ARRAY_SIZE(cases); i++) {
		char *argv[] = { (char *)"sh", (char *)"-c", (char *)cases[i].line, (char *)"sh", self, NULL };
		struct prog p = PROG_INIT;
		struct err err;
		char *out;
		int status;

		p.path = "/bin/sh";
		p.argv = argv;
		p.own_ids = true;
		CHECK_INT(prog_capture(&p, 4096, 30000, &out, &status, &err), ==, 0);
		if (cases[i].out)
			CHECK_STR(out, cases[i].out);
		else
			CHECK_INT(status, !=, 0);
		free(out);
	}
}

/* What a role inherits: the project's programs stay out of reach there as well. */
TEST(shunned_folders_are_passed_on)
{
	char dir[] = "/tmp/agent-vm-test-XXXXXX";
	AUTO_FREE(char, file);
	AUTO_FREE(char, path);
	char *found = NULL;
	struct strv env = { 0 };
	const char *old = getenv("PATH");
	pid_t pid;
	int status;

	CHECK(mkdtemp(dir));
	file = xasprintf("%s/agent-vm-test-helper", dir);
	path = xasprintf("%s:%s", dir, old ? old : "/usr/bin");
	CHECK_INT(close(open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0755)), ==, 0);
	pid = fork();
	if (pid == 0) {
		(void)setenv("PATH", path, 1);
		if (prog_find("agent-vm-test-helper", &found) != 0)
			_exit(1);
		prog_shun(dir);
		prog_shun_env(&env);
		(void)putenv(env.v[env.n - 1]);
		_exit(execl("/proc/self/exe", "t-base-prog", "--find", (char *)NULL));
	}
	CHECK_INT(waitpid(pid, &status, 0), ==, pid);
	CHECK(WIFEXITED(status));
	CHECK_INT(WEXITSTATUS(status), ==, 77);
	CHECK_INT(unlink(file), ==, 0);
	CHECK_INT(rmdir(dir), ==, 0);
}

__attribute__((constructor)) static void as_a_role(void)
{
	char *found = NULL;
	char cmdline[256] = "";
	int fd;

	fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		(void)!read(fd, cmdline, sizeof(cmdline) - 1);
		(void)close(fd);
	}
	if (strcmp(cmdline + strlen(cmdline) + 1, "--find") != 0)
		return;
	prog_shun_from_env();
	_exit(prog_find("agent-vm-test-helper", &found) == -EPERM ? 77 : 1);
}
