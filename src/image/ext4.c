/* The ext4 writer, on libext2fs (image page 4.4).
 *
 * libext2fs lays out the groups and tables and knows the checksums. What is slow in it is done here: inodes and blocks
 * come from cursors that only go up, file data goes straight to the file, and a folder is written whole, once, when all
 * its names are known (adding a name with ext2fs_link() walks the folder each time).
 *
 *	ext4_new()	geometry, features, empty tables, lost+found's inode
 *	ext4_ino()	number of the next inode
 *	ext4_file_*()	blocks in as few runs as the groups' own metadata allows, data, inode
 *	ext4_dir()	blocks of names with their checksum tail, inode
 *	ext4_finish()	root gets lost+found, everything is flushed
 *
 * The same calls give the same bytes: no clock, no random number, no host name. The UUID is a constant of this format's
 * number: the disk of a guest stands alone in it, and the checksums of ext4 start from the UUID, so it cannot be set when
 * the content is known. No journal: an overlay is thrown away, and the image is never written to.
 *
 * Bounds: what does not fit is -ENOSPC with a text; sizes are the caller's to limit. */
#include "image/ext4.h"

#include <errno.h>
#include <stdbool.h>
#include <ext2fs/ext2fs.h>
#include <ext2fs/ext2_ext_attr.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"

#define INODE_SIZE 256
#define BYTES_PER_INODE 16384
#define EXTENT_BLOCKS_MAX 32768U /* of an initialised extent */
#define RUNS_MAX 65536
#define LOST_FOUND_BLOCKS 4
#define DIRENT_HEAD 8
#define DIR_TAIL 12 /* checksum entry at the end of each block of names */

struct run {
	blk64_t blk;
	uint64_t n;
};

struct ext4 {
	ext2_filsys fs;
	int fd;
	int64_t epoch;
	ext2_ino_t next_ino;
	ext2_ino_t lost_found;
	blk64_t next_blk;
	struct run *runs; /* of the file being written */
	size_t n_runs;
	uint64_t size;
};

static const uint8_t format_uuid[16] = { 'a', 'g', 'e', 'n', 't', '-', 0x56, 0x4d, 0x84, 'd', 'i', 's', 'k', '-', 'v', '1' };

static int lib_err(struct err *err, errcode_t code, const char *what)
{
	int r = code > 0 && code < 4096 ? -(int)code : code == EXT2_ET_BLOCK_ALLOC_FAIL ? -ENOSPC : -EIO;

	return err_set(err, r, "disk image: %s: %s", what, error_message(code));
}

