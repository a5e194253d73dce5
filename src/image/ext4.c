/* The ext4 writer, on libext2fs (image page 4.4).
 *
 * libext2fs lays out the groups and tables and knows the checksums. What is slow in it is done here: blocks come from a
 * cursor that goes upwards, file data goes straight to the file, inodes and folders are written once, at the end, when all
 * is known (adding a name with ext2fs_link() walks the folder each time).
 *
 *	ext4_new()	geometry, features, empty tables
 *	ext4_data_*()	content, as it comes: blocks and data
 *	ext4_release()	what a later layer replaced: blocks back, zeroed
 *	ext4_inode()	an inode, the first is EXT4_FIRST_INO, without gaps; attributes
 *	ext4_dir()	blocks of names with their checksum tail, inode
 *	ext4_finish()	everything is flushed
 *
 * Holes: a block of zeros is never written. HOLE_BLOCKS or more of them in a row are a hole of the file; fewer are blocks
 * that stay holes of the disk on the host, so that a program with zeros between its parts keeps few extents.
 *
 * The same calls give the same bytes, however the content was cut into calls: no clock, no random number, no host name. The
 * UUID is known only at the end, when the last layer is; metadata_csum_seed lets the checksums begin from a constant
 * instead. No journal: an overlay is thrown away, and the image is never written to.
 *
 * Bounds: what does not fit into the disk is -EFBIG, what does not fit onto the host's is -ENOSPC, with a text; sizes are the caller's to limit. */
#include "image/ext4.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext2_ext_attr.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"

#define INODE_SIZE 256
#define BYTES_PER_INODE 16384
#define EXTENT_BLOCKS_MAX 32768U /* of an initialised extent */
#define EXTENTS_INLINE 4	 /* in an inode */
#define HOLE_BLOCKS 16
#define LOST_FOUND_BLOCKS 4
#define DIRENT_HEAD 8
#define DIR_TAIL 12 /* checksum entry at the end of each block of names */
#define OUT_BYTES (1U << 20)
#define OUT_SMALL (1U << 16) /* what is longer is written without a copy */
#define CSUM_SEED 0x4d566761 /* any constant */
#define NOW 1		     /* of what libext2fs dates itself; 0 would make it ask the clock */

struct ext4 {
	ext2_filsys fs;
	int fd;
	int broken; /* first failure of ext4_release() */
	blk64_t next_blk;
	/* the file being written */
	struct ext4_inode *x;
	uint64_t at; /* end of the content so far */
	uint8_t tail[EXT4_BLOCK]; /* of its last block as long as that is not whole */
	bool has_tail;
	uint64_t tail_lblk;
	/* writes under way: small neighbours become one */
	uint8_t *out;
	size_t out_n;
	uint64_t out_at;
};

static int lib_err(struct err *err, errcode_t code, const char *what)
{
	int r = code > 0 && code < 4096 ? -(int)code : code == EXT2_ET_BLOCK_ALLOC_FAIL ? -ENOSPC : -EIO;

	return err_set(err, r, "disk image: %s: %s", what, error_message(code));
}

static int full(const struct ext4 *e, struct err *err)
{
	return err_set(err, -EFBIG, "its content does not fit into a disk of %llu MiB; use a smaller image",
		       (unsigned long long)ext2fs_blocks_count(e->fs->super) * EXT4_BLOCK >> 20);
}

static void add_features(struct ext2_super_block *p)
{
	p->s_rev_level = EXT2_DYNAMIC_REV;
	p->s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX | EXT2_FEATURE_COMPAT_RESIZE_INODE;
	p->s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
				EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_64BIT |
				EXT4_FEATURE_INCOMPAT_CSUM_SEED;
	p->s_feature_ro_compat = EXT2_FEATURE_RO_COMPAT_SPARSE_SUPER | EXT2_FEATURE_RO_COMPAT_LARGE_FILE |
				 EXT4_FEATURE_RO_COMPAT_HUGE_FILE | EXT4_FEATURE_RO_COMPAT_DIR_NLINK |
				 EXT4_FEATURE_RO_COMPAT_EXTRA_ISIZE | EXT4_FEATURE_RO_COMPAT_METADATA_CSUM;
}

