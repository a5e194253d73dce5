/* The new root is reached by pivot_root(2), and the old one is let go: a program in a chroot may not make user
 * namespaces (current_chrooted() in the kernel), and a browser's sandbox needs them. The pseudo file systems are mounted
 * anew instead of moved, so that it does not matter what the boot root had.
 *
 * The root disk is thrown away with the session, so its barriers are off: what must survive is on the shares. */
#include "guest/mounts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <time.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "proto/guestcfg.h"

#ifndef FUSE_SUPER_MAGIC
#define FUSE_SUPER_MAGIC 0x65735546
#endif
#define EXT4_IOC_RESIZE_FS_ _IOW('f', 16, uint64_t)
#define NEWROOT "/newroot"
#define DISK_WAIT_NS (5 * (int64_t)1000000000)

/* For the end: one folder of each virtio-fs that is mounted, and where. */
static struct {
	int fd[GC_BINDS_MAX];
	char *target[GC_BINDS_MAX];
	size_t n;
} shares;

struct pseudo {
	const char *at, *fs, *data;
	unsigned long flags;
};

static const struct pseudo pseudos[] = {
	{ "/dev", "devtmpfs", "mode=0755", MS_NOSUID },
	{ "/dev/pts", "devpts", "mode=0620,ptmxmode=0666,gid=5", MS_NOSUID | MS_NOEXEC },
	{ "/dev/shm", "tmpfs", "mode=1777", MS_NOSUID | MS_NODEV },
	{ "/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "/sys/fs/cgroup", "cgroup2", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC },
	{ "/run", "tmpfs", "mode=0755", MS_NOSUID | MS_NODEV },
};

static int make_dir(const char *path)
{
	return mkdir(path, 0755) < 0 && errno != EEXIST ? -errno : 0;
}

int mounts_make_dir(const char *path)
{
	char part[4096];
	size_t n = strlen(path);
	int r;

	if (n >= sizeof(part))
		return -ENAMETOOLONG;
	memcpy(part, path, n + 1);
	for (char *s = part + 1; (s = strchr(s, '/')); s++) {
		*s = '\0';
		r = make_dir(part);
		if (r < 0 && r != -EROFS)
			return r;
		*s = '/';
	}
	return make_dir(part);
}

void mounts_early(void)
{
	/* EBUSY: libkrun's init has done it. On a read-only root the folders are there already. */
	for (size_t i = 0; i < ARRAY_SIZE(pseudos); i++) {
		const struct pseudo *p = &pseudos[i];

		if (strcmp(p->at, "/dev") == 0 || strcmp(p->at, "/proc") == 0 || strcmp(p->at, "/sys") == 0) {
			(void)mkdir(p->at, 0755);
			(void)mount(p->fs, p->at, p->fs, p->flags, p->data);
		}
	}
}

/* /dev/NAME of the block device with that serial number (sysfs, virtio-blk). */
static bool disk_by_serial(const char *serial, char *ret, size_t size)
{
	DIR *d = opendir("/sys/block");
	struct dirent *e;
	bool found = false;

	while (d && !found && (e = readdir(d))) {
		char path[300], got[64] = "";
		AUTO_FD(fd);

		(void)snprintf(path, sizeof(path), "/sys/block/%.200s/serial", e->d_name);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (e->d_name[0] == '.' || fd < 0 || read(fd, got, sizeof(got) - 1) < 0)
			continue;
		got[strcspn(got, "\n")] = '\0';
		found = strcmp(got, serial) == 0 && (size_t)snprintf(ret, size, "/dev/%.200s", e->d_name) < size;
	}
	if (d)
		(void)closedir(d);
	return found;
}

static int disk_find(const char *dev, char *ret, size_t size, struct err *err)
{
	int64_t until = now_ns() + DISK_WAIT_NS;

	for (;;) {
		if (dev[0] == '/' ? access(dev, F_OK) == 0 && (size_t)snprintf(ret, size, "%s", dev) < size :
				    disk_by_serial(dev, ret, size))
			return 0;
		if (now_ns() >= until)
			return err_set(err, -ENODEV, "root disk %s: there is no such device in the VM", dev);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
}

static int le_at(int fd, off_t at, size_t n, uint64_t *ret)
{
	uint8_t b[4];
	uint64_t v = 0;

	if (pread(fd, b, n, at) != (ssize_t)n)
		return -EIO;
	while (n-- > 0)
		v = v << 8 | b[n];
	*ret = v;
	return 0;
}

/* Blocks beyond @bytes become reserved, which not even root can use: the disk of a session is smaller than its image's
 * file system. Source: Documentation/ABI/testing/sysfs-fs-ext4, reserved_clusters (a cluster is a block here). */
static int limit_ext4(const char *node, uint64_t bytes, struct err *err)
{
	const char *name = strrchr(node, '/') ? strrchr(node, '/') + 1 : node;
	AUTO_FREE(char, path);
	AUTO_FREE(char, value);
	struct statfs st;
	uint64_t size;
	AUTO_FD(fd);

	if (statfs(NEWROOT, &st) < 0)
		return err_set(err, -errno, "root disk %s: %s", node, strerror(errno));
	size = (uint64_t)st.f_blocks * (uint64_t)st.f_bsize;
	if (bytes == 0 || bytes >= size)
		return 0;
	path = xasprintf("/sys/fs/ext4/%s/reserved_clusters", name);
	value = xasprintf("%llu", (unsigned long long)((size - bytes) / (uint64_t)st.f_bsize));
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		return err_set(err, -errno, "root disk %s: cannot be limited to %llu MiB: %s", node,
			       (unsigned long long)(bytes >> 20), strerror(errno));
	return 0;
}

struct ext4_size {
	uint64_t blocks; /* that the disk has room for, when that is more than the file system has; else 0 */
	uint64_t from_mib, to_mib;
};

/* Fields of the ext4 super block: Documentation/filesystems/ext4. */
static int ext4_look(const char *dev, struct ext4_size *ret)
{
	uint64_t lo, hi, log_block, size, blocks;
	AUTO_FD(disk);

	disk = open(dev, O_RDONLY | O_CLOEXEC);
	if (disk < 0 || ioctl(disk, BLKGETSIZE64, &size) < 0)
		return -errno;
	if (le_at(disk, 1024 + 0x4, 4, &lo) < 0 || le_at(disk, 1024 + 0x18, 4, &log_block) < 0 ||
	    le_at(disk, 1024 + 0x150, 4, &hi) < 0 || log_block > 6)
		return -EIO;
	blocks = size >> (10 + log_block);
	lo |= hi << 32;
	*ret = (struct ext4_size){ blocks > lo ? blocks : 0, lo << (10 + log_block) >> 20, size >> 20 };
	return 0;
}

/* The disk of a session is larger than its image. */
static char *ext4_grow(const struct ext4_size *s)
{
	AUTO_FD(root);

	root = open(NEWROOT, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root < 0 || ioctl(root, EXT4_IOC_RESIZE_FS_, &s->blocks) < 0)
		return xasprintf("root disk of %llu MiB cannot be grown to %llu MiB: %s", (unsigned long long)s->from_mib,
				 (unsigned long long)s->to_mib, strerror(errno));
	return xasprintf("root disk grown from %llu to %llu MiB", (unsigned long long)s->from_mib,
			 (unsigned long long)s->to_mib);
}

/* Without noinit_itable the kernel would write zeros over all inode tables, 1/64 of the disk; they are not needed. With
 * it growing would write them at once, so a disk that grows gets it afterwards, which takes another 4 % of a boot. */
static int mount_ext4(const char *node, char **ret_note)
{
	struct ext4_size size = { 0 };
	int r = ext4_look(node, &size);

	if (mount(node, NEWROOT, "ext4", MS_NOATIME, size.blocks > 0 ? "barrier=0" : "barrier=0,noinit_itable") < 0)
		return -errno;
	if (r < 0)
		*ret_note = xasprintf("root disk: whether it can be grown cannot be seen: %s", strerror(-r));
	if (size.blocks > 0) {
		*ret_note = ext4_grow(&size);
		(void)mount(NULL, NEWROOT, NULL, MS_REMOUNT | MS_NOATIME, "noinit_itable");
	}
	return 0;
}

static int mount_pseudos(struct err *err)
{
	static const struct config_link links[] = {
		{ (char *)NEWROOT "/dev/fd", (char *)"/proc/self/fd" },
		{ (char *)NEWROOT "/dev/stdin", (char *)"/proc/self/fd/0" },
		{ (char *)NEWROOT "/dev/stdout", (char *)"/proc/self/fd/1" },
		{ (char *)NEWROOT "/dev/stderr", (char *)"/proc/self/fd/2" },
	};
	char at[64];

	for (size_t i = 0; i < ARRAY_SIZE(pseudos); i++) {
		const struct pseudo *p = &pseudos[i];

		(void)snprintf(at, sizeof(at), NEWROOT "%s", p->at);
		if (mounts_make_dir(at) < 0 || mount(p->fs, at, p->fs, p->flags, p->data) < 0)
			return err_set(err, -errno, "%s: %s cannot be mounted: %s", p->at, p->fs, strerror(errno));
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++)
		(void)!symlink(links[i].target, links[i].path);
	(void)make_dir(NEWROOT "/run/agent-vm");
	(void)mkdir(NEWROOT "/tmp", 01777);
	(void)chmod(NEWROOT "/tmp", 01777);
	return 0;
}

static int enter_newroot(struct err *err)
{
	if (chdir(NEWROOT) < 0)
		return err_set(err, -errno, "root disk: cannot be entered: %s", strerror(errno));
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		if (umount2(".", MNT_DETACH) < 0)
			return err_set(err, -errno, "boot root: cannot be let go: %s", strerror(errno));
	} else if (mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0) {
		/* A boot root that is the kernel's own rootfs cannot be pivoted; after the move "/" is the top of all. */
		return err_set(err, -errno, "root disk: cannot become the root: %s", strerror(errno));
	}
	return chdir("/") < 0 ? err_set(err, -errno, "root disk: cannot be entered: %s", strerror(errno)) : 0;
}

int mounts_root(const char *dev, const char *fs, uint64_t bytes, char **ret_note, struct err *err)
{
	bool ext4 = strcmp(fs, "ext4") == 0;
	char node[300];
	int r;

	*ret_note = NULL;
	(void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL); /* pivot_root(2) refuses shared mounts */
	if (make_dir(NEWROOT) < 0 && mount("tmpfs", NEWROOT, "tmpfs", 0, NULL) < 0)
		return err_set(err, -errno, "boot root: has no folder " NEWROOT);
	r = disk_find(dev, node, sizeof(node), err);
	if (r < 0)
		return r;
	if (ext4)
		r = mount_ext4(node, ret_note);
	else
		r = mount(node, NEWROOT, fs, MS_NOATIME, NULL) < 0 ? -errno : 0;
	if (r < 0)
		return err_set(err, r, "root disk %s: cannot be mounted as %s: %s", node, fs, strerror(-r));
	r = ext4 ? limit_ext4(node, bytes, err) : 0;
	if (r == 0)
		r = mount_pseudos(err);
	return r < 0 ? r : enter_newroot(err);
}

static bool is_virtiofs_mount(const char *path)
{
	struct statfs fs;
	struct statx stx;

	return statfs(path, &fs) == 0 && fs.f_type == FUSE_SUPER_MAGIC &&
	       statx(AT_FDCWD, path, AT_NO_AUTOMOUNT, 0, &stx) == 0 &&
	       (!(stx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT) || (stx.stx_attributes & STATX_ATTR_MOUNT_ROOT));
}

static int bind_one(const struct config_bind *b, struct err *err)
{
	char from[600];
	int r;

	r = mounts_make_dir(b->target);
	if (r < 0)
		return err_set(err, r, "%s: the folder to mount on cannot be made in the guest: %s", b->target, strerror(-r));
	(void)snprintf(from, sizeof(from), GC_SHARE_AT "/%.255s", b->sub ? b->sub : "");
	r = b->tag ? mount(b->tag, b->target, "virtiofs", 0, NULL) :
		     mount(from, b->target, NULL, MS_BIND | MS_REC, NULL);
	if (r < 0)
		return err_set(err, -errno, "%s: the folder of the host cannot be mounted in the guest: %s", b->target,
			       strerror(errno));
	if (b->ro && mount(NULL, b->target, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) < 0)
		return err_set(err, -errno, "%s: cannot be made read-only in the guest: %s", b->target, strerror(errno));
	return 0;
}

static void remember(const struct config_bind *b)
{
	if (shares.n >= GC_BINDS_MAX)
		return;
	shares.target[shares.n] = strdup(b->target);
	shares.fd[shares.n++] = open(b->target, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

int mounts_shares(const struct config *c, struct err *err)
{
	int r;

	if (c->share_tag) {
		if (mounts_make_dir(GC_SHARE_AT) < 0 || mount(c->share_tag, GC_SHARE_AT, "virtiofs", 0, NULL) < 0)
			return err_set(err, -errno, "share %s: cannot be mounted in the guest: %s", c->share_tag, strerror(errno));
	}
	for (size_t i = 0; i < c->n_binds; i++) {
		r = bind_one(&c->binds[i], err);
		if (r < 0)
			return r;
		remember(&c->binds[i]);
	}
	/* Afterwards, because a later bind may have hidden an earlier one. */
	for (size_t i = 0; i < c->n_binds; i++)
		if (!is_virtiofs_mount(c->binds[i].target))
			return err_set(err, -EIO, "%s: is not the folder of the host in the guest, although it was mounted",
				       c->binds[i].target);
	/* Binds keep the file system; its root, which shows all folders side by side, goes. */
	if (c->share_tag && umount2(GC_SHARE_AT, MNT_DETACH) == 0)
		(void)rmdir(GC_SHARE_AT);
	return 0;
}

void mounts_end(void)
{
	/* By descriptor: paths may have been mounted over since. */
	for (size_t i = shares.n; i-- > 0;) {
		if (shares.fd[i] >= 0) {
			(void)syncfs(shares.fd[i]);
			(void)close(shares.fd[i]);
		}
		if (shares.target[i] && umount2(shares.target[i], 0) < 0)
			(void)umount2(shares.target[i], MNT_DETACH);
		free(shares.target[i]);
	}
	shares.n = 0;
	sync();
	(void)mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL);
}
