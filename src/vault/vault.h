/* The state of the role, and what its parts call in each other. One process, one thread, one of it; see main.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "ev/ev.h"
#include "ev/seqlink.h"
#include "proto/netmsg.h"
#include "vault/audit.h"
#include "vault/config.h"
#include "vault/echoes.h"
#include "vault/rates.h"
#include "vault/ties.h"
#include "vault/violations.h"

#define NS INT64_C(1000000000)
#define MS INT64_C(1000000)

/* Kinds of events; slot and generation as each part says. */
enum vault_ev { EV_CONTROL, EV_WIRE, EV_GATE, EV_NETLINK, EV_OPEN, EV_DNS, EV_LISTEN, EV_SIGNAL, EV_XCH, EV_UP, EV_LOGIN };

/* To wire or gate. */
struct link {
	struct seqlink q;
	enum vault_ev ev;
	const char *gone; /* why the session ends when the other end is */
};

struct routes {
	int ask_fd, news_fd; /* -1: no netlink */
	uint32_t seq;
	bool stale; /* the interface list must be read again */
};

struct opens;
struct flows;
struct dns;
struct publish;
struct upstream;
struct exchanges;
struct logins;
struct renewals;

struct vault {
	struct ev ev;
	struct vault_config cfg;
	struct policy policy;
	int64_t now; /* of this batch */
	bool again;  /* something is to be looked at before the next wait */
	bool ipv4, ipv6; /* the host has it now, and the guest gets answers and connections of it */
	bool guest_ipv6; /* the guest was given an address at the start */
	int64_t ipv6_off_until; /* it was found lame */
	struct link wire, gate;
	struct routes routes;
	struct ties ties;
	struct standins standins;
	struct rates rates;
	struct audit audit;
	struct violations violations;
	struct echoes echoes;
	struct opens *opens;
	struct flows *flows;
	struct dns *dns;
	struct publish *publish;
	struct upstream *upstream;
	struct exchanges *exchanges;
	struct logins *logins;
	struct renewals *renewals;
	const char *ended; /* why the session ends; NULL: it does not */
};

/* End the session: wire or gate broke the rules, or is gone. @why is a literal. */
void vault_end(struct vault *v, const char *why);

/* The earlier of two times, of which -1 is never. */
static inline int64_t sooner(int64_t a, int64_t b)
{
	return a < 0 ? b : b < 0 || a < b ? a : b;
}

/* link.c: messages to wire and gate. */

void link_init(struct link *l, int fd, enum vault_ev ev, const char *gone);
/**
 * link_send() - Send a message, or queue it in order
 * @fd:	Taken in every case; -1: none
 *
 * The queue is bounded by what may be outstanding: every message but few answers one of the other end.
 */
void link_send(struct vault *v, struct link *l, const void *msg, size_t n, int fd);
void link_flush(struct vault *v, struct link *l);
/* Runs what is due; when to call again, or -1. */
int64_t link_tick(struct vault *v, struct link *l);
bool link_clogged(const struct link *l);

static inline void wire_send(struct vault *v, const void *msg, size_t n, int fd)
{
	link_send(v, &v->wire, msg, n, fd);
}

/* A head for an answer to @to, or for a message of ours. */
struct net_head net_head(uint16_t type, size_t n, uint32_t slot, uint32_t generation);

/**
 * wire_check() - Is this a message that wire may send, in form?
 *
 * Source: the table in proto/netmsg.h. Pure.
 *
 * Return: its type; -EPROTO
 */
int wire_check(const void *msg, size_t n, bool has_fd);

/* The same for gate; HTTPMSG_REQUEST by its head alone. */
int gate_check(const void *msg, size_t n, bool has_fd);

bool net_addr_get(const struct net_addr *n, struct addr *ret);

/* route.c: what the kernel knows of addresses. */
int routes_open(struct routes *r, struct err *err);
/* Reads the interfaces' addresses into @p->hosts, if that list is stale. 0; or a negative errno: it stays as it was, and stale, and
 * nothing may be opened by it. */
