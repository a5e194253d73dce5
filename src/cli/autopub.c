#include "cli/autopub.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <stdio.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "proto/guestcfg.h"

#define NS INT64_C(1000000000)
#define CHANGES_BURST 64 /* ports that may open at once */
#define CHANGES_A_S 10

static const uint8_t loopback4[4] = { 127, 0, 0, 1 }, loopback6[16] = { [15] = 1 };

/* Docker, MySQL, PostgreSQL, AMQP, Redis, Kubernetes, Vault, Elasticsearch, memcached, MongoDB. */
static const uint16_t kept[] = { 2375, 2376, 3306, 5432, 5672, 6379, 6443, 8200, 9200, 11211, 27017 };

struct entry {
	uint16_t guest, host;
	int fd[2]; /* IPv4, IPv6; the second may be -1 */
};

struct autopub {
	int vault_fd;
	bool has6;
	const struct ports *taken;
	struct entry v[AUTOPUB_MAX];
	size_t n;
	int64_t left_ns; /* each opening costs NS / CHANGES_A_S */
	int64_t last;
	bool told_fast;
};

static bool is_kept(uint16_t port)
{
	for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
		if (kept[i] == port)
			return true;
	return false;
}

int autopub_choose(uint16_t port, int (*try)(uint16_t, void *), void *arg, enum autopub_why *ret_why)
{
	enum autopub_why why = is_kept(port) ? AUTOPUB_KEPT : AUTOPUB_SAME;
	int r = -EADDRINUSE;

	for (unsigned p = port; r < 0 && p <= (unsigned)port + AUTOPUB_NEXT && p <= UINT16_MAX; p++) {
		if (!is_kept((uint16_t)p))
			r = try((uint16_t)p, arg);
		if (p == port && r < 0 && why != AUTOPUB_KEPT)
			why = AUTOPUB_IN_USE;
	}
	if (r < 0)
		r = try(0, arg);
	if (r == 0)
		*ret_why = why;
	return r;
}

static void entry_close(struct entry *e)
{
	for (size_t i = 0; i < 2; i++) {
		if (e->fd[i] >= 0)
			(void)shutdown(e->fd[i], SHUT_RDWR);
		close_p(&e->fd[i]);
		e->fd[i] = -1;
	}
}

struct attempt {
	const struct autopub *a;
	struct entry *e;
};

static int bound_port(int fd, uint16_t *ret)
{
	struct sockaddr_in sa;
	socklen_t n = sizeof(sa);

	if (getsockname(fd, (struct sockaddr *)&sa, &n) < 0)
		return -errno;
	*ret = ntohs(sa.sin_port);
	return is_kept(*ret) ? -EADDRINUSE : 0;
}

/* Both families or none. */
static int attempt(uint16_t port, void *arg)
{
	const struct attempt *t = arg;
	struct entry *e = t->e;
	int r = 0;

	for (int i = 0; i < (port == 0 ? 8 : 1); i++) {
		e->fd[0] = r = port_socket(AF_INET, loopback4, port, false);
		if (r >= 0)
			r = bound_port(e->fd[0], &e->host);
		if (r == 0 && t->a->has6)
			e->fd[1] = r = port_socket(AF_INET6, loopback6, e->host, false);
		if (r >= 0)
			return 0;
		entry_close(e);
	}
	return r;
}

static struct entry *find(struct autopub *a, uint16_t port)
{
	for (size_t i = 0; i < a->n; i++)
		if (a->v[i].guest == port)
			return &a->v[i];
	return NULL;
}

/* That the vault has no room for it means that it is stuck. */
static int hand_over(const struct autopub *a, const struct entry *e, size_t family)
{
	struct vault_listen l = { .port = e->guest };
	ssize_t k;

	(void)snprintf(l.listen, sizeof(l.listen), family ? "[::1]:%u" : "127.0.0.1:%u", e->host);
	k = fd_send(a->vault_fd, &l, sizeof(l), &e->fd[family], 1);
	return k < 0 ? (int)k : 0;
}

static void drop(struct autopub *a, struct entry *e)
{
	entry_close(e);
	*e = a->v[--a->n];
}

static bool published(const struct autopub *a, uint16_t port)
{
	for (size_t i = 0; i < a->taken->n_what; i++)
		if (a->taken->what[i].guest == port && !a->taken->what[i].udp)
			return true;
	return false;
}

/* A bucket of CHANGES_BURST that fills again with CHANGES_A_S. */
static bool may_open(struct autopub *a, int64_t now)
{
	const int64_t cost = NS / CHANGES_A_S;

	a->left_ns = MIN(a->left_ns + (now - a->last), CHANGES_BURST * cost);
	a->last = now;
	if (a->left_ns >= cost) {
		a->left_ns -= cost;
		return true;
	}
	if (!a->told_fast)
		log_warn("guest: it opens more than %d ports a second; some are not published", CHANGES_A_S);
	a->told_fast = true;
	return false;
}

static char *open_port(struct autopub *a, uint16_t port, int64_t now)
{
	struct entry e = { .guest = port, .fd = { -1, -1 } };
	struct attempt t = { a, &e };
	enum autopub_why why;
	int r;

	if (find(a, port) || published(a, port) || !may_open(a, now))
		return NULL;
	if (a->n == AUTOPUB_MAX)
		return xasprintf("port %u: not published, %d ports are published already", port, AUTOPUB_MAX);
	r = autopub_choose(port, attempt, &t, &why);
	for (size_t i = 0; r == 0 && i < 2; i++)
		if (e.fd[i] >= 0)
			r = hand_over(a, &e, i);
	if (r < 0) {
		entry_close(&e);
		return xasprintf("port %u: not published: %s", port, strerror(-r));
	}
	a->v[a->n++] = e;
	if (why == AUTOPUB_KEPT)
		return xasprintf("port %u: 127.0.0.1:%u -> %u/tcp (%u is kept for this host's own service)", port, e.host, port, port);
	if (why == AUTOPUB_IN_USE)
		return xasprintf("port %u: 127.0.0.1:%u -> %u/tcp (%u is in use here)", port, e.host, port, port);
	return xasprintf("port %u: 127.0.0.1:%u -> %u/tcp", port, e.host, port);
}

char *autopub_change(struct autopub *a, uint16_t port, bool open, int64_t now, bool *ret_changed)
{
	struct entry *e = find(a, port);
	size_t before = a->n;
	char *line;

	if (open) {
		line = port < GC_AUTO_PORT_MIN ? NULL : open_port(a, port, now);
		*ret_changed = a->n != before;
		return line;
	}
	while (port == 0 && a->n > 0)
		drop(a, &a->v[0]);
	if (e)
		drop(a, e);
	*ret_changed = a->n != before;
	return !e ? NULL : xasprintf("port %u: closed", port);
}

void autopub_list(const struct autopub *a, struct strv *ret)
{
	for (size_t i = 0; i < a->n; i++)
		strv_addf(ret, "127.0.0.1:%u->%u/tcp", a->v[i].host, a->v[i].guest);
}

struct autopub *autopub_new(int vault_fd, const struct ports *taken)
{
	struct autopub *a = xcalloc(1, sizeof(*a));

	*a = (struct autopub){ .vault_fd = vault_fd, .has6 = port_has_loopback6(), .taken = taken,
			       .left_ns = CHANGES_BURST * (NS / CHANGES_A_S), .last = now_ns() };
	(void)fd_nonblock(vault_fd, true); /* a stuck vault must not stop the launcher */
	return a;
}

void autopub_free(struct autopub *a)
{
	for (size_t i = 0; a && i < a->n; i++)
		entry_close(&a->v[i]);
	free(a);
}
