/* May a git config that the guest can write stay as it is now (command line page, section 8.4)? Only if it differs from what
 * it was in nothing but settings that start nothing (sink_config_is_harmless()). Bytes in, verdict out.
 *
 * A record is the other settings, in order, each "NAME\0" then "=VALUE\0", or "\0" for a key without '='. Their order counts,
 * too: of one name the last wins. */
#pragma once

#include "base/buf.h"
#include "base/span.h"

#define CONFDIFF_RECORD_MAX (4 * 1024 * 1024) /* bytes: a long section name counts for each of its keys */

/**
 * confdiff_record() - Record the settings of @text that must stay
 * @ret:	Initialised in any case; caller owns, buf_done()
 *
 * Return: 0; -EBADMSG: git would not read it; -ENOBUFS: more settings than a record may hold
 */
int confdiff_record(struct span text, struct buf *ret);

/**
 * confdiff() - Compare @now with a record
 * @ret_what:	For 1 and -EBADMSG: the first thing that is not as it was, such as "core.fsmonitor = ./x (new)", escaped;
 *		caller owns
 *
 * Keeps nothing of @now but one entry at a time. Return: 0: it may stay; 1: it may not; -EBADMSG: git would not read it
 */
int confdiff(struct span record, struct span now, char **ret_what);
