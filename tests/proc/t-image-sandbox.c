/* The sandbox of agent-vm-image unpack: in each of its two steps the doors are tried that it closes, and the same calls
 * without it, so that a door which was never open does not count. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/macros.h"
#include "image/unpack.h"
#include "sandbox/landlock.h"
#include "../unit/test.h"

#define DISK (8 << 20)

static int given; /* what the role has: a file */
static char new_file[64];

static int reported(long r)
{
	return r < 0 ? errno : 0;
}

static int do_open(void)
{
	return reported(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static int do_create(void)
{
	return reported(open(new_file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int do_inet(void)
{
	return reported(socket(AF_INET, SOCK_STREAM, 0));
}

static int do_unix(void)
{
	return reported(socket(AF_UNIX, SOCK_STREAM, 0));
}

static int do_fork(void)
{
	pid_t pid = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);

	if (pid == 0)
		_exit(0);
	return reported(pid);
}

static int do_exec(void)
{
	char *argv[] = { (char *)"true", NULL };

	(void)execv("/bin/true", argv);
	return errno;
}

static int do_exec_memory(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}

static int do_kill(void)
{
	return reported(kill(getppid(), 0));
}

static int do_signal_thread(void)
{
	return reported(syscall(SYS_tgkill, (long)getppid(), (long)getppid(), 0));
}

static int do_chmod(void)
{
	return reported(fchmod(given, 0600));
}

static int do_large(void)
{
	return pwrite(given, "x", 1, DISK) == 1 ? 0 : errno;
}

static int do_work(void)
{
	char c;

	return pwrite(given, "x", 1, DISK - 1) == 1 && pread(given, &c, 1, DISK - 1) == 1 && c == 'x' &&
			       mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED ?
		       0 :
		       errno;
}

enum step { NOTHING, CONFINED, SEALED };

/* What a child gets in that state: its errno, or 1000 + the signal that ended it. */
static int tried(enum step step, int (*door)(void))
{
	struct err err = { 0 };
	int status;
	pid_t pid;

	pid = fork();
	CHECK(pid >= 0);
	if (pid == 0) {
		if ((step >= CONFINED && unpack_confine(DISK, &err) < 0) || (step == SEALED && unpack_seal(&err) < 0)) {
			(void)fprintf(stderr, "%s\n", err.text);
			_exit(255);
		}
		_exit(door());
	}
	CHECK(waitpid(pid, &status, 0) == pid);
	return WIFSIGNALED(status) ? 1000 + WTERMSIG(status) : WEXITSTATUS(status);
}

static const struct {
	const char *name;
	int (*door)(void);
	int confined; /* errno after the first step */
} doors[] = {
	{ "open a file", do_open, EACCES },
	{ "create a file", do_create, EACCES },
	{ "socket of the internet", do_inet, 0 },
	{ "socket of this host", do_unix, 0 },
	{ "new process", do_fork, 0 },
	{ "other program", do_exec, EACCES },
	{ "memory to run", do_exec_memory, 0 },
	{ "signal", do_kill, 0 },
	{ "signal to a thread", do_signal_thread, 0 },
	{ "mode of a file", do_chmod, 0 },
};

static void begin(void)
{
	given = memfd_create("disk", MFD_CLOEXEC);
	CHECK(given >= 0 && ftruncate(given, DISK) == 0);
	(void)snprintf(new_file, sizeof(new_file), "/tmp/agent-vm-sandbox-test-%d", (int)getpid());
}

TEST(without_it_every_door_is_open)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(doors); i++)
		if (tried(NOTHING, doors[i].door) != 0)
			fail_msg("%s: not possible without the sandbox either", doors[i].name);
	(void)unlink(new_file);
	CHECK_INT(tried(NOTHING, do_large), ==, 0);
	(void)close(given);
}

TEST(the_first_step_closes_files_and_bounds_them)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(doors) && landlock_abi() >= 2; i++)
		CHECK_INT(tried(CONFINED, doors[i].door), ==,
			  (doors[i].door == do_kill || doors[i].door == do_signal_thread) && landlock_abi() >= 6 ? EPERM : doors[i].confined);
	CHECK_INT(tried(CONFINED, do_large), ==, EFBIG);
	CHECK_INT(tried(CONFINED, do_work), ==, 0);
	(void)close(given);
}

TEST(the_second_step_ends_the_process_at_any_of_them)
{
	begin();
	for (size_t i = 0; i < ARRAY_SIZE(doors); i++)
		if (tried(SEALED, doors[i].door) != 1000 + SIGSYS)
			fail_msg("%s: still possible", doors[i].name);
	CHECK_INT(tried(SEALED, do_large), ==, EFBIG);
	CHECK_INT(tried(SEALED, do_work), ==, 0);
	(void)close(given);
}

static int do_memory(void)
{
	return mmap(NULL, 5ULL << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED ?
		       errno :
		       0;
}

TEST(memory_is_bounded)
{
#ifdef __SANITIZE_ADDRESS__
	skip(); /* the sanitizer's own reservation is larger than any bound */
#endif
	begin();
	CHECK_INT(tried(NOTHING, do_memory), ==, 0);
	CHECK_INT(tried(SEALED, do_memory), ==, ENOMEM);
	(void)close(given);
}
