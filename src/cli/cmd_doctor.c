/* `agent-vm doctor`: each prerequisite, the fact, and what to do about what is missing. Looks with the same functions as a
 * launch does, so what it says is what a launch will meet. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/distro.h"
#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "cli/cmd.h"
#include "cli/creds.h"
#include "cli/find.h"
#include "cli/launch_args.h"
#include "cli/monitor.h"
#include "cli/preflight.h"
#include "image/store.h"
#include "sandbox/landlock.h"
#include "sandbox/ns.h"
#include "sandbox/ns_map.h"
#include "session/cgroup.h"
#include "session/project.h"
#include "session/registry.h"
#include "session/root.h"

#define VERSION_MS 5000
#define SUBIDS_MAX (1 << 20)

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

static const char *variable(const char *name)
{
	const char *v = getenv(name);

	return v && *v ? v : NULL;
}

/* A part that find_...() looks for: its path, caller owns; NULL when a line said that it is missing. */
static char *part(struct doctor *d, enum level missing, const char *what, int (*find)(char **, struct err *))
{
	struct err err;
	char *path;

	if (find(&path, &err) == 0)
		return path;
	line(d, missing, what, "%s", err.text);
	return NULL;
}

/* A library, loaded as a launch loads it. @bad: one that is there and is none. */
static bool library(struct doctor *d, enum level missing, enum level bad, const char *what, int (*find)(char **, struct err *),
		    const char *vmm, const char *question)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, says);
	bool good;

	path = part(d, missing, what, find);
	if (!path || !vmm)
		return false;
	says = monitor_ask(vmm, question, path, &good);
	if (good)
		line(d, LEVEL_OK, what, "%s: %s", path, says);
	else
		line(d, bad, what, "%s", says);
	return good;
}

/* The first line that a program says to --version. Caller owns. */
static char *version_of(char *path)
{
	char *argv[] = { path, (char *)"--version", NULL };
	AUTO_FREE(char, out);
	struct prog p = PROG_INIT;

	p.path = path;
	p.argv = argv;
	if (prog_output(&p, 65536, VERSION_MS, &out, NULL) < 0)
		return xstrdup("no answer to --version");
	return str_escape(out, strcspn(out, "\n"));
}

static bool check_qemu(struct doctor *d, bool namespaces)
{
	AUTO_FREE(char, qemu);
	AUTO_FREE(char, version);
	AUTO_FREE(char, virtiofsd);

	qemu = part(d, LEVEL_WARN, "qemu", find_qemu);
	if (qemu) {
		version = version_of(qemu);
		line(d, LEVEL_OK, "qemu", "%s: %s", qemu, version);
	}
	virtiofsd = part(d, LEVEL_WARN, "virtiofsd", find_virtiofsd);
	if (!virtiofsd)
		return false;
	if (!namespaces && geteuid() != 0 && strstr(virtiofsd, "/qemu/")) {
		line(d, LEVEL_WARN, "virtiofsd", "%s: serves an ordinary user only inside namespaces, which this host refuses; install "
		     "a virtiofsd of version 1, or allow them", virtiofsd);
		return false;
	}
	line(d, LEVEL_OK, "virtiofsd", "%s", virtiofsd);
	return qemu != NULL;
}

static void check_monitors(struct doctor *d, bool namespaces)
{
	AUTO_FREE(char, vmm);
	AUTO_FREE(char, reason);
	struct err err;
	bool qemu, krun;

	if (find_role("agent-vm-vmm", &vmm, &err) < 0)
		line(d, LEVEL_FAIL, "agent-vm", "%s", err.text);
	(void)library(d, LEVEL_FAIL, LEVEL_FAIL, "libkrunfw", find_libkrunfw, vmm, "--version-krunfw");
	/* A launch stops where the variable names what is not there. */
	krun = library(d, variable("AGENT_VM_LIBKRUN") ? LEVEL_FAIL : LEVEL_WARN, LEVEL_WARN, "libkrun", find_libkrun, vmm,
		       "--check-libkrun");
	qemu = check_qemu(d, namespaces);
	if (!vmm)
		return;
	reason = monitor_probe_kvm(vmm);
	if (!reason)
		line(d, LEVEL_OK, "kvm", "a virtual processor ran");
	else
		line(d, qemu ? LEVEL_WARN : LEVEL_FAIL, "kvm", "%s%s", reason, qemu ? "; QEMU emulation is used" : "");
	if (!qemu && (reason || !krun))
		line(d, LEVEL_FAIL, "monitor", "neither libkrun with KVM nor QEMU can be used");
}

