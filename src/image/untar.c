/* The unpacker: a tar stream becomes inodes and data of an ext4 file at once, and a tree of names in memory, from which
 * the folders are written at the end.
 *
 * Nothing is resolved by the host's file system, so no name in the tar can lead out of the disk:
 *	- "./" in front, doubled and trailing slashes are tidied; absolute names, ".." and NUL are refused
 *	- a missing parent is made (0755, root); a parent that is no folder is refused
 *	- a folder may come again (its attributes are replaced); any other name twice is refused
 *	- a hard link names an earlier entry that is not a folder
 *	- devices and FIFOs are made as inodes; sockets and sparse or unknown kinds are refused
 * libarchive reads the headers (its tar reader only, no filter); each of its warnings is an error. A name that is not ASCII
 * in a PAX header needs a UTF-8 locale, or it comes back with one.
 *
 * Bounds: 1,000,000 entries, 256 levels, 255 bytes a name, 4096 a path, 64 attributes a file; data by the disk's size. */
#include "image/untar.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <locale.h>
#include <search.h>
#include <sha256.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"
#include "image/ext4.h"

#define ENTRIES_MAX 1000000
#define DEPTH_MAX 256
#define NAME_BYTES_MAX 255
#define PATH_BYTES_MAX 4096
#define XATTRS_MAX 64
#define READ_BYTES (1 << 20)

struct node {
	struct node *parent;
	char *name;
	uint32_t ino;
	struct ext4_attr attr;
	struct node **kids; /* of a folder */
	size_t n_kids, size_kids;
};

struct untar {
	int tar_fd;
	SHA2_CTX sha;
	uint8_t *in;
	struct ext4 *disk;
	struct node root;
	void *index; /* tsearch(3) tree of all nodes but the root, by parent and name */
	int64_t epoch;
	uint64_t written;
	void (*progress)(void *ctx, uint64_t bytes, const char *name);
	void *ctx;
	struct untar_result res;
};

static int node_cmp(const void *pa, const void *pb)
{
	const struct node *a = pa, *b = pb;

	if (a->parent != b->parent)
		return a->parent < b->parent ? -1 : 1;
	return strcmp(a->name, b->name);
}

static struct node *node_find(const struct untar *u, struct node *parent, const char *name)
{
	struct node key = { .parent = parent, .name = (char *)name };
	struct node **hit = tfind(&key, &u->index, node_cmp);

	return hit ? *hit : NULL;
}

static struct node *node_add(struct untar *u, struct node *parent, const char *name, uint32_t ino,
			     const struct ext4_attr *attr)
{
	struct node *n = xcalloc(1, sizeof(*n));

	*n = (struct node){ .parent = parent, .name = xstrdup(name), .ino = ino, .attr = *attr };
	if (!tsearch(n, &u->index, node_cmp))
		abort();
	if (parent->n_kids == parent->size_kids) {
		parent->size_kids = parent->size_kids ? 2 * parent->size_kids : 8;
		parent->kids = xrealloc(parent->kids, parent->size_kids * sizeof(struct node *));
	}
	parent->kids[parent->n_kids++] = n;
	return n;
}

static void nothing(void *p)
{
}

static void node_free(struct node *n)
{
	for (size_t i = 0; i < n->n_kids; i++) {
		node_free(n->kids[i]);
		free(n->kids[i]);
	}
	free(n->kids);
	free(n->name);
}

static int bad(const char *path, struct err *err, const char *why)
{
	AUTO_FREE(char, shown);

	shown = str_escape(path, MIN(strlen(path), (size_t)200));
	return err_set(err, -EBADMSG, "image content: %s: %s", shown, why);
}

/**
 * walk() - Find the folder that an entry lies in, and its last component
 * @make:	Make missing folders on the way
 * @ret_name:	Last component inside a copy that the caller frees through @ret_copy; "" for the root itself
 */
static int walk(struct untar *u, const char *path, bool make, struct node **ret_parent, char **ret_copy, char **ret_name,
		struct err *err)
{
	AUTO_FREE(char, copy);
	struct node *at = &u->root;
	char *save = NULL, *part, *next;
	int depth = 0;

