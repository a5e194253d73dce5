/* HTTP requests on libcurl's multi interface: redirects by our own rules, faults in words. Knows nothing of registries.
 *
 * A request is filled, started, and comes back through its done() from http_step(). Redirects (301, 302, 303, 307, 308; at
 * most 5) are followed for GET and HEAD: never from https to http, and by plain http never to where only this network reaches
 * unless the first host is there too; the authorization stays behind when scheme, host or
 * port change, also if a later one leads back. No cookies, no .netrc, no user in a URL. */
#pragma once

#include <curl/curl.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/proxy.h"

#define HTTP_WWW_MAX 8		  /* WWW-Authenticate headers kept of one answer */
#define HTTP_ERROR_BODY_MAX 16384 /* of an answer that is no 2xx */

struct http;
struct trust;

enum http_fault {
	HTTP_FINE,
	HTTP_NO_ADDRESS,
	HTTP_REFUSED,	  /* no connection, ours or the proxy's */
	HTTP_TLS,	  /* a certificate, or no common protocol */
	HTTP_NOT_TLS,	  /* the handshake failed before any certificate */
	HTTP_CUT,	  /* the connection ended or stood still: worth another try */
	HTTP_BAD,	  /* an answer that breaks the rules */
	HTTP_SINK,	  /* sink() stopped it */
};

struct http_answer {
	long status; /* 0: none came */
	char type[128], digest[128], range[96]; /* Content-Type, Docker-Content-Digest, Content-Range; "" when absent */
	uint64_t length; /* Content-Length */
	bool has_length;
	long retry_after_s; /* 0: not said */
	char *www[HTTP_WWW_MAX];
	size_t n_www;
	char *body; /* collected: without a sink, or status not 2xx; NUL behind it */
	size_t n_body;
};

struct http_req {
	/* set by the caller */
	const char *method;	/* "GET", "HEAD", "POST" */
	char *url;		/* owned; http_req_done() frees these, and wipes auth and form */
	char *auth;		/* value of Authorization, NULL: none */
	char *form;		/* body of a POST */
	const char *accept;	/* NULL: anything */
	uint64_t from;		/* first byte wanted; 0: no Range */
	size_t body_max;	/* of what is collected */
	int max_ms;		/* for the whole request, 0: only standing still ends it */
	int (*sink)(struct http_req *r, const void *p, size_t n); /* body of a 2xx; negative stops */
	void (*done)(struct http_req *r);
	void *ctx;
	/* set when done() is called */
	struct http_answer answer;
	bool elsewhere; /* the way of the answer left the origin that was asked */
	enum http_fault fault;
	struct err err; /* of a fault: "HOST: CAUSE; WHAT TO DO" */
	/* private */
	CURL *easy;
	struct curl_slist *headers;
	struct http *http;
	char errbuf[CURL_ERROR_SIZE];
	char *origin, *shown; /* of the URL asked first; of the one under way */
	char *host;	      /* of the one under way */
	char *proxy;	      /* shown form, NULL: direct */
	int redirects, sink_r;
	enum reach reach; /* of what was asked first, once it has redirected */
	bool secure;	  /* the URL under way is https */
	bool kept_out;	  /* a redirect led to where only we can reach */
};

/**
 * http_new() - Make a client
 * @trust:	borrowed as long as the client lives; NULL: no https
 * @plain:	plain HTTP is allowed for hosts that are not this one
 */
int http_new(struct trust *trust, bool plain, struct http **ret, struct err *err);
void http_free(struct http *h);

/* Whether plain HTTP may be spoken to a host (literal without brackets). */
bool http_plain_ok(const struct http *h, const char *host);

/* Begin; done() is called from http_step(), also for what fails at once. */
void http_start(struct http *h, struct http_req *r);

/* Move everything on, and wait for at most @timeout_ms for something to do, on @fds too. */
void http_step(struct http *h, struct pollfd *fds, unsigned int n_fds, int timeout_ms);

/* Give up a request that is under way, without done(), and free what it owns. */
void http_req_done(struct http_req *r);
