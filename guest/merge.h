/* What one file of the state becomes: bytes in, bytes out. Pure; guest/state.c reads and writes. */
#pragma once

#include "base/buf.h"
#include "guest/config.h"

/* What stands around the part of a GC_FORM_BLOCK file that is ours. */
#define MERGE_BEGIN "<!-- agent-vm: from here on written anew at each start -->"
#define MERGE_END "<!-- agent-vm: up to here -->"

/* A login in the file is not ours and was left as it is. */
#define MERGE_FOREIGN 1

/**
 * merge() - Apply the rules of a file
 * @text:	What the file holds, empty for one that is not there; gets the new content, empty for one that is not to be
 *		there: an object without members says nothing. Its maximum holds
 *
 * Return: 0 or a mask of MERGE_FOREIGN; -EBADMSG: the content is not of the form, and @text is as it was; -ENOBUFS
 */
int merge(const struct config_state *s, struct buf *text);
