/* The merge of layers against a slow model: a flat list of whole paths, searched from end to end, in which a marker looks at
 * everything below a path at once. Bytes are orders: kind and two names over a small alphabet, so that they meet. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "base/macros.h"
#include "base/str.h"
#include "fuzz.h"
#include "image/tree.h"

#define ITEMS_MAX 600
#define PATH_LEN 160
#define ORDERS_MAX 60

struct item {
	char path[PATH_LEN]; /* "a/b"; "" the root */
	char kind;	     /* d, f, l */
	unsigned int layer;
	uint32_t id; /* of the inode; 0: a made folder */
	char target[24];
};

static struct item items[ITEMS_MAX];
static size_t n_items;
static unsigned int layer;

static struct item *find(const char *path)
{
	for (size_t i = 0; i < n_items; i++)
		if (strcmp(items[i].path, path) == 0)
			return &items[i];
	return NULL;
}

static bool below(const char *path, const char *dir)
{
	size_t n = strlen(dir);

	return *path && (n == 0 || (strncmp(path, dir, n) == 0 && path[n] == '/'));
}

static void join(char *path, const char *name)
{
	MUST(strlen(path) + strlen(name) + 2 < PATH_LEN);
	if (*path)
		(void)strcat(path, "/");
	(void)strcat(path, name);
}

static void add(const char *path, char kind, uint32_t id, const char *target)
{
	struct item *i = &items[n_items++];

	MUST(n_items < ITEMS_MAX && strlen(path) < PATH_LEN);
	memset(i, 0, sizeof(*i));
	(void)strcpy(i->path, path);
	(void)strcpy(i->target, target);
	i->kind = kind;
	i->layer = layer;
	i->id = id;
}

static void drop_if(bool (*gone)(const struct item *i, const char *path), const char *path)
{
	bool drop[ITEMS_MAX];
	size_t n = 0;

	for (size_t i = 0; i < n_items; i++)
		drop[i] = gone(&items[i], path);
	for (size_t i = 0; i < n_items; i++)
		if (!drop[i])
			items[n++] = items[i];
	n_items = n;
}

static bool is_at_or_below(const struct item *i, const char *path)
{
	return strcmp(i->path, path) == 0 || below(i->path, path);
}

static bool holds_this_layer(const struct item *dir)
{
	for (size_t i = 0; i < n_items; i++)
		if (items[i].layer == layer && below(items[i].path, dir->path))
			return true;
	return false;
}

static bool is_hidden(const struct item *i, const char *path)
{
	return is_at_or_below(i, path) && i->layer < layer && strcmp(i->path, "lost+found") != 0 && !holds_this_layer(i);
}

static void hide(const char *path)
{
	drop_if(is_hidden, path);
	for (size_t i = 0; i < n_items; i++)
		if (is_at_or_below(&items[i], path) && items[i].layer < layer && strcmp(items[i].path, "lost+found") != 0) {
			items[i].layer = layer;
			items[i].id = 0;
		}
}

/* -1: refused; 0: not there; 1: a path whose links are followed */
static int follow(const char *parents, bool make, char *ret)
{
	char rest[4096], cur[PATH_LEN] = "";
	int steps = 0;

	(void)strcpy(rest, parents);
	while (*rest) {
		char name[PATH_LEN], next[PATH_LEN], more[4096];
		size_t n = strcspn(rest, "/");
		struct item *i;

		memcpy(name, rest, n);
		name[n] = '\0';
		memmove(rest, rest + n + (rest[n] == '/'), strlen(rest + n + (rest[n] == '/')) + 1);
		if (n == 0)
			continue;
		i = find(cur);
		if (i->kind != 'd')
			return -1;
		if (strcmp(name, "..") == 0) {
			char *slash = strrchr(cur, '/');

			*(slash ? slash : cur) = '\0';
			continue;
		}
		(void)strcpy(next, cur);
		join(next, name);
		i = find(next);
		if (!i && !make)
			return 0;
		if (!i)
			add(next, 'd', 0, "");
		i = find(next);
		if (i->kind == 'l') {
			if (++steps > 40)
				return -1;
			MUST(snprintf(more, sizeof(more), "%s/%s", i->target, rest) < (int)sizeof(more));
			if (i->target[0] == '/')
				*cur = '\0';
			(void)strcpy(rest, more);
		} else {
			(void)strcpy(cur, next);
		}
	}
	(void)strcpy(ret, cur);
	return find(cur)->kind == 'd' ? 1 : -1;
}

static int model_put(const char *parents, const char *last, char kind, uint32_t id, const char *target)
{
	char path[PATH_LEN];
	struct item *old;

	if (follow(parents, true, path) < 0)
		return -1;
	join(path, last);
	old = find(path);
	if (old && old->kind == 'd' && kind == 'd') {
		old->id = id;
		old->layer = layer;
		return 0;
	}
	drop_if(is_at_or_below, path);
	add(path, kind, id, target);
	return 0;
}

