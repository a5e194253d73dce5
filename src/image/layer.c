/* One thread goes through the layers and fills a ring of blocks, the reader empties it:
 *
 *	blob --pread/read--> in[] --SHA-256--> decompress --> slot --SHA-256--> ring of SLOTS --> layers_read()
 *
 * A slot is a piece of one layer's tar, its end, or the error that ends everything. Both sides wait on one condition; the
 * filler also waits there for a layer to be announced and for its blob to grow. The blob's digest is compared when its last
 * byte was read and the tar's when it ends, before the reader is told that it has.
 *
 * Bounds: the ring, one window of zstd (128 MiB), 64 GiB of tar in all. */
#include "image/layer.h"

#include <assert.h>
#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"

#define IN_BYTES (256U << 10)
#define SLOT_BYTES (256U << 10)
#define SLOTS 16

static const char *const compression_str[] = { [IM_PLAIN] = "no compression", [IM_GZIP] = "gzip", [IM_ZSTD] = "zstd" };
static_assert(ARRAY_SIZE(compression_str) == IM_COMPRESSIONS, "compression_str[] is incomplete");

struct slot {
	uint8_t *mem;
	size_t n; /* 0: end of the layer, or an error */
	uint64_t consumed;
	int r; /* an error */
	struct err err;
	struct layer_end end;
};

struct layer {
	bool there, is_pipe;
	struct layer_spec spec;
	uint64_t grown;
	char name[48];
};

struct layers {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	pthread_t thread;
	bool started, runs, stop;
	unsigned int n;
	struct layer *layers;
	/* filled slots are [tail, head), counted without end */
	struct slot slots[SLOTS];
	uint64_t head, tail;
	/* the reader */
	bool holds; /* the slot at tail is lent out */
	bool over;
	unsigned int current;
	uint64_t consumed;
	struct layer_end end;
	uint64_t taken; /* bytes of tar, of all layers so far */
	/* the thread */
	EVP_MD_CTX *blob_sha, *tar_sha;
	uint8_t *in;
	uint64_t total, bytes_max;
};

/* One layer being decompressed. */
struct work {
	struct layers *l;
	struct layer *layer;
	uint64_t read;	/* of the blob */
	uint64_t made;	/* of the tar */
	size_t in_n, in_at;
	bool in_end;
	struct slot *slot; /* being filled */
};

struct layers *layers_new(unsigned int n, uint64_t bytes_max)
{
	struct layers *l = xcalloc(1, sizeof(*l));

	l->n = n;
	l->bytes_max = bytes_max;
	l->layers = xcalloc(n, sizeof(*l->layers));
	for (unsigned int i = 0; i < n; i++) {
		l->layers[i].spec.fd = -1;
		(void)snprintf(l->layers[i].name, sizeof(l->layers[i].name), "layer %u", i + 1);
	}
	for (size_t i = 0; i < SLOTS; i++)
		l->slots[i].mem = xmalloc(SLOT_BYTES);
	l->in = xmalloc(IN_BYTES);
	l->blob_sha = EVP_MD_CTX_new();
	l->tar_sha = EVP_MD_CTX_new();
	if (!l->blob_sha || !l->tar_sha)
		abort();
	(void)pthread_mutex_init(&l->lock, NULL);
	(void)pthread_cond_init(&l->changed, NULL);
	return l;
}

static void lock(struct layers *l)
{
	(void)pthread_mutex_lock(&l->lock);
}

/* Every change of what is shared ends here. */
static void unlock(struct layers *l)
{
	(void)pthread_cond_broadcast(&l->changed);
	(void)pthread_mutex_unlock(&l->lock);
}

void layers_free(struct layers *l)
{
	if (!l)
		return;
	lock(l);
	l->stop = true;
	unlock(l);
	if (l->started)
		(void)pthread_join(l->thread, NULL);
	for (unsigned int i = 0; i < l->n; i++)
		close_p(&l->layers[i].spec.fd);
	for (size_t i = 0; i < SLOTS; i++)
		free(l->slots[i].mem);
	EVP_MD_CTX_free(l->blob_sha);
	EVP_MD_CTX_free(l->tar_sha);
	(void)pthread_mutex_destroy(&l->lock);
	(void)pthread_cond_destroy(&l->changed);
	free(l->layers);
	free(l->in);
	free(l);
}

