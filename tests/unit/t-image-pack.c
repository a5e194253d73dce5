#include "test.h"

#include <errno.h>

#include "base/macros.h"
#include "image/pack.h"

#define BLOCK 512

/* A tar under construction. */
struct tar {
	uint8_t mem[64 * BLOCK];
	size_t n;
};

static void put(struct tar *t, char type, const char *name, const char *mode, const void *p, size_t n)
{
	struct npmtar_entry file = { NULL, false, 0, n };
	struct pack_entry e = { (char *)"x", &file, NULL };
	uint8_t *h = t->mem + t->n;
	unsigned int sum = 0;
	struct err err;

	CHECK_INT(pack_header(&e, 0, h, &err), ==, 0);
	memset(h, 0, 100);
	memcpy(h, name, MIN(strlen(name), (size_t)100));
	if (mode)
		memcpy(h + 100, mode, 8);
	h[156] = (uint8_t)type;
	memset(h + 148, ' ', 8);
	for (int i = 0; i < BLOCK; i++)
		sum += h[i];
	(void)snprintf((char *)h + 148, 8, "%06o", sum);
	if (n > 0)
		memcpy(h + BLOCK, p, n);
	t->n += BLOCK + (n + BLOCK - 1) / BLOCK * BLOCK;
}

static void file(struct tar *t, const char *name)
{
	put(t, '0', name, NULL, "content", 7);
}

static ssize_t read_at(void *ctx, uint64_t at, void *p, size_t n)
{
	const struct tar *t = ctx;

	n = MIN(n, t->n - (size_t)at);
	n = MIN(n, (size_t)300); /* short reads */
	memcpy(p, t->mem + at, n);
	return (ssize_t)n;
}

static int index_of(struct tar *t, struct npmtar *ret, struct err *err)
{
	t->n += 2 * (size_t)BLOCK;
	return npmtar_index(read_at, t, t->n, ret, err);
}

static void refused(struct tar *t, const char *why)
{
	struct npmtar out;
	struct err err;

	CHECK_INT(index_of(t, &out, &err), ==, -EBADMSG);
	if (!strstr(err.text, why))
		fail_msg("says %s, not %s", err.text, why);
}

TEST(files_are_found_and_folders_left_out)
{
	struct tar t = { { 0 }, 0 };
	struct npmtar out;
	struct err err;

	put(&t, '5', "package/", NULL, NULL, 0);
	put(&t, 'g', "pax", NULL, "13 comment=x\n", 13);
	put(&t, '0', "./package//bin", "0000755", "content", 7);
	put(&t, 'x', "pax", NULL, "26 path=package/long/name\n", 26);
	put(&t, '\0', "cut", "0000644", "content", 7);
	CHECK_INT(index_of(&t, &out, &err), ==, 0);
	CHECK_INT(out.n, ==, 2);
	CHECK_STR(out.files[0].name, "package/bin");
	CHECK(out.files[0].executable && !out.files[1].executable);
	CHECK_STR(out.files[1].name, "package/long/name");
	CHECK_INT(out.files[1].bytes, ==, 7);
	assert_memory_equal(t.mem + out.files[1].at, "content", 7);
	npmtar_done(&out);
}

TEST(names_that_lead_elsewhere_are_refused)
{
	static const char *const names[] = { "/a", "..", "../a", "a/../b", "a/..", "" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct tar t = { { 0 }, 0 };

		file(&t, names[i]);
		refused(&t, "an absolute name");
	}
}

TEST(what_is_no_plain_file_is_refused)
{
	static const char types[] = "123467SLKVAX";

	for (size_t i = 0; i < sizeof(types) - 1; i++) {
		struct tar t = { { 0 }, 0 };

		put(&t, types[i], "package/x", NULL, NULL, 0);
		refused(&t, "package/x: not a plain file");
	}
}

TEST(records_that_are_none_are_refused)
{
	static const char *const records[] = {
		"x", "9 path=ab", "8 path=ab\n", "99 path=ab\n", "0 path=ab\n", "-9 path=ab\n", "9 path=a\n9", "20 linkpath=/etc/x\n",
		"21 GNU.sparse.major=1\n", "13 size=-100\n", "5 =a\nx",
	};

	for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
		struct tar t = { { 0 }, 0 };

		put(&t, 'x', "pax", NULL, records[i], strlen(records[i]));
		file(&t, "package/x");
		refused(&t, "PAX header");
	}
	{
		struct tar t = { { 0 }, 0 };

		put(&t, 'x', "pax", NULL, "11 path=a\0b\n", 12);
		file(&t, "package/x");
		refused(&t, "PAX header");
	}
}

