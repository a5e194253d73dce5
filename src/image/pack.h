/* `agent-vm-image pack`: a tar or an npm package in, a layer of an image out (tar in zstd). No path, no network.
 *
 * Rules say what of a package goes where; without rules the tar is taken as it is. One of
 *	take FROM TO		the file FROM; with a slash at the end of both, all below FROM
 *	leave FROM		not that file, or nothing below FROM/
 *	link NAME TARGET	a symbolic link
 *	empty NAME		a file without content
 * FILE!ASSET/NAME stands for what is NAME in a tarball that FILE carries inside: an asset of the name ASSET, as Node's single
 * executables have them. One of a package is opened. All that in names without spaces. Each "take" must find something. What comes out has sorted names, one time, owner 0:0, modes 0755
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

#define PACK_ASSET_MAX 255

struct pack_asset {
	char *prefix; /* "FILE!ASSET"; NULL: no rule asks for one */
	char *file, *asset;
};

/* What the rules want opened. 0, also when that is nothing; -EINVAL: a broken rule, or more than one; @err set */
int pack_asset_wanted(const struct strv *rules, struct pack_asset *ret, struct err *err);
void pack_asset_done(struct pack_asset *a);

/**
 * pack_asset_find() - Where in a file an asset's tarball lies
 * @at, @bytes:	Of the file, for @read
 *
 * Node writes the length of the name, the name, the length of the content (both u64, lowest byte first), and the content; the
 * first such place with content that begins as gzip does and ends within the file is it.
 *
 * Return: 0; -ENOENT; errno of @read
 */
int pack_asset_find(npmtar_read *read, void *ctx, uint64_t at, uint64_t bytes, const char *asset, uint64_t *ret_at, uint64_t *ret_bytes);

#define PACK_HEADER 512
/* The ustar header of an entry. -EBADMSG: its name, target or size does not fit. */
int pack_header(const struct pack_entry *e, uint64_t epoch, uint8_t ret[PACK_HEADER], struct err *err);
