/* resolv.conf(5), as far as it names servers. Pure. */
#pragma once

#include <stddef.h>

#include "vault/addr.h"

#define RESOLVERS_MAX 8

struct resolver {
	struct addr addr;
	char scope[16]; /* interface of a link-local address, "" for none */
};

/* The servers of @text in order, at most RESOLVERS_MAX, each once; 127.0.0.1 if there is none. Returns how many. */
size_t resolvconf_parse(const char *text, struct resolver ret[RESOLVERS_MAX]);
