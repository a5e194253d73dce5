/* A request's path as it stands in records: shape without content. */
#pragma once

#include <stdbool.h>

#include "base/span.h"
#include "proto/netmsg.h"

/**
 * pathtpl_write() - Cut ids and whatever else may tell something out of a path
 * @path:	Raw, as in a request; without query. May be empty
 * @out:	The template and zeros behind it, as in struct net_note
 *
 * A segment stays if it is a letter and then letters, digits, "-", "_" and "." with at most 30 bytes in all and two
 * digits; another becomes "*". No placeholder, key, number or UUID is that short or that plain. What goes beyond the room
 * becomes a last "*". A template of a template is itself, so who gets one can check it.
 */
void pathtpl_write(struct span path, char out[NET_NOTE_PATH]);

/* Whether this is what pathtpl_write() leaves behind. */
bool pathtpl_is(const char path[NET_NOTE_PATH]);
