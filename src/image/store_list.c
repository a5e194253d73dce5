/* What is in the store, how much room it takes, and what of it nothing needs. Sizes are allocated blocks: disks are
 * sparse. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/macros.h"
#include "image/store_priv.h"

const char *const prune_kind_str[] = {
	[PRUNE_REFERENCE] = "reference", [PRUNE_DISK] = "disk",	    [PRUNE_BLOB] = "layer",
	[PRUNE_PARTIAL] = "partial",	 [PRUNE_TMP] = "temporary",
};
static_assert(ARRAY_SIZE(prune_kind_str) == PRUNE_KINDS, "prune_kind_str[] is incomplete");

static uint64_t allocated(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512;
}

static bool disk_is_used(const struct store *s, const char *key)
{
	AUTO_FREE(char, name);
	AUTO_FD(fd);

	name = store_disk_file(key, "ext4");
	fd = openat(s->disks, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	return fd >= 0 && !store_is_free(fd);
}

static int entry_by_reference(const void *a, const void *b)
{
	return strcmp(((const struct image_entry *)a)->ref.reference, ((const struct image_entry *)b)->ref.reference);
}

static uint64_t file_allocated(int dir, const char *name)
{
	struct stat st;

	return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? allocated(&st) : 0;
}

static uint64_t blob_allocated(int blobs, const char *digest)
{
	return *digest && blobs >= 0 ? file_allocated(blobs, digest) : 0;
}

static void entry_facts(const struct store *s, int blobs, const char *file, struct image_entry *e)
{
	struct disk_meta meta = { 0 };
	struct stat st;

	e->used = e->ref.stored;
	if (fstatat(s->refs, file, &st, AT_SYMLINK_NOFOLLOW) == 0)
		e->used = MAX(e->used, (int64_t)st.st_mtim.tv_sec);
	e->usable = store_meta_read(s, e->ref.disk, &meta, NULL) == 0 && store_disk_is_whole(s, e->ref.disk, meta.size);
	e->api_version = meta.api_version;
	memcpy(e->api_found, meta.api_found, sizeof(e->api_found));
	disk_meta_done(&meta);
	e->disk_bytes = store_disk_allocated(s, e->ref.disk);
	e->in_use = disk_is_used(s, e->ref.disk);
	e->layer_bytes = blob_allocated(blobs, e->ref.config) + blob_allocated(blobs, e->ref.platform);
	if (strcmp(e->ref.served, e->ref.platform) != 0)
		e->layer_bytes += blob_allocated(blobs, e->ref.served);
	for (size_t i = 0; i < e->ref.n_layers; i++)
		e->layer_bytes += blob_allocated(blobs, e->ref.layers[i].digest);
}

/* All references; the caller holds the store's lock exclusively. */
static int list_locked(const struct store *s, struct image_list *l, struct err *err)
{
	struct dirent *e;
	struct err why;
	AUTO_FD(blobs);
	DIR *d;

	blobs = store_dir(s, "blobs/sha256");
	d = store_readdir(s->refs);
	if (!d)
		return err_set(err, -errno, "%s/refs: cannot be read: %s", s->path, strerror(errno));
	while ((e = readdir(d))) {
		struct image_entry *v;

		if (*e->d_name == '.')
			continue;
		l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
		v = &l->v[l->n];
		*v = (struct image_entry){ .ref.reference = NULL };
		if (store_ref_parse(s, e->d_name, NULL, &v->ref, &why) < 0) {
			AUTO_FREE(char, shown);

			/* the name of a file that is not ours can be anything */
			shown = str_escape(why.text, strlen(why.text));
			strv_add(&l->warnings, shown);
			continue;
		}
		entry_facts(s, blobs, e->d_name, v);
		l->n++;
	}
	(void)closedir(d);
	if (l->n > 1)
		qsort(l->v, l->n, sizeof(*l->v), entry_by_reference);
	return 0;
}

