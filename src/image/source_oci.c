/* OCI image layout 1.0: "oci-layout", "index.json" with the names, "blobs/sha256/HEX". */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/macros.h"
#include "image/source.h"

static char *blob_name(const char *hex)
{
	return xasprintf("blobs/sha256/%s", hex);
}

static int get_blob(void *ctx, const struct descriptor *d, const char *what, char **ret, size_t *ret_n, struct err *err)
{
	AUTO_FREE(char, name);
	int r;

	name = blob_name(d->hex);
	r = source_read(ctx, name, ret, ret_n, err);
	return r < 0 ? err_ctx(err, r, "%s", what) : 0;
}

static int version_check(const struct source *s, struct err *err)
{
	AUTO_FREE(char, text);
	const char *v;
	json_t *j;
	size_t n;
	int r;

	r = source_read(s, "oci-layout", &text, &n, err);
	if (r < 0)
		return err_set(err, r, "no OCI image layout (without oci-layout)");
	j = json_loadb(text, n, 0, NULL);
	v = json_string_value(json_object_get(j, "imageLayoutVersion"));
	r = v && strncmp(v, "1.", 2) == 0 ? 0 : err_set(err, -EPROTONOSUPPORT, "oci-layout: not of version 1");
	json_decref(j);
	return r;
}

/* Entries of one digest are one image under several names. */
static bool is_repeated(const struct layout_entry *e, size_t i)
{
	for (size_t k = 0; k < i; k++)
		if (strcmp(e[k].desc.hex, e[i].desc.hex) == 0)
			return true;
	return false;
}

static int which(const struct source *s, const struct layout_entry *e, size_t n, struct err *err)
{
	char list[SOURCE_LIST_MAX] = "";
	size_t n_images = 0;

	for (size_t i = 0; i < n; i++) {
		n_images += !is_repeated(e, i);
		if (e[i].name)
			source_list(list, e[i].name);
	}
	return source_which(s, n_images, "TAG", list, err);
}

static bool is_called(const struct layout_entry *e, const char *name)
{
	return (e->name && strcmp(e->name, name) == 0) || (e->tag && strcmp(e->tag, name) == 0);
}

/* The one image that is called so, or the only one. */
static int pick(const struct source *s, const struct layout_entry *e, size_t n, struct descriptor *ret, struct err *err)
{
	const struct layout_entry *found = NULL;

	for (size_t i = 0; i < n; i++) {
		if (s->name && !is_called(&e[i], s->name))
			continue;
		if (found && strcmp(found->desc.hex, e[i].desc.hex) != 0)
			return which(s, e, n, err);
		found = &e[i];
	}
	if (!found)
		return which(s, e, n, err);
	*ret = found->desc;
	return 0;
}

int source_plan_oci(struct source *s, struct plan_source *where, struct plan *ret, struct err *err)
{
	struct layout_entry *entries = NULL;
	AUTO_FREE(char, index);
	AUTO_FREE(char, text);
	AUTO_FREE(char, name);
	struct descriptor d;
	size_t n, n_entries = 0;
	int r;

	where->get = get_blob;
	where->ctx = s;
	r = version_check(s, err);
	if (r == 0)
		r = source_read(s, "index.json", &index, &n, err);
	if (r == 0)
		r = layout_entries(index, n, &entries, &n_entries, err);
	if (r == 0)
		r = pick(s, entries, n_entries, &d, err);
	if (r == 0) {
		name = blob_name(d.hex);
		r = source_read(s, name, &text, &n, err);
	}
	if (r == 0)
		r = plan_find(where, text, n, NULL, d.hex, ret, err);
	for (size_t i = 0; r == 0 && i < n_entries; i++)
		if (entries[i].name && strcmp(entries[i].desc.hex, d.hex) == 0)
			strv_add(&ret->names, entries[i].name);
	for (size_t i = 0; r == 0 && i < ret->manifest.n_layers; i++)
		strv_take(&s->parts, blob_name(ret->manifest.layers[i].blob.hex));
	layout_entries_done(entries, n_entries);
	return r;
}
