/* The walk: each entry of a layer becomes a name in the tree (tree.c) at once, and its content blocks of the disk (ext4.c);
 * inodes and folders are written when the last layer has ended, so that nothing is written twice.
 *
 *	layers_read() --> libarchive, its tar reader only, no filter --> header --> tarhead_check(), tree_put()
 *	                                                             --> content --> ext4_data()
 *
 * Nothing is resolved by the host's file system, so no name in a tar can lead out of the disk. Each warning of libarchive is
 * an error. What it does not show of the headers is judged on the bytes: head_begin() .. head_end() keep those that it reads
 * for one entry, without a copy as long as they lie in one piece. After its end mark a tar holds zeros only.
 *
 * A hard link may give a size. libarchive takes it in PAX archives for that of a body, GNU tar and Go's reader say that there
 * is none. The bytes behind it decide: where the next header or the end mark stands there is none, and libarchive, which
 * cannot be told so, begins anew at that place.
 *
 * Bounds: 1,000,000 entries, 64 attributes a file that fit into its inode and one block; those of tree.h, tarhead.h and
 * layer.h; the disk's size. */
#include "image/untar.h"

#include <archive.h>
#include <archive_entry.h>
#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/disk.h"
#include "image/ext4.h"
#include "image/tarhead.h"
#include "image/tree.h"

#define SHOWN_MAX 200
#define DROPS_LOGGED 20
/* ext4: 92 bytes for attributes behind the inode's fields, 32 + 4 of a block are its own. */
#define XATTR_ROOM (92 + EXT4_BLOCK - 36)
#define XATTR_HEAD 16
#define BEHIND "the entry behind "
#define AGAIN 2
#define CANNOT_BE_USED "; this image cannot be used"
#define VERSION_PATH "etc/agent-vm-image-version"

struct untar {
	struct layers *layers;
	struct tree *tree;
	struct ext4 *disk;
	uint64_t disk_bytes;
	void (*progress)(void *ctx, const char *name);
	void *ctx;
	struct untar_result res;
	unsigned int n_drops;
	uint32_t next_ino;
	/* the tar at hand */
	const uint8_t *piece; /* what libarchive was given last */
	size_t n_piece;
	uint64_t piece_at; /* its offset in the tar */
	uint64_t base;	   /* where in the tar libarchive began */
	bool held; /* libarchive has not got it yet */
	bool over, any;
	int stream_r; /* of layers_read() */
	struct err stream_err;
	/* headers of the entry at hand */
	bool in_head;
	uint64_t head_at;
	uint8_t *head; /* from pieces that are gone */
	size_t n_head;
	char path[sizeof(BEHIND) + SHOWN_MAX * 4]; /* of the entry at hand, escaped */
};

/* LAYER: ENTRY: CAUSE; WHAT TO DO. The cause stands in @err. */
static int refuse(struct untar *u, int r, struct err *err)
{
	struct err cause = *err;
	const char *what = r == -EBADMSG && u->stream_r == 0 ? CANNOT_BE_USED : "";

	return err_set(err, r, "%s: %s%s%.700s%s", layers_name(u->layers), u->path, *u->path ? ": " : "", cause.text, what);
}

static int bad(struct err *err, const char *why)
{
	return err_set(err, -EBADMSG, "%s", why);
}

static void drop(void *ctx, struct ext4_inode *x)
{
	struct untar *u = ctx;

	ext4_release(u->disk, x);
}

int untar_new(struct layers *l, int disk_fd, uint64_t disk_bytes, int64_t epoch, void (*progress)(void *ctx, const char *name),
	      void *ctx, struct untar **ret, struct err *err)
{
	struct untar *u = xcalloc(1, sizeof(*u));
	int r;

	u->layers = l;
	u->disk_bytes = disk_bytes;
	u->progress = progress;
	u->ctx = ctx;
	r = ext4_new(disk_fd, disk_bytes, &u->disk, err);
	if (r < 0) {
		free(u);
		return r;
	}
	u->tree = tree_new(epoch, drop, u);
	*ret = u;
	return 0;
}