int store_list(const struct store *s, struct image_list *ret, struct err *err)
{
	struct image_list l = { NULL };
	AUTO_FD(lock);
	int r;

	/* Exclusive: whether a disk is in use shows by locking it for a moment, and a launch must not meet that lock. */
	r = store_lock(s, "lock", LOCK_EX, &lock, err);
	if (r < 0)
		return r;
	r = list_locked(s, &l, err);
	if (r < 0)
		image_list_done(&l);
	else
		*ret = l;
	return r;
}

void image_list_done(struct image_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		image_ref_done(&l->v[i].ref);
	free(l->v);
	strv_done(&l->warnings);
	*l = (struct image_list){ NULL };
}

/* --- what nothing needs --- */

struct prune {
	const struct store *s;
	const struct prune_rule *rule;
	struct image_list refs;
	bool *goes; /* which of refs */
	struct prune_list out;
	int64_t now;
};

/* Delete it, or only list it. */
static void take(struct prune *p, enum prune_kind kind, int dir, const char *file, const char *name, uint64_t bytes,
		 int64_t age)
{
	struct prune_item *item;

	if (!p->rule->dry_run && unlinkat(dir, file, 0) < 0) {
		AUTO_FREE(char, shown);

		shown = str_escape(file, strlen(file));
		strv_addf(&p->out.warnings, "%s: %s %s cannot be deleted: %s", p->s->path, prune_kind_str[kind], shown,
			  strerror(errno));
		return;
	}
	p->out.v = xrealloc(p->out.v, (p->out.n + 1) * sizeof(*p->out.v));
	item = &p->out.v[p->out.n++];
	*item = (struct prune_item){ kind, str_escape(name, strlen(name)), bytes, age };
	p->out.bytes += bytes;
}

static bool is_kept_by_rule(const struct prune_rule *rule, const char *reference)
{
	for (const char *const *k = rule->keep; k && *k; k++)
		if (strcmp(*k, reference) == 0)
			return true;
	return false;
}

static void prune_refs(struct prune *p)
{
	for (size_t i = 0; i < p->refs.n; i++) {
		const struct image_entry *e = &p->refs.v[i];
		char file[REF_FILE_MAX];

		p->goes[i] = p->rule->unused_s >= 0 && p->now - e->used >= p->rule->unused_s && !e->in_use &&
			     !is_kept_by_rule(p->rule, e->ref.reference);
		if (!p->goes[i])
			continue;
		store_ref_file(e->ref.reference, file);
		take(p, PRUNE_REFERENCE, p->s->refs, file, e->ref.reference, file_allocated(p->s->refs, file),
		     p->now - e->used);
	}
}

static bool is_named_disk(const struct prune *p, const char *key)
{
	for (size_t i = 0; i < p->refs.n; i++)
		if (!p->goes[i] && strcmp(p->refs.v[i].ref.disk, key) == 0)
			return true;
	return p->refs.warnings.n > 0;
}

static bool is_named_blob(const struct prune *p, const char *digest)
{
	for (size_t i = 0; i < p->refs.n; i++) {
		const struct image_ref *ref = &p->refs.v[i].ref;

		if (p->goes[i])
			continue;
		if (strcmp(ref->served, digest) == 0 || strcmp(ref->platform, digest) == 0 || strcmp(ref->config, digest) == 0)
			return true;
		for (size_t k = 0; !p->rule->layers && k < ref->n_layers; k++)
			if (strcmp(ref->layers[k].digest, digest) == 0)
				return true;
	}
	return p->refs.warnings.n > 0;
}

