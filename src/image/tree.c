/* How the merge works
 *
 *	tree_put(), tree_link()
 *		split()		the name as written: what is refused, parents and last component
 *		resolve()	the parents, links followed inside the tree, missing ones made
 *		marker()	".wh.NAME", ".wh..wh..opq"
 *		place()		what a new name does to what stood there
 *
 * A folder that a marker takes away but that holds something of the marker's own layer becomes a made one (0755, root, time
 * 0): what it would be had the marker come first.
 *
 * Nodes are found by a search tree over (parent, name): it stays balanced whatever names an image chooses, which a hash
 * table does not.
 *
 * Bounds: depth, names, links, devices and memory as in the header; the number of entries is the caller's to count. Work
 * grows with entries times depth: a folder is gone through once for all markers of a layer, and the ways that links send us
 * are counted together. */
#include "image/tree.h"

#include <errno.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/macros.h"
#include "base/str.h"

#define MARK ".wh."
#define MARK_OPAQUE ".wh..wh..opq"
#define MARK_OTHER ".wh..wh."
#define LOST_FOUND "lost+found"

struct tree {
	struct tree_node *root, *lost_found;
	void *index; /* tsearch(3): all nodes but the root */
	unsigned int layer;
	uint64_t bytes, linked;
	unsigned int n_devices;
	void (*drop)(void *ctx, struct ext4_inode *x);
	void *ctx;
};

/* What a node is compared by, without one. */
struct key {
	const struct tree_node *parent;
	const char *name;
};

/* A name taken apart. */
struct split {
	char parents[TREE_PATH_MAX + 1];
	char last[TREE_NAME_MAX + 1]; /* "" for the root */
	bool skip;
};

static int refuse(struct err *err, const char *why)
{
	return err_set(err, -EBADMSG, "%s", why);
}

static int key_cmp(const void *pa, const void *pb)
{
	const struct key *a = pa, *b = pb;

	if (a->parent != b->parent)
		return (uintptr_t)a->parent < (uintptr_t)b->parent ? -1 : 1;
	return strcmp(a->name, b->name);
}

/* A node with its key in front: tsearch(3) keeps pointers to keys. */
struct indexed {
	struct key key;
	struct tree_node node;
};

static struct indexed *indexed_of(struct tree_node *n)
{
	return (struct indexed *)(void *)((char *)n - offsetof(struct indexed, node));
}

static struct tree_node *kid(const struct tree *t, const struct tree_node *dir, const char *name)
{
	struct key key = { dir, name };
	struct key **hit = tfind(&key, &t->index, key_cmp);

	return hit ? &((struct indexed *)(void *)*hit)->node : NULL;
}

/* Memory that the strings and attributes of an inode take. */
static uint64_t inode_bytes(const struct ext4_inode *x)
{
	uint64_t n = sizeof(struct tree_inode) + (x->target ? strlen(x->target) : 0);

	for (size_t i = 0; i < x->n_xattrs; i++)
		n += sizeof(*x->xattrs) + strlen(x->xattrs[i].name) + x->xattrs[i].n;
	return n;
}

static uint64_t node_bytes(const char *name)
{
	return sizeof(struct indexed) + strlen(name) + 4 * sizeof(void *);
}

static int charge(struct tree *t, uint64_t n, struct err *err)
{
	if (t->bytes + n > TREE_BYTES_MAX)
		return refuse(err, "names, targets and attributes of more than 1 GiB");
	t->bytes += n;
	return 0;
}

static void inode_put(struct tree *t, struct tree_inode *i)
{
	if (--i->n_names > 0)
		return;
	t->bytes -= inode_bytes(&i->x);
	if (t->drop)
		t->drop(t->ctx, &i->x);
	ext4_inode_done(&i->x);
	free(i);
}

static struct tree_node *node_new(struct tree *t, struct tree_node *dir, const char *name, struct tree_inode *i)
{
	size_t len = strlen(name) + 1;
	struct indexed *e = xcalloc(1, sizeof(*e) + len);
	struct tree_node *n = &e->node;

	memcpy(n->name, name, len);
	n->parent = dir;
	n->inode = i;
	n->layer = t->layer;
	i->n_names++;
	if (!dir)
		return n;
	e->key = (struct key){ dir, n->name };
	if (!tsearch(&e->key, &t->index, key_cmp))
		abort();
	n->depth = (uint16_t)(dir->depth + 1);
	n->next = dir->kids;
	if (n->next)
		n->next->prev = n;
	dir->kids = n;
	dir->n_kids++;
	return n;
}

