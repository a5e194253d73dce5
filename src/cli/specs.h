/* The small languages of option values that need no look at the world. Pure: text in, parts or a reason out. A reason is
 * "CAUSE; WHAT TO DO" for a message that begins with the option and its value. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "proto/ghrepo.h"
#include "vault/policy.h"

/* [BIND:]HOST:GUEST[/tcp|/udp] */
struct publish {
	int family;          /* AF_INET, AF_INET6; AF_UNSPEC: loopback, of both families where there are both */
	struct in6_addr addr; /* AF_INET: the first four bytes */
	uint16_t host, guest;
	bool udp;
};

/* Each returns 0, or -EINVAL with the reason in @err and outputs untouched. */
int publish_parse(const char *s, struct publish *ret, struct err *err);
/* Would both want the same socket? */
bool publish_meets(const struct publish *a, const struct publish *b);

/* IP, CIDR or NAME, each with :PORT or :LO-HI (IPv6 then in brackets), with /tcp or /udp behind it. */
int egress_parse(const char *s, struct policy_rule *ret, struct err *err);
/* HOST[:PORT], not GitHub's. */
int ssh_dest_parse(const char *s, struct policy_rule *ret, struct err *err);

struct repo {
	char owner[GH_OWNER_MAX + 1], name[GH_NAME_MAX + 1];
	enum gh_level level;
};

/* OWNER/REPO or the URL of a remote at GitHub, with =LEVEL behind it. */
int repo_parse(const char *s, struct repo *ret, struct err *err);

/* KEY=VALUE of --github; PROVIDER=CLASS of --api. */
int github_switch_check(const char *s, struct err *err);
int api_class_check(const char *s, struct err *err);

/* Length of the name at the front of NAME or NAME=VALUE; 0: none that a variable can have. */
size_t env_name_len(const char *s);
