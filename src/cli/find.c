#include "cli/find.h"

#include <errno.h>
#include <glob.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/distro.h"
#include "base/macros.h"
#include "base/prog.h"

#if defined(__aarch64__)
#define QEMU "qemu-system-aarch64"
#define QEMU_DEB "qemu-system-arm"
#define QEMU_PACMAN "qemu-system-aarch64"
#define MULTIARCH "aarch64-linux-gnu"
#define NPM_ARCH "arm64"
#else
#define QEMU "qemu-system-x86_64"
#define QEMU_DEB "qemu-system-x86"
#define QEMU_PACMAN "qemu-system-x86"
#define MULTIARCH "x86_64-linux-gnu"
#define NPM_ARCH "x64"
#endif

int find_self_dir(char **ret, struct err *err)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	char *slash;

	if (n < 0)
		return err_set(err, -ENOENT, "/proc/self/exe: %s; is /proc mounted?", strerror(errno));
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return err_set(err, -ENOENT, "/proc/self/exe: has no folder");
	*slash = '\0';
	*ret = xstrdup(slash == path ? "/" : path);
	return 0;
}

static bool is_kind(const char *path, mode_t kind)
{
	struct stat st;

	return stat(path, &st) == 0 && (st.st_mode & S_IFMT) == kind;
}

/* The first that exists of paths relative to @dir ("" stands for absolute ones); a pattern takes its last match, which is
 * the newest version. Resolved, so that messages and the cage see one name. */
static int first_of(const char *dir, const char *const *patterns, mode_t kind, char **ret)
{
	for (; *patterns; patterns++) {
		AUTO_FREE(char, full);
		int r = -ENOENT;
		glob_t g;

		full = **patterns == '/' ? xstrdup(*patterns) : xasprintf("%s/%s", dir, *patterns);
		if (glob(full, 0, NULL, &g) != 0)
			continue;
		for (size_t i = g.gl_pathc; i-- > 0 && r < 0;)
			if (is_kind(g.gl_pathv[i], kind)) {
				*ret = realpath(g.gl_pathv[i], NULL);
				r = *ret ? 0 : -ENOENT;
			}
		globfree(&g);
		if (r == 0)
			return 0;
	}
	return -ENOENT;
}

static int find_part(const char *what, const char *const *patterns, mode_t kind, const char *advice, char **ret,
		     struct err *err)
{
	AUTO_FREE(char, dir);
	struct strv tried = { 0 };
	AUTO_FREE(char, list);
	int r = find_self_dir(&dir, err);

	if (r < 0)
		return r;
	if (first_of(dir, patterns, kind, ret) == 0)
		return 0;
	for (; *patterns && tried.n < 3; patterns++)
		strv_addf(&tried, "%s%s%s", **patterns == '/' ? "" : dir, **patterns == '/' ? "" : "/", *patterns);
	list = xstrdup(tried.v[0]);
	for (size_t i = 1; i < tried.n; i++) {
		char *more = xasprintf("%s, %s", list, tried.v[i]);

		free(list);
		list = more;
	}
	strv_done(&tried);
	return err_set(err, -ENOENT, "%s: not found (looked at %s%s); %s", what, list, *patterns ? " and more" : "", advice);
}

/* What a variable names is used or is an error. 1: the variable is not set. */
static int from_variable(const char *name, char **ret, struct err *err)
{
	const char *v = getenv(name);
	AUTO_FREE(char, shown);
	char *real;

	if (!v || *v == '\0')
		return 1;
	shown = str_escape(v, strlen(v));
	if (*v != '/')
		return err_set(err, -EINVAL, "%s=%s: not an absolute path; write the whole path of the file", name, shown);
	real = realpath(v, NULL);
	if (!real || !is_kind(real, S_IFREG)) {
		free(real);
		return err_set(err, -ENOENT, "%s=%s: no such file; correct or unset the variable", name, shown);
	}
	*ret = real;
	return 0;
}

