/* `agent-vm doctor`: each prerequisite, the fact, and what to do about what is missing. Looks with the same functions as a
 * launch does, so what it says is what a launch will meet. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <linux/landlock.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "base/macros.h"
#include "cli/cmd.h"
#include "cli/find.h"
#include "cli/launch_args.h"
#include "cli/monitor.h"
#include "image/store.h"
#include "sandbox/ns.h"
#include "session/root.h"

struct doctor_args {
	bool json;
};

static const struct opt doctor_opts[] = {
	{ "json", OPT_FLAG, offsetof(struct doctor_args, json), NULL, "print the same as JSON" },
	{ 0 },
};

enum level { LEVEL_OK, LEVEL_WARN, LEVEL_FAIL };

static const char *const level_str[] = { [LEVEL_OK] = "ok", [LEVEL_WARN] = "warn", [LEVEL_FAIL] = "fail" };

struct doctor {
	json_t *lines; /* NULL: print at once */
	bool failed;
};

static void line(struct doctor *d, enum level level, const char *what, const char *fmt, ...) PRINTF_LIKE(4, 5);

static void line(struct doctor *d, enum level level, const char *what, const char *fmt, ...)
{
	char text[2048];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	d->failed |= level == LEVEL_FAIL;
	if (d->lines)
		(void)json_array_append_new(d->lines, json_pack("{s:s, s:s, s:s}", "check", what, "level",
								level_str[level], "text", text));
	else
		(void)printf("%-5s %-11s %s\n", level_str[level], what, text);
}

/* A part that find_...() looks for: its path, or why not. */
static bool part(struct doctor *d, enum level missing, const char *what, int (*find)(char **, struct err *))
{
	AUTO_FREE(char, path);
	struct err err;

	if (find(&path, &err) < 0) {
		line(d, missing, what, "%s", err.text);
		return false;
	}
	line(d, LEVEL_OK, what, "%s", path);
	return true;
}

static void check_monitors(struct doctor *d)
{
	AUTO_FREE(char, vmm);
	AUTO_FREE(char, reason);
	struct err err;
	bool qemu, krun;

	(void)part(d, LEVEL_FAIL, "libkrunfw", find_libkrunfw);
	krun = part(d, LEVEL_WARN, "libkrun", find_libkrun);
	qemu = part(d, LEVEL_WARN, "qemu", find_qemu);
	qemu = part(d, LEVEL_WARN, "virtiofsd", find_virtiofsd) && qemu;
	if (!qemu)
		line(d, LEVEL_WARN, "qemu", "the fallback is missing; on Debian and Ubuntu: apt-get install qemu-system-x86 virtiofsd");
	if (find_role("agent-vm-vmm", &vmm, &err) < 0) {
		line(d, LEVEL_FAIL, "agent-vm", "%s", err.text);
		return;
	}
	reason = monitor_probe_kvm(vmm);
	if (!reason)
		line(d, LEVEL_OK, "kvm", "a virtual processor ran");
	else
		line(d, qemu ? LEVEL_WARN : LEVEL_FAIL, "kvm", "%s%s", reason, qemu ? "; QEMU emulation is used" : "");
	if (!qemu && (reason || !krun))
		line(d, LEVEL_FAIL, "monitor", "neither libkrun with KVM nor QEMU can be used");
}

static void check_walls(struct doctor *d)
{
	uint32_t kinds;
	struct err why;
	long abi;

	if (ns_probe(&kinds, &why) < 0)
		line(d, LEVEL_WARN, "namespaces", "%s", why.text);
	else
		line(d, LEVEL_OK, "namespaces", "the cage can be built");
	if (ns_probe(&kinds, &why) == 0 && geteuid() != 0) {
		if (kinds & NS_SUBIDS)
			line(d, LEVEL_OK, "sub-ids", "a range is mapped; chown works in the guest");
		else
			line(d, LEVEL_WARN, "sub-ids", "no range; the guest's root cannot chown; as root: apt-get install uidmap; "
			     "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 YOU");
	}
	abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (abi >= 2)
		line(d, LEVEL_OK, "landlock", "version %ld", abi);
	else
		line(d, LEVEL_WARN, "landlock", "not in this kernel, or too old; the other walls stand");
}

static void check_state(struct doctor *d)
{
	struct state_root root = STATE_ROOT_INIT;
	AUTO_FREE(char, path);
	AUTO_FREE(char, warning);
	struct image image;
	struct store store;
	struct statvfs fs;
	struct err err;
	int r;

	if (state_root_path(&path, &warning, &err) < 0 || state_root_check(path, &err) < 0) {
		line(d, LEVEL_FAIL, "state", "%s", err.text);
		return;
	}
	if (warning)
		line(d, LEVEL_WARN, "state", "%s", warning);
	r = state_root_open(path, false, &root, &err);
	if (r < 0) {
		line(d, r == -ENOENT ? LEVEL_OK : LEVEL_FAIL, "state", "%s: %s", path,
		     r == -ENOENT ? "not made yet" : err.text);
		line(d, LEVEL_WARN, "image", "none is stored; get one with: agent-vm setup, or make one here with: agent-vm build");
		return;
	}
	line(d, LEVEL_OK, "state", "%s", path);
	if (fstatvfs(root.fd, &fs) == 0)
		line(d, (uint64_t)fs.f_bavail * fs.f_frsize < (UINT64_C(1) << 30) ? LEVEL_WARN : LEVEL_OK, "disk",
		     "%lu MiB free there", (unsigned long)(((uint64_t)fs.f_bavail * fs.f_frsize) >> 20));
	r = store_open(root.fd, root.path, &store, &err);
	if (r == 0) {
		r = store_find(&store, getenv("AGENT_VM_IMAGE_TAG"), &image, &err);
		store_close(&store);
	}
	if (r == 0) {
		line(d, LEVEL_OK, "image", "%s %s", image.reference, image.digest_short);
		image_done(&image);
	} else {
		line(d, LEVEL_WARN, "image", "%s", err.text);
	}
	state_root_close(&root);
}

static int doctor_run(struct cli *cli, void *args, char **rest)
{
	const struct doctor_args *a = args;
	struct doctor d = { .lines = a->json ? json_array() : NULL };
	struct host_facts host;

	(void)cli;
	(void)rest;
	check_monitors(&d);
	check_walls(&d);
	host_facts_read("", &host);
	line(&d, host.memory_mib < 1024 ? LEVEL_WARN : LEVEL_OK, "memory", "%lu MiB, %u processors",
	     (unsigned long)host.memory_mib, host.cpus);
	check_state(&d);
	if (d.lines) {
		(void)json_dumpf(d.lines, stdout, JSON_INDENT(1));
		(void)putchar('\n');
		json_decref(d.lines);
	}
	return d.failed ? 1 : 0;
}

const struct cmd cmd_doctor = {
	.name = "doctor",
	.summary = "check what agent-vm needs on this host",
	.usage = "[--json]",
	.about = "One line for each thing that is needed: ok, warn or fail, what was found, and what to do about it. The exit "
		 "status is 1 if anything failed.",
	.opts = doctor_opts,
	.args_size = sizeof(struct doctor_args),
	.words = CMD_WORDS_NONE,
	.run = doctor_run,
};
