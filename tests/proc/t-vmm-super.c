/* The supervisor: who ends when, and with which status. */
#include "cage-host.h"

#include "proto/ctl.h"

/* Says which process it is (in the host's numbers the launcher finds it itself) and stays, deaf to signals. */
static void stay(const struct vmm_config *cfg, uint32_t walls)
{
	(void)signal(SIGTERM, SIG_IGN);
	say("up");
	for (;;)
		(void)poll(NULL, 0, 1000);
}

static void stay_executed(const struct vmm_config *cfg, uint32_t walls)
{
	say("up");
	(void)execl("/bin/sleep", "sleep", "600", (char *)NULL);
	say("exec: %s", strerror(errno));
}

static void hear_up(struct run *run)
{
	struct pollfd p = { .fd = run->control, .events = POLLIN };
	char text[512] = "";

	CHECK_INT(poll(&p, 1, RUN_MS), ==, 1);
	(void)recv(run->control, text, sizeof(text) - 1, 0);
	CHECK_STR(text, "up");
}

/* The supervisor's only child. */
static pid_t inner_of(pid_t pid)
{
	AUTO_FREE(char, path);
	FILE *f;
	int inner = 0;

	path = xasprintf("/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "re");
	CHECK(f != NULL);
	if (fscanf(f, "%d", &inner) != 1)
		inner = 0;
	(void)fclose(f);
	return inner;
}

/* The inner process holds the other end of the control socket. */
static bool gone_within(struct run *run, int ms)
{
	struct pollfd p = { .fd = run->port, .events = 0 };

	return poll(&p, 1, ms) == 1 && (p.revents & POLLHUP);
}

/* User and system time of a process, from its stat file. */
static unsigned long cpu_ticks(const char *path)
{
	unsigned long user = 0, system = 0;
	FILE *f = fopen(path, "re");

	CHECK(f != NULL);
	CHECK_INT(fscanf(f, "%*d (%*[^)]) %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), ==, 2);
	(void)fclose(f);
	return user + system;
}

static void supervisor_killed(payload p, enum vmm_monitor monitor, enum vmm_need need)
{
	struct vmm_config cfg = config_make(monitor);
	struct run run;

	cfg.namespaces = need;
	run = run_start(cfg, NULL, p);
	hear_up(&run);
	CHECK(inner_of(run.pid) > 0);
	CHECK_INT(kill(run.pid, SIGKILL), ==, 0);
	CHECK_INT(run_wait(&run, RUN_MS), ==, 1000 + SIGKILL);
	CHECK(gone_within(&run, RUN_MS));
	(void)close(run.port);
	(void)close(run.control);
}

TEST(with_the_supervisor_the_inner_process_goes)
{
	host_make();
	supervisor_killed(stay, VMM_KRUN, VMM_NS_USED);
	supervisor_killed(stay, VMM_KRUN, VMM_NS_NONE);
	supervisor_killed(stay_executed, VMM_QEMU_TCG, VMM_NS_USED);
	host_drop();
}

/* Once its signalfd was closed with the descriptors that are not its own, and poll() came back at once for ever. */
TEST(the_supervisor_sleeps)
{
	unsigned long before, took = 100;
	AUTO_FREE(char, path);
	struct run run;

	host_make();
	run = run_start(config_make(VMM_KRUN), NULL, stay);
	hear_up(&run);
	path = xasprintf("/proc/%d/stat", (int)run.pid);
	/* A hundred are one processor. On its way into the loop it works, so that there are three seconds to try. */
	for (int i = 0; i < 3 && took > 10; i++) {
		before = cpu_ticks(path);
		(void)usleep(1000000);
		took = cpu_ticks(path) - before;
	}
	CHECK_INT(took, <=, 10);
	CHECK_INT(kill(run.pid, SIGKILL), ==, 0);
	CHECK_INT(run_wait(&run, RUN_MS), ==, 1000 + SIGKILL);
	(void)close(run.port);
	(void)close(run.control);
	host_drop();
}

TEST(the_inner_process_status_is_the_supervisor_s)
{
	struct run run;

	host_make();
	run = run_start(config_make(VMM_KRUN), NULL, stay);
	hear_up(&run);
	CHECK_INT(kill(inner_of(run.pid), SIGTERM), ==, 0); /* process 1 hears no signal but KILL: nothing happens */
	(void)usleep(50000);
	CHECK_INT(kill(inner_of(run.pid), SIGKILL), ==, 0);
	CHECK_INT(run_wait(&run, RUN_MS), ==, 128 + SIGKILL);
	(void)close(run.port);
	(void)close(run.control);
	host_drop();
}

TEST(without_the_launcher_the_guest_is_told_and_then_ended)
{
	struct run run;
	int64_t start;

	host_make();
	run = run_start(config_make(VMM_KRUN), NULL, stay);
	hear_up(&run);
	start = now_ns();
	(void)close(run.control);
	CHECK_INT(run_wait(&run, RUN_MS), ==, 128 + SIGKILL);
	CHECK((now_ns() - start) / 1000000 >= 7500);
	(void)close(run.port);
	host_drop();
}

/* The guest that does as it is told. */
static void obey(const struct vmm_config *cfg, uint32_t walls)
{
	uint8_t got[CTL_HEAD + 4];
	struct ctl_frame f;
	struct buf b;
	size_t used;
	uint32_t ms;

	say("up");
	buf_init(&b, CTL_HEAD + CTL_RECS_MAX);
	if (fd_read_exact(VMM_FD_PORT, got, sizeof(got)) < 0 || buf_put(&b, got, sizeof(got)) < 0 ||
	    ctl_decode(&b, CTL_SIDE_GUEST, &f, &used) != 1 || f.type != CTL_SHUTDOWN || span_u32(&f.payload, &ms) < 0 ||
	    ms != 3000)
		_exit(1);
	_exit(42);
}

TEST(the_guest_hears_shutdown_when_the_launcher_is_gone)
{
	struct run run;

	host_make();
	run = run_start(config_make(VMM_KRUN), NULL, obey);
	hear_up(&run);
	(void)close(run.control);
	CHECK_INT(run_wait(&run, RUN_MS), ==, 42);
	(void)close(run.port);
	run = run_start(config_make(VMM_KRUN), NULL, obey);
	hear_up(&run);
	CHECK_INT(kill(run.pid, SIGTERM), ==, 0);
	CHECK_INT(run_wait(&run, RUN_MS), ==, 42);
	(void)close(run.port);
	(void)close(run.control);
	host_drop();
}
