/* docker save: "manifest.json" = [{"Config":NAME,"RepoTags":[…],"Layers":[NAME…]}], bottom layer first. There are no digests
 * but the config's diff_ids, which are those of the layers as long as these are not compressed. A compressed layer is hashed
 * here, so that it has a name before it is copied; its content is checked by the diff_id like any other. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "image/source.h"

#define READ_BYTES (1 << 20)

static int which(const struct source *s, const struct saved_image *images, size_t n, struct err *err)
{
	char list[SOURCE_LIST_MAX] = "";

	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < images[i].names.n; k++)
			source_list(list, images[i].names.v[k]);
	return source_which(s, n, "NAME", list, err);
}

/* "debian" in the archive is what a person calls it, with or without :latest. */
static bool is_called(const char *name, const char *want)
{
	size_t n = strlen(want);

	return strcmp(name, want) == 0 || (strncmp(name, want, n) == 0 && strcmp(name + n, ":latest") == 0);
}

static const struct saved_image *pick(const struct source *s, const struct saved_image *images, size_t n)
{
	if (!s->name)
		return n == 1 ? &images[0] : NULL;
	for (size_t i = 0; i < n; i++)
		for (size_t k = 0; k < images[i].names.n; k++)
			if (is_called(images[i].names.v[k], s->name))
				return &images[i];
	return NULL;
}

static int read_at(const struct part *p, uint64_t at, void *to, size_t n)
{
	uint8_t *q = to;

	while (n > 0) {
		ssize_t k = pread(p->fd, q, n, (off_t)(p->at + at));

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO;
		q += k;
		at += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

static int hash_part(const struct part *p, char ret[IM_DIGEST + 1])
{
	EVP_MD_CTX *c = EVP_MD_CTX_new();
	AUTO_FREE(uint8_t, mem);
	uint8_t md[EVP_MAX_MD_SIZE];
	unsigned int n_md = 0;
	int r = 0;

	if (!c || EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1)
		abort(); /* out of memory */
	mem = xmalloc(READ_BYTES);
	for (uint64_t at = 0; at < p->bytes && r == 0;) {
		size_t n = MIN(p->bytes - at, (uint64_t)READ_BYTES);

		r = read_at(p, at, mem, n);
		(void)EVP_DigestUpdate(c, mem, r == 0 ? n : 0);
		at += n;
	}
	(void)EVP_DigestFinal_ex(c, md, &n_md);
	EVP_MD_CTX_free(c);
	for (unsigned int i = 0; i < n_md; i++)
		(void)snprintf(ret + 2 * (size_t)i, 3, "%02x", md[i]);
	return r;
}

static int layer_fill(const struct source *s, const char *name, const char *diff_id, struct manifest_layer *l, struct err *err)
{
	uint8_t head[4] = { 0 };
	struct part p;
	int r;

	r = source_part(s, name, &p, err);
	if (r < 0)
		return r;
	l->blob.bytes = p.bytes;
	memcpy(l->blob.hex, diff_id, sizeof(l->blob.hex));
	r = read_at(&p, 0, head, MIN(p.bytes, sizeof(head)));
	l->compression = head[0] == 0x1f && head[1] == 0x8b		   ? IM_GZIP :
			 memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0 ? IM_ZSTD :
								    IM_PLAIN;
	if (r == 0 && l->compression != IM_PLAIN)
		r = hash_part(&p, l->blob.hex);
	(void)close(p.fd);
	return r < 0 ? err_set(err, r, "a layer cannot be read: %s", strerror(-r)) : 0;
}

static int fill(struct source *s, const struct plan_source *where, const struct saved_image *image, struct plan *p,
		struct err *err)
{
	AUTO_FREE(char, text);
	size_t n, n_layers = image->layers.n;
	int r;

	r = source_read(s, image->config, &text, &n, err);
	if (r == 0)
		r = config_parse(text, n, where->arch, n_layers, &p->config, err);
	if (r == 0 && where->blobs)
		r = blobs_put(where->blobs, text, n, p->manifest.config.hex, err);
	if (r < 0)
		return r;
	/* There is no manifest: docker's own name for the image is the config's digest. */
	sha256_hex(text, n, p->manifest.config.hex);
	p->manifest.config.bytes = n;
	memcpy(p->served, p->manifest.config.hex, sizeof(p->served));
	memcpy(p->platform, p->manifest.config.hex, sizeof(p->platform));
	p->manifest.layers = xcalloc(n_layers, sizeof(*p->manifest.layers));
	p->manifest.n_layers = n_layers;
	for (size_t i = 0; i < n_layers && r == 0; i++) {
		r = layer_fill(s, image->layers.v[i], p->config.diff_ids[i], &p->manifest.layers[i], err);
		strv_add(&s->parts, image->layers.v[i]);
	}
	for (size_t i = 0; i < image->names.n && r == 0; i++)
		strv_add(&p->names, image->names.v[i]);
	return r;
}

int source_plan_docker(struct source *s, const struct plan_source *where, struct plan *ret, struct err *err)
{
	const struct saved_image *image;
	struct saved_image *images;
	struct plan p = { 0 };
	AUTO_FREE(char, text);
	size_t n, n_images;
	int r;

	r = source_read(s, "manifest.json", &text, &n, err);
	if (r < 0)
		return err_set(err, r, "no archive of docker save (without manifest.json)");
	r = saved_images(text, n, &images, &n_images, err);
	if (r < 0)
		return r;
	image = pick(s, images, n_images);
	r = image ? fill(s, where, image, &p, err) : which(s, images, n_images, err);
	saved_images_done(images, n_images);
	if (r < 0) {
		plan_done(&p);
		return r;
	}
	*ret = p;
	return 0;
}