static int model_link(const char *parents, const char *last, const char *to_parents, const char *to_last)
{
	char path[PATH_LEN], to[PATH_LEN];
	struct item *from;
	struct item copy;
	int r;

	if (follow(parents, true, path) < 0)
		return -1;
	join(path, last);
	r = follow(to_parents, false, to);
	if (r <= 0)
		return -1;
	join(to, to_last);
	from = find(to);
	if (!from || from->kind == 'd')
		return -1;
	if (strcmp(path, to) == 0) {
		from->layer = layer;
		return 0;
	}
	copy = *from;
	drop_if(is_at_or_below, path);
	add(path, copy.kind, copy.id, copy.target);
	return 0;
}

static int model_marker(const char *parents, const char *last, bool opaque)
{
	char path[PATH_LEN];
	int r = follow(parents, false, path);

	if (r <= 0)
		return r;
	if (!opaque) {
		join(path, last);
		if (find(path))
			hide(path);
		return 0;
	}
	/* Every child, of which there are only these names. */
	for (const char *const *n = (const char *const[]){ "a", "b", "c", "d", "lost+found", NULL }; *n; n++) {
		char kid[PATH_LEN];

		(void)strcpy(kid, path);
		join(kid, *n);
		if (find(kid))
			hide(kid);
	}
	return 0;
}

/* Up to four components; the last apart. */
static void name_from(uint8_t b, uint8_t depth, char *parents, char *last)
{
	static const char *const names[] = { "a", "b", "c", "d" };

	parents[0] = '\0';
	for (unsigned int i = 0; i < (depth & 3U); i++)
		join(parents, names[b >> 2 * i & 3]);
	(void)strcpy(last, names[b >> 6 & 3]);
}

static void compare_node(const struct tree_node *n, const char *path, size_t *count)
{
	const struct item *i = find(path);

	MUST(i && i->id == n->inode->x.uid && i->layer == n->layer);
	MUST((i->kind == 'd') == S_ISDIR(n->inode->x.mode) && (i->kind == 'l') == S_ISLNK(n->inode->x.mode));
	if (i->kind != 'd') {
		uint32_t names = 0;

		for (size_t k = 0; k < n_items; k++)
			names += items[k].kind != 'd' && items[k].id == i->id;
		MUST(n->inode->n_names == names);
	}
	(*count)++;
	for (const struct tree_node *k = n->kids; k; k = k->next) {
		char full[PATH_LEN];

		(void)strcpy(full, path);
		join(full, k->name);
		compare_node(k, full, count);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const char *const targets[] = { "a", "b/c", "../d", "/", "/a/b", "..", "c", "/d/../b" };
	struct tree *t = tree_new(0, NULL, NULL);
	uint32_t id = 0;
	size_t count;

	n_items = 0;
	layer = 0;
	add("", 'd', 0, "");
	add("lost+found", 'd', 0, "");
	layer = 1;
	tree_next_layer(t);
	for (size_t at = 0; at + 4 <= n && at < 4 * ORDERS_MAX; at += 4) {
		char parents[PATH_LEN], last[24], to_parents[PATH_LEN], to_last[24], path[2 * PATH_LEN], to[2 * PATH_LEN];
		struct ext4_inode x = { .uid = ++id };
		struct tree_inode *i;
		int r, m;

		name_from(p[at + 1], p[at + 2], parents, last);
		name_from(p[at + 3], (uint8_t)(p[at + 2] >> 2), to_parents, to_last);
		(void)snprintf(path, sizeof(path), "%s%s%s", parents, *parents ? "/" : "./", last);
		(void)snprintf(to, sizeof(to), "%s/%s", *to_parents ? to_parents : ".", to_last);
		switch (p[at] % 8) {
		case 0:
		case 1:
			x.mode = S_IFREG;
			r = tree_put(t, path, &x, &i, NULL);
			m = model_put(parents, last, 'f', id, "");
			break;
		case 2:
			x.mode = S_IFDIR;
			r = tree_put(t, path, &x, &i, NULL);
			m = model_put(parents, last, 'd', id, "");
			break;
		case 3:
			x.mode = S_IFLNK;
			x.target = xstrdup(targets[p[at + 3] % ARRAY_SIZE(targets)]);
			r = tree_put(t, path, &x, &i, NULL);
			m = model_put(parents, last, 'l', id, targets[p[at + 3] % ARRAY_SIZE(targets)]);
			break;
		case 4:
			r = tree_link(t, path, to, NULL);
			m = model_link(parents, last, to_parents, to_last);
			break;
		case 5:
			(void)snprintf(path, sizeof(path), "%s/.wh.%s", *parents ? parents : ".", last);
			r = tree_put(t, path, &x, &i, NULL);
			m = model_marker(parents, last, false);
			break;
		case 6:
			(void)snprintf(path, sizeof(path), "%s/.wh..wh..opq", *parents ? parents : ".");
			r = tree_put(t, path, &x, &i, NULL);
			m = model_marker(parents, last, true);
			break;
		default:
			tree_next_layer(t);
			layer++;
			r = m = 0;
		}
		ext4_inode_done(&x);
		MUST((r < 0) == (m < 0));
		count = 0; /* a refused entry may have made parents: the same ones */
		compare_node(tree_root(t), "", &count);
		MUST(count == n_items);
	}
	tree_free(t);
	return 0;
}
