/* How to reach a host: directly or by the user's proxy, and which hosts count as this one. Pure but for the environment,
 * which comes through a function. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/* All owned; user and password percent-decoded, NULL when there are none. */
struct proxy {
	char *host; /* IPv6 in brackets */
	uint16_t port;
	char *user, *password;
	const char *variable; /* where it stands: "https_proxy"; static */
};

/* Loopback literals, "localhost" and names below it: where plain HTTP is allowed (RFC 6761 section 6.3). */
bool host_is_loopback(const char *host);

/* Who can reach a host: everybody, those in this network (RFC 1918, 4193, 6598; this machine counts too), those on this
 * link, where clouds keep the keys of their machines. A name counts as public. */
enum reach { REACH_PUBLIC, REACH_PRIVATE, REACH_LINK };
enum reach host_reach(const char *host);

/**
 * proxy_upstream() - Find the proxy of the environment (network page 9.1)
 * @https:	For https; http_proxy goes first otherwise
 * @env:	getenv(3) or a test's
 *
 * Lower case before upper case; an empty value counts as unset. A proxy of another kind than http:// is passed over with a
 * line in @note.
 *
 * Return: 1 and @ret, to be ended with proxy_done(); 0: direct, with @note set or empty; -EINVAL with @note saying what is
 * wrong with the value (never the value)
 */
int proxy_upstream(bool https, const char *(*env)(const char *), struct proxy *ret, struct err *note);
/* The value of no_proxy; NULL: none. */
const char *proxy_exceptions(const char *(*env)(const char *));

/* The same for one destination: hosts of no_proxy, loopback and private literals go direct. @host: name or literal, IPv6
 * without brackets. */
int proxy_for(bool https, const char *host, uint16_t port, const char *(*env)(const char *), struct proxy *ret,
	      struct err *note);
void proxy_done(struct proxy *p);
