/* The order of things, and why
 *
 * enter  fork into the namespaces (sandbox/ns.c); the parent stays as the supervisor (cage_super.c); the child builds its
 *        view of the file system (cage_mount.c). Until here the process has all capabilities of its own namespace.
 * keep   if there are guards, a fork that still may mount puts back those that the host takes away (cage_keep.c)
 * lock   rlimits, not dumpable, capabilities (dropping the bounding set needs one), no-new-privs, Landlock (binds this
 *        thread and what it starts, so before libkrun's threads), seccomp last, because the steps before it need calls
 *        that it refuses.
 *
 * What holds a monitor that the guest has taken over: it is root of nothing but its own namespace; its file system has
 * the shares, the disks and a few device nodes; its network is empty; it sees no process but its own. Where namespaces
 * are refused, Landlock and seccomp hold alone.
 *
 * Walls that this kernel does not have are left out and reported by their bit. Errors are errors only where the launcher
 * has arranged the guest's view for the wall: namespaces under VMM_NS_USED. */
#include "vmm/cage.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/log.h"
#include "sandbox/caps.h"
#include "sandbox/landlock.h"
#include "sandbox/ns.h"
#include "vmm/cage_int.h"

static_assert((int)NS_USER == (int)CAGE_USER_NS && (int)NS_MOUNT == (int)CAGE_MOUNT_NS && (int)NS_NET == (int)CAGE_NET_NS &&
		      (int)NS_PID == (int)CAGE_PID_NS && (int)NS_SUBIDS == (int)CAGE_SUBIDS,
	      "enum ns_kind and enum cage_wall are the same bits");

/* What a virtio-fs server needs that is root in its namespace: give files away, pass over modes as root does, and take
 * on the ids of the guest's process for what it creates. No MKNOD: the guest's device nodes must not come to be. */
#define CAPS_FILES                                                                                           \
	(CAP_BIT(CAP_CHOWN) | CAP_BIT(CAP_DAC_OVERRIDE) | CAP_BIT(CAP_FOWNER) | CAP_BIT(CAP_FSETID) | \
	 CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID))

static int life = -1; /* see ns_tie() */

/* Above the fixed descriptors: one of these that is free already would be closed again, and then be another file. */
static int pipe_above(int ret[2])
{
	int p[2], r = 0;

	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	for (int i = 0; i < 2; i++) {
		ret[i] = fcntl(p[i], F_DUPFD_CLOEXEC, VMM_FDS_END);
		if (ret[i] < 0)
			r = -errno;
		(void)close(p[i]);
	}
	return r;
}

/* The keeper holds the one open end of the pipe by which the supervisor hears of its death. */
static int keeper_start(const struct vmm_config *cfg, const int pipe[2], struct err *err)
{
	pid_t pid = fork();

	if (pid < 0)
		return err_set(err, -errno, "cage: fork: %s", strerror(errno));
	if (pid == 0) {
		(void)close(life);
		cage_keep(cfg);
	}
	(void)close(pipe[0]);
	(void)close(pipe[1]);
	return 0;
}

int cage_enter(struct vmm_config *cfg, uint32_t *ret_walls, struct err *err)
{
	uint32_t kinds = 0;
	bool inside = cfg->namespaces == VMM_NS_USED;
	int keeper[2] = { -1, -1 };
	pid_t pid;
	int r;

	r = inside && cage_keeper_needed(cfg) ? pipe_above(keeper) : 0;
	if (r < 0)
		return err_set(err, r, "cage: pipe: %s", strerror(-r));
	pid = ns_fork(inside, &kinds, &life, err);
	if (pid < 0)
		return pid;
	if (pid > 0) {
		if (keeper[1] >= 0)
			(void)close(keeper[1]);
		cage_supervise(pid, keeper[0]);
	}

	(void)close(VMM_FD_LAST_WORD);
	if (inside) {
		if (!(kinds & NS_MOUNT))
			return err_set(err, -EPERM, "cage: mounts of the new namespace cannot be made private; "
						    "run: agent-vm doctor");
		r = cage_view(cfg, err);
		if (r == 0 && keeper[0] >= 0)
			r = keeper_start(cfg, keeper, err);
		if (r < 0)
			return r;
	}
	*ret_walls = kinds;
	return 0;
}

static void limits_set(void)
{
	struct rlimit core = { 0, 0 }, files;

	if (setrlimit(RLIMIT_CORE, &core) < 0)
		log_warn("core files cannot be turned off: %s", strerror(errno));
	/* virtio-fs holds a descriptor for every file that the guest knows of. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &files) < 0)
			log_warn("limit of open files stays: %s", strerror(errno));
	}
}

/* A rule whose path is not there is no loss: nothing can be opened there. */
static int allow(int fd, const char *path, uint32_t rights, struct err *err)
{
	int r;

	if (!path)
		return 0;
	r = landlock_allow(fd, path, rights, err);
	return r == -ENOENT ? 0 : r;
}

static int allow_nodes(int fd, struct err *err)
{
	static const char *const nodes[] = { "/dev/null", "/dev/zero", "/dev/random", "/dev/urandom" };
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(nodes); i++)
		r = allow(fd, nodes[i], LANDLOCK_READ | LANDLOCK_WRITE, err);
	return r;
}

