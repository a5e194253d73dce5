/* Which entries a layer has, and their headers. Pure. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "image/pack.h"

#define WORDS_MAX 3
#define FIND_BYTES (256U << 10)

static const struct npmtar_entry empty;

static void add(struct pack_list *l, char *name, const struct npmtar_entry *file, const char *target)
{
	l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = (struct pack_entry){ name, file, target ? xstrdup(target) : NULL };
}

/* Whether a rule's FROM means this file: itself, or the folder that it is in. What remains of its name. */
static const char *match(const char *from, const char *name)
{
	size_t n = strlen(from);

	if (n > 0 && from[n - 1] == '/')
		return str_starts(name, from) ? name + n : NULL;
	return strcmp(from, name) == 0 ? "" : NULL;
}

struct rule {
	char *mem, *words[WORDS_MAX];
	size_t n;
};

static int rule_read(const char *text, struct rule *ret)
{
	struct rule rule = { .mem = xstrdup(text) };
	char *save = NULL;

	for (char *w = strtok_r(rule.mem, " ", &save); w && rule.n < WORDS_MAX; w = strtok_r(NULL, " ", &save))
		rule.words[rule.n++] = w;
	*ret = rule;
	return rule.n >= 2 ? 0 : -EINVAL;
}

/* The folders from @root (ends in a slash) down to a file in it. */
static void add_folders(struct pack_list *l, const char *root, const char *name)
{
	for (const char *slash = name + strlen(root) - 1; slash; slash = strchr(slash + 1, '/'))
		add(l, xstrndup(name, (size_t)(slash - name)), NULL, NULL);
}

static int take(const struct npmtar *tar, const bool *left, const char *from, const char *to, struct pack_list *l, struct err *err)
{
	bool folder = to[strlen(to) - 1] == '/';
	size_t found = 0;

	for (size_t i = 0; i < tar->n; i++) {
		const char *rest = left[i] ? NULL : match(from, tar->files[i].name);
		char *name;

		if (!rest)
			continue;
		name = xasprintf("%s%s", to, rest);
		if (folder)
			add_folders(l, to, name);
		add(l, name, &tar->files[i], NULL);
		found++;
	}
	return found > 0 ? 0 : err_set(err, -ENOENT, "%s: not in the package; this version of it is another than agent-vm knows", from);
}

static int apply(const struct npmtar *tar, const struct strv *rules, const char *verb, bool *left, struct pack_list *l,
		 struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < rules->n && r == 0; i++) {
		struct rule rule;

		r = rule_read(rules->v[i], &rule);
		if (r == 0 && strcmp(rule.words[0], verb) == 0) {
			if (strcmp(verb, "empty") == 0) {
				add(l, xstrdup(rule.words[1]), &empty, NULL);
			} else if (strcmp(verb, "leave") == 0) {
				for (size_t k = 0; k < tar->n; k++)
					left[k] |= match(rule.words[1], tar->files[k].name) != NULL;
			} else if (rule.n < 3) {
				r = -EINVAL;
			} else if (strcmp(verb, "take") == 0) {
				r = take(tar, left, rule.words[1], rule.words[2], l, err);
			} else {
				add(l, xstrdup(rule.words[1]), NULL, rule.words[2]);
			}
		}
		if (r == -EINVAL)
			(void)err_set(err, r, "rule %zu: not one", i + 1);
		free(rule.mem);
	}
	return r;
}

static int by_name(const void *pa, const void *pb)
{
	const struct pack_entry *a = pa, *b = pb;
	int order = strcmp(a->name, b->name);

	if (order != 0 || !a->file || !b->file)
		return order;
	/* the later of two in the tarball comes last */
	return a->file->at < b->file->at ? -1 : a->file->at > b->file->at;
}

/* Of each name the last stays. Of a folder there may be many, and nothing else. */
static int merge(struct pack_list *l, struct err *err)
{
	size_t n = 0;

	for (size_t i = 0; i < l->n; i++) {
		struct pack_entry *e = &l->v[i];

		if (n > 0 && strcmp(l->v[n - 1].name, e->name) == 0) {
			struct pack_entry *last = &l->v[n - 1];
			AUTO_FREE(char, shown);

			if (!last->file == !e->file && !last->target && !e->target) {
				free(last->name);
				*last = *e;
				e->name = NULL;
				continue;
			}
			shown = str_escape(e->name, MIN(strlen(e->name), (size_t)200));
			/* what is before n was moved; the rest is whole */
			memmove(&l->v[n], e, (l->n - i) * sizeof(*e));
			l->n = n + l->n - i;
			return err_set(err, -EBADMSG, "%s: a file and something else; the package cannot be used", shown);
		}
		l->v[n++] = *e;
	}
	l->n = n;
	return 0;
}

int pack_select(const struct npmtar *tar, const struct strv *rules, struct pack_list *ret, struct err *err)
{
	static const char *const verbs[] = { "leave", "take", "link", "empty" };
	struct pack_list l = { NULL, 0 };
	AUTO_FREE(bool, left);
	int r = 0;

	left = xcalloc(tar->n + 1, sizeof(*left));
	for (size_t i = 0; i < ARRAY_SIZE(verbs) && r == 0; i++)
		r = apply(tar, rules, verbs[i], left, &l, err);
	if (l.n > 1)
		qsort(l.v, l.n, sizeof(*l.v), by_name);
	if (r == 0)
		r = merge(&l, err);
	if (r < 0) {
		pack_list_done(&l);
		return r;
	}
	*ret = l;
	return 0;
}

void pack_list_done(struct pack_list *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free(l->v[i].name);
		free(l->v[i].target);
	}
	free(l->v);
	*l = (struct pack_list){ NULL, 0 };
}