TEST(an_entry_past_the_end_is_refused)
{
	struct tar t = { { 0 }, 0 };

	put(&t, 'x', "pax", NULL, "17 size=99999999\n", 17);
	file(&t, "package/x");
	refused(&t, "runs past the end");
}

static char *names_of(const struct pack_list *l)
{
	char *all = xstrdup("");

	for (size_t i = 0; i < l->n; i++) {
		char *more = xasprintf("%s%s%s%s", all, i ? " " : "", l->v[i].name, l->v[i].target ? "@" : l->v[i].file ? "" : "/");

		free(all);
		all = more;
	}
	return all;
}

static int select_from(const struct npmtar *tar, const char *const *rules, size_t n, char **ret, struct err *err)
{
	struct strv v = { NULL, 0 };
	struct pack_list l;
	int r;

	for (size_t i = 0; i < n; i++)
		strv_add(&v, rules[i]);
	r = pack_select(tar, &v, &l, err);
	if (r == 0) {
		*ret = names_of(&l);
		pack_list_done(&l);
	}
	strv_done(&v);
	return r;
}

static struct npmtar_entry entries[] = {
	{ (char *)"package/b/z", false, 512, 1 },     { (char *)"package/a", true, 1536, 1 },
	{ (char *)"package/b/c/y", false, 2560, 1 },  { (char *)"package/b/left/x", false, 3584, 1 },
	{ (char *)"package/b.txt", false, 4608, 1 },  { (char *)"package/a", false, 5632, 2 },
};
static const struct npmtar tar_of_entries = { entries, ARRAY_SIZE(entries) };

TEST(rules_select_and_place)
{
	static const char *const rules[] = { "take package/b/ lib/b/", "leave package/b/left/", "take package/a bin/a", "link bin/l ../lib/b/z" };
	AUTO_FREE(char, names);
	struct err err;

	CHECK_INT(select_from(&tar_of_entries, rules, ARRAY_SIZE(rules), &names, &err), ==, 0);
	CHECK_STR(names, "bin/a bin/l@ lib/b/ lib/b/c/ lib/b/c/y lib/b/z");
}

TEST(of_two_entries_the_later_counts)
{
	struct strv v = { NULL, 0 };
	struct pack_list l;
	struct err err;

	strv_add(&v, "take package/a x");
	CHECK_INT(pack_select(&tar_of_entries, &v, &l, &err), ==, 0);
	CHECK_INT(l.n, ==, 1);
	CHECK_INT(l.v[0].file->bytes, ==, 2);
	pack_list_done(&l);
	strv_done(&v);
}

TEST(a_rule_that_finds_nothing_is_refused)
{
	static const char *const none[] = { "take package/absent x" }, *const broken[] = { "take package/a" }, *const word[] = { "take" };
	char *names;
	struct err err;

	CHECK_INT(select_from(&tar_of_entries, none, 1, &names, &err), ==, -ENOENT);
	CHECK(strstr(err.text, "package/absent"));
	CHECK_INT(select_from(&tar_of_entries, broken, 1, &names, &err), ==, -EINVAL);
	CHECK_INT(select_from(&tar_of_entries, word, 1, &names, &err), ==, -EINVAL);
}

TEST(a_file_where_a_folder_is_is_refused)
{
	struct npmtar_entry both[] = { { (char *)"package/x", false, 512, 1 }, { (char *)"package/x/y", false, 1536, 1 },
				       { (char *)"package/z", false, 2560, 1 } };
	const struct npmtar tar = { both, 3 };
	static const char *const rules[] = { "take package/ lib/" };
	char *names;
	struct err err;

	CHECK_INT(select_from(&tar, rules, 1, &names, &err), ==, -EBADMSG);
	CHECK(strstr(err.text, "lib/x: a file and something else"));
}

TEST(a_tarball_inside_a_file_is_wanted_once)
{
	static const struct {
		const char *one, *two, *prefix;
		int r;
	} cases[] = {
		{ "take package/a x", "link a b", NULL, 0 },
		{ "take package/a x", "take package/a!b.tgz/package/ lib/", "package/a!b.tgz", 0 },
		{ "leave package/a!b.tgz/y/", "take package/a!b.tgz/x z", "package/a!b.tgz", 0 },
		{ "take package/a!b.tgz/x y", "take package/a!c.tgz/x y", NULL, -EINVAL },
		{ "take package/a!b.tgz/x y", "take package/a!b.tgzz/x y", NULL, -EINVAL },
		{ "take package/a!b.tgz x", "link a b", NULL, -EINVAL },
		{ "take package/a!/x y", "link a b", NULL, -EINVAL },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct pack_asset a = { NULL };
		struct strv v = { NULL, 0 };
		struct err err;

		strv_add(&v, cases[i].one);
		strv_add(&v, cases[i].two);
		CHECK_INT(pack_asset_wanted(&v, &a, &err), ==, cases[i].r);
		CHECK(!a.prefix == !cases[i].prefix);
		if (a.prefix) {
			CHECK_STR(a.prefix, cases[i].prefix);
			CHECK_STR(a.file, "package/a");
			CHECK_STR(a.asset, "b.tgz");
		}
		pack_asset_done(&a);
		strv_done(&v);
	}
}

