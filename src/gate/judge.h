/* From a head to a verdict: forward in canonical form, refuse, or answer ourselves (credentials page 5, 7.4). */
#pragma once

#include "gate/github.h"
#include "gate/slot.h"

struct judge {
	struct prov_launch launch;
	struct ph_set set;
	const struct gh_scope *github; /* the launch's list; NULL: nothing is listed */
	struct github *github_known;   /* what answers told; NULL: nothing, and nobody is asked */
	bool foreign_anon;	       /* at GitHub's hosts a credential that is not ours is taken off */
};

enum verdict {
	JUDGE_FORWARD,
	JUDGE_REFUSE,	/* request.fault says why */
	JUDGE_TO_HTTPS, /* in clear: 301 */
	JUDGE_TOKEN,	/* a token endpoint: its body decides, we answer */
	JUDGE_REVOKE,	/* 200 {}, nothing is sent */
	JUDGE_BODY, /* GitHub's rules read the body first: github_need(), then judge_body() */
	JUDGE_ASK,  /* GitHub is to be asked first, in the user's name: github_answered(), then judge_body() again */
};

/* What to forward. */
struct judged {
	enum prov_host_id host;
	struct slot_use use;
	bool identity;		   /* the answer is scanned, so it must come without a content coding */
	struct gh_decision github; /* at a host of GitHub's; a fault of its rules points here */
	bool copilot;		   /* a GraphQL body, which decides whether Copilot's login goes with it */
	struct github_ask *ask;	   /* the caller's, if it can ask GitHub; NULL: what is not known is refused */
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
 * @body:	As far as github_need() asked for it
 * @judged:	As judge_request() left it
 * @ret_body:	What is sent in its place, for JUDGE_FORWARD; empty buffer: @body as it is. For JUDGE_ASK: what GitHub
 *is asked
 *
 * Return: JUDGE_FORWARD or JUDGE_REFUSE; JUDGE_ASK only if judged.ask is there
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
