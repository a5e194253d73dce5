/* sandbox/hide.c against a kernel whose core_pattern names a program; runs as root in a VM (tests/vm/test_credentials.py).
 *
 *	core-in-vm		tries all
 *	core-in-vm core		what the kernel starts: notes that it came, if it is given what a core begins with
 *	core-in-vm die		dies at once
 *
 * Each way is tried with and without hiding; without it the program must have come, or nothing is shown. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "sandbox/hide.h"

#define PROGRAM "/run/core-in-vm"
#define CAME "/run/core-came"
#define FOLDER "/run/cores"

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		(void)printf("%s: %s\n", path, strerror(errno));
		exit(1);
	}
	(void)close(fd);
}

static int handler(void)
{
	char head[4];
	int fd;

	if (read(0, head, sizeof(head)) == (ssize_t)sizeof(head) && memcmp(head, "\177ELF", 4) == 0) {
		fd = open(CAME, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		(void)close(fd);
	}
	return 0;
}

/* What a process that holds secrets does, and what is done to it, before it dies. */
enum how { HOLDS, RAISED, CHANGED, EXECUTED, HOWS };

static const char *const how_str[HOWS] = { "as it is", "with its limit raised from outside", "while it changes whose files it opens",
					   "as the next program, before that can hide" };

static void die(enum how how, bool hidden)
{
	const struct rlimit zero = { 0, 0 }, all = { RLIM_INFINITY, RLIM_INFINITY };

	(void)setrlimit(RLIMIT_CORE, &all);
	if (hidden && hide_process() < 0)
		_exit(1);
	if (!hidden)
		(void)setrlimit(RLIMIT_CORE, &zero);
	if (!hidden && how != RAISED)
		(void)prctl(PR_SET_DUMPABLE, how == HOLDS); /* what is left without the limit of hide_no_core() */
	if (how == RAISED)
		(void)setrlimit(RLIMIT_CORE, &all); /* as root may */
	if (how == CHANGED)
		(void)setfsuid(65534);
	if (how == EXECUTED)
		(void)execl(PROGRAM, "core-in-vm", "die", (char *)NULL);
	(void)raise(SIGSEGV);
	_exit(1);
}

/* Whether a core was made. */
static bool made(enum how how, bool hidden)
{
	const struct timespec moment = { .tv_nsec = 10000000 };
	int status, came;
	pid_t pid;

	(void)unlink(CAME);
	(void)unlink(FOLDER "/core");
	pid = fork();
	if (pid == 0) {
		if (chdir(FOLDER) == 0)
			die(how, hidden);
		_exit(1);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status)) {
		(void)printf("%s: it did not die\n", how_str[how]);
		exit(1);
	}
	/* The kernel waits for the program only until it has read all. */
	for (int i = 0; (came = access(CAME, F_OK) == 0 || access(FOLDER "/core", F_OK) == 0) == 0 && i < (hidden ? 50 : 6000); i++)
		(void)nanosleep(&moment, NULL);
	return came;
}

int main(int argc, char **argv)
{
	bool well = true;

	if (argc > 1 && strcmp(argv[1], "core") == 0)
		return handler();
	if (argc > 1)
		(void)raise(SIGSEGV);
	if (system("cp /proc/$PPID/exe " PROGRAM " && mkdir -p " FOLDER) != 0)
		return 1;
	/* As Debian's and Ubuntu's handlers set it: cores of those that changed are made, for root. */
	put("/proc/sys/kernel/core_pattern", "|" PROGRAM " core");
	put("/proc/sys/fs/suid_dumpable", "2");
	for (int how = 0; how < HOWS; how++)
		for (int hidden = 0; hidden <= 1; hidden++)
			if (made((enum how)how, hidden) == hidden) {
				(void)printf("%s, %s: %s\n", how_str[how], hidden ? "hidden" : "not hidden", hidden ? "a core" : "no core");
				well = false;
			}
	/* To a file: of one that is hidden there is none either. */
	put("/proc/sys/kernel/core_pattern", "core");
	if (made(RAISED, true) || !made(RAISED, false)) {
		(void)printf("a file: wrong\n");
		well = false;
	}
	if (well)
		(void)puts("all hold");
	return !well;
}