void untar_free(struct untar *u)
{
	if (!u)
		return;
	tree_free(u->tree);
	ext4_free(u->disk);
	free(u->head);
	free(u);
}

/* --- the stream --- */

/* Keep what libarchive has read of this entry's headers in the piece that goes now. */
static int head_keep(struct untar *u)
{
	uint64_t from = MAX(u->head_at, u->piece_at);
	size_t skip = (size_t)(from - u->piece_at), n = u->n_piece > skip ? u->n_piece - skip : 0;

	if (u->n_head + n > TARHEAD_MAX)
		return -EBADMSG;
	if (n > 0) {
		u->head = xrealloc(u->head, u->n_head + n);
		memcpy(u->head + u->n_head, u->piece + skip, n);
		u->n_head += n;
	}
	return 0;
}

static ssize_t next_piece(struct untar *u)
{
	ssize_t n;

	if (u->over)
		return 0;
	if (u->in_head && head_keep(u) < 0) {
		u->stream_r = bad(&u->stream_err, "headers of more than 16 MiB");
		return -1;
	}
	u->piece_at += u->n_piece;
	u->n_piece = 0;
	n = layers_read(u->layers, &u->piece, &u->stream_err);
	if (n < 0)
		u->stream_r = (int)n;
	u->over = n == 0;
	u->n_piece = n > 0 ? (size_t)n : 0;
	return n;
}

static la_ssize_t on_read(struct archive *a, void *ctx, const void **ret)
{
	struct untar *u = ctx;

	size_t skip = 0;

	if (u->held)
		skip = u->base > u->piece_at ? (size_t)(u->base - u->piece_at) : 0;
	else if (next_piece(u) < 0)
		return -1;
	u->held = false;
	*ret = u->piece + skip;
	return (la_ssize_t)(u->n_piece - skip);
}

/* How far libarchive has come in the tar. */
static uint64_t position(const struct untar *u, struct archive *a)
{
	return u->base + (uint64_t)archive_filter_bytes(a, 0);
}

/* What libarchive says, or the reason why its stream broke. */
static int archive_failed(struct untar *u, struct archive *a, struct err *err)
{
	const char *text = archive_error_string(a);
	AUTO_FREE(char, shown);

	if (u->stream_r < 0) {
		*err = u->stream_err;
		return u->stream_r;
	}
	shown = text ? str_escape(text, MIN(strlen(text), (size_t)SHOWN_MAX)) : NULL;
	return err_set(err, -EBADMSG, "a broken tar (%s)", shown ? shown : "no reason given");
}

static int head_check(struct untar *u, struct err *err)
{
	size_t from = u->head_at > u->piece_at ? (size_t)(u->head_at - u->piece_at) : 0;

	if (u->n_head == 0)
		return tarhead_check(u->piece + MIN(from, u->n_piece), u->n_piece - MIN(from, u->n_piece), err);
	if (head_keep(u) < 0)
		return bad(err, "headers of more than 16 MiB");
	return tarhead_check(u->head, u->n_head, err);
}

/* --- entries --- */

static uint32_t le32_at(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return le32toh(v);
}

/* linux/posix_acl_xattr.h: version 2, then entries of tag, permission and id. */
static bool acl_is_good(const uint8_t *p, size_t n)
{
	if (n < 4 || (n - 4) % 8 != 0 || le32_at(p) != 2)
		return false;
	for (size_t i = 4; i < n; i += 8) {
		unsigned int tag = le32_at(p + i) & 0xffff;

		if (tag != 0x01 && tag != 0x02 && tag != 0x04 && tag != 0x08 && tag != 0x10 && tag != 0x20)
			return false;
	}
	return true;
}

/* linux/capability.h: revision 2 has 20 bytes, 3 has 24. */
static bool capability_is_good(const uint8_t *p, size_t n)
{
	return (n == 20 && le32_at(p) >> 24 == 2) || (n == 24 && le32_at(p) >> 24 == 3);
}