int layers_add(struct layers *l, unsigned int i, const struct layer_spec *spec, struct err *err)
{
	struct layer *y;
	struct stat st;
	int r = 0;

	if (i >= l->n || fstat(spec->fd, &st) < 0 || !(S_ISFIFO(st.st_mode) || S_ISREG(st.st_mode))) {
		(void)close(spec->fd);
		return err_set(err, -EBADMSG, "layer %u: cannot be one", i + 1);
	}
	lock(l);
	y = &l->layers[i];
	if (y->there) {
		(void)close(spec->fd);
		r = err_set(err, -EBADMSG, "%s: announced twice", y->name);
	} else {
		const char *id = spec->blob[0] ? spec->blob : spec->diff_id;

		y->spec = *spec;
		y->is_pipe = S_ISFIFO(st.st_mode);
		y->there = true;
		if (*id)
			(void)snprintf(y->name, sizeof(y->name), "layer %u (%.12s)", i + 1, id);
	}
	unlock(l);
	return r;
}

int layers_grown(struct layers *l, unsigned int i, uint64_t bytes, struct err *err)
{
	int r = 0;

	lock(l);
	if (i >= l->n || !l->layers[i].there || !l->layers[i].spec.sized || bytes < l->layers[i].grown ||
	    bytes > l->layers[i].spec.bytes)
		r = err_set(err, -EBADMSG, "layer %u: cannot have grown to %llu bytes", i + 1, (unsigned long long)bytes);
	else
		l->layers[i].grown = bytes;
	unlock(l);
	return r;
}

/* --- the thread --- */

static bool stopped(struct layers *l)
{
	bool s;

	lock(l);
	s = l->stop;
	(void)pthread_mutex_unlock(&l->lock);
	return s;
}

/* A slot to fill; NULL when all shall end. */
static struct slot *slot_take(struct layers *l)
{
	struct slot *s = NULL;

	lock(l);
	while (!l->stop && l->head - l->tail == SLOTS)
		(void)pthread_cond_wait(&l->changed, &l->lock);
	if (!l->stop)
		s = &l->slots[l->head % SLOTS];
	(void)pthread_mutex_unlock(&l->lock);
	if (s) {
		s->n = 0;
		s->r = 0;
	}
	return s;
}

static void slot_give(struct layers *l)
{
	lock(l);
	l->head++;
	unlock(l);
}

/* How much of the blob may be read now, at least one byte; 0 at its end. -ECANCELED. */
static ssize_t wait_grown(struct work *w, size_t want)
{
	struct layers *l = w->l;
	struct layer *y = w->layer;
	uint64_t may;

	if (!y->spec.sized)
		return (ssize_t)want;
	lock(l);
	while (!l->stop && y->grown <= w->read && w->read < y->spec.bytes)
		(void)pthread_cond_wait(&l->changed, &l->lock);
	may = y->grown - w->read;
	if (l->stop)
		may = 0;
	(void)pthread_mutex_unlock(&l->lock);
	if (stopped(l))
		return -ECANCELED;
	return (ssize_t)MIN(may, (uint64_t)want);
}

static int hash_end(EVP_MD_CTX *c, char ret[IM_DIGEST + 1])
{
	uint8_t sum[EVP_MAX_MD_SIZE];
	unsigned int n = 0;

	if (EVP_DigestFinal_ex(c, sum, &n) != 1 || n * 2 != IM_DIGEST)
		return -EIO;
	for (unsigned int i = 0; i < n; i++)
		(void)snprintf(ret + 2 * i, 3, "%02x", sum[i]);
	return 0;
}

