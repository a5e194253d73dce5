/* The merge of layers: every sentence of the image page 4.1 that speaks of names, and the bounds of 4.2 that are the tree's. */
#include <errno.h>
#include <sys/stat.h>

#include "base/str.h"
#include "image/tree.h"
#include "test.h"

static struct tree *t;
static struct err why;

static int put(const char *path, mode_t mode, const char *target)
{
	struct ext4_inode x = { .mode = mode, .uid = 7, .mtime = 5, .target = target ? xstrdup(target) : NULL };
	struct tree_inode *i = NULL;
	int r;

	why.text[0] = '\0';
	r = tree_put(t, path, &x, &i, &why);
	CHECK((r == 1) == (i != NULL));
	ext4_inode_done(&x);
	return r;
}

static int file(const char *path)
{
	return put(path, S_IFREG | 0644, NULL);
}

static int folder(const char *path)
{
	return put(path, S_IFDIR | 0700, NULL);
}

static int symlink_to(const char *path, const char *target)
{
	return put(path, S_IFLNK | 0777, target);
}

static int hard(const char *path, const char *target)
{
	why.text[0] = '\0';
	return tree_link(t, path, target, &why);
}

static void begin(void)
{
	t = tree_new(3, NULL, NULL);
	tree_next_layer(t);
}

static const struct ext4_inode *at(const char *path)
{
	struct tree_node *n = tree_find(t, path, false);

	return n ? &n->inode->x : NULL;
}

static bool is(const char *path, mode_t kind)
{
	const struct ext4_inode *x = at(path);

	return x && (x->mode & S_IFMT) == kind;
}

/* All names, sorted, divided by spaces; without lost+found. */
static void list(const struct tree_node *dir, const char *path, char *ret, size_t size)
{
	struct tree_node **kids = tree_sorted(dir);

	for (size_t i = 0; i < dir->n_kids; i++) {
		char *full = xasprintf("%s%s%s", path, *path ? "/" : "", kids[i]->name);

		if (strcmp(full, "lost+found") != 0)
			(void)snprintf(ret + strlen(ret), size - strlen(ret), "%s%s", *ret ? " " : "", full);
		list(kids[i], full, ret, size);
		free(full);
	}
	free(kids);
}

static const char *all(void)
{
	static char names[4096];

	names[0] = '\0';
	list(tree_root(t), "", names, sizeof(names));
	return names;
}

#define REFUSED(call, cause)                         \
	do {                                         \
		CHECK_INT(call, ==, -EBADMSG);       \
		CHECK_STR(why.text, cause);          \
	} while (0)

TEST(names_are_tidied)
{
	begin();
	CHECK_INT(file("./a"), ==, 1);
	CHECK_INT(folder("./"), ==, 1);
	CHECK_INT(folder("b///c//"), ==, 1);
	CHECK_INT(file("./b/./c/./d"), ==, 1);
	CHECK_INT(folder("."), ==, 1);
	CHECK_STR(all(), "a b b/c b/c/d");
	CHECK(tree_root(t)->inode->x.uid == 7);
	tree_free(t);
}

TEST(what_names_may_not_be)
{
	char *name = xmalloc(5000);

	begin();
	REFUSED(file("/a"), "an absolute name");
	REFUSED(file("a/../b"), "a name with '..'");
	REFUSED(file(".."), "a name with '..'");
	REFUSED(folder("a/.."), "a name with '..'");
	REFUSED(file(""), "an empty name");
	REFUSED(file("./"), "the root is not a folder here");
	memset(name, 'n', 5000);
	name[256] = '\0';
	REFUSED(file(name), "a component longer than 255 bytes");
	name[255] = '\0';
	CHECK_INT(file(name), ==, 1);
	for (size_t i = 0; i < 5000; i++)
		name[i] = i % 2 ? '/' : 'n';
	name[4097] = '\0';
	REFUSED(file(name), "a name longer than 4096 bytes");
	name[2 * 256 - 1] = '\0';
	CHECK_INT(file(name), ==, 1);
	CHECK_INT(tree_find(t, name, false)->depth, ==, 256);
	(void)memcpy(name + 511, "/n", 3);
	REFUSED(file(name), "lies below something that is not a folder");
	name[0] = 'm';
	REFUSED(file(name), "more than 256 levels deep");
	free(name);
	tree_free(t);
}

TEST(names_keep_their_bytes)
{
	begin();
	CHECK_INT(file("\xff\xfe/\xc3\xbc \n"), ==, 1);
	CHECK_INT(file("...") + file("..a") + file(".w"), ==, 3);
	CHECK_STR(all(), "... ..a .w \xff\xfe \xff\xfe/\xc3\xbc \n");
	tree_free(t);
}

