/* The tree of an image in memory: what its layers leave behind, merged by the rules of the image specification's layer.md
 * (image page 4.1). Pure: names and attributes in, a tree out; no file system is asked, so no name leads out of it.
 *
 * A name is a node; what it names is an inode, which hard links share. A node carries the number of the layer that put it
 * there, so that a marker removes only what lower layers put, wherever in its layer it stands. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "image/ext4.h"

#define TREE_NAME_MAX 255
#define TREE_PATH_MAX 4096
#define TREE_TARGET_MAX 4095
#define TREE_DEPTH_MAX 256
#define TREE_LINKS_MAX 65000 /* of ext4 */
#define TREE_DEVICES_MAX 4096
#define TREE_STEPS_MAX 40		   /* symbolic links followed for one name, as the kernel does */
#define TREE_LINKED_MAX 20000000	   /* components of links' targets walked for all names together */
#define TREE_BYTES_MAX (UINT64_C(1) << 30) /* of memory: names, targets, attributes */

struct tree_inode {
	struct ext4_inode x;
	uint32_t n_names; /* a folder has one */
	uint32_t ino;	  /* for whoever writes the tree; 0 at first */
};

struct tree_node {
	struct tree_node *parent;	/* NULL: the root */
	struct tree_node *kids, *next, *prev; /* no order */
	size_t n_kids;
	struct tree_inode *inode;
	unsigned int layer;
	unsigned int pruned; /* layer whose marker has left nothing lower below this folder */
	uint16_t depth;
	char name[]; /* "" of the root */
};

struct tree;

/**
 * tree_new() - An empty tree: a root folder (0755, root's) and lost+found, which stays whatever the layers say
 * @epoch:	Time of both as long as no layer says one
 * @drop:	Called for an inode that has lost its last name, to free what the caller keeps in it; may be NULL
 */
struct tree *tree_new(int64_t epoch, void (*drop)(void *ctx, struct ext4_inode *x), void *ctx);
void tree_free(struct tree *t); /* does not call drop */

/* What follows comes from the next layer upwards. */
void tree_next_layer(struct tree *t);

/**
 * tree_put() - An entry that is no hard link
 * @path:	As the layer has it
 * @x:		Its attributes; the heap memory in it is taken on success
 * @ret:	The inode, to add content to; not for markers
 *
 * Return: 1: put; 0: it was a marker, or a name that has no meaning, and @x is still the caller's; -EBADMSG with the cause in
 * @err
 */
int tree_put(struct tree *t, const char *path, struct ext4_inode *x, struct tree_inode **ret, struct err *err);

/* A hard link: one name more for what @target names. Returns as tree_put(). */
int tree_link(struct tree *t, const char *path, const char *target, struct err *err);

/* What a path names, links followed, in the last component where @follow; NULL when there is nothing. */
struct tree_node *tree_find(const struct tree *t, const char *path, bool follow);

struct tree_node *tree_root(const struct tree *t);

/* The names in a folder, sorted by bytes; heap array of n_kids that the caller owns. */
struct tree_node **tree_sorted(const struct tree_node *dir);