/* What the exec of @program takes, and the loading of its libraries. */
static int allow_exec(int fd, const char *program, struct err *err)
{
	static const char *const places[] = { "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin",
					      "/nix/store", "/gnu/store" };
	int r;

	r = allow(fd, program, LANDLOCK_READ | LANDLOCK_EXEC, err);
	if (r == 0)
		r = allow(fd, "/etc/ld.so.cache", LANDLOCK_READ, err);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(places); i++)
		r = allow(fd, places[i], LANDLOCK_READ | LANDLOCK_EXEC, err);
	return r;
}

static int landlock_rules(int fd, const struct vmm_config *cfg, bool inside, struct err *err)
{
	size_t i;
	int r;

	r = allow(fd, "/proc", LANDLOCK_READ, err);
	if (r == 0)
		r = allow_nodes(fd, err);
	if (r == 0 && cfg->monitor != VMM_QEMU_TCG)
		r = allow(fd, "/dev/kvm", LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_IOCTL, err);
	if (r == 0)
		r = allow(fd, cfg->disk, LANDLOCK_READ | LANDLOCK_WRITE, err);
	if (r == 0)
		r = allow(fd, cfg->disk_base, LANDLOCK_READ, err);

	if (cage_is_qemu(cfg)) {
		/* The shares are virtiofsd's, which was started before, with rules of its own where it has no namespace. */
		if (r == 0)
			r = allow(fd, cfg->boot_image, LANDLOCK_READ, err);
		if (r == 0)
			r = allow(fd, cfg->work_dir, LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_MAKE, err);
		if (r == 0 && inside)
			r = allow(fd, "/tmp", LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_MAKE, err);
		return r == 0 ? allow_exec(fd, cfg->qemu, err) : r;
	}
	if (r == 0)
		r = allow(fd, cfg->kernel, LANDLOCK_READ, err);
	if (r == 0)
		r = allow(fd, cfg->boot_dir, LANDLOCK_READ, err);
	if (r == 0 && inside)
		return allow(fd, CAGE_SHARE, LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_MAKE, err);
	for (i = 0; r == 0 && i < cfg->n_shares; i++)
		r = allow(fd, cfg->shares[i].path,
			  LANDLOCK_READ | (cfg->shares[i].ro ? 0 : LANDLOCK_WRITE | LANDLOCK_MAKE), err);
	return r;
}

static int landlock_lock(const struct vmm_config *cfg, bool inside, struct err *err)
{
	AUTO_FD(fd);
	int r;

	r = landlock_new(&fd, err);
	if (r == 0)
		r = landlock_rules(fd, cfg, inside, err);
	return r < 0 ? r : landlock_enforce(fd, err);
}

int cage_landlock_files(const char *program, const char *dir, struct err *err)
{
	AUTO_FD(fd);
	int r;

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "cage: no-new-privs: %s", strerror(errno));
	r = landlock_new(&fd, err);
	if (r == -EOPNOTSUPP)
		return 0;
	/* It knows its files by descriptor, and opens them again through /proc/self/fd. */
	if (r == 0)
		r = allow(fd, "/proc/self", LANDLOCK_READ, err);
	/* The limit of open files, at its start. */
	if (r == 0)
		r = allow(fd, "/proc/sys/fs", LANDLOCK_READ, err);
	if (r == 0)
		r = allow_nodes(fd, err);
	if (r == 0)
		r = allow_exec(fd, program, err);
	if (r == 0)
		r = landlock_allow(fd, dir, LANDLOCK_READ | LANDLOCK_WRITE | LANDLOCK_MAKE, err);
	return r < 0 ? r : landlock_enforce(fd, err);
}

int cage_lock(const struct vmm_config *cfg, uint32_t *walls, struct err *err)
{
	uint64_t keep = 0;
	struct err e;
	int r;

	limits_set();
	if (prctl(PR_SET_DUMPABLE, 0) < 0)
		return err_set(err, -errno, "cage: not dumpable: %s", strerror(errno));

	/* libkrun takes a missing CAP_SETUID for "only the owner's files": right where only one id is mapped. */
	if (!cage_is_qemu(cfg))
		keep = *walls & CAGE_SUBIDS || !(*walls & CAGE_USER_NS) ? CAPS_FILES :
			CAPS_FILES & ~(CAP_BIT(CAP_SETUID) | CAP_BIT(CAP_SETGID));
	r = caps_keep(keep, err);
	if (r < 0)
		return r;
	ns_tie(life);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return err_set(err, -errno, "cage: no-new-privs: %s", strerror(errno));

	r = landlock_lock(cfg, *walls & CAGE_MOUNT_NS, &e);
	if (r == 0)
		*walls |= CAGE_LANDLOCK;
	else
		log_warn("the cage has no Landlock: %s", e.text);
	r = cage_seccomp(cfg, &e);
	if (r == 0)
		*walls |= CAGE_SECCOMP;
	else
		log_warn("the cage has no seccomp: %s", e.text);
	return 0;
}
