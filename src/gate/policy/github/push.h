/* git's pkt-lines, as far as a push and the refusal of one need them (gitprotocol-pack, "Reference Update Request"). A
 *body of git-receive-pack begins with lines
 *
 *	OLD SP NEW SP REF [NUL CAPABILITIES]
 *
 * to the first flush; "shallow ID" may stand among them. The pack behind it is not looked at. */
#pragma once

#include <stdbool.h>

#include "base/buf.h"

#define GH_PUSH_REFS_MAX 1024

enum gh_push_scan {
	GH_PUSH_MORE, /* the flush has not come yet */
	GH_PUSH_ENOUGH,
	GH_PUSH_BAD, /* this is no push */
};

struct gh_push {
	size_t n;
	struct {
		struct span ref;
		bool deletes;
	} cmd[GH_PUSH_REFS_MAX];
	bool report, sideband; /* of the capabilities: report-status, side-band-64k */
};

/* @in: the body from its first byte, as much as is there. @ret is set for GH_PUSH_ENOUGH; its spans lie in @in. No
 * front of an input has another verdict than the whole, but for GH_PUSH_MORE. */
enum gh_push_scan gh_push_scan(struct span in, struct gh_push *ret);

/**
 * gh_push_answer() - The answer to a push that is refused, in its own protocol
 * @push:	NULL: its commands could not be read, so one line tells all
 * @bad:	Index of the command that is refused for @why; the others fail with it. @push->n: all are
 *
 * Return: 0 or -ENOBUFS
 */
int gh_push_answer(const struct gh_push *push, size_t bad, const char *why, const char *how, struct buf *out);

/* The answer to a fetch: one line that git prints as the server's. */
int gh_fetch_answer(const char *why, struct buf *out);
