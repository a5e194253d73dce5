#include "sandbox/mnt.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/openat2.h>

#include "base/file.h"
#include "base/str.h"

int mnt_open(const char *path, int *ret_fd, struct err *err)
{
	/* Not O_NOFOLLOW: with it and O_PATH the kernel gives a descriptor of a last link in place of an error. */
	struct open_how how = { .flags = O_PATH | O_CLOEXEC,
				.resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	AUTO_FREE(char, shown);
	int fd, e;

	fd = (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
	if (fd >= 0) {
		*ret_fd = fd;
		return 0;
	}
	e = errno;
	shown = str_escape(path, strlen(path));
	if (e == ELOOP)
		return err_set(err, -e, "%s: a part of it has become a symbolic link; start again", shown);
	return err_set(err, -e, "%s: %s", shown, strerror(e));
}

int mnt_clone(int fd, uint32_t flags, int *ret_tree)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_NOSUID };
	AUTO_FD(tree);

	if (flags & MNT_RO)
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	if (!(flags & MNT_EXEC))
		attr.attr_set |= MOUNT_ATTR_NOEXEC;
	if (!(flags & MNT_DEV))
		attr.attr_set |= MOUNT_ATTR_NODEV;
	/* Without AT_RECURSIVE a mount with locked children (all of the host's are, in here) may not be copied. */
	tree = open_tree(fd, "", AT_EMPTY_PATH | AT_RECURSIVE | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (tree < 0)
		return -errno;
	if (mount_setattr(tree, "", AT_EMPTY_PATH | (flags & MNT_DEEP ? AT_RECURSIVE : 0), &attr, sizeof(attr)) < 0)
		return -errno;
	*ret_tree = TAKE_FD(tree);
	return 0;
}

int mnt_put(int tree, int fd)
{
	return move_mount(tree, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0 ? -errno : 0;
}

/* Make the place for a mount and its parents; they are the cage's own. */
static int place_make(int dirfd, const char *name, bool folder)
{
	AUTO_FREE(char, part);
	const char *p = name;
	AUTO_FD(fd);
	int r;

	for (p = strchr(p, '/'); p; p = strchr(p + 1, '/')) {
		free(part);
		part = xstrndup(name, (size_t)(p - name));
		if (mkdirat(dirfd, part, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	if (folder)
		return mkdirat(dirfd, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
	r = file_open_beneath(dirfd, name, O_WRONLY | O_CREAT | O_NOFOLLOW, 0644);
	if (r < 0)
		return r;
	fd = r;
	return 0;
}

int mnt_bind(const char *path, int dirfd, const char *name, uint32_t flags, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FD(src);
	AUTO_FD(tree);
	AUTO_FD(dst);
	struct stat st;
	int r;

	r = mnt_open(path, &src, err);
	if (r < 0)
		return r;
	shown = str_escape(path, strlen(path));
	if (fstat(src, &st) < 0)
		return err_set(err, -errno, "%s: %s", shown, strerror(errno));
	r = mnt_clone(src, flags, &tree);
	if (r < 0)
		return err_set(err, r, "%s: copy of the mount: %s", shown, strerror(-r));
	r = place_make(dirfd, name, S_ISDIR(st.st_mode));
	if (r == 0)
		r = file_open_beneath(dirfd, name, O_PATH, 0);
	if (r < 0)
		return err_set(err, r, "%s: its place in the cage: %s", shown, strerror(-r));
	dst = r;
	r = mnt_put(tree, dst);
	if (r < 0)
		return err_set(err, r, "%s: mount into the cage: %s", shown, strerror(-r));
	return 0;
}

int mnt_tmpfs(const char *path, unsigned int kib, unsigned int inodes, mode_t mode, struct err *err)
{
	AUTO_FREE(char, opts);
	AUTO_FREE(char, shown);

	opts = xasprintf("size=%uk,nr_inodes=%u,mode=%04o", kib, inodes, (unsigned int)mode);
	if (mount("agent-vm", path, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, opts) == 0)
		return 0;
	shown = str_escape(path, strlen(path));
	return err_set(err, -errno, "%s: mount a tmpfs: %s", shown, strerror(errno));
}

int mnt_pivot(const char *path, struct err *err)
{
	/* With both arguments "." the old root lies on top of the new one afterwards and is taken off (pivot_root(2)). */
	if (chdir(path) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return err_set(err, -errno, "cage: move into it: %s", strerror(errno));
	return 0;
}