static void node_remove(struct tree *t, struct tree_node *n)
{
	struct tree_node *dir = n->parent;

	while (n->kids)
		node_remove(t, n->kids);
	if (n->prev)
		n->prev->next = n->next;
	else
		dir->kids = n->next;
	if (n->next)
		n->next->prev = n->prev;
	dir->n_kids--;
	(void)tdelete(&indexed_of(n)->key, &t->index, key_cmp);
	t->bytes -= node_bytes(n->name);
	inode_put(t, n->inode);
	free(indexed_of(n));
}

static struct ext4_inode made_folder(void)
{
	return (struct ext4_inode){ .mode = S_IFDIR | 0755 };
}

/* A folder's attributes anew; it keeps its names. */
static void inode_replace(struct tree *t, struct tree_inode *i, struct ext4_inode *x)
{
	t->bytes -= inode_bytes(&i->x);
	ext4_inode_done(&i->x);
	i->x = *x;
	*x = (struct ext4_inode){ 0 };
	t->bytes += inode_bytes(&i->x);
}

static int node_add(struct tree *t, struct tree_node *dir, const char *name, struct ext4_inode *x, struct tree_node **ret,
		    struct err *err)
{
	struct tree_inode *i;

	if (dir->depth >= TREE_DEPTH_MAX)
		return refuse(err, "more than 256 levels deep");
	if (charge(t, node_bytes(name) + inode_bytes(x), err) < 0)
		return -EBADMSG;
	i = xcalloc(1, sizeof(*i));
	i->x = *x;
	*x = (struct ext4_inode){ 0 };
	*ret = node_new(t, dir, name, i);
	return 0;
}

struct tree *tree_new(int64_t epoch, void (*drop)(void *ctx, struct ext4_inode *x), void *ctx)
{
	struct ext4_inode root = { .mode = S_IFDIR | 0755, .mtime = epoch }, lost = { .mode = S_IFDIR | 0700, .mtime = epoch };
	struct tree *t = xcalloc(1, sizeof(*t));
	struct tree_inode *i = xcalloc(1, sizeof(*i));

	*t = (struct tree){ .drop = drop, .ctx = ctx };
	i->x = root;
	t->root = node_new(t, NULL, "", i);
	if (node_add(t, t->root, LOST_FOUND, &lost, &t->lost_found, NULL) < 0)
		abort();
	return t;
}

static void nothing(void *p)
{
}

static void node_free(struct tree_node *n)
{
	while (n->kids) {
		struct tree_node *k = n->kids;

		n->kids = k->next;
		node_free(k);
	}
	if (--n->inode->n_names == 0) {
		ext4_inode_done(&n->inode->x);
		free(n->inode);
	}
	free(indexed_of(n));
}

void tree_free(struct tree *t)
{
	if (!t)
		return;
	tdestroy(t->index, nothing);
	node_free(t->root);
	free(t);
}

void tree_next_layer(struct tree *t)
{
	t->layer++;
}

struct tree_node *tree_root(const struct tree *t)
{
	return t->root;
}

/* One component as it stands in an entry's name. */
static int component_check(const char *s, size_t n, bool is_last, struct split *ret, struct err *err)
{
	static const char *const no_markers[] = { MARK, MARK ".", MARK ".." };

	if (n > TREE_NAME_MAX)
		return refuse(err, "a component longer than 255 bytes");
	if (n == 2 && memcmp(s, "..", 2) == 0)
		return refuse(err, "a name with '..'");
	if (n < strlen(MARK) || memcmp(s, MARK, strlen(MARK)) != 0)
		return 0;
	for (size_t i = 0; i < ARRAY_SIZE(no_markers); i++)
		if (n == strlen(no_markers[i]) && memcmp(s, no_markers[i], n) == 0)
			return refuse(err, "a marker that names nothing");
	if (n >= strlen(MARK_OTHER) && memcmp(s, MARK_OTHER, strlen(MARK_OTHER)) == 0)
		ret->skip |= !is_last || n != strlen(MARK_OPAQUE) || memcmp(s, MARK_OPAQUE, n) != 0;
	else if (!is_last)
		return refuse(err, "below the name of a marker");
	return 0;
}