static void add_features(struct ext2_super_block *p)
{
	p->s_rev_level = EXT2_DYNAMIC_REV;
	p->s_feature_compat = EXT2_FEATURE_COMPAT_EXT_ATTR | EXT2_FEATURE_COMPAT_DIR_INDEX | EXT2_FEATURE_COMPAT_RESIZE_INODE;
	p->s_feature_incompat = EXT2_FEATURE_INCOMPAT_FILETYPE | EXT3_FEATURE_INCOMPAT_EXTENTS |
				EXT4_FEATURE_INCOMPAT_FLEX_BG | EXT4_FEATURE_INCOMPAT_64BIT;
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

	fs->now = e->epoch;
	sb->s_checksum_type = EXT2_CRC32C_CHKSUM;
	memcpy(sb->s_uuid, format_uuid, sizeof(format_uuid));
	ext2fs_init_csum_seed(fs);
	sb->s_def_hash_version = EXT2_HASH_HALF_MD4;
	memcpy(sb->s_hash_seed, format_uuid, sizeof(format_uuid));
	sb->s_flags |= EXT2_FLAGS_SIGNED_HASH;
	sb->s_default_mount_opts = EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
	sb->s_max_mnt_count = -1;
	sb->s_mkfs_time = sb->s_lastcheck = (uint32_t)e->epoch;
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

int ext4_new(int fd, uint64_t bytes, int64_t epoch, struct ext4 **ret, struct err *err)
{
	struct ext2_super_block param = { 0 };
	struct ext4 *e;
	char name[16];
	errcode_t r;
	int ir;

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
	(void)snprintf(name, sizeof(name), "%d", fd);
	e = xcalloc(1, sizeof(*e));
	e->fd = fd;
	e->epoch = epoch;
	e->runs = xcalloc(RUNS_MAX, sizeof(*e->runs));
	r = ext2fs_initialize(name, EXT2_FLAG_64BITS | EXT2_FLAG_RW, &param, unixfd_io_manager, &e->fs);
	if (r == 0)
		r = make_empty(e);
	if (r) {
		ext4_free(e);
		return lib_err(err, r, "cannot be laid out");
	}
	e->next_ino = EXT2_FIRST_INODE(e->fs->super);
	e->next_blk = e->fs->super->s_first_data_block;
	ir = ext4_ino(e, S_IFDIR, &e->lost_found, err);
	if (ir < 0) {
		ext4_free(e);
		return ir;
	}
	*ret = e;
	return 0;
}

void ext4_free(struct ext4 *e)
{
	if (!e)
		return;
	if (e->fs)
		ext2fs_free(e->fs);
	free(e->runs);
	free(e);
}

int ext4_ino(struct ext4 *e, mode_t mode, uint32_t *ret, struct err *err)
{
	if (e->next_ino > e->fs->super->s_inodes_count)
		return err_set(err, -ENOSPC, "disk image: more than %u files", e->fs->super->s_inodes_count);
	ext2fs_inode_alloc_stats2(e->fs, e->next_ino, +1, S_ISDIR(mode));
	*ret = e->next_ino++;
	return 0;
}

/* Blocks for @size bytes into e->runs, first free ones upwards from the cursor. */
static int take_blocks(struct ext4 *e, uint64_t size, struct err *err)
{
	uint64_t want = (size + EXT4_BLOCK - 1) / EXT4_BLOCK;
	blk64_t last = ext2fs_blocks_count(e->fs->super) - 1, blk, end;

	e->n_runs = 0;
	e->size = size;
	while (want > 0) {
		if (e->next_blk > last || ext2fs_find_first_zero_block_bitmap2(e->fs->block_map, e->next_blk, last, &blk))
			return err_set(err, -ENOSPC, "disk image: its content does not fit into %llu MiB",
				       (unsigned long long)(last + 1) * EXT4_BLOCK >> 20);
		if (ext2fs_find_first_set_block_bitmap2(e->fs->block_map, blk, last, &end))
			end = last + 1;
		end = MIN(end, blk + MIN(want, (uint64_t)EXTENT_BLOCKS_MAX));
		if (e->n_runs == RUNS_MAX)
			return err_set(err, -EFBIG, "disk image: a file of %llu bytes is too large", (unsigned long long)size);
		e->runs[e->n_runs++] = (struct run){ blk, end - blk };
		ext2fs_block_alloc_stats_range(e->fs, blk, (blk_t)(end - blk), +1);
		e->next_blk = end;
		want -= end - blk;
	}
	return 0;
}

static void fill_inode(struct ext2_inode_large *in, const struct ext4_attr *a, uint64_t size, uint16_t links)
{
	/* 1901-12-13 to 2446-05-10: what 32 bits and two more can say. */
	int64_t t = MAX(MIN(a->mtime, (int64_t)INT32_MIN + (4LL << 32) - 1), (int64_t)INT32_MIN);
	uint32_t low = (uint32_t)t, extra = a->mtime_ns << 2 | (uint32_t)(((t - (int32_t)low) >> 32) & 3);

	in->i_mode = (uint16_t)a->mode;
	in->i_uid = (uint16_t)a->uid;
	ext2fs_set_i_uid_high(*in, a->uid >> 16);
	in->i_gid = (uint16_t)a->gid;
	ext2fs_set_i_gid_high(*in, a->gid >> 16);
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

/* An inode whose data lies in e->runs. */
static int write_mapped(struct ext4 *e, uint32_t ino, struct ext2_inode_large *in, struct err *err)
{
	struct ext2_inode *small = (struct ext2_inode *)in;
	ext2_extent_handle_t h;
	uint64_t lblk = 0;
	errcode_t r;

	in->i_flags |= EXT4_EXTENTS_FL;
	r = ext2fs_extent_open2(e->fs, ino, small, &h);
	if (r)
		return lib_err(err, r, "extents cannot be begun");
	for (size_t i = 0; i < e->n_runs && !r; i++) {
		struct ext2fs_extent x = { .e_pblk = e->runs[i].blk, .e_lblk = lblk, .e_len = (uint32_t)e->runs[i].n };

		r = ext2fs_extent_insert(h, EXT2_EXTENT_INSERT_AFTER, &x);
		if (!r)
			r = ext2fs_iblk_add_blocks(e->fs, small, e->runs[i].n);
		lblk += e->runs[i].n;
	}
	ext2fs_extent_free(h);
	if (r)
		return lib_err(err, r, "extents cannot be written");
	return write_inode(e, ino, in, err);
}

int ext4_file_begin(struct ext4 *e, uint64_t size, struct err *err)
{
	return take_blocks(e, size, err);
}

static int write_at(struct ext4 *e, const uint8_t *p, size_t n, off_t at, struct err *err)
{
	while (n > 0) {
		ssize_t k = pwrite(e->fd, p, n, at);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return err_set(err, k < 0 ? -errno : -EIO, "disk image: cannot be written: %s",
				       strerror(k < 0 ? errno : EIO));
		p += k;
		n -= (size_t)k;
		at += k;
	}
	return 0;
}

static bool all_zero(const uint8_t *p, size_t n)
{
	return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* Writes what is not zero; blocks of zeros stay holes of the file on the host. */
static int write_sparse(struct ext4 *e, const uint8_t *p, size_t n, off_t at, struct err *err)
{
	size_t begin = 0, i = 0;

	while (i < n) {
		size_t piece = MIN(n - i, (size_t)(EXT4_BLOCK - (uint64_t)(at + (off_t)i) % EXT4_BLOCK));

		if (all_zero(p + i, piece)) {
			int r = write_at(e, p + begin, i - begin, at + (off_t)begin, err);

			if (r < 0)
				return r;
			begin = i + piece;
		}
		i += piece;
	}
	return write_at(e, p + begin, n - begin, at + (off_t)begin, err);
}

int ext4_file_data(struct ext4 *e, uint64_t off, const void *bytes, size_t n, struct err *err)
{
	const uint8_t *p = bytes;
	uint64_t start = 0;

	if (off > e->size || n > e->size - off)
		return err_set(err, -EBADMSG, "disk image: data past the end of its file");
	for (size_t i = 0; i < e->n_runs && n > 0; i++) {
		uint64_t len = e->runs[i].n * EXT4_BLOCK;

		if (off < start + len) {
			size_t k = (size_t)MIN((uint64_t)n, start + len - off);
			int r = write_sparse(e, p, k, (off_t)(e->runs[i].blk * EXT4_BLOCK + (off - start)), err);

			if (r < 0)
				return r;
			p += k;
			off += k;
			n -= k;
		}
		start += len;
	}
	return 0;
}

int ext4_file_end(struct ext4 *e, uint32_t ino, const struct ext4_attr *a, struct err *err)
{
	struct ext2_inode_large in = { 0 };

	fill_inode(&in, a, e->size, 1);
	return write_mapped(e, ino, &in, err);
}

int ext4_symlink(struct ext4 *e, uint32_t ino, const struct ext4_attr *a, const char *target, struct err *err)
{
	struct ext2_inode_large in = { 0 };
	size_t n = strlen(target);
	int r;

	if (n == 0 || n >= EXT4_BLOCK)
		return err_set(err, -EBADMSG, "disk image: target of a link is empty or longer than 4095 bytes");
	fill_inode(&in, a, n, 1);
	if (n < sizeof(in.i_block)) {
		memcpy(in.i_block, target, n);
		return write_inode(e, ino, &in, err);
	}
	r = take_blocks(e, n, err);
	if (r == 0)
		r = ext4_file_data(e, 0, target, n, err);
	return r < 0 ? r : write_mapped(e, ino, &in, err);
}

int ext4_special(struct ext4 *e, uint32_t ino, const struct ext4_attr *a, dev_t dev, struct err *err)
{
	struct ext2_inode_large in = { 0 };
	unsigned int ma = major(dev), mi = minor(dev);

	fill_inode(&in, a, 0, 1);
	/* linux/kdev_t.h: the old form where it suffices, else the new one in the second word. */
	if (ma < 256 && mi < 256)
		in.i_block[0] = ma << 8 | mi;
	else
		in.i_block[1] = (mi & 0xff) | ma << 8 | (mi & ~0xffU) << 12;
	return write_inode(e, ino, &in, err);
}

int ext4_link(struct ext4 *e, uint32_t ino, struct err *err)
{
	struct ext2_inode_large in;
	errcode_t r;

	r = ext2fs_read_inode_full(e->fs, ino, (struct ext2_inode *)&in, sizeof(in));
	if (r)
		return lib_err(err, r, "inode cannot be read");
	if (in.i_links_count >= EXT2_LINK_MAX)
		return err_set(err, -EMLINK, "disk image: a file with more than %d names", EXT2_LINK_MAX);
	in.i_links_count++;
	return write_inode(e, ino, &in, err);
}

int ext4_xattr(struct ext4 *e, uint32_t ino, const char *name, const void *p, size_t n, struct err *err)
{
	struct ext2_xattr_handle *h;
	errcode_t r;

	r = ext2fs_xattrs_open(e->fs, ino, &h);
	if (r)
		return lib_err(err, r, "attributes cannot be opened");
	r = ext2fs_xattrs_read(h);
	if (!r)
		r = ext2fs_xattr_set(h, name, p, n); /* also writes them */
	(void)ext2fs_xattrs_close(&h);
	return r ? lib_err(err, r, "attributes do not fit") : 0;
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

/* Write blocks of names and the folder's inode. */
static int names_write(struct ext4 *e, uint32_t ino, const struct ext4_attr *a, struct names *b, uint32_t links,
		       struct err *err)
{
	struct ext2_inode_large in = { 0 };
	size_t at = 0;
	int r;

	block_close(b);
	r = take_blocks(e, b->n_blocks * EXT4_BLOCK, err);
	if (r < 0)
		return r;
	/* dir_nlink: past the maximum the count is 1, "not known". */
	fill_inode(&in, a, b->n_blocks * EXT4_BLOCK, links >= EXT2_LINK_MAX ? 1 : (uint16_t)links);
	r = write_mapped(e, ino, &in, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < e->n_runs; i++) {
		for (uint64_t k = 0; k < e->runs[i].n; k++, at += EXT4_BLOCK) {
			errcode_t lr;

			ext2fs_initialize_dirent_tail(e->fs, EXT2_DIRENT_TAIL(b->mem + at, EXT4_BLOCK));
			lr = ext2fs_write_dir_block4(e->fs, e->runs[i].blk + k, b->mem + at, 0, ino);
			if (lr)
				return lib_err(err, lr, "folder cannot be written");
		}
	}
	return 0;
}

static int lost_found_write(struct ext4 *e, struct err *err)
{
	struct ext4_attr a = { .mode = S_IFDIR | 0700, .mtime = e->epoch };
	struct names b = { 0 };
	int r;

	name_add(&b, ".", e->lost_found, S_IFDIR);
	name_add(&b, "..", EXT4_ROOT, S_IFDIR);
	while (b.n_blocks < LOST_FOUND_BLOCKS) {
		block_close(&b);
		block_add(&b);
	}
	r = names_write(e, e->lost_found, &a, &b, 2, err);
	free(b.mem);
	return r;
}

int ext4_dir(struct ext4 *e, uint32_t ino, uint32_t parent, const struct ext4_attr *a, const struct ext4_dirent *ents,
	     size_t n, struct err *err)
{
	struct names b = { 0 };
	uint32_t links = 2;
	int r = 0;

	name_add(&b, ".", ino, S_IFDIR);
	name_add(&b, "..", parent, S_IFDIR);
	if (ino == EXT4_ROOT) {
		name_add(&b, "lost+found", e->lost_found, S_IFDIR);
		links++;
		r = lost_found_write(e, err);
	}
	for (size_t i = 0; i < n; i++) {
		name_add(&b, ents[i].name, ents[i].ino, ents[i].mode);
		links += S_ISDIR(ents[i].mode) ? 1 : 0;
	}
	if (r == 0)
		r = names_write(e, ino, a, &b, links, err);
	free(b.mem);
	return r;
}

int ext4_finish(struct ext4 *e, uint64_t *ret_used, struct err *err)
{
	struct ext2_super_block *sb = e->fs->super;
	uint64_t used = ext2fs_blocks_count(sb) - ext2fs_free_blocks_count(sb);
	errcode_t r;

	ext2fs_mark_valid(e->fs);
	ext2fs_mark_super_dirty(e->fs);
	r = ext2fs_close_free(&e->fs);
	if (r)
		return lib_err(err, r, "cannot be finished");
	ext4_free(e);
	*ret_used = used * EXT4_BLOCK;
	return 0;
}