TEST(a_missing_parent_is_made)
{
	begin();
	CHECK_INT(file("a/b/c"), ==, 1);
	CHECK(at("a/b")->mode == (S_IFDIR | 0755) && at("a/b")->uid == 0 && at("a/b")->mtime == 0);
	CHECK_INT(folder("a/b"), ==, 1);
	CHECK(at("a/b")->mode == (S_IFDIR | 0700) && is("a/b/c", S_IFREG));
	tree_free(t);
}

TEST(a_parent_that_is_a_link_is_followed_inside_the_tree)
{
	begin();
	(void)folder("real/deep");
	(void)symlink_to("abs", "/real");
	(void)symlink_to("real/up", "../../../real");
	(void)symlink_to("hop", "abs/deep/");
	(void)symlink_to("self", ".");
	CHECK_INT(file("abs/1") + file("real/up/2") + file("hop/3") + file("self/self/real/4"), ==, 4);
	CHECK_STR(all(), "abs hop real real/1 real/2 real/4 real/deep real/deep/3 real/up self");
	tree_free(t);
}

TEST(a_dangling_link_is_made_folders_at_its_target)
{
	begin();
	(void)symlink_to("l", "x/y");
	(void)symlink_to("m", "/../z");
	CHECK_INT(file("l/f") + file("m/g"), ==, 2);
	CHECK_STR(all(), "l m x x/y x/y/f z z/g");
	CHECK(is("l", S_IFLNK) && at("x/y")->mode == (S_IFDIR | 0755));
	(void)symlink_to("n", "q/.wh.r");
	REFUSED(file("n/f"), "lies below the name of a marker");
	tree_free(t);
}

TEST(at_most_40_links_are_followed)
{
	begin();
	(void)folder("d");
	(void)symlink_to("l0", "d");
	for (int i = 1; i <= 40; i++) {
		char *name = xasprintf("l%d", i), *target = xasprintf("l%d", i - 1);

		(void)symlink_to(name, target);
		free(name);
		free(target);
	}
	CHECK_INT(file("l39/f"), ==, 1);
	REFUSED(file("l40/f"), "lies below more than 40 links");
	(void)symlink_to("loop", "loop/x");
	REFUSED(file("loop/f"), "lies below more than 40 links");
	tree_free(t);
}

TEST(a_parent_of_another_kind_is_refused)
{
	begin();
	(void)file("f");
	(void)put("c", S_IFCHR | 0600, NULL);
	(void)symlink_to("l", "f");
	REFUSED(file("f/x"), "lies below something that is not a folder");
	REFUSED(file("f/x/y"), "lies below something that is not a folder");
	REFUSED(folder("c/x"), "lies below something that is not a folder");
	REFUSED(file("l/x"), "lies below something that is not a folder");
	REFUSED(file("f/.wh.x"), "lies below something that is not a folder");
	tree_free(t);
}

TEST(the_last_component_is_never_followed)
{
	begin();
	(void)folder("d");
	(void)symlink_to("l", "d");
	CHECK_INT(file("l"), ==, 1);
	CHECK(is("l", S_IFREG) && is("d", S_IFDIR));
	(void)symlink_to("l", "d");
	CHECK_INT(folder("l"), ==, 1);
	CHECK(is("l", S_IFDIR));
	tree_free(t);
}

TEST(folder_over_folder_keeps_children_anything_else_goes_with_its_subtree)
{
	begin();
	(void)file("d/a");
	(void)file("d/sub/b");
	tree_next_layer(t);
	CHECK_INT(folder("d"), ==, 1);
	CHECK_STR(all(), "d d/a d/sub d/sub/b");
	CHECK(at("d")->mode == (S_IFDIR | 0700));
	CHECK_INT(file("d"), ==, 1);
	CHECK_STR(all(), "d");
	CHECK_INT(folder("d"), ==, 1);
	CHECK(is("d", S_IFDIR));
	CHECK_INT(put("d", S_IFIFO, NULL), ==, 1);
	CHECK(is("d", S_IFIFO));
	tree_free(t);
}

TEST(a_marker_removes_what_lower_layers_put)
{
	begin();
	(void)file("d/a");
	(void)file("d/b");
	(void)folder("e");
	(void)file("e/x/y");
	tree_next_layer(t);
	CHECK_INT(file("d/.wh.a"), ==, 0);
	CHECK_INT(put(".wh.e", S_IFCHR, NULL), ==, 0);
	CHECK_INT(folder("./.wh.none"), ==, 0);
	CHECK_INT(hard("no/such/.wh.a", "d/b"), ==, 0);
	CHECK_STR(all(), "d d/b");
	tree_free(t);
}

