#include "cli/monitor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"

#define PROBE_MS 5000
#define PROBE_FILE "kvm-probe"
#define KERNEL_PREFIX "kernel-"
#define BOOT_ID "/proc/sys/kernel/random/boot_id"

const char *monitor_name(enum vmm_monitor m)
{
	return m == VMM_KRUN ? "krun" : "qemu";
}

static char *ask(const char *vmm_path, const char *question, const char *file, const char *to, bool *ret_good)
{
	char *const env[] = { (char *)"LC_ALL=C", NULL };
	char *const argv[] = { (char *)vmm_path, (char *)question, (char *)file, (char *)to, NULL };
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t at;
	sigset_t none;
	AUTO_FREE(char, out);
	struct pollfd pfd;
	int fds[2], status = -1, r;
	size_t n = 0;
	pid_t pid;

	*ret_good = false;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return xasprintf("the probe cannot be started: %s", strerror(errno));
	(void)posix_spawn_file_actions_init(&fa);
	(void)posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
	(void)posix_spawn_file_actions_adddup2(&fa, fds[1], 1);
	(void)posix_spawn_file_actions_adddup2(&fa, fds[1], 2);
	(void)posix_spawnattr_init(&at);
	(void)sigemptyset(&none);
	(void)posix_spawnattr_setsigmask(&at, &none);
	(void)posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK);
	r = posix_spawn(&pid, vmm_path, &fa, &at, argv, env);
	(void)posix_spawn_file_actions_destroy(&fa);
	(void)posix_spawnattr_destroy(&at);
	(void)close(fds[1]);
	if (r != 0) {
		(void)close(fds[0]);
		return xasprintf("the probe cannot be started: %s", strerror(r));
	}
	/* The probe has an alarm of its own; this is for one that is stuck in the kernel. */
	pfd = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	if (poll(&pfd, 1, PROBE_MS) <= 0)
		(void)kill(pid, SIGKILL);
	else
		(void)fd_read_file(fds[0], 4096, &out, &n);
	(void)close(fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	*ret_good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
	while (n > 0 && out[n - 1] == '\n')
		n--;
	if (n > 0)
		return str_escape(out, n);
	return file ? xasprintf("%s: the program that tried it died", file) : xstrdup("the probe died");
}

char *monitor_ask(const char *vmm_path, const char *question, const char *file, bool *ret_good)
{
	return ask(vmm_path, question, file, NULL, ret_good);
}

char *monitor_probe_kvm(const char *vmm_path)
{
	AUTO_FREE(char, says);
	bool good;

	says = monitor_ask(vmm_path, "--probe-kvm", NULL, &good);
	return good ? NULL : TAKE_PTR(says);
}

char *monitor_emulated(const char *reason)
{
	static const char object[] = "/dev/kvm: ";

	if (str_starts(reason, object))
		reason += sizeof(object) - 1;
	return xasprintf("/dev/kvm cannot run a guest here (%s)", reason);
}

/* What stands in the cache for a library that was found good: it is the same file, asked by the same version. */
static char *stamp(const char *path)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return NULL;
	return xasprintf(AGENT_VM_VERSION " %llu:%llu %lld %lld.%09ld %s\n", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino, (long long)st.st_size, (long long)st.st_mtim.tv_sec,
			 st.st_mtim.tv_nsec, path);
}

int monitor_library_check(const char *vmm_path, const char *question, const char *path, int cache_fd, const char *name,
			  bool *ret_new, struct err *err)
{
	AUTO_FREE(char, now);
	AUTO_FREE(char, text);
	AUTO_FREE(char, says);
	bool good;

	*ret_new = false;
	now = stamp(path);
	if (now && cache_fd >= 0 && file_read_beneath(cache_fd, name, 8192, &text, NULL) >= 0 && strcmp(text, now) == 0)
		return 0;
	says = monitor_ask(vmm_path, question, path, &good);
	if (!good)
		return err_set(err, -ENOEXEC, "%s", says);
	*ret_new = true;
	return 0;
}

void monitor_library_remember(int cache_fd, const char *name, const char *path)
{
	AUTO_FREE(char, text);

	text = stamp(path);
	if (text)
		(void)file_replace_at(cache_fd, name, text, strlen(text), 0600);
}

