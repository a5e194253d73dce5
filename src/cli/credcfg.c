#include "cli/credcfg.h"

#include <errno.h>

#include "base/macros.h"
#include "cli/network.h"
#include "proto/gatecfg.h"
#include "proto/rec.h"

/* One failure is enough: the buffer's maximum was passed. */
#define TRY(call)                        \
	do {                             \
		if ((call) < 0)          \
			return -ENOBUFS; \
	} while (0)

static int put_guard(struct buf *out, const struct creds_guard *g)
{
	uint8_t le[16];

	for (unsigned i = 0; i < 8; i++) {
		le[i] = (uint8_t)(g->dev >> 8 * i);
		le[8 + i] = (uint8_t)(g->ino >> 8 * i);
	}
	return rec_put(out, VTC_GUARD, le, sizeof(le));
}

static int put_source(const struct creds *c, const struct creds_source *s, int fd, struct buf *out)
{
	ssize_t at = rec_begin(out, VTC_SOURCE);

	TRY(at);
	TRY(rec_put_u64(out, VTC_KIND, s->kind));
	TRY(rec_put_u64(out, VTC_FD, (uint64_t)fd));
	TRY(rec_put_str(out, VTC_NAME, s->name));
	TRY(rec_put_u64(out, VTC_PROGRAM, s->program != NULL));
	for (size_t i = 0; i < c->n_guards; i++)
		TRY(put_guard(out, &c->guards[i]));
	rec_end(out, (size_t)at);
	return 0;
}

static int put_secret(enum ph_kind kind, int fd, struct buf *out)
{
	ssize_t at = rec_begin(out, VTC_ENV);

	TRY(at);
	TRY(rec_put_u64(out, VTC_KIND, kind));
	TRY(rec_put_u64(out, VTC_FD, (uint64_t)fd));
	rec_end(out, (size_t)at);
	return 0;
}

static int put_connect_to(const struct connect_to *t, struct buf *out)
{
	ssize_t at = rec_begin(out, VTC_CONNECT_TO);

	TRY(at);
	TRY(rec_put_str(out, VTC_NAME, t->name));
	TRY(rec_put_u64(out, VTC_PORT, t->port));
	TRY(network_put_addr(out, VTC_ADDR, &t->addr));
	TRY(rec_put_u64(out, VTC_TO_PORT, t->to_port));
	rec_end(out, (size_t)at);
	return 0;
}

static int put_trust(const struct upstream *u, int first, struct buf *out)
{
	ssize_t at = rec_begin(out, VTC_TRUST);

	TRY(at);
	for (size_t i = 0; i < u->n_trust; i++)
		TRY(rec_put_u64(out, VTC_FD, (uint64_t)first + i));
	rec_end(out, (size_t)at);
	return 0;
}

/* The keys of an opened class differ, the shape does not. */
static int put_opened(const struct prov_launch *l, uint16_t key, uint16_t key_prov, uint16_t key_bits, struct buf *out)
{
	for (int p = 0; p < PROVS; p++) {
		ssize_t at;

		if (l->opened[p] == 0)
			continue;
		at = rec_begin(out, key);
		TRY(at);
		TRY(rec_put_u64(out, key_prov, (uint64_t)p));
		TRY(rec_put_u64(out, key_bits, l->opened[p]));
		rec_end(out, (size_t)at);
	}
	return 0;
}

int credcfg_vault(const struct creds *c, const struct upstream *u, int fds[CREDCFG_FDS_MAX], int first, struct buf *out)
{
	int n = 0;

	for (size_t i = 0; i < u->n_to; i++)
		TRY(put_connect_to(&u->to[i], out));
	if (!creds_lent(c))
		return 0;
	TRY(rec_put_u64(out, VTC_LENT, c->launch.lent));
	TRY(put_opened(&c->launch, VTC_OPENED, VTC_PROV, VTC_BITS, out));
	for (int h = 0; h < HOSTS; h++)
		if (prov_bound(&c->launch, (enum prov_host_id)h))
			TRY(rec_put_str(out, VTC_INSPECTED, prov_hosts[h].name));
	for (size_t i = 0; i < c->n_sources; i++) {
		TRY(put_source(c, &c->sources[i], first + n, out));
		fds[n++] = c->sources[i].fd;
	}
	for (size_t i = 0; i < c->n_secrets; i++) {
		TRY(put_secret(c->secrets[i].kind, first + n, out));
		if (c->secrets[i].copilot_too)
			TRY(put_secret(PH_COPILOT, first + n, out));
		fds[n++] = c->secrets[i].fd;
	}
	if (u->n_trust > 0)
		TRY(put_trust(u, first + n, out));
	for (size_t i = 0; i < u->n_trust; i++)
		fds[n++] = u->trust[i];
	return n;
}

int credcfg_gate(const struct creds *c, const struct ghlist *github, const char *session, struct buf *out)
{
	TRY(rec_put(out, GTC_SEED, c->seed, sizeof(c->seed)));
	TRY(rec_put_u64(out, GTC_LENT, c->launch.lent));
	TRY(put_opened(&c->launch, GTC_OPENED, GTC_PROV, GTC_BITS, out));
	/* Its switches count without GitHub's login, too: Copilot's goes to the same host. */
	TRY(ghlist_put(github, out));
	return rec_put_str(out, GTC_SESSION, session);
}