/* security.selinux, .ima and .evm speak of the host that made the tar; trusted.overlay.* of its mounts. */
static bool xattr_wanted(const char *name, const uint8_t *p, size_t n)
{
	if (strcmp(name, "security.capability") == 0)
		return capability_is_good(p, n);
	if (strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0)
		return acl_is_good(p, n);
	return (str_starts(name, "user.") && name[5]) ||
	       (str_starts(name, "trusted.") && name[8] && !str_starts(name, "trusted.overlay."));
}

static void xattr_dropped(struct untar *u, const char *name)
{
	AUTO_FREE(char, shown);

	if (++u->n_drops > DROPS_LOGGED)
		return;
	shown = str_escape(name, MIN(strlen(name), (size_t)SHOWN_MAX));
	log_info("%s: %s: attribute %s left out%s", layers_name(u->layers), u->path, shown,
		 u->n_drops == DROPS_LOGGED ? "; further ones are not told" : "");
}

static bool xattr_there(const struct ext4_inode *x, const char *name)
{
	for (size_t i = 0; i < x->n_xattrs; i++)
		if (strcmp(x->xattrs[i].name, name) == 0)
			return true;
	return false;
}

static int xattr_cmp(const void *pa, const void *pb)
{
	return strcmp(((const struct ext4_xattr *)pa)->name, ((const struct ext4_xattr *)pb)->name);
}

static int read_xattrs(struct untar *u, struct archive_entry *ent, struct ext4_inode *x, struct err *err)
{
	unsigned int left = UNTAR_XATTRS_MAX;
	size_t room = XATTR_ROOM;
	const char *name;
	const void *p;
	size_t n;

	(void)archive_entry_xattr_reset(ent);
	/* Last record first: where a writer gave both forms, SCHILY.xattr stands behind LIBARCHIVE.xattr. */
	while (archive_entry_xattr_next(ent, &name, &p, &n) == ARCHIVE_OK) {
		size_t need;

		if (left-- == 0)
			return bad(err, "more than 64 attributes");
		if (!xattr_wanted(name, p, n)) {
			xattr_dropped(u, name);
			continue;
		}
		if (xattr_there(x, name))
			continue;
		need = XATTR_HEAD + ((strlen(name) + 3) & ~(size_t)3) + ((n + 3) & ~(size_t)3);
		if (strlen(name) > 255 || n > room || need > room)
			return bad(err, "attributes that do not fit into the inode and one block");
		room -= need;
		x->xattrs = xrealloc(x->xattrs, (x->n_xattrs + 1) * sizeof(*x->xattrs));
		x->xattrs[x->n_xattrs] = (struct ext4_xattr){ xstrdup(name), xmalloc(n + 1), n };
		if (n > 0)
			memcpy(x->xattrs[x->n_xattrs].value, p, n);
		x->n_xattrs++;
	}
	/* The same whatever order they came in. */
	if (x->n_xattrs > 1)
		qsort(x->xattrs, x->n_xattrs, sizeof(*x->xattrs), xattr_cmp);
	return 0;
}

static int read_device(struct archive_entry *ent, struct ext4_inode *x, struct err *err)
{
	uint64_t ma = archive_entry_rdevmajor(ent), mi = archive_entry_rdevminor(ent);

	if (ma >= EXT4_MAJORS || mi >= EXT4_MINORS)
		return bad(err, "a device with a number out of range");
	x->major = (uint32_t)ma;
	x->minor = (uint32_t)mi;
	return 0;
}