TEST(a_marker_leaves_its_own_layer_before_and_after_it)
{
	for (int order = 0; order < 2; order++) {
		begin();
		(void)folder("a");
		(void)file("a/low");
		(void)file("f");
		tree_next_layer(t);
		if (order)
			(void)file(".wh.a");
		(void)file("a/new");
		(void)file("a/sub/new");
		if (!order)
			(void)file(".wh.a");
		(void)file("f");
		(void)file(".wh.f");
		CHECK_STR(all(), "a a/new a/sub a/sub/new f");
		CHECK(at("a")->mode == (S_IFDIR | 0755) && at("a")->uid == 0 && at("a")->mtime == 0);
		(void)folder("a");
		(void)file(".wh.a");
		CHECK(at("a")->mode == (S_IFDIR | 0700));
		tree_free(t);
	}
}

TEST(an_opaque_marker_hides_lower_children_only)
{
	for (int order = 0; order < 2; order++) {
		begin();
		(void)folder("d");
		(void)file("d/low");
		(void)file("d/sub/low");
		(void)file("other");
		tree_next_layer(t);
		if (order)
			CHECK_INT(file("d/.wh..wh..opq"), ==, 0);
		(void)file("d/new");
		(void)file("d/sub/new");
		if (!order)
			CHECK_INT(file("d/.wh..wh..opq"), ==, 0);
		CHECK_STR(all(), "d d/new d/sub d/sub/new other");
		CHECK(at("d")->mode == (S_IFDIR | 0700));
		tree_free(t);
	}
}

TEST(an_opaque_root_leaves_the_root)
{
	begin();
	(void)file("a/b");
	tree_next_layer(t);
	CHECK_INT(file(".wh..wh..opq"), ==, 0);
	CHECK_STR(all(), "");
	CHECK(is("lost+found", S_IFDIR));
	tree_free(t);
}

TEST(markers_of_no_name_are_refused_and_other_ones_passed_over)
{
	begin();
	(void)file("a");
	tree_next_layer(t);
	REFUSED(file(".wh."), "a marker that names nothing");
	REFUSED(file(".wh.."), "a marker that names nothing");
	REFUSED(file("d/.wh..."), "a marker that names nothing");
	REFUSED(file(".wh.a/b"), "below the name of a marker");
	CHECK_INT(folder(".wh..wh.plnk"), ==, 0);
	CHECK_INT(file(".wh..wh.plnk/1.2"), ==, 0);
	CHECK_INT(file(".wh..wh.aufs"), ==, 0);
	CHECK_STR(all(), "a");
	tree_free(t);
}

TEST(a_hard_link_names_the_same_file)
{
	begin();
	(void)file("d/a");
	(void)symlink_to("l", "d");
	tree_next_layer(t);
	CHECK_INT(hard("b", "./l/a"), ==, 1);
	CHECK_INT(hard("c", "l"), ==, 1);
	CHECK(tree_find(t, "b", false)->inode == tree_find(t, "d/a", false)->inode);
	CHECK(is("c", S_IFLNK) && tree_find(t, "c", false)->inode->n_names == 2);
	CHECK_INT(hard("new/d", "b"), ==, 1);
	CHECK_INT(tree_find(t, "b", false)->inode->n_names, ==, 3);
	CHECK_INT(file("d/.wh.a"), ==, 0);
	CHECK_INT(tree_find(t, "b", false)->inode->n_names, ==, 2);
	CHECK_INT(file("b"), ==, 1);
	CHECK_INT(tree_find(t, "new/d", false)->inode->n_names, ==, 1);
	tree_free(t);
}

TEST(a_hard_link_onto_itself_and_out_of_a_subtree_that_goes)
{
	begin();
	(void)file("d/a");
	tree_next_layer(t);
	CHECK_INT(hard("d/a", "d/a"), ==, 1);
	CHECK_INT(tree_find(t, "d/a", false)->inode->n_names, ==, 1);
	CHECK_INT(file("d/.wh.a"), ==, 0);
	CHECK(is("d/a", S_IFREG));
	CHECK_INT(hard("d", "d/a"), ==, 1);
	CHECK_STR(all(), "d");
	CHECK(is("d", S_IFREG) && tree_find(t, "d", false)->inode->n_names == 1);
	tree_free(t);
}

