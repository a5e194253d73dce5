#include "base/nettab.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define PIECE 8192 /* a row is 180 bytes at most */

/* Takes the next field off the front; 0 bytes at the end. */
static size_t field(const char **p, const char *end, const char **ret)
{
	while (*p < end && **p == ' ')
		(*p)++;
	*ret = *p;
	while (*p < end && **p != ' ')
		(*p)++;
	return (size_t)(*p - *ret);
}

static int number(const char *p, size_t n, unsigned base, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;

	if (n == 0)
		return -EBADMSG;
	for (size_t i = 0; i < n; i++) {
		unsigned d = p[i] >= '0' && p[i] <= '9' ? (unsigned)(p[i] - '0') :
			     p[i] >= 'A' && p[i] <= 'F' ? (unsigned)(p[i] - 'A') + 10 : 99;

		if (d >= base || __builtin_mul_overflow(v, base, &v) || __builtin_add_overflow(v, d, &v) || v > max)
			return -EBADMSG;
	}
	*ret = v;
	return 0;
}

/* "0100007F:1F90": words of the address as this machine holds them, then the port. */
static int local(const char *p, size_t n, struct nettab *ret)
{
	size_t words = ret->family == AF_INET ? 1 : 4;
	uint64_t v;

	if (n != words * 8 + 5 || p[words * 8] != ':')
		return -EBADMSG;
	for (size_t i = 0; i < words; i++) {
		uint32_t word;

		if (number(p + i * 8, 8, 16, UINT32_MAX, &v) < 0)
			return -EBADMSG;
		word = (uint32_t)v;
		memcpy(ret->addr + i * 4, &word, 4);
	}
	if (number(p + words * 8 + 1, 4, 16, UINT16_MAX, &v) < 0)
		return -EBADMSG;
	ret->port = (uint16_t)v;
	return 0;
}

int nettab_line(const char *line, size_t n, int family, struct nettab *ret)
{
	struct nettab t = { .family = family };
	const char *p = line, *end = line + n, *f;
	uint64_t v;
	size_t k;

	/* sl local remote state queues timer retransmits uid timeout inode */
	for (unsigned i = 0; i < 10; i++) {
		k = field(&p, end, &f);
		if (k == 0 || (i == 1 && local(f, k, &t) < 0))
			return -EBADMSG;
		if (i == 3 && number(f, k, 16, UINT8_MAX, &v) < 0)
			return -EBADMSG;
		if (i == 3)
			t.state = (uint8_t)v;
	}
	if (number(f, k, 10, UINT64_MAX, &t.inode) < 0)
		return -EBADMSG;
	*ret = t;
	return 0;
}

int nettab_read(int fd, int family, size_t max, int (*each)(const struct nettab *, void *), void *arg)
{
	char piece[PIECE];
	size_t have = 0, rows = 0;
	struct nettab t;
	int r;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return -errno;
	for (;;) {
		ssize_t k = read(fd, piece + have, sizeof(piece) - have);
		char *line = piece, *nl;

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : 0;
		have += (size_t)k;
		while ((nl = memchr(line, '\n', have - (size_t)(line - piece)))) {
			if (nettab_line(line, (size_t)(nl - line), family, &t) == 0) {
				if (rows++ >= max)
					return 0;
				r = each(&t, arg);
				if (r != 0)
					return r;
			}
			line = nl + 1;
		}
		have -= (size_t)(line - piece);
		if (have == sizeof(piece))
			return -EBADMSG; /* no row is so long */
		memmove(piece, line, have);
	}
}