int find_role(const char *name, char **ret, struct err *err)
{
	const char *module = str_starts(name, "agent-vm-") ? name + strlen("agent-vm-") : name;
	AUTO_FREE(char, libexec);
	AUTO_FREE(char, tree);
	AUTO_FREE(char, top);
	const char *patterns[6];

	libexec = xasprintf("../libexec/agent-vm/%s", name);
	tree = xasprintf("src/%s/%s", module, name);
	top = xasprintf("%s/%s", module, name); /* agent-vm-guest is not below src/ */
	patterns[0] = name;
	patterns[1] = libexec;
	patterns[2] = tree;
	patterns[3] = top;
	patterns[4] = strcmp(module, "probe") == 0 ? "src/gate/agent-vm-probe" : NULL; /* a client of gate's, and built there */
	patterns[5] = NULL;
	return find_part(name, patterns, S_IFREG, "install agent-vm again, with all its parts", ret, err);
}

int find_libkrun(char **ret, struct err *err)
{
	static const char *const patterns[] = {
		"../lib/agent-vm/libkrun.so.1",
		"../deps/node_modules/@earendil-works/gondolin-krun-runner-linux-" NPM_ARCH "/lib/libkrun.so.1",
		"/usr/local/lib/libkrun.so.1",
		"/usr/local/lib64/libkrun.so.1",
		"/usr/lib/" MULTIARCH "/libkrun.so.1",
		"/usr/lib64/libkrun.so.1",
		"/usr/lib/libkrun.so.1",
		NULL,
	};
	int r = from_variable("AGENT_VM_LIBKRUN", ret, err);

	return r <= 0 ? r : find_part("libkrun.so.1", patterns, S_IFREG,
				      "name the file in AGENT_VM_LIBKRUN, or install agent-vm with its libraries", ret, err);
}

int find_libkrunfw(char **ret, struct err *err)
{
	static const char *const patterns[] = {
		"../lib/agent-vm/libkrunfw.so.5",
		"../lib/agent-vm/libkrunfw.so.5.*",
		"../deps/node_modules/@superradcompany/microsandbox-linux-" NPM_ARCH "-gnu/lib/libkrunfw.so.5*",
		"/usr/local/lib/libkrunfw.so.5",
		"/usr/local/lib64/libkrunfw.so.5",
		"/usr/lib/" MULTIARCH "/libkrunfw.so.5",
		"/usr/lib64/libkrunfw.so.5",
		"/usr/lib/libkrunfw.so.5",
		NULL,
	};
	int r = from_variable("AGENT_VM_LIBKRUNFW", ret, err);

	return r <= 0 ? r : find_part("libkrunfw.so.5", patterns, S_IFREG,
				      "name the file in AGENT_VM_LIBKRUNFW, or install agent-vm with its libraries", ret, err);
}

int find_qemu(char **ret, struct err *err)
{
	AUTO_FREE(char, how);
	int r = find_program(QEMU, ret, err);

	if (r != -ENOENT)
		return r;
	how = distro_install(QEMU_DEB, "qemu-kvm", QEMU_PACMAN);
	return err_set(err, r, QEMU ": not installed; %s", how);
}

int find_virtiofsd(char **ret, struct err *err)
{
	static const char *const patterns[] = { "/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd",
						NULL };
	AUTO_FREE(char, how);

	how = distro_install_virtiofsd();
	return find_part("virtiofsd", patterns, S_IFREG, how, ret, err);
}

int find_boot_dir(char **ret, struct err *err)
{
	static const char *const patterns[] = { "../lib/agent-vm/boot/root", "boot/root", NULL };

	return find_part("boot folder of the guest", patterns, S_IFDIR, "install agent-vm again, with all its parts", ret, err);
}

int find_boot_image(char **ret, struct err *err)
{
	static const char *const patterns[] = { "../lib/agent-vm/boot/boot.ext4", "boot/boot.ext4", NULL };

	return find_part("boot image of the guest", patterns, S_IFREG, "install agent-vm again, with all its parts", ret, err);
}

int find_program(const char *name, char **ret, struct err *err)
{
	int r = prog_find(name, ret);

	return r == 0 ? 0 : err_set(err, r, "%s: %s", name, r == -EPERM ? PROG_SHUNNED : "not installed");
}
