/* From a head to a verdict: forward in canonical form, refuse, or answer ourselves (credentials page 5, 7.4). */
#pragma once

#include "gate/slot.h"

struct judge {
	struct prov_launch launch;
	struct ph_set set;
};

enum verdict {
	JUDGE_FORWARD,
	JUDGE_REFUSE,	/* request.fault says why */
	JUDGE_TO_HTTPS, /* in clear: 301 */
	JUDGE_TOKEN,	/* a token endpoint: its body decides, we answer */
	JUDGE_REVOKE,	/* 200 {}, nothing is sent */
	JUDGE_BODY, /* the body must be read before it is decided: judged.body_max bytes at most, then judge_body() */
};

/* What to forward. */
struct judged {
	enum prov_host_id host;
	struct slot_use use;
	bool identity;	 /* the answer is scanned, so it must come without a content coding */
	size_t body_max; /* for JUDGE_BODY */
};

/**
 * judge_request() - Decide over a head
 * @host:	Bound, by the name of the connection (in clear: by Host)
 * @tls:	False for a connection in clear, over which no credential ever goes
 * @r:		Checked by request_check() or request_from_h2(); gets the fault for JUDGE_REFUSE
 */
enum verdict judge_request(const struct judge *j, enum prov_host_id host, bool tls, struct request *r,
			   struct judged *ret);

/**
 * judge_body() - Decide over a request for which judge_request() said JUDGE_BODY
 * @body:	Whole; one byte more than judged.body_max says that there was more
 * @judged:	As judge_request() left it
 * @ret_body:	What is sent in its place, for JUDGE_FORWARD; empty buffer: @body as it is
 *
 * Return: JUDGE_FORWARD or JUDGE_REFUSE
 */
enum verdict judge_body(const struct judge *j, struct request *r, struct span body, struct judged *judged,
			struct buf *ret_body);

/**
 * judge_message() - Write what was judged as a message to vault
 * @slot, @generation:	Of the exchange between the two processes
 *
 * Fields in the guest's order and spelling, without those that credentials page 7.4 takes off.
 *
 * Return: 0 or -ENOBUFS
 */
int judge_message(const struct judged *d, const struct request *r, uint32_t slot, uint32_t generation, struct buf *out);