struct image {
	uint8_t *mem;
	size_t n, piece;
};

static ssize_t read_image(void *ctx, uint64_t at, void *p, size_t n)
{
	const struct image *m = ctx;

	n = MIN(MIN(n, m->n - (size_t)at), m->piece);
	memcpy(p, m->mem + at, n);
	return (ssize_t)n;
}

#define PLACE "\5\0\0\0\0\0\0\0a.tgz\4\0\0\0\0\0\0\0\x1f\x8b.."

TEST(an_asset_is_found_wherever_it_begins)
{
	static const size_t pieces[] = { 1 << 20, 70000, 100, 1 };
	struct image m = { .mem = xcalloc(1, 700000), .n = 700000 };
	uint64_t at, bytes;

	for (size_t k = 0; k < ARRAY_SIZE(pieces); k++) {
		/* Around the end of a piece of 256 KiB, and at both ends of the file. */
		for (size_t from = 262144 - 30; from < 262144 + 3; from += pieces[k] < 1000 ? 11 : 1) {
			m.piece = pieces[k];
			memcpy(m.mem + from, PLACE, sizeof(PLACE) - 1);
			CHECK_INT(pack_asset_find(read_image, &m, 0, m.n, "a.tgz", &at, &bytes), ==, 0);
			CHECK(at == from + 21 && bytes == 4);
			/* In a part of it that it does not lie in whole. */
			CHECK_INT(pack_asset_find(read_image, &m, from + 1, m.n - from - 1, "a.tgz", &at, &bytes), ==, -ENOENT);
			CHECK_INT(pack_asset_find(read_image, &m, from - 5, 5 + 21 + 3, "a.tgz", &at, &bytes), ==, -ENOENT);
			CHECK_INT(pack_asset_find(read_image, &m, from, 21 + 4, "a.tgz", &at, &bytes), ==, 0);
			memset(m.mem + from, 0, sizeof(PLACE));
		}
	}
	CHECK_INT(pack_asset_find(read_image, &m, 0, m.n, "a.tgz", &at, &bytes), ==, -ENOENT);
	CHECK_INT(pack_asset_find(read_image, &m, 0, 0, "a.tgz", &at, &bytes), ==, -ENOENT);
	/* Another name, no gzip, and a size past the end come first. */
	memcpy(m.mem, PLACE, sizeof(PLACE) - 1);
	m.mem[8] = 'b';
	memcpy(m.mem + 100, PLACE, sizeof(PLACE) - 1);
	m.mem[100 + 21] = 0;
	memcpy(m.mem + 200, PLACE, sizeof(PLACE) - 1);
	m.mem[200 + 20] = 0xff;
	memcpy(m.mem + 300, PLACE, sizeof(PLACE) - 1);
	m.piece = 1000;
	CHECK_INT(pack_asset_find(read_image, &m, 0, m.n, "a.tgz", &at, &bytes), ==, 0);
	CHECK_INT(at, ==, 321);
	free(m.mem);
}

TEST(headers_take_long_names_by_prefix_or_not_at_all)
{
	struct npmtar_entry f = { NULL, true, 0, 8 };
	char name[400];
	struct pack_entry e = { name, &f, NULL };
	uint8_t h[PACK_HEADER];
	struct err err;

	memset(name, 'a', sizeof(name));
	name[100] = '\0';
	CHECK_INT(pack_header(&e, 1, h, &err), ==, 0);
	CHECK_INT(h[345], ==, 0);
	name[100] = 'a';
	name[101] = '\0';
	CHECK_INT(pack_header(&e, 1, h, &err), ==, -EBADMSG);
	name[150] = '/';
	name[101] = 'a';
	name[251] = '\0';
	CHECK_INT(pack_header(&e, 1, h, &err), ==, 0);
	CHECK_INT(h[345], ==, 'a');
	CHECK_INT(h[345 + 149], ==, 'a');
	CHECK_INT(h[345 + 150], ==, 0);
	assert_memory_equal(h + 124, "00000000010", 12);
	assert_memory_equal(h + 100, "0000755", 8);
	name[251] = 'a';
	name[252] = '\0';
	CHECK_INT(pack_header(&e, 1, h, &err), ==, -EBADMSG);
	name[3] = '\0';
	f.bytes = 1ULL << 33;
	CHECK_INT(pack_header(&e, 1, h, &err), ==, -EBADMSG);
}
