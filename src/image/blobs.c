#include "image/blobs.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"

#define HASH_READ (1 << 20)
#define FLUSH_BYTES (8 << 20) /* given to the disk at once, so that the fsync at the end has little to wait for */
#define PUT_WAIT_MS 10000
#define RETRY_MS 20

struct blob {
	const struct blobs *at;
	char hex[2 * 64 + 1]; /* of SHA-256, or of a tarball's SHA-512 */
	const EVP_MD *md;
	uint64_t bytes;
	int fd; /* holds the flock */
	uint64_t there; /* bytes that were there at the beginning */
	uint64_t pos, flushed;
	bool stored; /* in blobs/, opened for reading */
	EVP_MD_CTX *sha;
};

/* --- digest --- */

static EVP_MD_CTX *sha_new(const EVP_MD *md)
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();

	if (!c || EVP_DigestInit_ex(c, md, NULL) != 1)
		abort(); /* out of memory */
	return c;
}

static void hex_of(const uint8_t *p, size_t n, char *ret)
{
	for (size_t i = 0; i < n; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", p[i]);
}

/* @ret has room for twice the digest's bytes and the end. */
static void sha_end(EVP_MD_CTX *c, char *ret)
{
	uint8_t md[EVP_MAX_MD_SIZE];
	unsigned int n = 0;

	(void)EVP_DigestFinal_ex(c, md, &n);
	assert(n > 0);
	hex_of(md, n, ret);
}

void sha256_hex(const void *p, size_t n, char ret[IM_DIGEST + 1])
{
	EVP_MD_CTX *c = sha_new(EVP_sha256());

	(void)EVP_DigestUpdate(c, p, n);
	sha_end(c, ret);
	EVP_MD_CTX_free(c);
}

/* --- folders --- */

static int sub_open(int dirfd, const char *name)
{
	int r = dir_make_at(dirfd, name, 0700), fd;

	if (r < 0)
		return r;
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int blobs_open(int store_fd, struct blobs *ret, struct err *err)
{
	AUTO_FD(blobs);
	AUTO_FD(dir);
	AUTO_FD(partial);

	blobs = sub_open(store_fd, "blobs");
	dir = blobs < 0 ? blobs : sub_open(blobs, "sha256");
	partial = dir < 0 ? dir : sub_open(store_fd, "partial");
	if (partial < 0)
		return err_set(err, partial, "image store: blobs/ and partial/ cannot be opened: %s", strerror(-partial));
	*ret = (struct blobs){ TAKE_FD(dir), TAKE_FD(partial) };
	return 0;
}

void blobs_close(struct blobs *b)
{
	close_p(&b->dir);
	close_p(&b->partial);
	*b = (struct blobs){ -1, -1 };
}

static const char *algorithm(const char *hex)
{
	return strlen(hex) == IM_DIGEST ? "sha256" : "sha512";
}

static int failed(struct err *err, int r, const char *hex, const char *what)
{
	if (r == -ENOSPC || r == -EDQUOT || r == -EFBIG)
		return err_set(err, r, "image store: no room for %s:%.12s: %s; make room (agent-vm prune --dry-run lists "
			       "what can go), then try again: what was loaded is kept", algorithm(hex), hex, strerror(-r));
	return err_set(err, r, "image store: %s:%.12s: %s: %s", algorithm(hex), hex, what, strerror(-r));
}

int blobs_have(const struct blobs *b, const struct descriptor *d)
{
	AUTO_FD(fd);
	struct stat st;

	fd = openat(b->dir, d->hex, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != d->bytes) {
		(void)unlinkat(b->dir, d->hex, 0);
		return -ENOENT;
	}
	return TAKE_FD(fd);
}

uint64_t blobs_under_way(const struct blobs *b, const struct descriptor *d)
{
	struct stat st;

	if (fstatat(b->partial, d->hex, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
		return 0;
	return MIN((uint64_t)st.st_size, d->bytes);
}

/* --- a download --- */

/* Whether the name still leads to the open file: whoever had the lock may have renamed or deleted it. */
static bool is_named(int dir, const char *hex, int fd)
{
	struct stat a, n;

	return fstat(fd, &a) == 0 && fstatat(dir, hex, &n, AT_SYMLINK_NOFOLLOW) == 0 && a.st_dev == n.st_dev &&
	       a.st_ino == n.st_ino;
}

/* The locked file of a name; -EAGAIN, -ESTALE: look again. */
static int lock_partial(const struct blobs *b, const char *hex, int *ret_fd, uint64_t *ret_size)
{
	AUTO_FD(fd);
	struct stat st;

	fd = openat(b->partial, hex, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if (!is_named(b->partial, hex, fd))
		return -ESTALE;
	if (fstat(fd, &st) < 0 || fchmod(fd, 0600) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	*ret_size = (uint64_t)st.st_size;
	*ret_fd = TAKE_FD(fd);
	return 0;
}

/* @fd is taken. */
static struct blob *blob_new(const struct blobs *b, const char *hex, const EVP_MD *md, uint64_t bytes, int fd, uint64_t there)
{
	struct blob *blob = xcalloc(1, sizeof(*blob));

	*blob = (struct blob){ .at = b, .md = md, .bytes = bytes, .fd = fd, .there = there, .sha = sha_new(md) };
	(void)snprintf(blob->hex, sizeof(blob->hex), "%s", hex);
	if (there > bytes)
		blob->there = ftruncate(fd, 0) < 0 ? there : 0;
	return blob;
}

static struct blob *blob_stored(const struct blobs *b, const struct descriptor *d, int fd)
{
	struct blob *blob = blob_new(b, d->hex, EVP_sha256(), d->bytes, fd, d->bytes);

	blob->stored = true;
	return blob;
}

int blob_begin(const struct blobs *b, const struct descriptor *d, struct blob **ret, struct err *err)
{
	AUTO_FD(fd);
	uint64_t size;
	int r, have;

	do {
		have = blobs_have(b, d);
		if (have >= 0) {
			*ret = blob_stored(b, d, have);
			return 0;
		}
		if (have != -ENOENT)
			return failed(err, have, d->hex, "cannot be opened");
		r = lock_partial(b, d->hex, &fd, &size);
	} while (r == -ESTALE);
	if (r == -EAGAIN)
		return err_set(err, r, "image store: sha256:%.12s: another pull is loading it", d->hex);
	if (r < 0)
		return failed(err, r, d->hex, "cannot be begun");
	/* It may have become complete between the look and the lock. */
	have = blobs_have(b, d);
	if (have >= 0)
		(void)unlinkat(b->partial, d->hex, 0);
	*ret = have >= 0 ? blob_stored(b, d, have) : blob_new(b, d->hex, EVP_sha256(), d->bytes, TAKE_FD(fd), size);
	return 0;
}

int blob_begin_tarball(const struct blobs *b, const uint8_t sha512[64], uint64_t bytes, struct blob **ret, struct err *err)
{
	char hex[2 * 64 + 1];
	uint64_t size;
	int fd, r;

	hex_of(sha512, 64, hex);
	do
		r = lock_partial(b, hex, &fd, &size);
	while (r == -ESTALE);
	if (r == -EAGAIN)
		return err_set(err, r, "image store: sha512:%.12s: another build is loading it", hex);
	if (r < 0)
		return failed(err, r, hex, "cannot be begun");
	*ret = blob_new(b, hex, EVP_sha512(), bytes, fd, size);
	return 0;
}

int blob_check(struct blob *b, uint64_t most, struct err *err)
{
	uint64_t end = MIN(b->there, b->pos + most);
	AUTO_FREE(uint8_t, mem);

	mem = b->pos < end ? xmalloc(HASH_READ) : NULL;
	while (b->pos < end) {
		ssize_t n = pread(b->fd, mem, MIN(end - b->pos, (uint64_t)HASH_READ), (off_t)b->pos);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return failed(err, n < 0 ? -errno : -EIO, b->hex, "what was loaded before cannot be read");
		(void)EVP_DigestUpdate(b->sha, mem, (size_t)n);
		b->pos += (uint64_t)n;
	}
	return b->pos >= b->there;
}

void blob_close(struct blob *b)
{
	if (!b)
		return;
	close_p(&b->fd);
	EVP_MD_CTX_free(b->sha);
	free(b);
}

uint64_t blob_pos(const struct blob *b)
{
	return b->pos;
}

bool blob_is_stored(const struct blob *b)
{
	return b->stored;
}

uint64_t blob_size(const struct blob *b)
{
	return b->bytes;
}

const char *blob_hex(const struct blob *b)
{
	return b->hex;
}

int blob_reader(const struct blob *b, struct err *err)
{
	int fd = b->stored ? fcntl(b->fd, F_DUPFD_CLOEXEC, 3) :
			     openat(b->at->partial, b->hex, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? failed(err, -errno, b->hex, "cannot be opened") : fd;
}

/* Not what the manifest says: it must not be taken up again. */
int blob_refuse(struct blob *b, const char *got, struct err *err)
{
	(void)unlinkat(b->at->partial, b->hex, 0);
	return err_set(err, -EBADMSG, "%s:%s: expected %llu bytes of this digest, got %s; deleted; the registry or "
		       "something between changed it: try again, or from elsewhere", algorithm(b->hex), b->hex,
		       (unsigned long long)b->bytes, got);
}

int blob_write(struct blob *b, const void *p, size_t n, struct err *err)
{
	const uint8_t *at = p;
	char got[64];

	if (n > b->bytes - b->pos) {
		(void)snprintf(got, sizeof(got), "more than %llu bytes", (unsigned long long)b->bytes);
		return blob_refuse(b, got, err);
	}
	(void)EVP_DigestUpdate(b->sha, p, n);
	while (n > 0) {
		ssize_t k = pwrite(b->fd, at, n, (off_t)b->pos);

		if (k < 0 && errno == EINTR)
			continue;
		if (k < 0)
			return failed(err, -errno, b->hex, "cannot be written");
		at += k;
		n -= (size_t)k;
		b->pos += (uint64_t)k;
	}
	if (b->pos - b->flushed >= FLUSH_BYTES) {
		(void)sync_file_range(b->fd, (off_t)b->flushed, (off_t)(b->pos - b->flushed), SYNC_FILE_RANGE_WRITE);
		b->flushed = b->pos;
	}
	return 0;
}

void blob_rewind(struct blob *b)
{
	b->pos = b->flushed = b->there = 0;
	if (EVP_DigestInit_ex(b->sha, b->md, NULL) != 1)
		abort();
}

/* Not by its name alone: another process may have put a good one there meanwhile. */
static int stored_finish(struct blob *b, struct err *err)
{
	char hex[2 * EVP_MAX_MD_SIZE + 1];

	sha_end(b->sha, hex);
	if (strcmp(hex, b->hex) == 0)
		return 0;
	if (is_named(b->at->dir, b->hex, b->fd))
		(void)unlinkat(b->at->dir, b->hex, 0);
	return err_set(err, -ESTALE, "image store: sha256:%.12s: damaged on this disk, deleted", b->hex);
}

int blob_finish(struct blob *b, struct err *err)
{
	char hex[2 * EVP_MAX_MD_SIZE + 1], got[sizeof(hex) + 16];

	if (b->stored)
		return stored_finish(b, err);
	if (b->pos != b->bytes) {
		(void)snprintf(got, sizeof(got), "%llu bytes", (unsigned long long)b->pos);
		return blob_refuse(b, got, err);
	}
	sha_end(b->sha, hex);
	if (strcmp(hex, b->hex) != 0) {
		(void)snprintf(got, sizeof(got), "%s:%s", algorithm(hex), hex);
		return blob_refuse(b, got, err);
	}
	if (b->md != EVP_sha256())
		return 0;
	/* The mode last: a partial file that could not be opened for writing could not be taken up after a kill. */
	if (fsync(b->fd) < 0 || renameat(b->at->partial, b->hex, b->at->dir, b->hex) < 0 || fchmod(b->fd, 0400) < 0)
		return failed(err, -errno, b->hex, "cannot be stored");
	return 0;
}

/* --- documents --- */

int blobs_put(const struct blobs *b, const void *p, size_t n, char ret_hex[IM_DIGEST + 1], struct err *err)
{
	struct timespec tick = { 0, RETRY_MS * 1000000L };
	struct descriptor d = { .bytes = n };
	struct blob *blob;
	int r, tries = 0;

	sha256_hex(p, n, d.hex);
	do {
		while ((r = blob_begin(b, &d, &blob, err)) == -EAGAIN && tries++ < PUT_WAIT_MS / RETRY_MS)
			(void)nanosleep(&tick, NULL);
		if (r < 0)
			return r;
		if (blob->stored) {
			r = blob_check(blob, n, err);
		} else {
			blob_rewind(blob);
			r = blob_write(blob, p, n, err);
		}
		if (r >= 0)
			r = blob_finish(blob, err);
		blob_close(blob);
	} while (r == -ESTALE);
	if (r < 0)
		return r;
	memcpy(ret_hex, d.hex, sizeof(d.hex));
	return 0;
}

int blobs_read(const struct blobs *b, const struct descriptor *d, char **ret, struct err *err)
{
	AUTO_FREE(char, text);
	char hex[IM_DIGEST + 1];
	AUTO_FD(fd);
	size_t n;
	int r;

	fd = blobs_have(b, d);
	if (fd < 0)
		return fd == -ENOENT ? fd : failed(err, fd, d->hex, "cannot be opened");
	r = fd_read_file(fd, d->bytes, &text, &n);
	if (r < 0)
		return failed(err, r, d->hex, "cannot be read");
	sha256_hex(text, n, hex);
	if (n != d->bytes || strcmp(hex, d->hex) != 0) {
		(void)unlinkat(b->dir, d->hex, 0);
		return err_set(err, -EBADMSG, "image store: sha256:%.12s: damaged, deleted; pull again", d->hex);
	}
	*ret = TAKE_PTR(text);
	return 0;
}
