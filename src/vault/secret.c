#include "vault/secret.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define GRAIN 64
#define GRAINS (SECRET_ARENA / GRAIN)

/* The book lies outside: nothing that is written past a piece can reach it. used[i] is the number of grains of the
 * piece that begins at grain i; 0 elsewhere. */
static uint8_t *arena;
static size_t grains;
static uint32_t used[GRAINS];

static uint8_t *try_map(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *p = mmap(NULL, size + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	if (mprotect(p + page, size, PROT_READ | PROT_WRITE) == 0 && madvise(p + page, size, MADV_DONTDUMP) == 0 &&
	    madvise(p + page, size, MADV_WIPEONFORK) == 0 && mlock2(p + page, size, MLOCK_ONFAULT) == 0)
		return p + page;
	(void)munmap(p, size + 2 * page);
	return NULL;
}

int secret_arena_open(size_t size, struct err *err)
{
	struct rlimit lim;

	assert(!arena && size <= SECRET_ARENA);
	if (getrlimit(RLIMIT_MEMLOCK, &lim) == 0 && lim.rlim_cur < lim.rlim_max) {
		lim.rlim_cur = lim.rlim_max;
		(void)setrlimit(RLIMIT_MEMLOCK, &lim);
	}
	for (; size >= SECRET_ARENA_MIN; size = size / 2 & ~(size_t)4095) {
		arena = try_map(size);
		if (arena) {
			grains = size / GRAIN;
			return 0;
		}
	}
	return err_set(err, -ENOMEM,
		       "memory for logins cannot be locked: the limit is too low; raise it (ulimit -l) to 128 or more");
}

void *secret_alloc(size_t n)
{
	size_t want = (n + GRAIN - 1) / GRAIN, run = 0;

	if (n == 0 || n > SECRET_ARENA)
		return NULL;
	for (size_t i = 0; i < grains;) {
		if (used[i]) {
			i += used[i];
			run = 0;
			continue;
		}
		i++;
		if (++run == want) {
			used[i - want] = (uint32_t)want;
			return arena + (i - want) * GRAIN;
		}
	}
	return NULL;
}

void secret_free(void *p)
{
	size_t i;

	if (!p)
		return;
	i = (size_t)((uint8_t *)p - arena) / GRAIN;
	assert(i < grains && used[i]);
	explicit_bzero(p, used[i] * (size_t)GRAIN);
	used[i] = 0;
}

int secret_set(struct secret *s, struct span from)
{
	uint8_t *p = NULL;

	if (from.n > SECRET_MAX)
		return -E2BIG;
	if (from.n > 0) {
		p = secret_alloc(from.n);
		if (!p)
			return -ENOMEM;
		memcpy(p, from.p, from.n);
	}
	secret_done(s);
	*s = (struct secret){ p, from.n };
	return 0;
}

int secret_read_file(int fd, size_t max, uint8_t **ret, size_t *ret_n)
{
	size_t n = 0, size;
	struct stat st;
	ssize_t k = 1;
	uint8_t *p;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((uint64_t)st.st_size > max)
		return -EFBIG;
	size = (size_t)st.st_size;
	p = secret_alloc(size + 1);
	if (!p)
		return -ENOMEM;
	while (k > 0 && n <= size) {
		k = read(fd, p + n, size + 1 - n);
		if (k < 0 && errno == EINTR)
			k = 1;
		else if (k > 0)
			n += (size_t)k;
	}
	if (k < 0 || n > size) {
		int r = k < 0 ? -errno : -EAGAIN;

		secret_free(p);
		return r;
	}
	*ret = p;
	*ret_n = n;
	return 0;
}

void secret_done(struct secret *s)
{
	secret_free(s->p);
	*s = (struct secret){ 0 };
}