	if (*path == '/')
		return bad(path, err, "absolute name");
	if (strlen(path) > PATH_BYTES_MAX)
		return bad(path, err, "name longer than 4096 bytes");
	copy = xstrdup(path);
	part = strtok_r(copy, "/", &save);
	while (part && strcmp(part, ".") == 0)
		part = strtok_r(NULL, "/", &save);
	for (; part; part = next) {
		struct node *n;

		do
			next = strtok_r(NULL, "/", &save);
		while (next && strcmp(next, ".") == 0);
		if (strcmp(part, "..") == 0)
			return bad(path, err, "name with '..'");
		if (strlen(part) > NAME_BYTES_MAX)
			return bad(path, err, "component longer than 255 bytes");
		if (++depth > DEPTH_MAX)
			return bad(path, err, "more than 256 levels");
		if (!next)
			break;
		n = node_find(u, at, part);
		if (!n && make) {
			struct ext4_attr attr = { .mode = S_IFDIR | 0755 };
			uint32_t ino;
			int r = ext4_ino(u->disk, S_IFDIR, &ino, err);

			if (r < 0)
				return r;
			n = node_add(u, at, part, ino, &attr);
		}
		if (!n || !S_ISDIR(n->attr.mode))
			return bad(path, err, "lies below something that is not a folder");
		at = n;
	}
	*ret_parent = at;
	*ret_name = part ? part : copy + strlen(copy);
	*ret_copy = TAKE_PTR(copy);
	return 0;
}

static int copy_data(struct untar *u, struct archive *a, const char *path, uint64_t size, bool is_version, struct err *err)
{
	const void *p;
	la_int64_t off;
	size_t n;
	int r, ar;

	r = ext4_file_begin(u->disk, size, err);
	while (r == 0 && (ar = archive_read_data_block(a, &p, &n, &off)) != ARCHIVE_EOF) {
		if (ar != ARCHIVE_OK)
			return bad(path, err, archive_error_string(a) ? archive_error_string(a) : "broken data");
		r = ext4_file_data(u->disk, (uint64_t)off, p, n, err);
		u->written += n;
		if (is_version && off == 0)
			memcpy(u->res.version, p, MIN(n, sizeof(u->res.version) - 1));
		if (u->progress)
			u->progress(u->ctx, u->written, path);
	}
	return r;
}

/* security.selinux, .ima and .evm speak of the host that made the tar; trusted.overlay.* of its mounts. */
static bool xattr_wanted(const char *name)
{
	return strcmp(name, "security.capability") == 0 || str_starts(name, "user.") ||
	       str_starts(name, "system.posix_acl_") ||
	       (str_starts(name, "trusted.") && !str_starts(name, "trusted.overlay."));
}

static int copy_xattrs(struct untar *u, struct archive_entry *ent, uint32_t ino, const char *path, struct err *err)
{
	const char *name;
	const void *p;
	size_t n;
	int left = XATTRS_MAX, r;

	(void)archive_entry_xattr_reset(ent);
	while (archive_entry_xattr_next(ent, &name, &p, &n) == ARCHIVE_OK) {
		if (left-- == 0)
			return bad(path, err, "more than 64 attributes");
		if (!xattr_wanted(name))
			continue;
		r = ext4_xattr(u->disk, ino, name, p, n, err);
		if (r < 0)
			return err_ctx(err, r, "%s", path);
	}
	return 0;
}

static int make_link(struct untar *u, struct node *parent, const char *name, const char *path, const char *target,
		     struct err *err)
{
	AUTO_FREE(char, copy);
	struct node *dir, *to;
	char *last;
	int r;

	r = walk(u, target, false, &dir, &copy, &last, err);
	if (r < 0)
		return r;
	to = *last ? node_find(u, dir, last) : NULL;
	if (!to || S_ISDIR(to->attr.mode))
		return bad(path, err, "hard link to something that is not there or is a folder");
	r = ext4_link(u->disk, to->ino, err);
	if (r == 0)
		(void)node_add(u, parent, name, to->ino, &to->attr);
	return r;
}