TEST(what_a_hard_link_may_not_name)
{
	begin();
	(void)file("f");
	(void)folder("d");
	REFUSED(hard("x", "none"), "a hard link to what is not there");
	REFUSED(hard("x", "f/x"), "a hard link to what is not there");
	REFUSED(hard("x", "d"), "a hard link to a folder");
	REFUSED(hard("x", "."), "a hard link to what is not there");
	REFUSED(hard("x", "/f"), "a hard link to what cannot be: an absolute name");
	REFUSED(hard("x", "d/../f"), "a hard link to what cannot be: a name with '..'");
	REFUSED(hard(".", "f"), "a hard link in place of a folder that must stay");
	REFUSED(hard("lost+found", "f"), "a hard link in place of a folder that must stay");
	tree_next_layer(t);
	(void)file(".wh.f");
	REFUSED(hard("x", "f"), "a hard link to what is not there");
	tree_free(t);
}

TEST(targets_of_links_have_1_to_4095_bytes)
{
	char *target = xcalloc(1, 4097);

	begin();
	REFUSED(symlink_to("l", ""), "a link whose target is empty or longer than 4095 bytes");
	memset(target, 't', 4096);
	REFUSED(symlink_to("l", target), "a link whose target is empty or longer than 4095 bytes");
	target[4095] = '\0';
	CHECK_INT(symlink_to("l", target), ==, 1);
	REFUSED(file("l/f"), "lies below a link to a name longer than 255 bytes");
	free(target);
	tree_free(t);
}

TEST(bounds_of_links_devices_and_memory)
{
	char name[32], *target = xcalloc(1, 4096);
	int r = 1;

	begin();
	(void)file("f");
	for (int i = 1; i < 65000; i++) {
		(void)snprintf(name, sizeof(name), "l%d", i);
		CHECK_INT(hard(name, "f"), ==, 1);
	}
	REFUSED(hard("more", "f"), "more than 65,000 names for one file");
	for (int i = 0; i < 4096; i++) {
		(void)snprintf(name, sizeof(name), "dev%d", i);
		CHECK_INT(put(name, i % 2 ? S_IFCHR : S_IFBLK, NULL), ==, 1);
	}
	REFUSED(put("more", S_IFCHR, NULL), "more than 4096 devices");
	memset(target, 't', 4095);
	for (int i = 0; i < 300000 && r == 1; i++) {
		(void)snprintf(name, sizeof(name), "big%d", i);
		r = symlink_to(name, target);
	}
	CHECK_INT(r, ==, -EBADMSG);
	CHECK_STR(why.text, "names, targets and attributes of more than 1 GiB");
	free(target);
	tree_free(t);
}

TEST(what_was_taken_away_is_not_counted_any_more)
{
	char *target = xcalloc(1, 4096);

	begin();
	memset(target, 't', 4095);
	for (int i = 0; i < 400000; i++)
		CHECK_INT(symlink_to("same", target), ==, 1);
	free(target);
	tree_free(t);
}

static unsigned int n_dropped;

static void count_drop(void *ctx, struct ext4_inode *x)
{
	CHECK(ctx == &n_dropped && S_ISREG(x->mode));
	n_dropped++;
}

TEST(a_file_is_dropped_with_its_last_name)
{
	t = tree_new(0, count_drop, &n_dropped);
	tree_next_layer(t);
	(void)file("a");
	(void)hard("b", "a");
	tree_next_layer(t);
	(void)file(".wh.a");
	CHECK_INT(n_dropped, ==, 0);
	(void)file("b");
	CHECK_INT(n_dropped, ==, 1);
	tree_free(t);
}

TEST(lost_and_found_stays)
{
	begin();
	(void)file("lost+found/x");
	CHECK_INT(folder("lost+found"), ==, 1);
	tree_next_layer(t);
	CHECK_INT(file(".wh.lost+found"), ==, 0);
	CHECK(is("lost+found", S_IFDIR) && !at("lost+found/x"));
	REFUSED(file("lost+found"), "the file system keeps this name for a folder");
	tree_free(t);
}

TEST(a_name_is_found_with_links_followed_or_not)
{
	begin();
	(void)file("usr/bin/bash");
	(void)symlink_to("bin", "usr/bin");
	(void)symlink_to("sh", "/bin/bash");
	(void)symlink_to("none", "nowhere");
	CHECK(tree_find(t, "bin/bash", true) == tree_find(t, "usr/bin/bash", false));
	CHECK(tree_find(t, "sh", true) == tree_find(t, "usr/bin/bash", false));
	CHECK(is("sh", S_IFLNK) && !tree_find(t, "none", true) && !tree_find(t, "usr/bin/bash/x", true));
	tree_free(t);
}
