/* Reader of git's index, for one question: which paths are submodules to git ("gitlinks")? In these "git status" of the
 * repository above runs. The file can be the guest's work of an earlier session. */
#pragma once

#include "base/span.h"
#include "base/str.h"

#define GITINDEX_MAX (128 << 20) /* bytes; a million files have about 100 MB */

/**
 * gitindex_links() - Paths of mode 160000, relative to the top of the work tree
 * @ret:	Added to
 *
 * Source: gitformat-index(5), versions 2 and 3 with SHA-1.
 *
 * Pure. Return: 0; -ENOTSUP for version 4 and a split index; -EBADMSG for what is no index of these. Then @ret is untouched
 */
int gitindex_links(struct span in, struct strv *ret);
