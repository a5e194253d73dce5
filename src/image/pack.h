/* `agent-vm-image pack`: a tar or an npm package in, a layer of an image out (tar in zstd). No path, no network.
 *
 * Rules say what of a package goes where; without rules the tar is taken as it is. One of
 *	take FROM TO		the file FROM; with a slash at the end of both, all below FROM
 *	leave FROM		not that file, or nothing below FROM/
 *	link NAME TARGET	a symbolic link
 * in names without spaces. Each "take" must find something. What comes out has sorted names, one time, owner 0:0, modes 0755
 * and 0644, no PAX headers: its bytes are a function of the package, the rules and the version of libzstd. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "image/npmtar.h"

/* The role. Its exit status: 0 after IM_DONE. */
int pack_main(void);

struct pack_entry {
	char *name;
	const struct npmtar_entry *file; /* NULL: a folder, or a link */
	char *target;			 /* of a link */
};

struct pack_list {
	struct pack_entry *v; /* by name */
	size_t n;
};

/**
 * pack_select() - What a layer holds
 * @tar:	borrowed by @ret
 *
 * Return: 0, then @ret ends with pack_list_done(); -EINVAL: a broken rule; -ENOENT: a rule that finds nothing; -EBADMSG: a
 * name that is a file and a folder; @err set
 */
int pack_select(const struct npmtar *tar, const struct strv *rules, struct pack_list *ret, struct err *err);
void pack_list_done(struct pack_list *l);

#define PACK_HEADER 512
/* The ustar header of an entry. -EBADMSG: its name, target or size does not fit. */
int pack_header(const struct pack_entry *e, uint64_t epoch, uint8_t ret[PACK_HEADER], struct err *err);