/* Tidy a name and take it apart. "./" in front, doubled and trailing slashes are usual. */
static int split(const char *path, struct split *ret, struct err *err)
{
	size_t at = 0;

	ret->skip = false;
	ret->last[0] = ret->parents[0] = '\0';
	if (*path == '\0')
		return refuse(err, "an empty name");
	/* Some writers call the root folder "/". */
	if (*path == '/' && path[strspn(path, "/")] != '\0')
		return refuse(err, "an absolute name");
	if (strlen(path) > TREE_PATH_MAX)
		return refuse(err, "a name longer than 4096 bytes");
	while (*path) {
		size_t n = strcspn(path, "/"), after = n + strspn(path + n, "/");
		bool is_last;
		const char *next = path + after;

		/* "." is nothing wherever it stands, so it may also follow the last component. */
		while (next[0] == '.' && (next[1] == '/' || next[1] == '\0'))
			next += 1 + strspn(next + 1, "/");
		is_last = *next == '\0';
		if (!(n == 1 && *path == '.')) {
			if (component_check(path, n, is_last, ret, err) < 0)
				return -EBADMSG;
			if (is_last) {
				memcpy(ret->last, path, n);
				ret->last[n] = '\0';
			} else {
				memcpy(ret->parents + at, path, n);
				at += n;
				ret->parents[at++] = '/';
			}
		}
		path = next;
	}
	ret->parents[at] = '\0';
	return 0;
}

/* A component on the way that is not there. */
static int make_folder(struct tree *t, struct tree_node *dir, const char *name, struct tree_node **ret, struct err *err)
{
	struct ext4_inode x = made_folder();

	if (str_starts(name, MARK))
		return refuse(err, "lies below the name of a marker");
	return node_add(t, dir, name, &x, ret, err);
}

/**
 * resolve() - Follow a path inside the tree, links in every component
 * @make:	Make what is missing, as folders
 *
 * Return: 0; -ENOENT: something is missing (only without @make); -EBADMSG with @err set
 */
static int resolve(struct tree *t, struct tree_node *at, const char *path, bool make, struct tree_node **ret, struct err *err)
{
	AUTO_FREE(char, mem);
	unsigned int steps = 0;
	const char *rest = path;

	for (;;) {
		char name[TREE_NAME_MAX + 1];
		struct tree_node *k;
		size_t n;

		rest += strspn(rest, "/");
		n = strcspn(rest, "/");
		if (n == 0)
			break;
		if (!S_ISDIR(at->inode->x.mode))
			return refuse(err, "lies below something that is not a folder");
		if (n > TREE_NAME_MAX)
			return refuse(err, "lies below a link to a name longer than 255 bytes");
		memcpy(name, rest, n);
		name[n] = '\0';
		rest += n;
		if (steps > 0 && ++t->linked > TREE_LINKED_MAX)
			return refuse(err, "lies below links, as too many others do");
		if (strcmp(name, ".") == 0)
			continue;
		if (strcmp(name, "..") == 0) {
			at = at->parent ? at->parent : at;
			continue;
		}
		k = kid(t, at, name);
		if (!k && !make)
			return -ENOENT;
		if (!k) {
			int r = make_folder(t, at, name, &k, err);

			if (r < 0)
				return r;
		}
		if (S_ISLNK(k->inode->x.mode)) {
			char *more;

			if (++steps > TREE_STEPS_MAX)
				return refuse(err, "lies below more than 40 links");
			more = xasprintf("%s/%s", k->inode->x.target, rest);
			free(mem);
			mem = more;
			rest = mem;
			at = *rest == '/' ? t->root : at;
		} else {
			at = k;
		}
	}
	*ret = at;
	return 0;
}

static bool prune(struct tree *t, struct tree_node *n);

/* Take away what lower layers put below here; once in a layer, for what comes afterwards is the layer's own. */
static void prune_kids(struct tree *t, struct tree_node *dir)
{
	struct tree_node *next;

	if (dir->pruned == t->layer)
		return;
	dir->pruned = t->layer;
	for (struct tree_node *k = dir->kids; k; k = next) {
		next = k->next;
		(void)prune(t, k);
	}
}

/* Take away what lower layers put here; what is left of the node itself is this layer's. Whether it is gone. */
static bool prune(struct tree *t, struct tree_node *n)
{
	struct ext4_inode x;

	prune_kids(t, n);
	if (n->layer == t->layer || n == t->lost_found)
		return false;
	if (!n->kids) {
		node_remove(t, n);
		return true;
	}
	x = made_folder();
	inode_replace(t, n->inode, &x);
	n->layer = t->layer;
	return false;
}

static int marker(struct tree *t, const struct split *s, struct err *err)
{
	struct tree_node *dir, *n;
	int r;

	r = resolve(t, t->root, s->parents, false, &dir, err);
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	if (!S_ISDIR(dir->inode->x.mode))
		return refuse(err, "lies below something that is not a folder");
	if (strcmp(s->last, MARK_OPAQUE) != 0) {
		n = kid(t, dir, s->last + strlen(MARK));
		if (n)
			(void)prune(t, n);
		return 0;
	}
	prune_kids(t, dir);
	return 0;
}

