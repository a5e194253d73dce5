#include "image/plan.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"

#define INDEX_DEPTH 2 /* an index, and one inside it */

static int verify(const char *what, const char *p, size_t n, const struct descriptor *d, struct err *err)
{
	char hex[IM_DIGEST + 1];

	sha256_hex(p, n, hex);
	if (n != d->bytes || strcmp(hex, d->hex) != 0)
		return err_set(err, -EBADMSG, "%s: expected sha256:%s of %llu bytes, got sha256:%s of %zu; the registry or "
			       "something between changed it: pull again, or from elsewhere", what, d->hex,
			       (unsigned long long)d->bytes, hex, n);
	return 0;
}

static int store(const struct plan_source *s, const char *p, size_t n, struct err *err)
{
	char hex[IM_DIGEST + 1];

	return s->blobs ? blobs_put(s->blobs, p, n, hex, err) : 0;
}

/* A document by its descriptor: from the store if it is there, else from the source; verified and stored. */
static int get(const struct plan_source *s, const struct descriptor *d, const char *what, char **ret, struct err *err)
{
	AUTO_FREE(char, text);
	size_t n;
	int r;

	if (d->bytes > MANIFEST_MAX)
		return err_set(err, -EBADMSG, "%s: longer than 4 MiB", what);
	if (s->blobs && blobs_read(s->blobs, d, ret, NULL) == 0)
		return 0;
	r = s->get(s->ctx, d, what, &text, &n, err);
	if (r == 0)
		r = verify(what, text, n, d, err);
	if (r == 0)
		r = store(s, text, n, err);
	if (r == 0)
		*ret = TAKE_PTR(text);
	return r;
}

/* Go down the indexes; @text is replaced by the manifest. */
static int to_manifest(const struct plan_source *s, char **text, size_t *n, const char *type, char hex[IM_DIGEST + 1],
		       struct err *err)
{
	enum manifest_kind kind, said = MANIFEST_UNKNOWN;
	struct descriptor d;
	int r;

	for (int depth = 0;; depth++) {
		char *next;

		r = manifest_kind(*text, *n, type, &kind, err);
		if (r == 0 && said != MANIFEST_UNKNOWN && said != kind)
			r = err_set(err, -EBADMSG, "index: an entry is not what the index says");
		if (r < 0 || kind == MANIFEST_IMAGE)
			return r;
		if (depth == INDEX_DEPTH)
			return err_set(err, -EBADMSG, "index: an index in an index in an index; use one of the images in it");
		r = index_pick(*text, *n, s->arch, &d, &said, err);
		if (r < 0)
			return r;
		memcpy(hex, d.hex, sizeof(d.hex));
		/* Only the digest is wanted, and the entry is a manifest. */
		if (!s->blobs && said != MANIFEST_INDEX)
			return 1;
		r = get(s, &d, "manifest", &next, err);
		if (r < 0)
			return r;
		free(*text);
		*text = next;
		*n = d.bytes;
		type = NULL;
	}
}

static int fill(const struct plan_source *s, const char *text, size_t n, struct plan *p, struct err *err)
{
	AUTO_FREE(char, config);
	int r;

	r = manifest_parse(text, n, &p->manifest, err);
	if (r < 0 || !s->blobs)
		return r;
	r = get(s, &p->manifest.config, "config", &config, err);
	if (r == 0)
		r = config_parse(config, p->manifest.config.bytes, s->arch, p->manifest.n_layers, &p->config, err);
	return r;
}

int plan_find(const struct plan_source *s, const char *p, size_t n, const char *type, const char *want, struct plan *ret,
	      struct err *err)
{
	struct plan plan = { 0 };
	AUTO_FREE(char, text);
	size_t n_text = n;
	int r;

	sha256_hex(p, n, plan.served);
	if (want && strcmp(want, plan.served) != 0)
		return err_set(err, -EBADMSG, "manifest: expected sha256:%s, got sha256:%s; the registry or something between "
			       "changed it: pull again, or from elsewhere", want, plan.served);
	memcpy(plan.platform, plan.served, sizeof(plan.platform));
	text = xmalloc(n + 1);
	memcpy(text, p, n);
	r = to_manifest(s, &text, &n_text, type, plan.platform, err);
	if (r == 0)
		r = store(s, p, n, err);
	if (r == 0)
		r = fill(s, text, n_text, &plan, err);
	if (r < 0) {
		plan_done(&plan);
		return r;
	}
	*ret = plan;
	return 0;
}

void plan_done(struct plan *p)
{
	manifest_done(&p->manifest);
	config_done(&p->config);
	strv_done(&p->names);
}