/* All but content. @x is the caller's to free in any case. */
static int read_attributes(struct untar *u, struct archive_entry *ent, struct ext4_inode *x, struct err *err)
{
	int64_t uid = archive_entry_uid(ent), gid = archive_entry_gid(ent), size = archive_entry_size(ent);
	long ns = archive_entry_mtime_nsec(ent);
	const char *target;

	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return bad(err, "an owner out of range");
	x->mode = archive_entry_mode(ent);
	x->uid = (uint32_t)uid;
	x->gid = (uint32_t)gid;
	x->mtime = archive_entry_mtime(ent);
	x->mtime_ns = ns >= 0 && ns < 1000000000 ? (uint32_t)ns : 0;
	switch (x->mode & S_IFMT) {
	case S_IFREG:
		if (!archive_entry_size_is_set(ent) || size < 0 || (uint64_t)size > EXT4_FILE_MAX)
			return bad(err, "a file without a possible size");
		/* The piece at hand may hold all of a small one. */
		if (archive_entry_sparse_count(ent) == 0 && (uint64_t)size > layers_left(u->layers) + u->n_piece)
			return bad(err, "more than 64 GiB unpacked");
		x->size = (uint64_t)size;
		break;
	case S_IFLNK:
		target = archive_entry_symlink(ent);
		if (!target)
			return bad(err, "a link whose target cannot be read");
		x->target = xstrdup(target);
		break;
	case S_IFCHR:
	case S_IFBLK:
		if (read_device(ent, x, err) < 0)
			return -EBADMSG;
		break;
	case S_IFDIR:
	case S_IFIFO:
		break;
	default:
		return bad(err, "a kind of file that an image cannot hold");
	}
	return read_xattrs(u, ent, x, err);
}

static void tell(struct untar *u)
{
	if (u->progress)
		u->progress(u->ctx, u->path);
}

static int copy_content(struct untar *u, struct archive *a, struct ext4_inode *x, struct err *err)
{
	const void *p;
	la_int64_t off;
	int r = 0, ar;
	size_t n;

	ext4_data_begin(u->disk, x);
	while (r == 0 && (ar = archive_read_data_block(a, &p, &n, &off)) != ARCHIVE_EOF) {
		if (ar != ARCHIVE_OK)
			return archive_failed(u, a, err);
		if (n == 0)
			continue;
		r = off < 0 ? bad(err, "content out of order") : ext4_data(u->disk, (uint64_t)off, p, n, err);
		tell(u);
	}
	return r < 0 ? r : ext4_data_end(u->disk, err);
}

/* AGAIN: the size that a hard link gives is not that of a body. */
static int link_body(struct untar *u, struct archive *a, struct archive_entry *ent, struct err *err)
{
	uint64_t at = position(u, a);

	if (archive_entry_size(ent) <= 0)
		return 0;
	/* Pieces are whole blocks, so a block is never in two. */
	if (at == u->piece_at + u->n_piece) {
		if (next_piece(u) < 0) {
			*err = u->stream_err;
			return u->stream_r;
		}
		u->held = true;
	}
	if (!u->over && (u->n_piece - (at - u->piece_at) < TARHEAD_BLOCK || !tarhead_begins(u->piece + (at - u->piece_at))))
		return 0;
	u->base = at;
	return AGAIN;
}

static int add_entry(struct untar *u, struct archive *a, struct archive_entry *ent, struct err *err)
{
	const char *path = archive_entry_pathname(ent), *link = archive_entry_hardlink(ent);
	struct ext4_inode x = { 0 };
	struct tree_inode *i = NULL;
	int r;

	if (!path)
		return bad(err, "a name that cannot be read");
	if (link) {
		r = tree_link(u->tree, path, link, err);
		return r < 0 ? r : link_body(u, a, ent, err);
	}
	r = read_attributes(u, ent, &x, err);
	if (r == 0)
		r = tree_put(u->tree, path, &x, &i, err);
	ext4_inode_done(&x);
	if (r == 1 && i && S_ISREG(i->x.mode))
		return copy_content(u, a, &i->x, err);
	return r < 0 ? r : 0;
}

static void note_path(struct untar *u, struct archive_entry *ent)
{
	const char *path = archive_entry_pathname(ent);
	AUTO_FREE(char, shown);

	if (!path) {
		shown = xstrdup(u->path);
		(void)snprintf(u->path, sizeof(u->path), "%s%s", *shown ? BEHIND : "", shown);
		return;
	}
	shown = str_escape(path, MIN(strlen(path), (size_t)SHOWN_MAX));
	(void)snprintf(u->path, sizeof(u->path), "%s", shown);
}