static int make_inode(struct untar *u, struct archive *a, struct archive_entry *ent, const char *path, uint32_t ino,
		      const struct ext4_attr *attr, bool is_version, struct err *err)
{
	const char *target;
	int r;

	switch (attr->mode & S_IFMT) {
	case S_IFREG:
		if (!archive_entry_size_is_set(ent) || archive_entry_size(ent) < 0)
			return bad(path, err, "file without a size");
		r = copy_data(u, a, path, (uint64_t)archive_entry_size(ent), is_version, err);
		return r < 0 ? r : ext4_file_end(u->disk, ino, attr, err);
	case S_IFLNK:
		target = archive_entry_symlink(ent);
		return target ? ext4_symlink(u->disk, ino, attr, target, err) : bad(path, err, "link without a target");
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
		return ext4_special(u->disk, ino, attr, S_ISFIFO(attr->mode) ? 0 : archive_entry_rdev(ent), err);
	default:
		return bad(path, err, "a kind of file that an image cannot hold");
	}
}

static int add_entry(struct untar *u, struct archive *a, struct archive_entry *ent, struct err *err)
{
	const char *path = archive_entry_pathname(ent);
	struct ext4_attr attr = {
		.mode = archive_entry_mode(ent),
		.uid = (uint32_t)archive_entry_uid(ent),
		.gid = (uint32_t)archive_entry_gid(ent),
		.mtime = archive_entry_mtime(ent),
		.mtime_ns = (uint32_t)archive_entry_mtime_nsec(ent),
	};
	AUTO_FREE(char, copy);
	struct node *parent, *old;
	bool is_version;
	uint32_t ino;
	char *name;
	int r;

	if (!path || *path == '\0')
		return bad("", err, "entry without a name");
	if (archive_entry_uid(ent) < 0 || archive_entry_uid(ent) > UINT32_MAX || archive_entry_gid(ent) < 0 ||
	    archive_entry_gid(ent) > UINT32_MAX)
		return bad(path, err, "owner out of range");
	r = walk(u, path, true, &parent, &copy, &name, err);
	if (r < 0)
		return r;
	old = *name ? node_find(u, parent, name) : &u->root;
	if (S_ISDIR(attr.mode) && !archive_entry_hardlink(ent)) {
		if (parent == &u->root && strcmp(name, "lost+found") == 0)
			return 0;
		if (old && !S_ISDIR(old->attr.mode))
			return bad(path, err, "stands twice, as a folder and as something else");
		if (!old) {
			r = ext4_ino(u->disk, attr.mode, &ino, err);
			if (r < 0)
				return r;
			old = node_add(u, parent, name, ino, &attr);
		}
		old->attr = attr;
		return 0;
	}
	if (old)
		return bad(path, err, "stands twice");
	if (archive_entry_hardlink(ent))
		return make_link(u, parent, name, path, archive_entry_hardlink(ent), err);
	is_version = S_ISREG(attr.mode) && strcmp(name, "agent-vm-image-version") == 0 && parent->parent == &u->root &&
		     strcmp(parent->name, "etc") == 0;
	u->res.has_version |= is_version;
	u->res.has_bash |= strcmp(name, "bash") == 0 && parent->name && strcmp(parent->name, "bin") == 0;
	r = ext4_ino(u->disk, attr.mode, &ino, err);
	if (r == 0)
		r = make_inode(u, a, ent, path, ino, &attr, is_version, err);
	if (r == 0)
		r = copy_xattrs(u, ent, ino, path, err);
	if (r == 0)
		(void)node_add(u, parent, name, ino, &attr);
	return r;
}

static int kid_cmp(const void *pa, const void *pb)
{
	return strcmp((*(struct node *const *)pa)->name, (*(struct node *const *)pb)->name);
}

