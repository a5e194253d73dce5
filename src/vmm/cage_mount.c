/* The file system that the monitor sees:
 *
 *   /share/N           the shares; with guards and hidden files inside
 *   /vm/disk.qcow2     the session's overlay, writable
 *   /vm/base.ext4      its backing file, read-only
 *   /vm/boot.ext4      QEMU's boot root; /boot-root is libkrun's
 *   /vm/kernel         for libkrun, read-only
 *   /proc              of the pid namespace, read-only
 *   /dev               null, zero, random, urandom, kvm
 *   /usr /lib* /bin    for QEMU and virtiofsd alone, with /run and /tmp of their own
 *
 * libkrun is loaded before, so with it nothing of the host's programs is there. Everything is nosuid and nodev but the
 * device nodes, noexec but the programs; the tmpfs below it all is read-only in the end.
 *
 * Shares are opened without following links: their paths are canonical, so a link means that they were swapped since. A
 * share is copied with all mounts inside it. Guards come after the shares and in an order in which the stricter ones are
 * on top: GUARD_RW (which copies from the host's view, so that a read-only share needs no flag cleared), GUARD_SELF,
 * GUARD_RO, HIDE; parents before children. The target is looked up below the share without following links. A target that
 * is not there any more ends the launch: the launcher has seen it, and a guard that guards nothing is worse than none.
 *
 * A mount keeps its own name from being renamed, removed and covered, not those of its parents: whoever orders a guard
 * orders GUARD_SELF for the folders above it that the guest must not move away. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/str.h"
#include "sandbox/mnt.h"
#include "vmm/cage.h"
#include "vmm/cage_int.h"

#define HIDE_FILE ".hidden/file"
#define HIDE_DIR ".hidden/folder"
#define ROOT_KIB 1024
#define ROOT_INODES 1024 /* places for mounts: a few dozen, and the shares, at most 64 */
#define RUN_KIB 4096
#define TMP_KIB 16384

/* Parents before children, and children directly behind them: '/' sorts before everything. */
static int path_cmp(const void *pa, const void *pb)
{
	const unsigned char *a = *(const unsigned char *const *)pa, *b = *(const unsigned char *const *)pb;

	while (*a && *a == *b)
		a++, b++;
	return (*a == '/' ? 1 : *a) - (*b == '/' ? 1 : *b);
}

static bool path_lies_in(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return strncmp(path, dir, n) == 0 && path[n] == '/';
}

static void strv_sort(struct strv *s)
{
	if (s->n > 1)
		qsort(s->v, s->n, sizeof(*s->v), path_cmp);
}

static int guard_source(const struct cage_place *g, const char *rel, enum cage_guard kind, int target, int *ret_fd)
{
	struct stat a, b;
	int r;

	if (fstat(target, &a) < 0)
		return -errno;
	if (kind == HIDE) {
		r = file_open_beneath(g->root, S_ISDIR(a.st_mode) ? HIDE_DIR : HIDE_FILE, O_PATH, 0);
	} else {
		r = file_open_beneath(kind == GUARD_RW ? g->host : g->share, rel, O_PATH, 0);
		if (r >= 0 && (fstat(r, &b) < 0 || a.st_dev != b.st_dev || a.st_ino != b.st_ino)) {
			(void)close(r);
			return -ESTALE;
		}
	}
	if (r < 0)
		return r;
	*ret_fd = r;
	return 0;
}

int cage_guard_put(const struct cage_place *g, const char *rel, enum cage_guard kind, struct err *err)
{
	static const uint32_t flags[] = {
		[GUARD_RW] = MNT_DEEP, [GUARD_SELF] = MNT_DEEP, [GUARD_RO] = MNT_RO | MNT_DEEP, [HIDE] = MNT_RO,
	};
	AUTO_FREE(char, shown);
	AUTO_FREE(char, shown_rel);
	AUTO_FD(target);
	AUTO_FD(src);
	AUTO_FD(tree);
	int r;

	shown = str_escape(g->path, strlen(g->path));
	shown_rel = str_escape(rel, strlen(rel));
	if (!*rel || strcmp(rel, ".") == 0)
		return err_set(err, -EINVAL, "%s: a guard must name something below it", shown);
	r = file_open_beneath(g->share, rel, O_PATH, 0);
	if (r < 0)
		goto out;
	target = r;
	r = guard_source(g, rel, kind, target, &src);
	if (r == 0)
		r = mnt_clone(src, flags[kind], &tree);
	if (r == 0)
		r = mnt_put(tree, target);
out:
	if (r == -ELOOP) /* the launcher names the link's target, or nothing */
		return err_set(err, r, "%s/%s: a symbolic link cannot be %s; start again", shown, shown_rel,
			       kind == HIDE ? "hidden" : "guarded");
	if (r == -ENOENT || r == -ENOTDIR || r == -ESTALE || r == -EXDEV)
		return err_set(err, r, "%s/%s: it was changed while the session started (%s); start again", shown, shown_rel,
			       strerror(-r));
	if (r < 0)
		return err_set(err, r, "%s/%s: %s it: %s", shown, shown_rel, kind == HIDE ? "hide" : "guard", strerror(-r));
	return 0;
}