int routes_refresh(struct routes *r, struct policy *p);
/* What stands in EV_NETLINK. True when something changed. */
bool routes_news(struct routes *r);
/* enum policy_route; or a negative errno: the kernel could not be asked, and nothing may be opened. */
int routes_to(struct routes *r, const struct addr *a);
/* 1; 0; or a negative errno: it could not be found out now. */
int host_has_ipv4(void);
int host_has_ipv6(void);

/* open.c: connections that the guest asks for. */
void opens_init(struct vault *v);
void opens_message(struct vault *v, int type, const void *msg);
void opens_event(struct vault *v, uint16_t slot, uint32_t gen, uint32_t events);
int64_t opens_tick(struct vault *v); /* runs what is due; when to call again, or -1 */
void opens_end(struct vault *v); /* a line for each that wire waits for */
/* NET_DIAL of gate: to where the guest wanted to go. */
void opens_dial(struct vault *v, const struct net_dial *m);
/* NET_INSPECTED: what was connected for that flow is not needed. */
void opens_inspected(struct vault *v, const struct net_head *h);

struct up_dial {
	const char *name; /* of the host; kept while it is dialled */
	struct addr to;
	uint16_t port;
	bool testing;  /* @to is of AGENT_VM_CONNECT_TO and is not judged */
	bool by_proxy; /* without @to */
};

/**
 * opens_up() - A connection for upstream.c: up_dialled() tells, perhaps before this returns
 *
 * Return: 0; -EACCES: the policy refuses that address; -EAGAIN: too many at once; another negative errno: it cannot be judged. Then
 * nobody tells.
 */
int opens_up(struct vault *v, uint16_t slot, uint32_t gen, const struct up_dial *d);
/* All of that slot; nobody tells. */
void opens_up_cancel(struct vault *v, uint16_t slot, uint32_t gen);
/* upstream.c. @fd: taken, -1 with @error. */
void up_dialled(struct vault *v, uint16_t slot, uint32_t gen, int fd, int error);

/* dns.c: questions. */
int dns_init(struct vault *v, struct err *err);
void dns_message(struct vault *v, const struct net_dns_ask *ask);
bool dns_cancel(struct vault *v, const struct net_head *h);
void dns_event(struct vault *v, uint16_t slot, uint32_t fd, uint32_t events);
int64_t dns_tick(struct vault *v);

#define UP_ADDRS 16 /* of a family: the other one has its own room, whoever answers first */

/**
 * dns_resolve() - Ask for addresses of a host that upstream.c dials
 * @type:	DNS_A or DNS_AAAA
 *
 * up_resolved() tells, perhaps before this returns; no address is told as none.
 *
 * Return: 0; -EAGAIN: it cannot be asked now, and nobody tells
 */
int dns_resolve(struct vault *v, const char *name, uint16_t type, uint16_t slot, uint32_t gen);
/* upstream.c */
void up_resolved(struct vault *v, uint16_t slot, uint32_t gen, const struct addr *a, size_t n);

/* publish.c: connections from outside. */
int publish_init(struct vault *v);
void publish_event(struct vault *v, uint16_t slot);
bool publish_message(struct vault *v, int type, const void *msg, size_t n);
bool publish_ended(struct vault *v, const struct net_ended *e);
int64_t publish_tick(struct vault *v);
/* What lives gets its line; as opens_end(). */
void publish_end(struct vault *v);
/* @fd: taken; one that listens no more is nothing to do. -ENOSPC: no place; another negative errno. */
int publish_add(struct vault *v, const struct vault_listen *l, int fd);
/* Is this port of the host one that this session publishes on? */
bool publish_uses(const struct vault *v, enum policy_proto proto, uint16_t port);

/* gatelink.c */
void from_gate(struct vault *v, uint32_t events);
/* By gate or by vault; REFUSAL_NONE: was not. Counts violations, and tells the launcher. @login: as for violations_add() */
void request_refused(struct vault *v, enum prov_host_id host, enum refusal_code code, bool login);

/* sandbox.c. @folders: descriptors of those in which login files lie, each with the file's name */
struct vault_source;
int vault_sandbox(const struct vault_source *sources, size_t n, struct err *err);
/* Run by root, files are opened as nobody; but logins are the user's. */
void vault_files_as(bool user);