/* What mke2fs does after the geometry is known; nothing may be written before the seed of the checksums is. */
static errcode_t make_empty(struct ext4 *e)
{
	ext2_filsys fs = e->fs;
	struct ext2_super_block *sb = fs->super;
	errcode_t r;

	fs->now = NOW;
	sb->s_checksum_type = EXT2_CRC32C_CHKSUM;
	sb->s_checksum_seed = CSUM_SEED;
	ext2fs_init_csum_seed(fs);
	sb->s_def_hash_version = EXT2_HASH_HALF_MD4;
	sb->s_flags |= EXT2_FLAGS_SIGNED_HASH;
	sb->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
	sb->s_max_mnt_count = -1;
	sb->s_mkfs_time = sb->s_lastcheck = 0;
	sb->s_kbytes_written = 0;
	r = ext2fs_allocate_tables(fs);
	if (r)
		return r;
	/* The file is new: its inode tables are zeros already. */
	for (dgrp_t g = 0; g < fs->group_desc_count; g++) {
		ext2fs_bg_flags_set(fs, g, EXT2_BG_INODE_ZEROED);
		ext2fs_group_desc_csum_set(fs, g);
	}
	for (ext2_ino_t i = EXT2_BAD_INO; i < EXT2_FIRST_INODE(sb); i++)
		ext2fs_inode_alloc_stats2(fs, i, +1, i == EXT2_ROOT_INO);
	r = ext2fs_update_bb_inode(fs, NULL);
	if (r)
		return r;
	return ext2fs_create_resize_inode(fs);
}

int ext4_new(int fd, uint64_t bytes, struct ext4 **ret, struct err *err)
{
	struct ext2_super_block param = { 0 };
	struct ext4 *e;
	char name[16];
	int own;
	errcode_t r;

	add_features(&param);
	param.s_log_block_size = 2;
	param.s_log_cluster_size = 2;
	param.s_inode_size = INODE_SIZE;
	param.s_log_groups_per_flex = 4;
	ext2fs_blocks_count_set(&param, bytes / EXT4_BLOCK);
	param.s_inodes_count = (uint32_t)MIN(bytes / BYTES_PER_INODE, (uint64_t)UINT32_MAX);
	if (ftruncate(fd, (off_t)bytes) < 0)
		return err_set(err, -errno, "disk image: cannot be made %llu bytes long: %s", (unsigned long long)bytes,
			       strerror(errno));
	own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (own < 0)
		return err_set(err, -errno, "disk image: %s", strerror(errno));
	(void)snprintf(name, sizeof(name), "%d", own); /* libext2fs closes it */
	e = xcalloc(1, sizeof(*e));
	e->fd = fd;
	e->out = xmalloc(OUT_BYTES);
	r = ext2fs_initialize(name, EXT2_FLAG_64BITS | EXT2_FLAG_RW, &param, unixfd_io_manager, &e->fs);
	if (r == 0)
		r = make_empty(e);
	if (r) {
		ext4_free(e);
		return lib_err(err, r, "cannot be laid out");
	}
	assert(EXT2_FIRST_INODE(e->fs->super) == EXT4_LOST_FOUND && EXT2_LINK_MAX == 65000);
	e->next_blk = e->fs->super->s_first_data_block;
	*ret = e;
	return 0;
}

void ext4_free(struct ext4 *e)
{
	if (!e)
		return;
	if (e->fs)
		ext2fs_free(e->fs);
	free(e->out);
	free(e);
}

void ext4_inode_done(struct ext4_inode *x)
{
	for (size_t i = 0; i < x->n_xattrs; i++) {
		free(x->xattrs[i].name);
		free(x->xattrs[i].value);
	}
	free(x->xattrs);
	free(x->target);
	free(x->runs);
	*x = (struct ext4_inode){ 0 };
}

static int write_at(struct ext4 *e, const uint8_t *p, size_t n, uint64_t at, struct err *err)
{
	while (n > 0) {
		ssize_t k = pwrite(e->fd, p, n, (off_t)at);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return err_set(err, k < 0 ? -errno : -EIO, "disk image: cannot be written: %s%s",
				       strerror(k < 0 ? errno : EIO),
				       k < 0 && errno == ENOSPC ? "; free some space where images are stored" : "");
		p += k;
		n -= (size_t)k;
		at += (uint64_t)k;
	}
	return 0;
}

static int out_flush(struct ext4 *e, struct err *err)
{
	size_t n = e->out_n;

	e->out_n = 0;
	return write_at(e, e->out, n, e->out_at, err);
}

