/* Between registry.c (operations) and login.c. */
#pragma once

#include "image/challenge.h"
#include "image/registry.h"

#define SECOND_NS INT64_C(1000000000)
#define DOCUMENT_MS 60000
#define RETRY_AFTER_MAX_S 60

struct registry {
	struct http *http;
	const struct ref *ref;
	struct auth *auth;
	int64_t deadline_ns;
	char *host; /* of the API, without port and brackets */
	bool plain, has_port;
	bool settled; /* an answer came: the scheme is right */
	struct op *ops;
	/* the login */
	char *login; /* value of Authorization */
	unsigned int login_gen;
	int64_t login_until_ns; /* 0: does not end */
	struct challenge ask;	/* the last one that asked for a token */
	struct http_req token;
	bool token_flying;
	int64_t token_due_ns; /* 0: none */
	int token_tries;
	bool sent; /* credentials were sent, for messages */
};

/* End an operation: DONE with @error; it is no longer the registry's. */
void op_end(struct op *op, int error);
/* End it for the status that came, in words. */
void op_fail(struct op *op);

/* The lines for 401 and 403, and for 429; -EACCES, -EBUSY. */
int registry_refused(struct registry *r, const struct http_answer *a, struct err *err);
int registry_limited(struct registry *r, const struct http_answer *a, struct err *err);

/* How long to wait after the try with this number, 1.. */
int64_t registry_backoff_ns(int tries);

/* At most @most_ms, less when the deadline is near; at least 1. */
int registry_left_ms(const struct registry *r, int most_ms);

/* Wipe and free; *s becomes NULL. */
void login_wipe(char **s);

/* An operation was answered with 401: log in if that can help, else end it. */
void login_asked(struct op *op);

/* Make it wait for a token from the realm that is known; asks for one unless somebody has. */
void login_wait(struct op *op);

/* Ask the realm now. */
void login_token_start(struct registry *r);
