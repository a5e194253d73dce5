/* Index, manifest, config, tables of contents: every reader over every input. What is taken is within its bounds. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "image/manifest.h"

static void is_hex(const char *s)
{
	MUST(strlen(s) == IM_DIGEST && strspn(s, "0123456789abcdef") == IM_DIGEST);
}

static void said(int r, const struct err *err)
{
	MUST(r == -EBADMSG || r == -EPROTONOSUPPORT || r == -ENOEXEC);
	MUST(err->text[0] && !strchr(err->text, '\n') && !strchr(err->text, '\033'));
}

static void documents(const void *p, size_t n)
{
	static const char *const types[] = { NULL, "application/vnd.oci.image.index.v1+json", "text/plain",
					     "application/vnd.docker.distribution.manifest.v2+json; a=b", "x/y" };
	enum manifest_kind kind;
	struct image_config c;
	struct descriptor d;
	struct manifest m;
	struct err err;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		r = manifest_kind(p, n, types[i], &kind, &err);
		if (r == 0)
			MUST(kind == MANIFEST_INDEX || kind == MANIFEST_IMAGE);
		else
			said(r, &err);
	}
	r = index_pick(p, n, "amd64", &d, &kind, &err);
	if (r == 0)
		is_hex(d.hex);
	else
		said(r, &err);
	r = manifest_parse(p, n, &m, &err);
	if (r == 0) {
		MUST(m.n_layers >= 1 && m.n_layers <= IM_LAYERS_MAX && m.config.bytes <= MANIFEST_MAX);
		is_hex(m.config.hex);
		for (size_t i = 0; i < m.n_layers; i++) {
			is_hex(m.layers[i].blob.hex);
			MUST(m.layers[i].blob.bytes <= INT64_MAX && m.layers[i].compression < IM_COMPRESSIONS);
		}
		manifest_done(&m);
	} else {
		said(r, &err);
	}
	for (size_t layers = 1; layers <= 2; layers++) {
		r = config_parse(p, n, "amd64", layers, &c, &err);
		if (r == 0) {
			MUST(c.n_diff_ids == layers);
			for (size_t i = 0; i < layers; i++)
				is_hex(c.diff_ids[i]);
			for (size_t i = 0; i < c.env.n; i++)
				MUST(strchr(c.env.v[i], '=') && c.env.v[i][0] != '=');
			config_done(&c);
		} else {
			said(r, &err);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct saved_image *images;
	struct layout_entry *entries;
	struct err err;
	size_t count;
	int r;

	documents(p, n);
	r = layout_entries(p, n, &entries, &count, &err);
	if (r == 0) {
		MUST(count >= 1 && count <= MANIFEST_ENTRIES_MAX);
		for (size_t i = 0; i < count; i++)
			is_hex(entries[i].desc.hex);
		layout_entries_done(entries, count);
	} else {
		said(r, &err);
	}
	r = saved_images(p, n, &images, &count, &err);
	if (r == 0) {
		MUST(count >= 1);
		for (size_t i = 0; i < count; i++)
			MUST(images[i].config && images[i].layers.n >= 1 && images[i].layers.n <= IM_LAYERS_MAX);
		saved_images_done(images, count);
	} else {
		said(r, &err);
	}
	return 0;
}