static int out_put(struct ext4 *e, const uint8_t *p, size_t n, uint64_t at, struct err *err)
{
	int r;

	assert(n <= OUT_BYTES);
	if (e->out_n > 0 && (at != e->out_at + e->out_n || n > OUT_BYTES - e->out_n)) {
		r = out_flush(e, err);
		if (r < 0)
			return r;
	}
	if (n > OUT_SMALL && e->out_n == 0)
		return write_at(e, p, n, at, err);
	if (e->out_n == 0)
		e->out_at = at;
	memcpy(e->out + e->out_n, p, n);
	e->out_n += n;
	return 0;
}

/* At most @want free blocks that follow each other, from the cursor on; at the end it begins again below. */
static int take_run(struct ext4 *e, uint32_t want, blk64_t *ret_blk, uint32_t *ret_n, struct err *err)
{
	blk64_t first = e->fs->super->s_first_data_block, last = ext2fs_blocks_count(e->fs->super) - 1, blk, end;

	if (e->next_blk > last || ext2fs_find_first_zero_block_bitmap2(e->fs->block_map, e->next_blk, last, &blk)) {
		if (ext2fs_find_first_zero_block_bitmap2(e->fs->block_map, first, last, &blk))
			return full(e, err);
	}
	end = MIN(blk + want - 1, last);
	if (end > blk && ext2fs_find_first_set_block_bitmap2(e->fs->block_map, blk, end, &end) == 0)
		end--;
	*ret_blk = blk;
	*ret_n = (uint32_t)(end - blk + 1);
	ext2fs_block_alloc_stats_range(e->fs, blk, *ret_n, +1);
	e->next_blk = blk + *ret_n;
	return 0;
}

static void run_add(struct ext4_inode *x, uint64_t blk, uint32_t lblk, uint32_t n)
{
	if (x->n_runs == x->size_runs) {
		x->size_runs = x->size_runs ? 2 * x->size_runs : 1;
		x->runs = xrealloc(x->runs, x->size_runs * sizeof(*x->runs));
	}
	x->runs[x->n_runs++] = (struct ext4_run){ blk, lblk, n };
}

/* The next blocks of a file, from @lblk on, as many as follow each other; put into its runs. */
static int map(struct ext4 *e, struct ext4_inode *x, uint32_t lblk, uint32_t want, blk64_t *ret_blk, uint32_t *ret_n,
	       struct err *err)
{
	struct ext4_run *last = x->n_runs > 0 ? &x->runs[x->n_runs - 1] : NULL;
	uint32_t joined = 0;
	int r;

	r = take_run(e, MIN(want, EXTENT_BLOCKS_MAX), ret_blk, ret_n, err);
	if (r < 0)
		return r;
	if (last && last->lblk + last->n == lblk && last->blk + last->n == *ret_blk) {
		joined = MIN(*ret_n, EXTENT_BLOCKS_MAX - last->n);
		last->n += joined;
	}
	if (joined < *ret_n)
		run_add(x, *ret_blk + joined, lblk + joined, *ret_n - joined);
	return 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return p[0] == 0 && memcmp(p, p + 1, n - 1) == 0;
}

/* Blocks that are not zero. A short gap before them gets blocks too. */
static int put_blocks(struct ext4 *e, uint64_t lblk, const uint8_t *p, size_t n, struct err *err)
{
	struct ext4_inode *x = e->x;
	blk64_t blk;
	uint32_t k;
	int r;

	if (n == 0)
		return 0;
	if (x->n_runs > 0) {
		const struct ext4_run *last = &x->runs[x->n_runs - 1];
		uint64_t end = (uint64_t)last->lblk + last->n;

		while (end < lblk && lblk - end < HOLE_BLOCKS) {
			r = map(e, x, (uint32_t)end, (uint32_t)(lblk - end), &blk, &k, err);
			if (r < 0)
				return r;
			end += k;
		}
	}
	while (n > 0) {
		r = map(e, x, (uint32_t)lblk, (uint32_t)n, &blk, &k, err);
		if (r == 0)
			r = out_put(e, p, (size_t)k * EXT4_BLOCK, blk * EXT4_BLOCK, err);
		if (r < 0)
			return r;
		lblk += k;
		p += (size_t)k * EXT4_BLOCK;
		n -= k;
	}
	return 0;
}