static int blob_ended(struct work *w, struct err *err)
{
	const struct layer_spec *s = &w->layer->spec;
	char found[IM_DIGEST + 1];

	w->in_end = true;
	if (hash_end(w->l->blob_sha, found) < 0)
		return err_set(err, -EIO, "SHA-256: failed");
	if (s->blob[0] && strcmp(s->blob, found) != 0)
		return err_set(err, -EBADMSG, "the blob has SHA-256 %.12s and should have %.12s; it was changed on the way or on disk, pull it again",
			       found, s->blob);
	return 0;
}

/* More of the blob into in[] behind what is there. */
static int fill_in(struct work *w, struct err *err)
{
	struct layers *l = w->l;
	ssize_t n;

	if (w->in_end)
		return 0;
	memmove(l->in, l->in + w->in_at, w->in_n - w->in_at);
	w->in_n -= w->in_at;
	w->in_at = 0;
	n = wait_grown(w, IN_BYTES - w->in_n);
	if (n < 0)
		return (int)n;
	if (n == 0)
		return blob_ended(w, err);
	do
		n = w->layer->is_pipe ? read(w->layer->spec.fd, l->in + w->in_n, (size_t)n) :
					pread(w->layer->spec.fd, l->in + w->in_n, (size_t)n, (off_t)(w->layer->spec.from + w->read));
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return err_set(err, -errno, "the blob cannot be read: %s", strerror(errno));
	if (n == 0 && w->layer->spec.sized)
		return err_set(err, -EBADMSG, "the blob ends after %llu of %llu bytes; pull it again",
			       (unsigned long long)w->read, (unsigned long long)w->layer->spec.bytes);
	if (n == 0)
		return blob_ended(w, err);
	if (EVP_DigestUpdate(l->blob_sha, l->in + w->in_n, (size_t)n) != 1)
		return err_set(err, -EIO, "SHA-256: failed");
	w->in_n += (size_t)n;
	w->read += (uint64_t)n;
	return 0;
}

/* Room for more of the tar; -ECANCELED. */
static int out_room(struct work *w)
{
	if (!w->slot)
		w->slot = slot_take(w->l);
	return w->slot ? 0 : -ECANCELED;
}

/* @n bytes more are in the slot. */
static int out_grew(struct work *w, size_t n, struct err *err)
{
	struct layers *l = w->l;

	if (EVP_DigestUpdate(l->tar_sha, w->slot->mem + w->slot->n, n) != 1)
		return err_set(err, -EIO, "SHA-256: failed");
	w->slot->n += n;
	w->made += n;
	l->total += n;
	if (l->total > l->bytes_max)
		return err_set(err, -EBADMSG, "more than %llu GiB unpacked; this image cannot be used",
			       (unsigned long long)l->bytes_max >> 30);
	if (w->slot->n == SLOT_BYTES) {
		w->slot->consumed = w->read;
		w->slot = NULL;
		slot_give(l);
	}
	return 0;
}

static int copy_plain(struct work *w, struct err *err)
{
	int r = 0;

	while (r == 0) {
		size_t k;

		if (w->in_at == w->in_n && w->in_end)
			return 0;
		if (w->in_at == w->in_n) {
			r = fill_in(w, err);
			continue;
		}
		r = out_room(w);
		if (r < 0)
			return r;
		k = MIN(w->in_n - w->in_at, SLOT_BYTES - w->slot->n);
		memcpy(w->slot->mem + w->slot->n, w->l->in + w->in_at, k);
		w->in_at += k;
		r = out_grew(w, k, err);
	}
	return r;
}

/* A member after the other to the blob's end. */
static int inflate_all(struct work *w, z_stream *z, struct err *err)
{
	bool member_ended = false;
	int r = 0, zr;

	while (r == 0) {
		size_t room;

		if (w->in_at == w->in_n && !w->in_end) {
			r = fill_in(w, err);
			continue;
		}
		if (w->in_at == w->in_n)
			return member_ended ? 0 : err_set(err, -EBADMSG, "the gzip stream is cut off");
		if (member_ended && inflateReset(z) != Z_OK)
			return err_set(err, -EIO, "gzip: failed");
		r = out_room(w);
		if (r < 0)
			return r;
		room = SLOT_BYTES - w->slot->n;
		z->next_in = w->l->in + w->in_at;
		z->avail_in = (unsigned int)(w->in_n - w->in_at);
		z->next_out = w->slot->mem + w->slot->n;
		z->avail_out = (unsigned int)room;
		zr = inflate(z, Z_NO_FLUSH);
		if (zr != Z_OK && zr != Z_STREAM_END && zr != Z_BUF_ERROR)
			return err_set(err, -EBADMSG, "the gzip stream is broken (%s)", z->msg ? z->msg : "no reason given");
		member_ended = zr == Z_STREAM_END;
		w->in_at = w->in_n - z->avail_in;
		r = out_grew(w, room - z->avail_out, err);
	}
	return r;
}