static int write_folders(struct untar *u, struct node *n, struct err *err)
{
	AUTO_FREE(struct ext4_dirent, ents);
	int r;

	if (n->n_kids > 0)
		qsort(n->kids, n->n_kids, sizeof(struct node *), kid_cmp);
	ents = xcalloc(n->n_kids, sizeof(*ents));
	for (size_t i = 0; i < n->n_kids; i++)
		ents[i] = (struct ext4_dirent){ n->kids[i]->name, n->kids[i]->ino, n->kids[i]->attr.mode };
	r = ext4_dir(u->disk, n->ino, n->parent ? n->parent->ino : n->ino, &n->attr, ents, n->n_kids, err);
	for (size_t i = 0; i < n->n_kids && r == 0; i++)
		if (S_ISDIR(n->kids[i]->attr.mode))
			r = write_folders(u, n->kids[i], err);
	return r;
}

static la_ssize_t read_more(struct archive *a, void *ctx, const void **ret)
{
	struct untar *u = ctx;
	ssize_t n;

	do
		n = read(u->tar_fd, u->in, READ_BYTES);
	while (n < 0 && errno == EINTR);
	if (n < 0) {
		archive_set_error(a, errno, "cannot be read: %s", strerror(errno));
		return -1;
	}
	SHA256Update(&u->sha, u->in, (size_t)n);
	*ret = u->in;
	return n;
}

static int read_entries(struct untar *u, struct archive *a, struct err *err)
{
	struct archive_entry *ent;
	int r, ar;

	if (archive_read_support_format_tar(a) != ARCHIVE_OK ||
	    archive_read_open2(a, u, NULL, read_more, NULL, NULL) != ARCHIVE_OK)
		return err_set(err, -EBADMSG, "image content: %s", archive_error_string(a));
	while ((ar = archive_read_next_header(a, &ent)) != ARCHIVE_EOF) {
		if (ar != ARCHIVE_OK)
			return bad(u->res.entries ? "after the last good entry" : "first entry", err,
				   archive_error_string(a) ? archive_error_string(a) : "broken header");
		if (++u->res.entries > ENTRIES_MAX)
			return err_set(err, -EBADMSG, "image content: more than 1,000,000 entries");
		r = add_entry(u, a, ent, err);
		if (r < 0)
			return r;
	}
	return u->res.entries > 0 ? 0 : err_set(err, -EBADMSG, "image content: empty");
}

/* What follows the end mark is padding, and counts for the checksum. */
static int drain(struct untar *u, struct err *err)
{
	const void *p;
	la_ssize_t n;

	while ((n = read_more(NULL, u, &p)) > 0)
		for (la_ssize_t i = 0; i < n; i++)
			if (u->in[i] != 0)
				return err_set(err, -EBADMSG, "image content: bytes after its end");
	return n < 0 ? err_set(err, -EIO, "image content: cannot be read") : 0;
}

int untar_to_disk(int tar_fd, int disk_fd, uint64_t disk_bytes, int64_t epoch,
		  void (*progress)(void *ctx, uint64_t bytes, const char *name), void *ctx, struct untar_result *ret,
		  struct err *err)
{
	struct untar u = { .tar_fd = tar_fd, .epoch = epoch, .progress = progress, .ctx = ctx };
	struct archive *a;
	int r;

	if (!setlocale(LC_CTYPE, "C.UTF-8"))
		return err_set(err, -ENOENT, "locale C.UTF-8: not there; it is part of the C library's package");
	u.root = (struct node){ .ino = EXT4_ROOT, .attr = { .mode = S_IFDIR | 0755, .mtime = epoch } };
	r = ext4_new(disk_fd, disk_bytes, epoch, &u.disk, err);
	if (r < 0)
		return r;
	SHA256Init(&u.sha);
	u.in = xmalloc(READ_BYTES);
	a = archive_read_new();
	if (!a)
		abort();
	r = read_entries(&u, a, err);
	if (r == 0)
		r = drain(&u, err);
	if (r == 0)
		r = write_folders(&u, &u.root, err);
	if (r == 0)
		r = ext4_finish(u.disk, &u.res.used_bytes, err);
	if (r < 0)
		ext4_free(u.disk);
	(void)archive_read_free(a);
	tdestroy(u.index, nothing);
	node_free(&u.root);
	free(u.in);
	if (r < 0)
		return r;
	(void)SHA256End(&u.sha, u.res.sha256);
	*ret = u.res;
	return 0;
}