/* Whole blocks, zeros among them. */
static int sift_blocks(struct ext4 *e, uint64_t lblk, const uint8_t *p, size_t n, struct err *err)
{
	size_t from = 0, i;
	int r;

	for (i = 0; i < n; i++) {
		if (!all_zero(p + i * EXT4_BLOCK, EXT4_BLOCK))
			continue;
		r = put_blocks(e, lblk + from, p + from * EXT4_BLOCK, i - from, err);
		if (r < 0)
			return r;
		from = i + 1;
	}
	return put_blocks(e, lblk + from, p + from * EXT4_BLOCK, n - from, err);
}

static int tail_flush(struct ext4 *e, struct err *err)
{
	if (!e->has_tail)
		return 0;
	e->has_tail = false;
	return sift_blocks(e, e->tail_lblk, e->tail, 1, err);
}

void ext4_data_begin(struct ext4 *e, struct ext4_inode *x)
{
	assert(x->n_runs == 0);
	e->x = x;
	e->at = 0;
	e->has_tail = false;
}

int ext4_data(struct ext4 *e, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	const uint8_t *p = bytes;
	int r = 0;

	if (off < e->at || off > e->x->size || n > e->x->size - off)
		return err_set(err, -EBADMSG, "content out of order or past its end");
	e->at = off + n;
	while (n > 0 && r == 0) {
		uint64_t lblk = off / EXT4_BLOCK;
		size_t in = off % EXT4_BLOCK, k = MIN(n, EXT4_BLOCK - in);

		if (e->has_tail && e->tail_lblk != lblk) {
			r = tail_flush(e, err);
			continue;
		}
		if (!e->has_tail && in == 0 && n >= EXT4_BLOCK) {
			k = MIN(n, (size_t)OUT_BYTES) / EXT4_BLOCK * EXT4_BLOCK;
			r = sift_blocks(e, lblk, p, k / EXT4_BLOCK, err);
		} else {
			if (!e->has_tail)
				memset(e->tail, 0, EXT4_BLOCK);
			e->has_tail = true;
			e->tail_lblk = lblk;
			memcpy(e->tail + in, p, k);
			if (in + k == EXT4_BLOCK)
				r = tail_flush(e, err);
		}
		p += k;
		off += k;
		n -= k;
	}
	return r;
}

int ext4_data_end(struct ext4 *e, struct err *err)
{
	int r = tail_flush(e, err);

	e->x = NULL;
	return r;
}

int ext4_peek(struct ext4 *e, const struct ext4_inode *x, void *ret, size_t n, struct err *err)
{
	int r = out_flush(e, err);

	memset(ret, 0, n);
	if (r < 0 || x->n_runs == 0 || x->runs[0].lblk != 0)
		return r;
	n = MIN(n, (size_t)EXT4_BLOCK);
	return pread(e->fd, ret, n, (off_t)(x->runs[0].blk * EXT4_BLOCK)) == (ssize_t)n ?
		       0 :
		       err_set(err, -EIO, "disk image: cannot be read");
}

/* Zeros, as a hole where the host's file system can. */
static int punch(struct ext4 *e, uint64_t at, uint64_t n)
{
	static const uint8_t zeros[1 << 16];
	int r = 0;

	if (fallocate(e->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)n) == 0)
		return 0;
	for (uint64_t k; n > 0 && r == 0; at += k, n -= k) {
		k = MIN(n, (uint64_t)sizeof(zeros));
		r = write_at(e, zeros, (size_t)k, at, NULL);
	}
	return r;
}

void ext4_release(struct ext4 *e, struct ext4_inode *x)
{
	int r = out_flush(e, NULL);

	for (size_t i = 0; i < x->n_runs && r == 0; i++) {
		ext2fs_block_alloc_stats_range(e->fs, x->runs[i].blk, x->runs[i].n, -1);
		r = punch(e, x->runs[i].blk * EXT4_BLOCK, (uint64_t)x->runs[i].n * EXT4_BLOCK);
	}
	x->n_runs = 0;
	e->broken = e->broken ? e->broken : r;
}