static int inflate_layer(struct work *w, struct err *err)
{
	z_stream z = { 0 };
	int r;

	if (inflateInit2(&z, 15 + 16) != Z_OK) /* gzip only */
		return err_set(err, -ENOMEM, "gzip: cannot be begun");
	r = inflate_all(w, &z, err);
	(void)inflateEnd(&z);
	return r;
}

static int unzstd_all(struct work *w, ZSTD_DCtx *z, struct err *err)
{
	size_t hint = 1; /* 0: a frame has ended */
	int r = 0;

	while (r == 0) {
		ZSTD_inBuffer in;
		ZSTD_outBuffer out;

		if (w->in_at == w->in_n && !w->in_end) {
			r = fill_in(w, err);
			continue;
		}
		/* With the input at its end there may still be output in the decoder. */
		if (w->in_at == w->in_n && hint == 0)
			return 0;
		r = out_room(w);
		if (r < 0)
			return r;
		in = (ZSTD_inBuffer){ w->l->in, w->in_n, w->in_at };
		out = (ZSTD_outBuffer){ w->slot->mem + w->slot->n, SLOT_BYTES - w->slot->n, 0 };
		hint = ZSTD_decompressStream(z, &out, &in);
		if (ZSTD_isError(hint))
			return err_set(err, -EBADMSG, "the zstd stream is broken (%s)", ZSTD_getErrorName(hint));
		if (hint != 0 && out.pos == 0 && in.pos == w->in_at && w->in_end && w->in_at == w->in_n)
			return err_set(err, -EBADMSG, "the zstd stream is cut off");
		w->in_at = in.pos;
		r = out_grew(w, out.pos, err);
	}
	return r;
}

static int unzstd_layer(struct work *w, struct err *err)
{
	ZSTD_DCtx *z = ZSTD_createDCtx();
	int r;

	if (!z || ZSTD_isError(ZSTD_DCtx_setParameter(z, ZSTD_d_windowLogMax, LAYER_WINDOW_LOG)))
		r = err_set(err, -ENOMEM, "zstd: cannot be begun");
	else
		r = unzstd_all(w, z, err);
	(void)ZSTD_freeDCtx(z);
	return r;
}

/* What the first bytes say. Registries hold blobs whose media type names another of the three. */
static enum im_compression by_magic(const uint8_t *p, size_t n)
{
	if (n >= 2 && p[0] == 0x1f && p[1] == 0x8b)
		return IM_GZIP;
	if (n >= 4 && p[1] == 0xb5 && p[2] == 0x2f && p[3] == 0xfd && p[0] == 0x28)
		return IM_ZSTD;
	if (n >= 4 && p[1] == 0x2a && p[2] == 0x4d && p[3] == 0x18 && (p[0] & 0xf0) == 0x50) /* skippable */
		return IM_ZSTD;
	return IM_PLAIN;
}

static int decompress(struct work *w, struct err *err)
{
	enum im_compression found;
	int r = 0;

	while (w->in_n < 4 && !w->in_end && r == 0)
		r = fill_in(w, err);
	if (r < 0)
		return r;
	found = by_magic(w->l->in, w->in_n);
	if (found != w->layer->spec.compression)
		log_info("%s: its type says %s, its bytes %s", w->layer->name, compression_str[w->layer->spec.compression],
			 compression_str[found]);
	switch (found) {
	case IM_GZIP:
		return inflate_layer(w, err);
	case IM_ZSTD:
		return unzstd_layer(w, err);
	default:
		return copy_plain(w, err);
	}
}