int pack_asset_wanted(const struct strv *rules, struct pack_asset *ret, struct err *err)
{
	struct pack_asset a = { NULL };
	int r = 0;

	for (size_t i = 0; i < rules->n && r == 0; i++) {
		const char *mark, *slash;
		struct rule rule;

		r = rule_read(rules->v[i], &rule);
		mark = r == 0 ? strchr(rule.words[1], '!') : NULL;
		slash = mark ? strchr(mark, '/') : NULL;
		if (mark && (!slash || slash == mark + 1 || slash - mark > PACK_ASSET_MAX ||
			     (a.prefix && (strncmp(rule.words[1], a.prefix, strlen(a.prefix)) != 0 ||
					   rule.words[1][strlen(a.prefix)] != '/'))))
			r = -EINVAL;
		else if (mark && !a.prefix)
			a = (struct pack_asset){ .prefix = xstrndup(rule.words[1], (size_t)(slash - rule.words[1])),
						 .file = xstrndup(rule.words[1], (size_t)(mark - rule.words[1])),
						 .asset = xstrndup(mark + 1, (size_t)(slash - mark - 1)) };
		free(rule.mem);
		if (r < 0)
			(void)err_set(err, r, "rule %zu: not one", i + 1);
	}
	if (r < 0)
		pack_asset_done(&a);
	else
		*ret = a;
	return r;
}

void pack_asset_done(struct pack_asset *a)
{
	free(a->prefix);
	free(a->file);
	free(a->asset);
	*a = (struct pack_asset){ NULL };
}

static uint64_t le64(const uint8_t *p)
{
	uint64_t v = 0;

	for (int i = 8; i-- > 0;)
		v = v << 8 | p[i];
	return v;
}

int pack_asset_find(npmtar_read *read, void *ctx, uint64_t at, uint64_t bytes, const char *asset, uint64_t *ret_at, uint64_t *ret_bytes)
{
	uint8_t head[8 + PACK_ASSET_MAX] = { 0 };
	size_t n = 8 + strlen(asset), whole = n + 8 + 2, have = 0;
	uint64_t end = at + bytes;
	AUTO_FREE(uint8_t, mem);

	if (n > sizeof(head))
		return -ENOENT;
	head[0] = (uint8_t)strlen(asset);
	memcpy(head + 8, asset, n - 8);
	mem = xmalloc(FIND_BYTES);
	/* @mem: the @have bytes in front of @at; the last few may be the beginning of the place. */
	while (at < end) {
		ssize_t k = read(ctx, at, mem + have, (size_t)MIN(end - at, (uint64_t)(FIND_BYTES - have)));
		const uint8_t *p = mem, *found;

		if (k <= 0)
			return k < 0 ? (int)k : -EIO;
		at += (uint64_t)k;
		have += (size_t)k;
		for (; (found = memmem(p, have - (size_t)(p - mem), head, n)) && have - (size_t)(found - mem) >= whole; p = found + 1) {
			uint64_t size = le64(found + n), from = at - (have - (size_t)(found - mem)) + n + 8;

			if (size < 2 || size > end - from || found[n + 8] != 0x1f || found[n + 9] != 0x8b)
				continue;
			*ret_at = from;
			*ret_bytes = size;
			return 0;
		}
		if (have >= whole) {
			memmove(mem, mem + have - (whole - 1), whole - 1);
			have = whole - 1;
		}
	}
	return -ENOENT;
}

/* ustar: at most 100 bytes, or a prefix of 155, a slash, and 100 behind it. */
static int put_name(uint8_t *h, const char *name)
{
	size_t n = strlen(name), at;

	if (n <= 100) {
		memcpy(h, name, n);
		return 0;
	}
	for (at = n > 101 ? n - 101 : 0; name[at] && name[at] != '/'; at++)
		;
	if (!name[at] || at > 155 || !name[at + 1])
		return -EBADMSG;
	memcpy(h + 345, name, at);
	memcpy(h, name + at + 1, n - at - 1);
	return 0;
}

static void put_octal(uint8_t *to, size_t n, uint64_t v)
{
	to[n - 1] = '\0';
	for (size_t i = n - 1; i > 0; i--, v >>= 3)
		to[i - 1] = (uint8_t)('0' + (v & 7));
}

int pack_header(const struct pack_entry *e, uint64_t epoch, uint8_t ret[PACK_HEADER], struct err *err)
{
	uint64_t bytes = e->file ? e->file->bytes : 0;
	unsigned int sum = 0;
	uint8_t h[PACK_HEADER] = { 0 };

	if (put_name(h, e->name) < 0 || (e->target && strlen(e->target) > 100) || bytes >> 33 || epoch >> 33) {
		AUTO_FREE(char, shown);

		shown = str_escape(e->name, MIN(strlen(e->name), (size_t)300));
		return err_set(err, -EBADMSG, "%s: its name or size does not fit into a tar header; the package cannot be used", shown);
	}
	put_octal(h + 100, 8, e->target ? 0777 : !e->file || e->file->executable ? 0755 : 0644);
	put_octal(h + 108, 8, 0);
	put_octal(h + 116, 8, 0);
	put_octal(h + 124, 12, bytes);
	put_octal(h + 136, 12, epoch);
	h[156] = e->target ? '2' : e->file ? '0' : '5';
	if (e->target)
		memcpy(h + 157, e->target, strlen(e->target));
	memcpy(h + 257, "ustar\00000", 8);
	put_octal(h + 329, 8, 0);
	put_octal(h + 337, 8, 0);
	memset(h + 148, ' ', 8);
	for (size_t i = 0; i < PACK_HEADER; i++)
		sum += h[i];
	put_octal(h + 148, 7, sum);
	memcpy(ret, h, sizeof(h));
	return 0;
}