static void fill_inode(struct ext2_inode_large *in, const struct ext4_inode *x, uint64_t size, uint16_t links)
{
	/* 1901-12-13 to 2446-05-10: what 32 bits and two more can say. */
	int64_t t = MAX(MIN(x->mtime, (int64_t)INT32_MIN + (4LL << 32) - 1), (int64_t)INT32_MIN);
	uint32_t low = (uint32_t)t, extra = x->mtime_ns << 2 | (uint32_t)(((t - (int32_t)low) >> 32) & 3);

	in->i_mode = (uint16_t)x->mode;
	in->i_uid = (uint16_t)x->uid;
	ext2fs_set_i_uid_high(*in, x->uid >> 16);
	in->i_gid = (uint16_t)x->gid;
	ext2fs_set_i_gid_high(*in, x->gid >> 16);
	in->i_size = (uint32_t)size;
	in->i_size_high = (uint32_t)(size >> 32);
	in->i_links_count = links;
	in->i_atime = in->i_ctime = in->i_mtime = in->i_crtime = low;
	in->i_extra_isize = sizeof(*in) - EXT2_GOOD_OLD_INODE_SIZE;
	in->i_atime_extra = in->i_ctime_extra = in->i_mtime_extra = in->i_crtime_extra = extra;
}

static int write_inode(struct ext4 *e, uint32_t ino, struct ext2_inode_large *in, struct err *err)
{
	errcode_t r = ext2fs_write_inode_full(e->fs, ino, (struct ext2_inode *)in, sizeof(*in));

	return r ? lib_err(err, r, "inode cannot be written") : 0;
}

/* Up to four extents stand in the inode itself. */
static void extents_inline(struct ext2_inode_large *in, const struct ext4_run *runs, size_t n)
{
	struct {
		struct ext3_extent_header head;
		struct ext3_extent x[EXTENTS_INLINE];
	} b = { { .eh_magic = EXT3_EXT_MAGIC, .eh_entries = (uint16_t)n, .eh_max = EXTENTS_INLINE }, { { 0 } } };

	static_assert(sizeof(b) == sizeof(in->i_block), "i_block holds a header and four extents");
	for (size_t i = 0; i < n; i++)
		b.x[i] = (struct ext3_extent){ runs[i].lblk, (uint16_t)runs[i].n, (uint16_t)(runs[i].blk >> 32),
					       (uint32_t)runs[i].blk };
	memcpy(in->i_block, &b, sizeof(b));
}

static errcode_t extents_tree(struct ext4 *e, uint32_t ino, struct ext2_inode *in, const struct ext4_run *runs, size_t n)
{
	ext2_extent_handle_t h;
	errcode_t r;

	r = ext2fs_extent_open2(e->fs, ino, in, &h);
	for (size_t i = 0; i < n && !r; i++) {
		struct ext2fs_extent x = { .e_pblk = runs[i].blk, .e_lblk = runs[i].lblk, .e_len = runs[i].n };

		r = ext2fs_extent_insert(h, EXT2_EXTENT_INSERT_AFTER, &x);
	}
	if (h)
		ext2fs_extent_free(h);
	return r;
}

/* An inode with blocks. */
static int write_mapped(struct ext4 *e, uint32_t ino, struct ext2_inode_large *in, const struct ext4_run *runs, size_t n,
			struct err *err)
{
	struct ext2_inode *small = (struct ext2_inode *)in;
	errcode_t r = 0;

	in->i_flags |= EXT4_EXTENTS_FL;
	if (n <= EXTENTS_INLINE)
		extents_inline(in, runs, n);
	else
		r = extents_tree(e, ino, small, runs, n); /* counts its own blocks in i_blocks */
	for (size_t i = 0; i < n && !r; i++)
		r = ext2fs_iblk_add_blocks(e->fs, small, runs[i].n);
	return r ? lib_err(err, r, "extents cannot be written") : write_inode(e, ino, in, err);
}

/* What lies in blocks but is not a file's content: a link's target, a folder's names. */
static int put_own(struct ext4 *e, struct ext4_inode *x, const uint8_t *p, size_t n_blocks, struct err *err)
{
	uint32_t lblk = 0, k;
	blk64_t blk;
	int r = 0;

	for (; lblk < n_blocks && r == 0; lblk += k) {
		r = map(e, x, lblk, (uint32_t)n_blocks - lblk, &blk, &k, err);
		if (r < 0)
			return r;
		for (uint32_t i = 0; i < k && r == 0; i++)
			r = out_put(e, p + (size_t)(lblk + i) * EXT4_BLOCK, EXT4_BLOCK, (blk + i) * EXT4_BLOCK, err);
	}
	return r;
}