/* Names are bytes here. In a PAX header that does not say so they should be UTF-8; libarchive warns and gives them as they
 * are, as Go's reader and GNU tar do without a word. */
static bool is_only_not_utf8(struct archive *a, int ar)
{
	const char *text = archive_error_string(a);

	return ar == ARCHIVE_WARN && text && strstr(text, "can't be converted from UTF-8");
}

/* 1: an entry; 0: the end; AGAIN; negative errno */
static int next_entry(struct untar *u, struct archive *a, struct err *err)
{
	struct archive_entry *ent;
	int ar, r;

	if (u->any) {
		ar = archive_read_data_skip(a);
		if (ar != ARCHIVE_OK && ar != ARCHIVE_EOF)
			return archive_failed(u, a, err);
	}
	u->any = true;
	u->head_at = position(u, a);
	u->n_head = 0;
	u->in_head = true;
	ar = archive_read_next_header(a, &ent);
	u->in_head = false;
	if (ar == ARCHIVE_EOF)
		return 0;
	note_path(u, ent);
	if (ar != ARCHIVE_OK && !is_only_not_utf8(a, ar))
		return archive_failed(u, a, err);
	tell(u);
	if (++u->res.entries > UNTAR_ENTRIES_MAX)
		return bad(err, "more than 1,000,000 entries");
	r = head_check(u, err);
	if (r == 0)
		r = add_entry(u, a, ent, err);
	return r == 0 ? 1 : r;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* What follows the end mark is padding, and counts for the checksum. */
static int drain(struct untar *u, struct archive *a, struct err *err)
{
	uint64_t at = position(u, a);
	size_t skip = at > u->piece_at ? (size_t)MIN(at - u->piece_at, (uint64_t)u->n_piece) : 0;
	ssize_t n;

	u->path[0] = '\0';
	do {
		if (!all_zero(u->piece + skip, u->n_piece - skip))
			return bad(err, "bytes behind the end of its tar");
		skip = 0;
		n = next_piece(u);
	} while (n > 0);
	if (n == 0)
		return 0;
	*err = u->stream_err;
	return u->stream_r;
}

/* From u->base on. */
static int walk(struct untar *u, struct archive *a, struct err *err)
{
	int r;

	u->any = false;
	u->held = true;
	if (archive_read_support_format_tar(a) != ARCHIVE_OK || archive_read_open2(a, u, NULL, on_read, NULL, NULL) != ARCHIVE_OK)
		return archive_failed(u, a, err);
	do
		r = next_entry(u, a, err);
	while (r == 1);
	return r == 0 ? drain(u, a, err) : r;
}

int untar_layer(struct untar *u, struct err *err)
{
	int r;

	tree_next_layer(u->tree);
	u->piece_at = u->base = 0;
	u->n_piece = 0;
	u->over = u->in_head = false;
	u->stream_r = 0;
	u->path[0] = '\0';
	if (next_piece(u) < 0) {
		*err = u->stream_err;
		return refuse(u, u->stream_r, err);
	}
	if (u->over)
		return 0; /* not one byte: an empty layer */
	do {
		struct archive *a = archive_read_new();

		if (!a)
			abort();
		r = walk(u, a, err);
		(void)archive_read_free(a);
	} while (r == AGAIN && !u->over);
	return r < 0 ? refuse(u, r, err) : 0;
}

/* --- the end --- */

static void node_path(const struct tree_node *n, char *ret, size_t size)
{
	if (n->parent && n->parent->parent) {
		node_path(n->parent, ret, size);
		(void)strncat(ret, "/", size - strlen(ret) - 1);
	}
	(void)strncat(ret, n->name, size - strlen(ret) - 1);
}

static int at_node(const struct tree_node *n, int r, struct err *err)
{
	char path[SHOWN_MAX] = "";
	AUTO_FREE(char, shown);
	struct err cause;

	node_path(n, path, sizeof(path));
	shown = str_escape(path, strlen(path));
	cause = *err;
	return err_set(err, r, "layer %u: %s: %.700s%s", n->layer, shown, cause.text, r == -EBADMSG ? CANNOT_BE_USED : "");
}

/* Inodes of what is no folder, numbers for those that are, then the folder itself, then what lies deeper. */
static int write_folder(struct untar *u, struct tree_node *dir, struct err *err)
{
	AUTO_FREE(struct ext4_dirent, ents);
	AUTO_FREE(struct tree_node *, kids);
	int r = 0;

	kids = tree_sorted(dir);
	ents = xcalloc(dir->n_kids + 1, sizeof(*ents));
	for (size_t i = 0; i < dir->n_kids && r == 0; i++) {
		struct tree_inode *in = kids[i]->inode;

		if (in->ino == 0) {
			in->ino = u->next_ino++;
			if (!S_ISDIR(in->x.mode))
				r = ext4_inode(u->disk, in->ino, &in->x, in->n_names, err);
			if (r < 0)
				return at_node(kids[i], r, err);
		}
		ents[i] = (struct ext4_dirent){ kids[i]->name, in->ino, in->x.mode };
	}
	r = ext4_dir(u->disk, dir->inode->ino, dir->parent ? dir->parent->inode->ino : EXT4_ROOT, &dir->inode->x, ents,
		     dir->n_kids, err);
	if (r < 0)
		return at_node(dir, r, err);
	for (size_t i = 0; i < dir->n_kids && r == 0; i++)
		if (S_ISDIR(kids[i]->inode->x.mode))
			r = write_folder(u, kids[i], err);
	return r;
}

static int look(struct untar *u, struct err *err)
{
	static const char *const folders[] = { "root/.local/bin", "root/.claude/local/bin", "root/.opencode/bin",
					       "usr/local/bin",	  "usr/bin",		    "usr/sbin",
					       "bin",		  "sbin",		    "usr/local/sbin" };
	static const char *const programs[] = { "bash", "claude", "codex", "opencode", "copilot", "chromium" };
	struct tree_node *n;

	static_assert(1 << (ARRAY_SIZE(programs) - 1) == IM_HAS_CHROMIUM, "programs[] is in the order of enum im_has");
	for (size_t i = 0; i < ARRAY_SIZE(programs); i++)
		for (size_t k = 0; k < ARRAY_SIZE(folders); k++) {
			char path[64];

			(void)snprintf(path, sizeof(path), "%s/%s", folders[k], programs[i]);
			n = tree_find(u->tree, path, true);
			if (n && S_ISREG(n->inode->x.mode) && (n->inode->x.mode & 0111))
				u->res.has |= UINT64_C(1) << i;
		}
	n = tree_find(u->tree, VERSION_PATH, false);
	u->res.has_version = n && S_ISREG(n->inode->x.mode);
	if (!u->res.has_version)
		return 0;
	u->res.n_version = (size_t)MIN(n->inode->x.size, (uint64_t)UNTAR_VERSION_MAX);
	return ext4_peek(u->disk, &n->inode->x, u->res.version, u->res.n_version, err);
}

int untar_finish(struct untar *u, const char (*diff_ids)[IM_DIGEST + 1], size_t n, struct untar_result *ret, struct err *err)
{
	uint8_t uuid[16], seed[16];
	char key[IM_DIGEST + 1];
	int r;

	disk_key(u->disk_bytes, diff_ids, n, key);
	disk_ids(key, uuid, seed);
	r = look(u, err);
	if (r < 0)
		return r;
	u->next_ino = EXT4_FIRST_INO;
	tree_root(u->tree)->inode->ino = EXT4_ROOT;
	tree_find(u->tree, "lost+found", false)->inode->ino = EXT4_LOST_FOUND;
	r = write_folder(u, tree_root(u->tree), err);
	if (r == 0)
		r = ext4_finish(u->disk, uuid, seed, &u->res.used_bytes, err);
	if (r < 0)
		return r;
	u->disk = NULL;
	*ret = u->res;
	return 0;
}
