/* The writer: bytes are files, their content in pieces, attributes, names and what is given back; e2fsck must find nothing. A
 * second run with the content cut elsewhere must give the same bytes. */
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/str.h"
#include "fuzz.h"
#include "image/ext4.h"

#define DISK (16ULL << 20)
#define FILES_MAX 64

extern char **environ;

struct made {
	struct ext4_inode x;
	uint32_t names, dir;
};

/* Content: pieces of a byte's pattern at offsets that only grow. */
static int write_content(struct ext4 *e, struct ext4_inode *x, const uint8_t *p, size_t n, size_t cut)
{
	static uint8_t data[70000];
	struct err err;
	uint64_t off = 0;
	int r = 0;

	for (size_t i = 0; i + 3 <= n; i += 3)
		x->size += (uint64_t)p[i] * 613 + (uint64_t)p[i + 1] * 257;
	ext4_data_begin(e, x);
	for (size_t i = 0; i + 3 <= n && r == 0; i += 3) {
		size_t len = (size_t)p[i + 1] * 257;

		off += (uint64_t)p[i] * 613;
		memset(data, p[i + 2], len);
		for (size_t at = 0; at < len && r == 0; at += cut)
			r = ext4_data(e, off + at, data + at, MIN(cut, len - at), &err);
		off += len;
	}
	return r == 0 ? ext4_data_end(e, &err) : r;
}

static void add_xattrs(struct ext4_inode *x, uint8_t b)
{
	static const char *const names[] = { "user.a", "security.capability", "trusted.long-name", "user.b" };

	x->n_xattrs = b & 3;
	x->xattrs = xcalloc(4, sizeof(*x->xattrs));
	for (size_t i = 0; i < x->n_xattrs; i++) {
		size_t n = (size_t)(b >> 2) * (i + 1) * 3;

		x->xattrs[i] = (struct ext4_xattr){ xstrdup(names[i]), xcalloc(1, n + 1), n };
		memset(x->xattrs[i].value, (int)i + 1, n);
	}
}

/* 0, or the refusal, which is the writer's right when the disk is full. */
static int make(int fd, const uint8_t *p, size_t n, size_t cut)
{
	static const uint8_t uuid[16] = { 1 }, seed[16] = { 2 };
	struct made files[FILES_MAX] = { 0 };
	struct ext4_dirent ents[FILES_MAX * 4 + 1];
	char names[FILES_MAX * 4][24];
	struct ext4_inode folder = { .mode = S_IFDIR | 0755 };
	size_t n_files = 0, n_ents = 0;
	struct err err = { 0 };
	struct ext4 *e;
	uint64_t used;
	int r;

	MUST(ext4_new(fd, DISK, &e, &err) == 0);
	r = 0;
	while (n >= 4 && n_files < FILES_MAX && r == 0) {
		struct made *f = &files[n_files];
		size_t k = MIN(n - 4, (size_t)p[3] % 32);
		char target[200] = { 0 };

		if (n_files > 0 && p[0] % 7 == 6 && S_ISREG(files[p[1] % n_files].x.mode)) {
			ext4_release(e, &files[p[1] % n_files].x);
			files[p[1] % n_files].x.size = 0;
		}
		f->names = 1 + p[1] % 3;
		f->x.mtime = (int64_t)p[1] << (p[2] % 40);
		f->x.uid = p[2] * 65537U;
		switch (p[0] % 4) {
		case 0:
			f->x.mode = S_IFLNK | 0777;
			memset(target, 't', 1 + p[2] % 199U);
			f->x.target = xstrdup(target);
			break;
		case 1:
			f->x.mode = S_IFBLK | 0600;
			f->x.major = p[1] * 16U;
			f->x.minor = p[2] * 4096U;
			break;
		default:
			f->x.mode = S_IFREG | 0644;
			r = write_content(e, &f->x, p + 4, k, cut);
		}
		add_xattrs(&f->x, p[2]);
		p += 4 + k;
		n -= 4 + k;
		n_files++;
	}
	ents[n_ents++] = (struct ext4_dirent){ "lost+found", EXT4_LOST_FOUND, S_IFDIR };
	for (size_t i = 0; i < n_files && r == 0; i++) {
		uint32_t ino = EXT4_FIRST_INO + (uint32_t)i;

		r = ext4_inode(e, ino, &files[i].x, files[i].names, &err);
		for (uint32_t k = 0; k < files[i].names; k++, n_ents++) {
			(void)snprintf(names[n_ents - 1], sizeof(names[0]), "file-%zu-%u", i, k);
			ents[n_ents] = (struct ext4_dirent){ names[n_ents - 1], ino, files[i].x.mode };
		}
	}
	if (r == 0)
		r = ext4_dir(e, EXT4_ROOT, EXT4_ROOT, &folder, ents, n_ents, &err);
	if (r == 0)
		r = ext4_dir(e, EXT4_LOST_FOUND, EXT4_ROOT, &folder, NULL, 0, &err);
	if (r == 0)
		r = ext4_finish(e, uuid, seed, &used, &err);
	if (r < 0)
		ext4_free(e);
	for (size_t i = 0; i < n_files; i++)
		ext4_inode_done(&files[i].x);
	return r;
}

static void fsck(char *path)
{
	char *argv[] = { (char *)"e2fsck", (char *)"-fn", path, NULL };
	posix_spawn_file_actions_t quiet;
	int status;
	pid_t pid;

	(void)posix_spawn_file_actions_init(&quiet);
	(void)posix_spawn_file_actions_addopen(&quiet, 1, "/dev/null", O_WRONLY, 0);
	(void)posix_spawn_file_actions_addopen(&quiet, 2, "/dev/null", O_WRONLY, 0);
	MUST(posix_spawn(&pid, "/sbin/e2fsck", &quiet, NULL, argv, environ) == 0);
	(void)posix_spawn_file_actions_destroy(&quiet);
	MUST(waitpid(pid, &status, 0) == pid);
	MUST(status == 0);
}

static void same(int a, int b)
{
	const void *pa = mmap(NULL, DISK, PROT_READ, MAP_SHARED, a, 0), *pb = mmap(NULL, DISK, PROT_READ, MAP_SHARED, b, 0);

	MUST(pa != MAP_FAILED && pb != MAP_FAILED && memcmp(pa, pb, DISK) == 0);
	(void)munmap((void *)pa, DISK);
	(void)munmap((void *)pb, DISK);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	/* e2fsck does not open a file without a name. */
	char path[] = "/tmp/fuzz-ext4-XXXXXX";
	int a = mkostemp(path, O_CLOEXEC), b = memfd_create("disk", MFD_CLOEXEC), r;

	MUST(a >= 0 && b >= 0);
	r = make(a, p, n, 1 << 16);
	MUST(make(b, p, n, 1 + n % 5000) == r);
	if (r == 0) {
		fsck(path);
		same(a, b);
	}
	(void)close(a);
	(void)unlink(path);
	(void)close(b);
	return 0;
}