/* One layer to its end, which is a slot of its own; -ECANCELED. */
static int one_layer(struct layers *l, struct layer *y, struct err *err)
{
	struct work w = { .l = l, .layer = y };
	struct layer_end end;
	struct slot *s;
	int r;

	if (EVP_DigestInit_ex(l->blob_sha, EVP_sha256(), NULL) != 1 || EVP_DigestInit_ex(l->tar_sha, EVP_sha256(), NULL) != 1)
		return err_set(err, -EIO, "SHA-256: failed");
	r = decompress(&w, err);
	if (r < 0)
		return r;
	if (w.slot && w.slot->n > 0) {
		w.slot->consumed = w.read;
		slot_give(l);
	}
	if (hash_end(l->tar_sha, end.diff_id) < 0)
		return err_set(err, -EIO, "SHA-256: failed");
	end.bytes = w.made;
	if (y->spec.diff_id[0] && strcmp(y->spec.diff_id, end.diff_id) != 0)
		return err_set(err, -EBADMSG, "its content has SHA-256 %.12s and the image's config says %.12s; the image is broken",
			       end.diff_id, y->spec.diff_id);
	s = slot_take(l);
	if (!s)
		return -ECANCELED;
	s->consumed = w.read;
	s->end = end;
	slot_give(l);
	return 0;
}

static void *fill(void *arg)
{
	struct layers *l = arg;
	struct err err = { 0 };
	struct slot *s;
	int r = 0;

	lock(l);
	l->runs = true;
	unlock(l);
	for (unsigned int i = 0; i < l->n && r == 0; i++) {
		struct layer *y = &l->layers[i];

		lock(l);
		while (!l->stop && !y->there)
			(void)pthread_cond_wait(&l->changed, &l->lock);
		r = l->stop ? -ECANCELED : 0;
		(void)pthread_mutex_unlock(&l->lock);
		if (r == 0)
			r = one_layer(l, y, &err);
		close_p(&y->spec.fd);
		y->spec.fd = -1;
	}
	if (r == 0 || r == -ECANCELED)
		return NULL;
	s = slot_take(l);
	if (s) {
		s->r = r;
		s->err = err;
		slot_give(l);
	}
	return NULL;
}

int layers_start(struct layers *l)
{
	int r = pthread_create(&l->thread, NULL, fill, l);

	l->started = r == 0;
	/* What a library does at a thread's start must be over before the sandbox closes. */
	lock(l);
	while (l->started && !l->runs)
		(void)pthread_cond_wait(&l->changed, &l->lock);
	(void)pthread_mutex_unlock(&l->lock);
	return -r;
}

/* --- the reader --- */

ssize_t layers_read(struct layers *l, const uint8_t **ret, struct err *err)
{
	struct slot *s;

	lock(l);
	if (l->holds)
		l->tail++;
	l->holds = false;
	(void)pthread_cond_broadcast(&l->changed);
	if (l->over)
		l->current++;
	l->over = false;
	while (l->head == l->tail)
		(void)pthread_cond_wait(&l->changed, &l->lock);
	l->holds = true;
	(void)pthread_mutex_unlock(&l->lock);
	s = &l->slots[l->tail % SLOTS];
	if (s->r < 0) {
		if (err)
			*err = s->err;
		return s->r;
	}
	l->consumed = s->consumed;
	l->taken += s->n;
	*ret = s->mem;
	if (s->n == 0) {
		l->over = true;
		l->end = s->end;
	}
	return (ssize_t)s->n;
}

const struct layer_end *layers_ended(const struct layers *l)
{
	return &l->end;
}

uint64_t layers_left(const struct layers *l)
{
	return l->bytes_max - MIN(l->taken, l->bytes_max);
}

uint64_t layers_consumed(const struct layers *l)
{
	return l->consumed;
}

const char *layers_name(const struct layers *l)
{
	return l->layers[l->current].name;
}
