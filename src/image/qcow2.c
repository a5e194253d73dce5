/* An empty qcow2 overlay, written in one go (format: QEMU's docs/interop/qcow2.rst).
 *
 * All integers are big endian. With clusters of 64 KiB and a 16 GiB disk the file is four clusters:
 *
 *	cluster 0	header
 *	   0  4  magic "QFI\xfb"		  4  4  version 3
 *	   8  8  offset of the backing name	 16  4  its length, no NUL
 *	  20  4  cluster_bits 16		 24  8  size of the disk in bytes
 *	  32  4  crypt_method 0			 36  4  entries of the L1 table
 *	  40  8  offset of the L1 table		 48  8  offset of the refcount table
 *	  56  4  clusters of the refcount table	 60  4  snapshots 0
 *	  64  8  offset of snapshots 0		 72  8  incompatible features 0
 *	  80  8  compatible features 0		 88  8  autoclear features 0
 *	  96  4  refcount_order 4 (16 bits)	100  4  header length 112
 *	 104  1  compression type 0		105  7  padding
 *	 112  4  extension 0xe2792aca: format of the backing file	116  4  length 3
 *	 120  8  "raw", padded with zeros to a multiple of 8
 *	 128  4  extension 0: end		132  4  length 0
 *	 136  n  backing name; must end in the first cluster
 *	cluster 1	refcount table: 8 bytes an entry, offset of a refcount block; the first is set
 *	cluster 2	refcount block: 2 bytes a cluster; one each for the clusters that this file has
 *	cluster 3...	L1 table: 8 bytes for each 512 MiB of disk, all 0: not allocated, read the backing file
 *
 * L2 tables, further refcount blocks and data are added by who writes. The reader that matters most, the one in libkrun,
 * takes versions 2 and 3, wants the backing name within the first cluster, refuses any incompatible feature that it does
 * not know and opens the backing file implicitly by name; given no backing format it would guess, hence the extension.
 * No extended L2 entries, no lazy refcounts: it knows neither.
 *
 * Cluster size: 64 KiB is QEMU's default and what every reader is tuned for. A first write to a cluster copies the rest of
 * it from the image: smaller clusters copy less but need more L2 tables and allocations. */
#include "image/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"

#define CLUSTER_BITS 16
#define CLUSTER (1U << CLUSTER_BITS)
#define L2_COVERS ((uint64_t)CLUSTER * (CLUSTER / 8)) /* bytes of disk behind one L1 entry */
#define HEADER_LEN 112
#define EXT_BACKING_FORMAT 0xe2792acaU
#define BACKING_FORMAT "raw"
#define BACKING_NAME_AT 136

enum { AT_HEADER, AT_REFCOUNT_TABLE, AT_REFCOUNT_BLOCK, AT_L1 };

static void put32(uint8_t *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(uint8_t *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

static void put_header(uint8_t *h, uint64_t size, uint32_t l1_entries, const char *backing)
{
	memcpy(h, "QFI\xfb", 4);
	put32(h + 4, 3);
	put64(h + 8, BACKING_NAME_AT);
	put32(h + 16, (uint32_t)strlen(backing));
	put32(h + 20, CLUSTER_BITS);
	put64(h + 24, size);
	put32(h + 36, l1_entries);
	put64(h + 40, (uint64_t)AT_L1 * CLUSTER);
	put64(h + 48, (uint64_t)AT_REFCOUNT_TABLE * CLUSTER);
	put32(h + 56, 1);
	put32(h + 96, 4);
	put32(h + 100, HEADER_LEN);
	put32(h + 112, EXT_BACKING_FORMAT);
	put32(h + 116, (uint32_t)strlen(BACKING_FORMAT));
	memcpy(h + 120, BACKING_FORMAT, strlen(BACKING_FORMAT));
	memcpy(h + BACKING_NAME_AT, backing, strlen(backing));
}

/* Only what is not zero is written; the rest of the file is a hole. */
static int write_all(int fd, uint64_t size, const char *backing)
{
	uint8_t header[BACKING_NAME_AT + QCOW2_BACKING_MAX] = { 0 };
	uint32_t l1_entries = (uint32_t)((size + L2_COVERS - 1) / L2_COVERS);
	uint32_t clusters = AT_L1 + (l1_entries * 8 + CLUSTER - 1) / CLUSTER;
	uint8_t entry[8], counts[2 * (AT_L1 + QCOW2_SIZE_MAX / L2_COVERS * 8 / CLUSTER)];
	int r;

	put_header(header, size, l1_entries, backing);
	put64(entry, (uint64_t)AT_REFCOUNT_BLOCK * CLUSTER);
	for (uint32_t i = 0; i < clusters; i++) {
		counts[2 * i] = 0;
		counts[2 * i + 1] = 1;
	}
	if (ftruncate(fd, (off_t)clusters * CLUSTER) < 0)
		return -errno;
	r = fd_write_all(fd, header, BACKING_NAME_AT + strlen(backing));
	if (r == 0 && lseek(fd, (off_t)AT_REFCOUNT_TABLE * CLUSTER, SEEK_SET) < 0)
		r = -errno;
	if (r == 0)
		r = fd_write_all(fd, entry, sizeof(entry));
	if (r == 0 && lseek(fd, (off_t)AT_REFCOUNT_BLOCK * CLUSTER, SEEK_SET) < 0)
		r = -errno;
	if (r == 0)
		r = fd_write_all(fd, counts, 2 * (size_t)clusters);
	return r;
}

int qcow2_create(int dirfd, const char *name, uint64_t size_bytes, const char *backing_name, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FD(fd);
	int r;

	if (size_bytes == 0 || size_bytes % 512 != 0 || size_bytes > QCOW2_SIZE_MAX)
		return err_set(err, -EINVAL, "overlay disk: size %llu is not a multiple of 512 up to 64 TiB",
			       (unsigned long long)size_bytes);
	if (*backing_name == '\0' || strlen(backing_name) > QCOW2_BACKING_MAX)
		return err_set(err, -EINVAL, "overlay disk: name of the image is empty or longer than 1023 bytes");
	shown = str_escape(name, strlen(name));
	fd = openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(err, -errno, "%s: cannot be made: %s", shown, strerror(errno));
	r = fchmod(fd, 0600) < 0 ? -errno : write_all(fd, size_bytes, backing_name);
	if (r < 0) {
		(void)unlinkat(dirfd, name, 0);
		return err_set(err, r, "%s: cannot be written: %s", shown, strerror(-r));
	}
	return 0;
}