static int write_xattrs(struct ext4 *e, uint32_t ino, const struct ext4_inode *x, struct err *err)
{
	struct ext2_xattr_handle *h;
	errcode_t r;

	if (x->n_xattrs == 0)
		return 0;
	r = ext2fs_xattrs_open(e->fs, ino, &h);
	if (r)
		return lib_err(err, r, "attributes cannot be opened");
	r = ext2fs_xattrs_read(h);
	for (size_t i = 0; i < x->n_xattrs && !r; i++)
		r = ext2fs_xattr_set(h, x->xattrs[i].name, x->xattrs[i].value, x->xattrs[i].n); /* also writes them */
	(void)ext2fs_xattrs_close(&h);
	if (r == EXT2_ET_EA_NO_SPACE)
		return err_set(err, -EBADMSG, "attributes that do not fit into the inode and one block");
	return r ? lib_err(err, r, "attributes cannot be written") : 0;
}

/* The next inode is in use. */
static int take_ino(struct ext4 *e, uint32_t ino, mode_t mode, struct err *err)
{
	if (ino == EXT4_ROOT)
		return 0;
	if (ino > e->fs->super->s_inodes_count)
		return err_set(err, -EFBIG, "more than the %u files that fit on the disk; use a smaller image", e->fs->super->s_inodes_count);
	ext2fs_inode_alloc_stats2(e->fs, ino, +1, S_ISDIR(mode));
	return 0;
}

static int write_symlink(struct ext4 *e, uint32_t ino, const struct ext4_inode *x, struct ext2_inode_large *in, struct err *err)
{
	struct ext4_inode own = { 0 };
	size_t n = strlen(x->target);
	uint8_t block[EXT4_BLOCK] = { 0 };
	int r;

	if (n < sizeof(in->i_block)) {
		memcpy(in->i_block, x->target, n);
		return write_inode(e, ino, in, err);
	}
	memcpy(block, x->target, n);
	r = put_own(e, &own, block, 1, err);
	if (r == 0)
		r = write_mapped(e, ino, in, own.runs, own.n_runs, err);
	ext4_inode_done(&own);
	return r;
}

int ext4_inode(struct ext4 *e, uint32_t ino, const struct ext4_inode *x, uint32_t n_names, struct err *err)
{
	bool file = S_ISREG(x->mode), link = S_ISLNK(x->mode);
	uint64_t size = file ? x->size : link ? strlen(x->target) : 0;
	struct ext2_inode_large in = { 0 };
	int r;

	r = take_ino(e, ino, x->mode, err);
	if (r < 0)
		return r;
	fill_inode(&in, x, size, (uint16_t)n_names);
	if (file) {
		r = write_mapped(e, ino, &in, x->runs, x->n_runs, err);
	} else if (link) {
		r = write_symlink(e, ino, x, &in, err);
	} else {
		/* linux/kdev_t.h: the old form where it suffices, else the new one in the second word. */
		if (x->major < 256 && x->minor < 256)
			in.i_block[0] = x->major << 8 | x->minor;
		else
			in.i_block[1] = (x->minor & 0xff) | x->major << 8 | (x->minor & ~0xffU) << 12;
		r = write_inode(e, ino, &in, err);
	}
	return r < 0 ? r : write_xattrs(e, ino, x, err);
}

static uint8_t file_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EXT2_FT_REG_FILE;
	case S_IFDIR:
		return EXT2_FT_DIR;
	case S_IFLNK:
		return EXT2_FT_SYMLINK;
	case S_IFCHR:
		return EXT2_FT_CHRDEV;
	case S_IFBLK:
		return EXT2_FT_BLKDEV;
	case S_IFIFO:
		return EXT2_FT_FIFO;
	default:
		return EXT2_FT_UNKNOWN;
	}
}

/* Blocks of names under construction: each is a list of records that fills all but the tail. */
struct names {
	uint8_t *mem;
	size_t n_blocks;
	size_t at;   /* of the next record in the last block */
	size_t last; /* of the last record there */
};

static struct ext2_dir_entry *record_at(struct names *b, size_t at)
{
	return (struct ext2_dir_entry *)(void *)(b->mem + (b->n_blocks - 1) * EXT4_BLOCK + at);
}

static void block_add(struct names *b)
{
	b->mem = xrealloc(b->mem, (b->n_blocks + 1) * EXT4_BLOCK);
	memset(b->mem + b->n_blocks++ * EXT4_BLOCK, 0, EXT4_BLOCK);
	b->at = 0;
}

