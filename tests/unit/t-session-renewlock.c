#include "test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/file.h"
#include "session/renewlock.h"

static char dir[64];
static int dirfd_;
static struct renewlock lock;

static void begin(void)
{
	struct err err;

	(void)snprintf(dir, sizeof(dir), "/tmp/renewlock.XXXXXX");
	CHECK(mkdtemp(dir) != NULL);
	dirfd_ = renewlock_folder(dir, &err);
	CHECK(dirfd_ >= 0);
	renewlock_init(&lock, dirfd_, "anthropic", "/home/ann/.claude/.credentials.json");
}

static void end(void)
{
	(void)close(dirfd_);
	(void)file_remove_tree_at(AT_FDCWD, dir);
}

TEST(the_name_is_of_provider_and_path)
{
	struct renewlock other;

	begin();
	renewlock_init(&other, dirfd_, "anthropic", "/home/ann/.claude2/.credentials.json");
	CHECK_INT(strlen(lock.name), ==, strlen("refresh-anthropic-") + 16);
	CHECK(strcmp(lock.name, other.name) != 0);
	end();
}

TEST(a_stamp_ages_and_one_of_another_boot_or_the_future_is_none)
{
	char name[96], text[128];

	begin();
	CHECK_INT(renewlock_age_ms(&lock), ==, -1);
	CHECK_INT(renewlock_stamp(&lock), ==, 0);
	CHECK(renewlock_age_ms(&lock) >= 0 && renewlock_age_ms(&lock) < 20000);
	(void)snprintf(name, sizeof(name), "%s.stamp", lock.name);
	(void)snprintf(text, sizeof(text), "00000000-0000-0000-0000-000000000000 1\n");
	CHECK_INT(file_replace_at(dirfd_, name, text, strlen(text), 0600), ==, 0);
	CHECK_INT(renewlock_age_ms(&lock), ==, -1);
	CHECK_INT(renewlock_stamp(&lock), ==, 0);
	{
		char *old;
		size_t n;

		CHECK_INT(file_read_beneath(dirfd_, name, 128, &old, &n), ==, 0);
		(void)snprintf(text, sizeof(text), "%.36s %lld\n", old, (long long)(now_ns() / 1000000 + 60000));
		free(old);
	}
	CHECK_INT(file_replace_at(dirfd_, name, text, strlen(text), 0600), ==, 0);
	CHECK_INT(renewlock_age_ms(&lock), ==, -1);
	end();
}

TEST(links_and_folders_that_are_open_to_others_are_not_used)
{
	char name[96];
	struct err err;
	int fd;

	begin();
	(void)snprintf(name, sizeof(name), "%s.lock", lock.name);
	CHECK_INT(symlinkat("elsewhere", dirfd_, name), ==, 0);
	CHECK_INT(renewlock_try(&lock), ==, -ELOOP);
	CHECK(faccessat(dirfd_, "elsewhere", F_OK, 0) < 0);
	(void)snprintf(name, sizeof(name), "%s.stamp", lock.name);
	CHECK_INT(symlinkat("/etc/hostname", dirfd_, name), ==, 0);
	CHECK_INT(renewlock_age_ms(&lock), ==, -1);
	CHECK_INT(fchmod(dirfd_, 0755), ==, 0);
	CHECK_INT(renewlock_folder(dir, &err), ==, -EPERM);
	CHECK_INT(fchmod(dirfd_, 0700), ==, 0);
	fd = renewlock_folder(dir, &err);
	CHECK(fd >= 0);
	(void)close(fd);
	CHECK_INT(renewlock_folder("relative", &err), ==, -ENOENT);
	CHECK_INT(renewlock_folder(NULL, &err), ==, -ENOENT);
	(void)snprintf(name, sizeof(name), "%s/agent-vm", dir);
	CHECK_INT(file_remove_tree_at(AT_FDCWD, name), ==, 0);
	CHECK_INT(symlink("/tmp", name), ==, 0);
	CHECK(renewlock_folder(dir, &err) < 0);
	end();
}

/* Each process does what a session does: lock, look at the stamp, stamp, "run". */
static void session(int *runs, int *inside, int *worst)
{
	struct timespec tick = { 0, 5 * 1000000L };
	int fd;

	while ((fd = renewlock_try(&lock)) == -EWOULDBLOCK)
		(void)nanosleep(&tick, NULL);
	if (fd < 0)
		_exit(1);
	if (__atomic_add_fetch(inside, 1, __ATOMIC_SEQ_CST) > 1)
		*worst = 1;
	if (renewlock_age_ms(&lock) < 0 || renewlock_age_ms(&lock) >= 30000) {
		if (renewlock_stamp(&lock) < 0)
			_exit(2);
		(void)__atomic_add_fetch(runs, 1, __ATOMIC_SEQ_CST);
		tick.tv_nsec = 100 * 1000000L;
		(void)nanosleep(&tick, NULL);
	}
	(void)__atomic_sub_fetch(inside, 1, __ATOMIC_SEQ_CST);
	(void)close(fd);
	_exit(0);
}

TEST(three_processes_at_once_run_one_program)
{
	int *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0), status;
	pid_t pid[3];

	begin();
	CHECK(shared != MAP_FAILED);
	for (int i = 0; i < 3; i++) {
		pid[i] = fork();
		if (pid[i] == 0)
			session(&shared[0], &shared[1], &shared[2]);
	}
	for (int i = 0; i < 3; i++) {
		CHECK(waitpid(pid[i], &status, 0) == pid[i]);
		CHECK_INT(status, ==, 0);
	}
	CHECK_INT(shared[0], ==, 1);
	CHECK_INT(shared[2], ==, 0);
	(void)munmap(shared, 4096);
	end();
}