/* The folder that an entry goes into. 1; 0 when the entry is a marker or to be passed over, and done; -EBADMSG. */
static int enter(struct tree *t, const char *path, struct split *s, struct tree_node **ret, struct err *err)
{
	int r = split(path, s, err);

	if (r < 0 || s->skip)
		return r;
	if (str_starts(s->last, MARK))
		return marker(t, s, err);
	r = resolve(t, t->root, s->parents, true, ret, err);
	if (r < 0)
		return r;
	return S_ISDIR((*ret)->inode->x.mode) ? 1 : refuse(err, "lies below something that is not a folder");
}

int tree_put(struct tree *t, const char *path, struct ext4_inode *x, struct tree_inode **ret, struct err *err)
{
	struct tree_node *dir, *n;
	struct split s;
	int r;

	r = enter(t, path, &s, &dir, err);
	if (r <= 0)
		return r;
	if (S_ISLNK(x->mode) && (!x->target || !*x->target || strlen(x->target) > TREE_TARGET_MAX))
		return refuse(err, "a link whose target is empty or longer than 4095 bytes");
	if ((S_ISCHR(x->mode) || S_ISBLK(x->mode)) && ++t->n_devices > TREE_DEVICES_MAX)
		return refuse(err, "more than 4096 devices");
	n = s.last[0] ? kid(t, dir, s.last) : t->root;
	if (n && S_ISDIR(x->mode) && S_ISDIR(n->inode->x.mode)) {
		if (charge(t, inode_bytes(x), err) < 0)
			return -EBADMSG;
		t->bytes -= inode_bytes(x);
		inode_replace(t, n->inode, x);
		n->layer = t->layer;
		*ret = n->inode;
		return 1;
	}
	if (n && !n->parent)
		return refuse(err, "the root is not a folder here");
	if (n && n == t->lost_found)
		return refuse(err, "the file system keeps this name for a folder");
	if (n)
		node_remove(t, n);
	r = node_add(t, dir, s.last, x, &n, err);
	if (r < 0)
		return r;
	*ret = n->inode;
	return 1;
}

int tree_link(struct tree *t, const char *path, const char *target, struct err *err)
{
	struct tree_node *dir, *from, *to, *old;
	struct tree_inode *i;
	struct split s, ts;
	int r;

	r = enter(t, path, &s, &dir, err);
	if (r <= 0)
		return r;
	if (split(target, &ts, err) < 0)
		return err_ctx(err, -EBADMSG, "a hard link to what cannot be");
	r = resolve(t, t->root, ts.parents, false, &from, err);
	if (r == -EBADMSG)
		return err_ctx(err, r, "a hard link to what cannot be");
	to = r == 0 && S_ISDIR(from->inode->x.mode) && ts.last[0] ? kid(t, from, ts.last) : NULL;
	if (!to)
		return refuse(err, "a hard link to what is not there");
	if (S_ISDIR(to->inode->x.mode))
		return refuse(err, "a hard link to a folder");
	old = s.last[0] ? kid(t, dir, s.last) : t->root;
	if (old == to) {
		old->layer = t->layer;
		return 1;
	}
	if (old && (old == t->lost_found || !old->parent))
		return refuse(err, "a hard link in place of a folder that must stay");
	if (to->inode->n_names >= TREE_LINKS_MAX)
		return refuse(err, "more than 65,000 names for one file");
	if (dir->depth >= TREE_DEPTH_MAX)
		return refuse(err, "more than 256 levels deep");
	if (charge(t, node_bytes(s.last), err) < 0)
		return -EBADMSG;
	/* The inode must outlive the name that goes, which may be above the target. */
	i = to->inode;
	i->n_names++;
	if (old)
		node_remove(t, old);
	(void)node_new(t, dir, s.last, i);
	i->n_names--;
	return 1;
}

struct tree_node *tree_find(const struct tree *t, const char *path, bool follow)
{
	struct tree *rw = (struct tree *)t; /* nothing is made */
	struct tree_node *n;
	struct split s;

	if (follow)
		return resolve(rw, t->root, path, false, &n, NULL) == 0 ? n : NULL;
	if (split(path, &s, NULL) < 0 || resolve(rw, t->root, s.parents, false, &n, NULL) < 0 || !S_ISDIR(n->inode->x.mode))
		return NULL;
	return s.last[0] ? kid(t, n, s.last) : n;
}

static int name_cmp(const void *pa, const void *pb)
{
	return strcmp((*(struct tree_node *const *)pa)->name, (*(struct tree_node *const *)pb)->name);
}

struct tree_node **tree_sorted(const struct tree_node *dir)
{
	struct tree_node **v = xcalloc(dir->n_kids + 1, sizeof(struct tree_node *));
	size_t n = 0;

	for (struct tree_node *k = dir->kids; k; k = k->next)
		v[n++] = k;
	if (n > 1)
		qsort(v, n, sizeof(struct tree_node *), name_cmp);
	return v;
}
