/* Gate in this process, and the ends of its links that are played. */
#pragma once

#include "gate/gate.h"
#include "live.h"

static struct gate g;
static struct ca ca; /* between the cases; its keys and leaves are made once */
static int vault_fd, wire_fd;

/* What gate said to vault and wire. True: something. */
static bool messages(void);

static void link_open(struct seqlink *l, enum gate_ev ev, uint32_t *watched, int *far)
{
	int pair[2];

	HOLDS(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	seqlink_init(l, pair[0]);
	*far = pair[1];
	*watched = EPOLLIN;
	HOLDS(ev_watch(&g.ev, pair[0], EPOLLIN, (uint8_t)ev, 0, 0) == 0);
}

static void gate_enter(void)
{
	static const uint8_t seed[PH_SEED] = "live";
	static struct ph_set set; /* drawn once */
	static SSL_CTX *server;
	struct err err = { 0 };

	if (!server) {
		server = tls_server(&err);
		HOLDS(server && ca_init(&ca, "live", 1, &err) == 0 && ph_draw(seed, PH_ALL, &set) == 0);
	}
	g = (struct gate){
		.due = -1, .now = NS, .judge = { .launch = { .lent = PH_ALL }, .set = set }, .tls = server, .ca = ca
	};
	lookup_init(&g);
	HOLDS(ev_open(&g.ev) == 0);
	link_open(&g.vault, EV_VAULT, &g.vault_watch, &vault_fd);
	link_open(&g.wire, EV_WIRE, &g.wire_watch, &wire_fd);
}

/* True: something went on. */
static bool turn(void)
{
	struct ev_event batch[EV_BATCH];
	int n = ev_wait(&g.ev, batch, 0);

	HOLDS(n >= 0);
	/* Its loop would sleep. */
	if (n == 0 && !g.kicked && links_next(&g) < 0)
		return messages();
	gate_turn(&g, batch, n);
	HOLDS(!g.ended && !g.wire.first);
	/* A queue that waits for descriptors to be read looks again in a moment. */
	g.now = MAX(g.now, links_next(&g));
	(void)messages();
	return true;
}

/* Whoever there was is gone: so is all that gate had of it. */
static void gate_leave(void)
{
	(void)settle();
	HOLDS(g.n_conns == 0 && g.n_asks == 0 && g.n_bodies == 0 && g.n_inspected == 0 && g.n_undecided == 0);
	ca = g.ca;
	close_p(&vault_fd);
	close_p(&wire_fd);
	(void)close(g.vault.fd);
	(void)close(g.wire.fd);
	ev_close(&g.ev);
}