/* The first line of a small file of the system, "" when it is not there. */
static void small_file(const char *path, char *ret, size_t n)
{
	FILE *f = fopen(path, "re");

	ret[0] = '\0';
	if (!f)
		return;
	if (fgets(ret, (int)n, f))
		ret[strcspn(ret, "\n")] = '\0';
	(void)fclose(f);
}

static void check_apparmor(struct doctor *d, bool namespaces)
{
	char enabled[16], restricts[16];

	small_file("/sys/module/apparmor/parameters/enabled", enabled, sizeof(enabled));
	small_file("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", restricts, sizeof(restricts));
	if (strcmp(enabled, "Y") != 0)
		line(d, LEVEL_OK, "apparmor", "not in use");
	else if (strcmp(restricts, "1") != 0)
		line(d, LEVEL_OK, "apparmor", "in use; leaves user namespaces alone");
	else if (namespaces)
		line(d, LEVEL_OK, "apparmor", "in use; restricts user namespaces, and not ours");
	else
		line(d, LEVEL_WARN, "apparmor", "in use and restricts user namespaces; as root: sysctl kernel.apparmor_restrict_unprivileged_userns=0");
}

/* The first 65536 ids behind all that are given away, as usermod wants them. Caller owns. */
static char *free_ids(const char *path)
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	uint32_t first;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, SUBIDS_MAX, &text, NULL) < 0)
		text = xstrdup("");
	if (ns_subid_free(text, &first) < 0)
		return xstrdup("FIRST-LAST");
	return xasprintf("%u-%u", first, first + NS_SUBIDS_GIVEN - 1);
}

static void no_sub_ids(struct doctor *d)
{
	const struct passwd *pw = getpwuid(geteuid());
	AUTO_FREE(char, install);
	AUTO_FREE(char, uids);
	AUTO_FREE(char, gids);

	install = distro_install("uidmap", "shadow-utils", "shadow");
	uids = free_ids("/etc/subuid");
	gids = free_ids("/etc/subgid");
	line(d, LEVEL_WARN, "sub-ids", "no range; the guest's root cannot chown; %s; sudo usermod --add-subuids %s --add-subgids %s %s",
	     install, uids, gids, pw ? pw->pw_name : "USER");
}

/* @kinds: of ns_probe(), 0 when it failed; @why: then why. */
static void check_walls(struct doctor *d, uint32_t kinds, const char *why)
{
	int abi = landlock_abi();
	uint32_t action = SECCOMP_RET_ERRNO;

	if (kinds == 0)
		line(d, LEVEL_WARN, "namespaces", "%s", why);
	else
		line(d, LEVEL_OK, "namespaces", "the cage can be built");
	check_apparmor(d, kinds != 0);
	if (kinds != 0 && geteuid() != 0) {
		if (kinds & NS_SUBIDS)
			line(d, LEVEL_OK, "sub-ids", "a range is mapped; chown works in the guest");
		else
			no_sub_ids(d);
	}
	if (abi >= 2)
		line(d, LEVEL_OK, "landlock", "version %d", abi);
	else
		line(d, LEVEL_WARN, "landlock", "not in this kernel, switched off, or too old; Linux 5.19 and later have it: add landlock "
		     "to the kernel's lsm= parameter");
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0)
		line(d, LEVEL_OK, "seccomp", "filters can be set");
	else
		line(d, LEVEL_WARN, "seccomp", "filters cannot be set: %s; use a kernel with CONFIG_SECCOMP_FILTER", strerror(errno));
	if (kinds == 0 && abi < 2)
		line(d, LEVEL_WARN, "cage", "without namespaces and Landlock a guest that takes the monitor over has %s files on this host",
		     geteuid() == 0 ? "root's" : "your");
}