/* The last record of a block reaches to the tail. */
static void block_close(struct names *b)
{
	if (b->at == 0) {
		record_at(b, 0)->rec_len = EXT4_BLOCK - DIR_TAIL;
		return;
	}
	record_at(b, b->last)->rec_len = (uint16_t)(EXT4_BLOCK - DIR_TAIL - b->last);
}

static void name_add(struct names *b, const char *name, uint32_t ino, mode_t mode)
{
	size_t n = strlen(name), need = (DIRENT_HEAD + n + 3) & ~(size_t)3;
	struct ext2_dir_entry *d;

	if (b->n_blocks == 0) {
		block_add(b);
	} else if (b->at + need > EXT4_BLOCK - DIR_TAIL) {
		block_close(b);
		block_add(b);
	}
	d = record_at(b, b->at);
	d->inode = ino;
	d->rec_len = (uint16_t)need;
	ext2fs_dirent_set_name_len(d, (int)n);
	ext2fs_dirent_set_file_type(d, file_type(mode));
	memcpy(d->name, name, n);
	b->last = b->at;
	b->at += need;
}

int ext4_dir(struct ext4 *e, uint32_t ino, uint32_t parent, const struct ext4_inode *x, const struct ext4_dirent *ents,
	     size_t n, struct err *err)
{
	struct ext2_inode_large in = { 0 };
	struct ext4_inode own = { 0 };
	struct names b = { 0 };
	uint32_t links = 2;
	int r;

	r = take_ino(e, ino, x->mode, err);
	if (r < 0)
		return r;
	name_add(&b, ".", ino, S_IFDIR);
	name_add(&b, "..", parent, S_IFDIR);
	for (size_t i = 0; i < n; i++) {
		name_add(&b, ents[i].name, ents[i].ino, ents[i].mode);
		links += S_ISDIR(ents[i].mode) ? 1 : 0;
	}
	block_close(&b);
	while (ino == EXT4_LOST_FOUND && b.n_blocks < LOST_FOUND_BLOCKS) {
		block_add(&b);
		block_close(&b);
	}
	/* dir_nlink: past the maximum the count is 1, "not known". */
	fill_inode(&in, x, b.n_blocks * EXT4_BLOCK, links >= EXT2_LINK_MAX ? 1 : (uint16_t)links);
	/* The checksum of names needs the inode's generation, which is 0 in all; the inode must be there all the same. */
	r = write_inode(e, ino, &in, err);
	for (size_t i = 0; i < b.n_blocks && r == 0; i++) {
		void *block = b.mem + i * EXT4_BLOCK;
		errcode_t lr;

		ext2fs_initialize_dirent_tail(e->fs, EXT2_DIRENT_TAIL(block, EXT4_BLOCK));
		lr = ext2fs_dir_block_csum_set(e->fs, ino, block);
		if (lr)
			r = lib_err(err, lr, "folder cannot be written");
	}
	if (r == 0)
		r = put_own(e, &own, b.mem, b.n_blocks, err);
	if (r == 0)
		r = write_mapped(e, ino, &in, own.runs, own.n_runs, err);
	if (r == 0)
		r = write_xattrs(e, ino, x, err);
	ext4_inode_done(&own);
	free(b.mem);
	return r;
}

int ext4_finish(struct ext4 *e, const uint8_t uuid[16], const uint8_t hash_seed[16], uint64_t *ret_used, struct err *err)
{
	struct ext2_super_block *sb = e->fs->super;
	uint64_t used = ext2fs_blocks_count(sb) - ext2fs_free_blocks_count(sb);
	errcode_t lr;
	int r;

	r = out_flush(e, err);
	if (r < 0)
		return r;
	if (e->broken)
		return err_set(err, e->broken, "disk image: replaced content cannot be taken away: %s", strerror(-e->broken));
	memcpy(sb->s_uuid, uuid, sizeof(sb->s_uuid));
	memcpy(sb->s_hash_seed, hash_seed, sizeof(sb->s_hash_seed));
	ext2fs_mark_valid(e->fs);
	ext2fs_mark_super_dirty(e->fs);
	lr = ext2fs_close2(e->fs, EXT2_FLAG_FLUSH_NO_SYNC);
	if (lr)
		return lib_err(err, lr, "cannot be finished");
	e->fs = NULL;
	ext4_free(e);
	*ret_used = used * EXT4_BLOCK;
	return 0;
}