/* One of the two files of a disk. The JSON goes with the disk, or alone when a crash has left it alone. */
static void prune_disk(struct prune *p, const char *file)
{
	AUTO_FREE(char, disk);
	AUTO_FREE(char, json);
	char key[IMAGE_HEX + 1];
	bool is_json, there;
	uint64_t bytes;
	AUTO_FD(fd);

	if (strlen(file) != IMAGE_HEX + strlen(".ext4"))
		return;
	memcpy(key, file, IMAGE_HEX);
	key[IMAGE_HEX] = '\0';
	is_json = strcmp(file + IMAGE_HEX, ".json") == 0;
	if (!store_is_hex(key) || (!is_json && strcmp(file + IMAGE_HEX, ".ext4") != 0) || is_named_disk(p, key))
		return;
	disk = store_disk_file(key, "ext4");
	json = store_disk_file(key, "json");
	fd = openat(p->s->disks, disk, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	there = fd >= 0;
	if (there ? is_json || !store_is_free(fd) : !is_json)
		return;
	bytes = file_allocated(p->s->disks, json) + (there ? file_allocated(p->s->disks, disk) : 0);
	take(p, PRUNE_DISK, p->s->disks, there ? disk : json, key, bytes, 0);
	if (there && !p->rule->dry_run)
		(void)unlinkat(p->s->disks, json, 0);
}

static void prune_blob(struct prune *p, int dir, const char *file)
{
	struct stat st;

	if (!is_named_blob(p, file) && fstatat(dir, file, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
		take(p, PRUNE_BLOB, dir, file, file, allocated(&st), 0);
}

static void prune_unlocked(struct prune *p, enum prune_kind kind, int dir, const char *file, int64_t min_age)
{
	struct stat st;
	AUTO_FD(fd);

	fd = openat(dir, file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && p->now - st.st_mtim.tv_sec >= min_age && store_is_free(fd))
		take(p, kind, dir, file, file, allocated(&st), 0);
}

static void prune_dir(struct prune *p, enum prune_kind kind, int dir)
{
	struct dirent *e;
	DIR *d = dir < 0 ? NULL : store_readdir(dir);

	while (d && (e = readdir(d))) {
		if (*e->d_name == '.')
			continue;
		switch (kind) {
		case PRUNE_DISK:
			prune_disk(p, e->d_name);
			break;
		case PRUNE_BLOB:
			prune_blob(p, dir, e->d_name);
			break;
		default:
			prune_unlocked(p, kind, dir, e->d_name, kind == PRUNE_PARTIAL ? PRUNE_PARTIAL_S : 0);
		}
	}
	if (d)
		(void)closedir(d);
}

static int item_order(const void *a, const void *b)
{
	const struct prune_item *x = a, *y = b;

	return x->kind != y->kind ? (int)x->kind - (int)y->kind : strcmp(x->name, y->name);
}

static void prune_locked(struct prune *p)
{
	AUTO_FD(pulls);
	AUTO_FD(blobs);
	AUTO_FD(partial);

	p->goes = xcalloc(p->refs.n + 1, sizeof(*p->goes));
	prune_refs(p);
	prune_dir(p, PRUNE_DISK, p->s->disks);
	prune_dir(p, PRUNE_TMP, p->s->tmp);
	if (store_lock(p->s, "pulls", LOCK_EX | LOCK_NB, &pulls, NULL) == 0) {
		blobs = store_dir(p->s, "blobs/sha256");
		partial = store_dir(p->s, "partial");
		prune_dir(p, PRUNE_BLOB, blobs);
		prune_dir(p, PRUNE_PARTIAL, partial);
	} else {
		strv_addf(&p->out.warnings, "%s: a pull is under way; layers were left alone", p->s->path);
	}
	if (p->out.n > 1)
		qsort(p->out.v, p->out.n, sizeof(*p->out.v), item_order);
	free(p->goes);
}

int store_prune(const struct store *s, const struct prune_rule *rule, struct prune_list *ret, struct err *err)
{
	struct prune p = { .s = s, .rule = rule, .now = (int64_t)time(NULL) };
	AUTO_FD(lock);
	int r;

	r = store_lock(s, "lock", LOCK_EX, &lock, err);
	if (r < 0)
		return r;
	r = list_locked(s, &p.refs, err);
	if (r == 0) {
		prune_locked(&p);
		for (size_t i = 0; i < p.refs.warnings.n; i++)
			strv_add(&p.out.warnings, p.refs.warnings.v[i]);
		*ret = p.out;
	}
	image_list_done(&p.refs);
	return r;
}

void prune_list_done(struct prune_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].name);
	free(l->v);
	strv_done(&l->warnings);
	*l = (struct prune_list){ NULL };
}