static void check_cgroup(struct doctor *d)
{
	struct cgroup_place place = { NULL };
	AUTO_FREE(char, shown);
	struct err why;

	if (cgroup_find(&place, &why) < 0) {
		line(d, LEVEL_WARN, "cgroup", "the monitor's memory and processes are not limited: %s", why.text);
		return;
	}
	shown = str_escape(place.path, strlen(place.path));
	line(d, LEVEL_OK, "cgroup", "%s: the monitor gets a group of its own here, with limits", shown);
	cgroup_place_done(&place);
}

static void check_memory(struct doctor *d)
{
	struct host_facts host;

	host_facts_read("", &host);
	line(d, host.memory_mib < 1024 ? LEVEL_WARN : LEVEL_OK, "memory", "%lu MiB, %u processors",
	     (unsigned long)host.memory_mib, host.cpus);
}

static const char *fs_name(long type)
{
	static const struct {
		long magic;
		const char *name;
	} all[] = {
		{ 0xef53, "ext4" },	  { 0x9123683e, "btrfs" },    { 0x58465342, "xfs" },  { 0x01021994, "tmpfs" },
		{ 0x794c7630, "overlay" }, { 0x6969, "nfs" },	       { 0x65735546, "fuse" }, { 0x2fc12fc1, "zfs" },
		{ 0xf2f52010, "f2fs" },	  { 0xff534d42, "cifs" },      { 0x01021997, "9p" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if ((uint32_t)all[i].magic == (uint32_t)type)
			return all[i].name;
	return "another file system";
}

/* Sessions whose launcher died are cleared away, as by every command that looks (command line page 6.3). */
static void check_sessions(struct doctor *d, const struct state_root *root)
{
	struct session_list live = { 0 };
	struct err err;
	int r = registry_reap(root, REAP_GRACE_MS, NULL, &err);

	if (r == 0)
		r = registry_list(root, SESSIONS_LIVE, &live, &err);
	if (r < 0)
		line(d, LEVEL_WARN, "sessions", "%s", err.text);
	else
		line(d, LEVEL_OK, "sessions", "%zu live; what dead ones left is cleared away", live.n);
	session_list_done(&live);
}

/* HASH.secrets and HASH/tokens: real tokens in files. Names only. */
static void check_older(struct doctor *d, const struct state_root *root)
{
	int fd = openat(root->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char first[NAME_MAX + 8] = "";
	const struct dirent *e;
	unsigned n = 0;

	while (dir && (e = readdir(dir))) {
		char tokens[NAME_MAX + 8];
		struct stat st;
		size_t hex = strspn(e->d_name, "0123456789abcdef");
		bool secrets = hex == PROJECT_HASH_LEN && strcmp(e->d_name + hex, ".secrets") == 0;

		(void)snprintf(tokens, sizeof(tokens), "%s/tokens", e->d_name);
		if (!secrets && (hex != PROJECT_HASH_LEN || e->d_name[hex] != '\0' ||
				 fstatat(root->fd, tokens, &st, AT_SYMLINK_NOFOLLOW) < 0))
			continue;
		if (n++ == 0)
			(void)snprintf(first, sizeof(first), "%s", secrets ? e->d_name : tokens);
	}
	if (dir)
		(void)closedir(dir);
	else if (fd >= 0)
		(void)close(fd);
	if (n > 0)
		line(d, LEVEL_WARN, "older", "%s/%s%s: real tokens that the older program left; delete it once that program is no longer used",
		     root->path, first, n > 1 ? " and more" : "");
	else
		line(d, LEVEL_OK, "older", "no tokens of the older program are left");
}

static void check_image(struct doctor *d, const struct state_root *root)
{
	struct image image;
	struct store store;
	struct err err;
	int r;

	r = store_open(root->fd, root->path, &store, &err);
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
}

static void check_state(struct doctor *d)
{
	struct state_root root = STATE_ROOT_INIT;
	AUTO_FREE(char, path);
	AUTO_FREE(char, warning);
	struct statvfs vfs;
	struct statfs fs;
	struct stat st;
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
	if (fstat(root.fd, &st) == 0 && fstatfs(root.fd, &fs) == 0)
		line(d, LEVEL_OK, "state", "%s: mode %04o on %s; locks work", path, st.st_mode & 07777, fs_name((long)fs.f_type));
	if (fstatvfs(root.fd, &vfs) == 0)
		line(d, (uint64_t)vfs.f_bavail * vfs.f_frsize < (UINT64_C(1) << 30) ? LEVEL_WARN : LEVEL_OK, "disk",
		     "%lu MiB free there", (unsigned long)(((uint64_t)vfs.f_bavail * vfs.f_frsize) >> 20));
	check_sessions(d, &root);
	check_older(d, &root);
	check_image(d, &root);
	state_root_close(&root);
}

/* Which login files and variables are there; the files are not opened, of the variables only the names are told. */
static void check_logins(struct doctor *d)
{
	struct strv all = { 0 };
	AUTO_FREE(char, there);
	AUTO_FREE(char, home);

	there = xstrdup("");
	home = preflight_home();
	creds_there(getenv, home, &all);
	for (size_t i = 0; i < all.n; i++) {
		AUTO_FREE(char, shown);

		shown = str_escape(all.v[i], strlen(all.v[i]));
		str_append(&there, *there ? ", " : "");
		str_append(&there, shown);
	}
	line(d, LEVEL_OK, "logins", "%s", *there ? there : "none on this host; sign in here with the agent's own program");
	strv_done(&all);
}

/* As the vault opens it for the guest's. */
static void check_ping(struct doctor *d)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);

	if (fd >= 0)
		line(d, LEVEL_OK, "ping", "works in the guest");
	else if (errno == EACCES || errno == EPERM)
		line(d, LEVEL_WARN, "ping", "fails in the guest: net.ipv4.ping_group_range holds none of your groups; as root: "
		     "sysctl net.ipv4.ping_group_range='0 2147483647'");
	else
		line(d, LEVEL_WARN, "ping", "fails in the guest: %s", strerror(errno));
	if (fd >= 0)
		(void)close(fd);
}

#define FILES_WANTED 17000 /* one for each connection of wire's table, and the rest */

/* The parts raise their limit to the hard one (network page 3.6). */
static void check_files(struct doctor *d)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return;
	if (lim.rlim_max >= FILES_WANTED)
		line(d, LEVEL_OK, "files", "enough may be open for 16,384 connections of a guest");
	else
		line(d, LEVEL_WARN, "files", "only %lu may be open, so a guest has fewer than 16,384 connections, and of a project "
		     "with more files it cannot use all; as root: "
		     "echo '* hard nofile 524288' >>/etc/security/limits.conf, and log in again", (unsigned long)lim.rlim_max);
}

