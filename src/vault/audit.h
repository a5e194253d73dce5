/* audit.jsonl: what the session opened, and what was refused (network page 9.5; members and their order are fixed there).
 *
 * The first of equal refusals, or DNS lines, is a line at once; what follows it within 10 s is one more line, with "n". "t" is
 * when a line was written, so the file is in order. The file is rotated at 64 MiB into the second
 * descriptor, one older file is kept. A full disk costs lines, which are counted, never the session. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "vault/policy.h"

#define AUDIT_FILE_MAX (64 << 20)
#define AUDIT_JOIN_NS INT64_C(10000000000)
#define AUDIT_HELD_MAX 256
#define DNS_TEXT_LEN 1024 /* of a name as text, every byte escaped */

struct audit_flow {
	enum policy_proto proto;
	uint64_t id;
	const char *name; /* NULL: none */
	struct addr dst;
	uint16_t port;
	enum policy_verdict verdict;
	enum policy_step step;
	const char *via; /* "direct", "proxy"; TCP only, NULL otherwise */
	bool counted;	 /* up and down are known */
	uint64_t up, down;
	uint32_t ms;
	const char *end; /* NULL: it lives */
	bool probe;	 /* the self-probe's, not the agent's */
};

struct audit_published {
	bool udp;
	const char *listen, *peer;
	uint16_t port;
	uint64_t up, down;
	uint32_t ms;
	const char *end;
};

struct audit_dns {
	const char *q; /* as dns_name_to_text() */
	const char *type, *rcode, *rule; /* rule: NULL for none */
	unsigned int kept, dropped;
	int server; /* -1: answered here or from the cache */
	uint32_t ms;
	struct addr first; /* dropped; family 0: none */
	enum policy_group group; /* of that */
};

struct audit_refused {
	enum policy_proto proto;
	const char *name; /* NULL: none */
	struct addr dst;
	uint16_t port;
	enum policy_step step;
	bool alias;  /* dst is the host's alias, not an address of its own */
	bool closed; /* the policy allows it, and no option opens it */
	struct addr judged; /* what an option would have to name; family 0: dst */
};

/* A request to an inspected host: method and template of the path, never a value. */
struct audit_request {
	const char *host, *method, *path; /* method: NULL for one that is none */
	const char *cred;		  /* kind of its first credential; NULL: none */
	const char *verdict;		  /* "forward", "refuse", "answer" */
	const char *code;		  /* "": none */
	unsigned int status;		  /* 0: none came */
	uint64_t up, down;		  /* of the bodies */
	uint32_t ms;
	const char *end; /* NULL: whole */
	bool probe;
};

/* One line with its newline into @b. @unix_ms: wall clock. Pure. */
void audit_put_flow(struct buf *b, int64_t unix_ms, const struct audit_flow *f);
void audit_put_published(struct buf *b, int64_t unix_ms, const struct audit_published *p);
void audit_put_dns(struct buf *b, int64_t unix_ms, const struct audit_dns *d, unsigned int n, bool probe);
/* @probe: asked by the self-probe, not by the agent. */
void audit_put_refused(struct buf *b, int64_t unix_ms, const struct audit_refused *r, unsigned int n, bool probe);

void audit_put_request(struct buf *b, int64_t unix_ms, const struct audit_request *r);

/* The option that would open it, "" when none does. @to has 400 bytes. */
const char *audit_opens(const struct audit_refused *r, char *to);

/* The same for a name: of what the filter left out, the first address. A rule by name covers private addresses only (8.4). */
const char *audit_dns_opens(const struct audit_dns *d, char *to);

struct audit_held;

struct audit {
	int fd, old_fd; /* -1: none */
	uint64_t size;
	struct buf out; /* written at the end of each batch */
	struct audit_held *held; /* [AUDIT_HELD_MAX] */
	uint64_t lost;
	bool probing; /* what is refused now is the self-probe's, and its line says so */
};

void audit_open(struct audit *a, int fd, int old_fd);
void audit_flow(struct audit *a, const struct audit_flow *f);
void audit_published(struct audit *a, const struct audit_published *p);
void audit_dns(struct audit *a, const struct audit_dns *d, int64_t now);
void audit_refused(struct audit *a, const struct audit_refused *r, int64_t now);
void audit_request(struct audit *a, const struct audit_request *r);
/* An answer held what was sent: how often, in which form. */
void audit_echo(struct audit *a, const char *host, const char *path, const char *form, size_t n);
void audit_renewal(struct audit *a, const char *provider, const char *program, const char *how, uint32_t ms);
/* Writes what is due; @all: what is held back as well. Returns when to call again, or -1. */
int64_t audit_flush(struct audit *a, int64_t now, bool all);
