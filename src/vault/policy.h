/* The egress policy: what the guest may reach (network page 8). Pure: no socket, no clock, no name is looked up here.
 *
 * The vault asks with the address that it is about to connect to. The names that count are those that it gave this
 * address out for ("tied"); what the guest claims does not.
 *
 * Order, first match: no-network, gateway, never, host, metadata, link-local, GitHub's SSH, QUIC to inspected hosts, rules,
 * closed ports, private, reserved, public. What no step names is refused. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "vault/addr.h"

#define POLICY_RULES_MAX 256
#define POLICY_HOSTS_MAX 256
#define POLICY_NAME_MAX 253 /* RFC 1035 section 2.3.4, as text */

enum policy_proto { POLICY_TCP, POLICY_UDP, POLICY_ECHO, POLICY_PROTOS };

enum policy_verdict { POLICY_REFUSE, POLICY_ALLOW, POLICY_INSPECT, POLICY_GATEWAY, POLICY_VERDICTS };

/* The step that decided. */
enum policy_step {
	STEP_NO_NETWORK,
	STEP_GATEWAY,
	STEP_NEVER,
	STEP_HOST,
	STEP_METADATA,
	STEP_LINK_LOCAL,
	STEP_GITHUB_SSH,
	STEP_QUIC,
	STEP_FLAG, /* a rule */
	STEP_ALLOW_HOST,
	STEP_ALLOW_LAN,
	STEP_PORT,
	STEP_PRIVATE,
	STEP_RESERVED,
	STEP_PUBLIC,
	STEP_REBIND, /* policy_keeps() only */
	STEP_FOREIGN_NAME, /* opens_dial() only */
	STEPS
};

extern const char *const policy_verdict_str[], *const policy_step_str[];

extern const struct prefix policy_nat64; /* NAT64's well-known prefix (RFC 6052) */

/* Where an address belongs, first that fits (8.2). */
enum policy_group {
	GROUP_GATEWAY,
	GROUP_NEVER,
	GROUP_HOST,
	GROUP_METADATA,
	GROUP_LINK_LOCAL,
	GROUP_PRIVATE,
	GROUP_RESERVED,
	GROUP_PUBLIC,
	GROUPS
};

/* What the kernel says of the way to an address, as far as it was asked (5). */
enum policy_route { ROUTE_UNKNOWN, ROUTE_GATEWAY, ROUTE_ON_LINK, ROUTE_LOCAL, ROUTE_NEVER };

/* --allow-egress, --allow-ssh. */
struct policy_rule {
	char name[POLICY_NAME_MAX + 1]; /* lower case, no dot at the end; "": an address */
	struct prefix net;		/* without a name */
	uint16_t lo, hi;		/* 0, 0: every port that is not closed, and echo */
	bool tcp, udp;
};

struct policy {
	bool no_network, allow_lan, allow_host;
	bool proxied; /* an upstream HTTP proxy is in force */
	struct policy_rule rules[POLICY_RULES_MAX];
	size_t n_rules;
	struct prefix hosts[POLICY_HOSTS_MAX]; /* addresses of the host's interfaces, each with its network's length */
	size_t n_hosts;
	struct prefix nat64; /* the resolvers' own prefix (RFC 7050); bits 0: none */
	const char *const *inspected; /* names of the launch that are judged or get a credential; NULL at the end; kept */
};

struct policy_question {
	enum policy_proto proto;
	struct addr dst;
	uint16_t port;		   /* 0 for echo */
	const char *const *names;  /* tied to dst, lower case; NULL at the end; NULL: none */
	enum policy_route route;
};

struct policy_answer {
	enum policy_verdict verdict;
	enum policy_step step;
	enum policy_group group;
};

/**
 * policy_decide() - May the guest open this?
 *
 * Anything that is not understood is refused. POLICY_INSPECT: allowed, and gate looks at the first bytes.
 */
struct policy_answer policy_decide(const struct policy *p, const struct policy_question *q);

/**
 * policy_keeps() - May this address stand in an answer for @name?
 *
 * The rebinding filter (7.3): public addresses, and private or reserved ones that a flag opened.
 */
struct policy_answer policy_keeps(const struct policy *p, const struct addr *a, const char *name);

/* The form in which @a is judged: the IPv4 address inside, if it is in NAT64's form. An option that means @a names this. */
struct addr policy_judged(const struct policy *p, const struct addr *a);

enum policy_group policy_group(const struct policy *p, const struct addr *a, enum policy_route route);

/* Is every address of @net one that nothing opens? Then a rule for it is a mistake. */
bool policy_never(const struct prefix *net);

/* A port that is open only to rules that name it. */
bool policy_port_closed(enum policy_proto proto, uint16_t port);

/* Is one of the rules for this name? @name: lower case, not empty. */
bool policy_rules_name(const struct policy_rule *rules, size_t n, const char *name);

/* One of GitHub's names for git, or a name below github.com. */
bool policy_name_is_github(const char *name);
/* An address that GitHub has published as its own. */
bool policy_addr_is_github(const struct addr *a);

#define POLICY_DIGEST 65

/**
 * policy_digest() - SHA-256 of what was opened and closed, as text, in hex
 * @proxy:	As shown; read if the policy is proxied
 *
 * The launcher makes it of what it prints, vault of what it goes by (network page 9.4). What the host itself adds, its
 * addresses and the NAT64 prefix, is not in it.
 */
void policy_digest(const struct policy *p, const char *proxy, char ret[POLICY_DIGEST]);
