/* A registry: documents and blobs of one repository (OCI distribution-spec 1.1), with login, retries and resume.
 *
 * Operations are submitted and worked on by registry_step(). Each ends once: done, with error 0 or a negative errno and one
 * line in err. What the errno means to the launcher:
 *	-EHOSTUNREACH -ECONNREFUSED	the registry cannot be reached
 *	-EACCES				login refused or missing; -ENOENT no such image; -EBUSY the registry limits
 *	-EPROTO				TLS or a broken answer; -EBADMSG digest or size; -ETIMEDOUT -EIO gave up after tries */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/auth.h"
#include "image/blobs.h"
#include "image/http.h"
#include "image/ref.h"

#define REGISTRY_TRIES 5 /* without any progress */

enum op_state { OP_READY, OP_FLYING, OP_LOGIN, OP_DONE };

struct op {
	/* set by the caller, borrowed until the end */
	const char *path; /* after /v2/NAME/ */
	const char *url;  /* in place of a path: a whole URL, without any login; NULL: none */
	const char *what; /* for messages: "manifest", "layer 3" */
	bool manifest;	  /* the four types are asked for */
	bool head;	  /* only the digest is wanted: HEAD, GET where that is not allowed */
	struct blob *blob; /* where the body goes; NULL: collected */
	/* the end */
	enum op_state state;
	int error;
	struct err err;
	char type[128], digest[128]; /* Content-Type, Docker-Content-Digest */
	uint64_t length;	     /* Content-Length; UINT64_MAX: not said */
	char *body;		     /* op_done() frees it */
	size_t n_body;
	/* private */
	struct registry *reg;
	struct http_req req;
	struct op *next;
	int64_t due_ns;
	uint64_t best;
	unsigned int login_gen;
	int tries;
	bool renewed, no_range, checked;
};

struct registry;

/**
 * registry_new() - Make a client for one repository
 * @http, @ref, @auth:	kept
 * @deadline_ns:	now_ns() at which everything fails; then there are no retries. 0: none
 */
struct registry *registry_new(struct http *http, const struct ref *ref, struct auth *auth, int64_t deadline_ns);
void registry_free(struct registry *r);

/* Begin an operation; @op stays where it is until op_done(). */
void registry_submit(struct registry *r, struct op *op);

/* Move all operations on, waiting at most @timeout_ms. */
void registry_step(struct registry *r, struct pollfd *fds, unsigned int n_fds, int timeout_ms);

/* Free what an operation owns; ends it if it is under way. The blob is the caller's. */
void op_done(struct op *op);

/* First byte of a Content-Range, and the whole size (UINT64_MAX for "*"). RFC 9110 section 14.4; -EBADMSG. */
int content_range_parse(const char *s, uint64_t *ret_first, uint64_t *ret_total);