static int guards_put(const struct cage_place *g, struct strv *list, enum cage_guard kind, struct err *err)
{
	const char *last = NULL;
	size_t i;
	int r;

	strv_sort(list);
	for (i = 0; i < list->n; i++) {
		/* What lies in a hidden folder is gone with it. */
		if (kind == HIDE && last && (strcmp(list->v[i], last) == 0 || path_lies_in(list->v[i], last)))
			continue;
		last = list->v[i];
		r = cage_guard_put(g, list->v[i], kind, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int share_put(int root, struct vmm_share *s, size_t i, struct err *err)
{
	struct cage_place g = { .root = root, .path = s->path };
	AUTO_FREE(char, shown);
	AUTO_FREE(char, place);
	AUTO_FD(host);
	AUTO_FD(share);
	struct stat st;
	int r;

	shown = str_escape(s->path, strlen(s->path));
	r = mnt_open(s->path, &host, err);
	if (r < 0)
		return r;
	if (fstat(host, &st) < 0 || !S_ISDIR(st.st_mode))
		return err_set(err, -ENOTDIR, "%s: not a folder", shown);
	place = xasprintf("%s/%zu", &CAGE_SHARE[1], i);
	r = mnt_bind(s->path, root, place, MNT_DEEP | (s->ro ? MNT_RO : 0), err);
	if (r < 0)
		return r;
	share = file_open_beneath(root, place, O_PATH | O_DIRECTORY, 0);
	if (share < 0)
		return err_set(err, share, "%s: its place in the cage: %s", shown, strerror(-share));
	g.host = host;
	g.share = share;
	r = guards_put(&g, &s->guard_rw, GUARD_RW, err);
	if (r == 0)
		r = guards_put(&g, &s->guard_self, GUARD_SELF, err);
	if (r == 0)
		r = guards_put(&g, &s->guard_ro, GUARD_RO, err);
	if (r == 0)
		r = guards_put(&g, &s->hide, HIDE, err);
	if (r < 0)
		return r;
	free(s->path);
	s->path = xasprintf("%s/%zu", CAGE_SHARE, i);
	return 0;
}

static int devices_put(int root, bool kvm, struct err *err)
{
	static const char *const nodes[] = { "dev/null", "dev/zero", "dev/random", "dev/urandom", "dev/kvm" };
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(nodes) - !kvm; i++) {
		AUTO_FREE(char, path);

		path = xasprintf("/%s", nodes[i]);
		r = mnt_bind(path, root, nodes[i], MNT_DEV, err);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Make a folder of the cage and give back a path to it that leads nowhere else. */
static int folder_make(int root, const char *name, mode_t mode, int *ret_fd, char **ret_path, struct err *err)
{
	int r;

	r = dir_make_at(root, name, mode);
	if (r == 0)
		r = file_open_beneath(root, name, O_PATH | O_DIRECTORY, 0);
	if (r < 0)
		return err_set(err, r, "cage: /%s: %s", name, strerror(-r));
	*ret_fd = r;
	*ret_path = xasprintf("/proc/self/fd/%d", r);
	return 0;
}

/* Read-only: root's id may write below /proc/sys without any capability. */
static int proc_put(int root, bool qemu, struct err *err)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);
	AUTO_FD(src);
	AUTO_FD(tree);
	int r;

	r = folder_make(root, "proc", 0555, &fd, &path, err);
	if (r < 0)
		return r;
	/* virtiofsd reads /proc/sys/fs/file-max; libkrun needs its own entry alone. */
	if (mount("proc", path, "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, qemu ? NULL : "subset=pid") == 0)
		return 0;
	/* A host whose own /proc has covered places (a container) allows no fresh one. */
	r = mnt_open("/proc", &src, err);
	if (r < 0)
		return r;
	r = mnt_clone(src, MNT_RO | MNT_DEEP, &tree);
	if (r == 0)
		r = mnt_put(tree, fd);
	return r < 0 ? err_set(err, r, "cage: /proc: %s", strerror(-r)) : 0;
}

static int tmpfs_put(int root, const char *name, unsigned int kib, mode_t mode, struct err *err)
{
	AUTO_FREE(char, path);
	AUTO_FD(fd);
	int r;

	r = folder_make(root, name, mode, &fd, &path, err);
	return r < 0 ? r : mnt_tmpfs(path, kib, ROOT_INODES, mode, err);
}

/* Where the distribution keeps its programs; a link (/lib -> usr/lib) is made again as one. */
static int programs_put(int root, const struct vmm_config *cfg, struct err *err)
{
	static const char *const places[] = { "/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin",
					      "/nix/store", "/gnu/store", "/etc/ld.so.cache", "/etc/alternatives" };
	const char *const files[] = { cfg->qemu, cfg->virtiofsd };
	char to[PATH_MAX];
	struct stat st;
	ssize_t n;
	size_t i;
	int r;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		const char *p = places[i];

		if (lstat(p, &st) < 0)
			continue;
		if (S_ISLNK(st.st_mode)) {
			n = readlink(p, to, sizeof(to) - 1);
			if (n < 0)
				continue;
			to[n] = 0;
			if (symlinkat(to, root, p + 1) < 0)
				return err_set(err, -errno, "cage: %s: %s", p, strerror(errno));
			continue;
		}
		r = mnt_bind(p, root, p + 1, MNT_RO | MNT_EXEC | MNT_DEEP, err);
		if (r < 0)
			return r;
	}
	/* Programs of the user's own, by themselves. */
	for (i = 0; i < ARRAY_SIZE(files); i++) {
		AUTO_FD(fd);

		if (!files[i])
			continue;
		fd = file_open_beneath(root, files[i] + 1, O_PATH, 0);
		if (fd != -ENOENT)
			continue;
		r = mnt_bind(files[i], root, files[i] + 1, MNT_RO | MNT_EXEC, err);
		if (r < 0)
			return r;
	}
	if (symlinkat("../run", root, "var/run") < 0 && errno != ENOENT)
		return err_set(err, -errno, "cage: /var/run: %s", strerror(errno));
	return 0;
}

static int hidden_make(int root, struct err *err)
{
	int r, fd;

	r = dir_make_at(root, ".hidden", 0755);
	if (r == 0)
		r = dir_make_at(root, HIDE_DIR, 0);
	if (r == 0) {
		fd = file_open_beneath(root, HIDE_FILE, O_WRONLY | O_CREAT | O_EXCL, 0);
		if (fd >= 0)
			(void)close(fd);
		r = fd < 0 ? fd : 0;
	}
	return r < 0 ? err_set(err, r, "cage: what hides files: %s", strerror(-r)) : 0;
}

static int bind_to(char **path, int root, const char *inside, uint32_t flags, struct err *err)
{
	int r;

	if (!*path)
		return 0;
	r = mnt_bind(*path, root, inside + 1, flags, err);
	if (r < 0)
		return r;
	free(*path);
	*path = xstrdup(inside);
	return 0;
}

static int fill(int root, struct vmm_config *cfg, struct err *err)
{
	bool qemu = cage_is_qemu(cfg);
	size_t i;
	int r;

	r = hidden_make(root, err);
	if (r == 0)
		r = dir_make_at(root, &CAGE_SHARE[1], 0755);
	if (r == 0)
		r = proc_put(root, qemu, err);
	if (r == 0)
		r = devices_put(root, cfg->monitor != VMM_QEMU_TCG, err);
	if (r == 0)
		r = tmpfs_put(root, &CAGE_VM[1], RUN_KIB, 0700, err);
	if (r == 0)
		r = bind_to(&cfg->disk, root, CAGE_VM "/disk.qcow2", 0, err);
	if (r == 0)
		r = bind_to(&cfg->disk_base, root, CAGE_VM "/base.ext4", MNT_RO, err);
	if (r == 0 && !qemu)
		r = bind_to(&cfg->kernel, root, CAGE_VM "/kernel", MNT_RO, err);
	if (r == 0 && qemu)
		r = bind_to(&cfg->boot_image, root, CAGE_BOOT_IMAGE, MNT_RO, err);
	if (r == 0 && !qemu)
		r = bind_to(&cfg->boot_dir, root, CAGE_BOOT_DIR, MNT_RO | MNT_DEEP, err);
	if (r == 0 && qemu)
		r = tmpfs_put(root, "run", RUN_KIB, 0755, err);
	if (r == 0 && qemu)
		r = tmpfs_put(root, "tmp", TMP_KIB, 01777, err);
	if (r == 0 && qemu)
		r = dir_make_at(root, "var", 0755);
	if (r == 0 && qemu)
		r = programs_put(root, cfg, err);
	for (i = 0; r == 0 && i < cfg->n_shares; i++)
		r = share_put(root, &cfg->shares[i], i, err);
	return r;
}

static int read_only(const char *path, struct err *err)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_RDONLY };

	if (mount_setattr(AT_FDCWD, path, 0, &attr, sizeof(attr)) < 0)
		return err_set(err, -errno, "cage: %s read-only: %s", path, strerror(errno));
	return 0;
}

int cage_view(struct vmm_config *cfg, struct err *err)
{
	AUTO_FREE(char, place);
	AUTO_FD(under);
	AUTO_FD(root);
	mode_t mask;
	int r;

	mask = umask(0);
	r = mnt_open(cfg->work_dir, &under, err);
	if (r < 0)
		return r;
	place = xasprintf("/proc/self/fd/%d", under);
	r = mnt_tmpfs(place, ROOT_KIB, ROOT_INODES, 0755, err);
	if (r == 0)
		r = mnt_open(cfg->work_dir, &root, err);
	if (r == 0)
		r = fill(root, cfg, err);
	if (r == 0) {
		free(place);
		place = xasprintf("/proc/self/fd/%d", root);
		r = mnt_pivot(place, err);
	}
	if (r == 0)
		r = read_only("/", err);
	if (r == 0 && !cage_is_qemu(cfg))
		r = read_only(CAGE_VM, err);
	(void)umask(mask);
	if (r < 0)
		return r;
	free(cfg->work_dir);
	cfg->work_dir = xstrdup(CAGE_VM);
	return 0;
}