/* Of libraries that are no more, and what a launch that died left. Another launch whose file this was fails or takes the
 * library itself. */
static void old_kernels_remove(int cache_fd, const char *but)
{
	int fd = fcntl(cache_fd, F_DUPFD_CLOEXEC, 0);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	if (!d && fd >= 0)
		(void)close(fd);
	if (!d)
		return;
	rewinddir(d);
	while ((e = readdir(d)))
		if (str_starts(e->d_name, KERNEL_PREFIX) && strcmp(e->d_name, but) != 0)
			(void)unlinkat(cache_fd, e->d_name, 0);
	(void)closedir(d);
}

char *monitor_kernel(const char *vmm_path, const char *libkrunfw, const struct state_root *root)
{
	AUTO_FREE(char, name);
	AUTO_FREE(char, path);
	AUTO_FREE(char, says);
	struct stat st;
	bool good;

#ifndef __x86_64__
	return NULL; /* libkrun takes no ELF file there */
#endif
	if (stat(libkrunfw, &st) < 0)
		return NULL;
	name = xasprintf(KERNEL_PREFIX AGENT_VM_VERSION "-%llx-%llx-%llx.%lx", (unsigned long long)st.st_dev,
			 (unsigned long long)st.st_ino, (unsigned long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	path = xasprintf("%s/" STATE_CACHE "/%s", root->path, name);
	if (faccessat(root->cache_fd, name, R_OK, AT_SYMLINK_NOFOLLOW) == 0)
		return TAKE_PTR(path);
	says = ask(vmm_path, "--kernel-elf", libkrunfw, path, &good);
	if (!good) {
		log_warn("the guest's kernel is not kept, so it starts slower: %s", says);
		return NULL;
	}
	old_kernels_remove(root->cache_fd, name);
	return TAKE_PTR(path);
}

static char *boot_id(void)
{
	AUTO_FREE(char, boot);
	AUTO_FD(fd);

	fd = open(BOOT_ID, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, 64, &boot, NULL) < 0)
		return NULL;
	boot[strcspn(boot, "\n")] = '\0';
	return *boot ? TAKE_PTR(boot) : NULL;
}

/* The file holds the boot id under which KVM was seen to work. */
static bool recall(int cache_fd)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, boot);

	boot = boot_id();
	if (!boot || cache_fd < 0 || file_read_beneath(cache_fd, PROBE_FILE, 64, &text, NULL) < 0)
		return false;
	text[strcspn(text, "\n")] = '\0';
	return strcmp(text, boot) == 0;
}

void monitor_remember(int cache_fd)
{
	AUTO_FREE(char, boot);
	AUTO_FREE(char, text);

	boot = boot_id();
	if (!boot)
		return;
	text = xasprintf("%s\n", boot);
	(void)file_replace_at(cache_fd, PROBE_FILE, text, strlen(text), 0600);
}

int monitor_choose(const char *want, const char *vmm_path, int cache_fd, const char *have_krun, const char *have_qemu,
		   struct monitor_choice *ret, struct err *err)
{
	struct monitor_choice c = { 0 };
	bool krun = !want || strcmp(want, "krun") == 0;
	bool qemu = !want || strcmp(want, "qemu") == 0;

	if (!recall(cache_fd)) {
		c.reason = monitor_probe_kvm(vmm_path);
		c.probed_now = !c.reason;
	}
	if (krun && !c.reason && !have_krun)
		c.monitor = VMM_KRUN;
	else if (qemu && !have_qemu)
		c.monitor = c.reason ? VMM_QEMU_TCG : VMM_QEMU_KVM;
	else {
		if (want)
			(void)err_set(err, -ENODEV, "--vmm %s: not usable: %s; agent-vm doctor shows what is missing", want,
				      !krun ? have_qemu : have_krun ? have_krun : c.reason);
		else
			(void)err_set(err, -ENODEV, "VM: no monitor is usable: krun: %s; qemu: %s; see agent-vm doctor",
				      have_krun ? have_krun : c.reason, have_qemu);
		free(c.reason);
		return -ENODEV;
	}
	*ret = c;
	return 0;
}