static void check_network(struct doctor *d)
{
	static const char *const names[] = { "http_proxy", "https_proxy", "all_proxy", "no_proxy",
					     "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY" };
	char text[512] = "", set[256] = "";
	FILE *f = fopen("/etc/resolv.conf", "re");
	size_t n = 0;

	while (f && fgets(text, sizeof(text), f))
		n += str_starts(text, "nameserver") && (text[10] == ' ' || text[10] == '\t');
	if (f)
		(void)fclose(f);
	if (n > 0)
		line(d, LEVEL_OK, "resolver", "%zu nameserver%s in /etc/resolv.conf", n, n == 1 ? "" : "s");
	else
		line(d, LEVEL_WARN, "resolver", "/etc/resolv.conf: names no nameserver; pulls by name will fail");
	/* Names only: a proxy's address may hold a password. */
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (variable(names[i]))
			(void)snprintf(set + strlen(set), sizeof(set) - strlen(set), "%s%s", *set ? ", " : "", names[i]);
	line(d, LEVEL_OK, "proxy", "%s", *set ? set : "no variable is set");
}

static int doctor_run(struct cli *cli, void *args, char **rest)
{
	const struct doctor_args *a = args;
	struct doctor d = { .lines = a->json ? json_array() : NULL };
	struct err why = { "" };
	uint32_t kinds;

	(void)cli;
	(void)rest;
	if (ns_probe(&kinds, &why) < 0)
		kinds = 0;
	check_monitors(&d, kinds != 0);
	check_walls(&d, kinds, why.text);
	check_cgroup(&d);
	check_memory(&d);
	check_state(&d);
	check_logins(&d);
	check_network(&d);
	check_ping(&d);
	check_files(&d);
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
