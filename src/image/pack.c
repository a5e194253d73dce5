/* The role:
 *
 *	as it is	layers_read() ------------------------------------------------> out
 *	a package	layers_read() --> scratch: the plain tar --> index, select --> out
 *	its asset	part of scratch --> layers_read() --> scratch, behind it --> index
 *	out		SHA-256 --> zstd --> SHA-256 --> file
 *
 * Order of things as in unpack.c: orders, which are the launcher's own words; the sandbox, the same as there; then the first
 * byte of the package. When the launcher is gone the next message ends the process, and a tar that comes by a pipe ends. */
#include "image/pack.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "image/layer.h"
#include "image/unpack.h"
#include "proto/imagemsg.h"
#include "proto/rec.h"

#define LEVEL 3 /* image page 6.4 */
#define OUT_BYTES (256U << 10)
#define COPY_BYTES (256U << 10)
#define PROGRESS_NS 100000000
#define TARBALL_TAR_MAX (4ULL << 30) /* of one package, unpacked */

struct pack {
	int out_fd, scratch;
	uint64_t scratch_from; /* of the tar that is being indexed */
	struct pack_asset asset;
	uint64_t epoch, bytes_max;
	struct strv rules;
	struct layer_spec in;
	struct layers *layers;
	int64_t next_progress;
	/* what was written */
	ZSTD_CCtx *z;
	EVP_MD_CTX *tar_sha, *blob_sha;
	uint8_t *mem;
	uint64_t tar_bytes, blob_bytes;
};

/* --- answers --- */

static int say(struct buf *b)
{
	return im_send(IM_FD_CONTROL, b, -1);
}

static void say_error(int r, const char *why)
{
	AUTO_FREE(char, text);
	struct buf b;

	text = str_escape(why, strlen(why));
	log_error("%s", text);
	im_begin(&b, IM_ERROR);
	(void)rec_put_u64(&b, IM_K_ERRNO, (uint64_t)-r);
	(void)rec_put_str(&b, IM_K_TEXT, text);
	(void)say(&b);
}

static int say_progress(struct pack *p, uint64_t bytes, const char *name)
{
	int64_t now = now_ns();
	struct buf b;

	if (now < p->next_progress)
		return 0;
	p->next_progress = now + PROGRESS_NS;
	im_begin(&b, IM_PROGRESS);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	(void)rec_put_u64(&b, IM_K_BYTES, bytes);
	if (name) {
		AUTO_FREE(char, shown);

		shown = str_escape(name, MIN(strlen(name), (size_t)200));
		(void)rec_put_str(&b, IM_K_NAME, shown);
	}
	return say(&b);
}

static void hex_of(EVP_MD_CTX *c, char ret[IM_DIGEST + 1])
{
	uint8_t md[EVP_MAX_MD_SIZE];
	unsigned int n = 0;

	if (EVP_DigestFinal_ex(c, md, &n) != 1 || 2 * n != IM_DIGEST)
		abort();
	for (unsigned int i = 0; i < n; i++)
		(void)snprintf(ret + 2 * (size_t)i, 3, "%02x", md[i]);
}

static int say_packed(struct pack *p)
{
	char diff_id[IM_DIGEST + 1], blob[IM_DIGEST + 1];
	struct buf b;
	int r;

	hex_of(p->tar_sha, diff_id);
	hex_of(p->blob_sha, blob);
	im_begin(&b, IM_PACKED);
	(void)rec_put_str(&b, IM_K_BLOB, blob);
	(void)rec_put_str(&b, IM_K_DIFF_ID, diff_id);
	(void)rec_put_u64(&b, IM_K_BYTES, p->blob_bytes);
	(void)rec_put_u64(&b, IM_K_USED, p->tar_bytes);
	r = say(&b);
	if (r < 0)
		return r;
	im_begin(&b, IM_DONE);
	return say(&b);
}

/* --- the layer --- */

static int out_begin(struct pack *p, struct err *err)
{
	p->z = ZSTD_createCCtx();
	p->tar_sha = EVP_MD_CTX_new();
	p->blob_sha = EVP_MD_CTX_new();
	p->mem = xmalloc(OUT_BYTES);
	if (!p->z || ZSTD_isError(ZSTD_CCtx_setParameter(p->z, ZSTD_c_compressionLevel, LEVEL)) || !p->tar_sha || !p->blob_sha ||
	    EVP_DigestInit_ex(p->tar_sha, EVP_sha256(), NULL) != 1 || EVP_DigestInit_ex(p->blob_sha, EVP_sha256(), NULL) != 1)
		return err_set(err, -ENOMEM, "zstd: cannot be begun");
	return 0;
}

static int out_write(struct pack *p, const void *mem, size_t n, ZSTD_EndDirective how, struct err *err)
{
	ZSTD_inBuffer in = { mem, n, 0 };
	size_t left;

	if (n > 0 && EVP_DigestUpdate(p->tar_sha, mem, n) != 1)
		return err_set(err, -EIO, "SHA-256: failed");
	p->tar_bytes += n;
	do {
		ZSTD_outBuffer out = { p->mem, OUT_BYTES, 0 };
		int r;

		left = ZSTD_compressStream2(p->z, &out, &in, how);
		if (ZSTD_isError(left))
			return err_set(err, -EIO, "zstd: %s", ZSTD_getErrorName(left));
		if (EVP_DigestUpdate(p->blob_sha, p->mem, out.pos) != 1)
			return err_set(err, -EIO, "SHA-256: failed");
		r = fd_write_all(p->out_fd, p->mem, out.pos);
		if (r < 0)
			return err_set(err, r, "image store: the layer cannot be written: %s", strerror(-r));
		p->blob_bytes += out.pos;
	} while (how == ZSTD_e_end ? left > 0 : in.pos < in.size);
	return 0;
}

static int copy_stream(struct pack *p, struct err *err)
{
	const uint8_t *piece;
	ssize_t n;
	int r = 0;

	while ((n = layers_read(p->layers, &piece, err)) > 0 && r == 0) {
		r = out_write(p, piece, (size_t)n, ZSTD_e_continue, err);
		if (r == 0)
			r = say_progress(p, p->tar_bytes, NULL);
	}
	return n < 0 ? (int)n : r;
}

/* --- a package --- */

/* What layers_read() says of the bytes, with what can be done. */
static int bad_stream(struct err *err)
{
	struct err cause = *err;

	return err_set(err, -EBADMSG, "%.700s; the package cannot be used", cause.text);
}

static int spool(struct pack *p, uint64_t *ret_bytes, struct err *err)
{
	const uint8_t *piece;
	uint64_t bytes = 0;
	ssize_t n;
	int r = 0;

	while ((n = layers_read(p->layers, &piece, err)) > 0 && r == 0) {
		r = fd_write_all(p->scratch, piece, (size_t)n);
		if (r < 0)
			return err_set(err, r, "image store: no room to unpack the package: %s", strerror(-r));
		bytes += (uint64_t)n;
		r = say_progress(p, layers_consumed(p->layers), NULL);
	}
	*ret_bytes = bytes;
	if (n == -EBADMSG)
		return bad_stream(err);
	return n < 0 ? (int)n : r;
}

static ssize_t read_scratch(void *ctx, uint64_t at, void *mem, size_t n)
{
	const struct pack *p = ctx;
	ssize_t k;

	do
		k = pread(p->scratch, mem, n, (off_t)(p->scratch_from + at));
	while (k < 0 && errno == EINTR);
	return k < 0 ? -errno : k;
}

static int write_content(struct pack *p, const struct npmtar_entry *f, struct err *err)
{
	static const uint8_t zeros[PACK_HEADER];
	AUTO_FREE(uint8_t, mem);
	uint64_t at = 0;
	int r = 0;

	mem = xmalloc(COPY_BYTES);
	while (at < f->bytes && r == 0) {
		ssize_t n = read_scratch(p, f->at + at, mem, (size_t)MIN(f->bytes - at, (uint64_t)COPY_BYTES));

		if (n <= 0)
			return err_set(err, n < 0 ? (int)n : -EIO, "image store: the unpacked package cannot be read");
		r = out_write(p, mem, (size_t)n, ZSTD_e_continue, err);
		at += (uint64_t)n;
		if (r == 0)
			r = say_progress(p, layers_consumed(p->layers), f->name);
	}
	if (r == 0 && f->bytes % PACK_HEADER)
		r = out_write(p, zeros, PACK_HEADER - f->bytes % PACK_HEADER, ZSTD_e_continue, err);
	return r;
}

static int write_tar(struct pack *p, const struct pack_list *l, struct err *err)
{
	static const uint8_t end[2 * PACK_HEADER];
	uint8_t h[PACK_HEADER];
	int r = 0;

	for (size_t i = 0; i < l->n && r == 0; i++) {
		r = pack_header(&l->v[i], p->epoch, h, err);
		if (r == 0)
			r = out_write(p, h, sizeof(h), ZSTD_e_continue, err);
		if (r == 0 && l->v[i].file)
			r = write_content(p, l->v[i].file, err);
	}
	return r < 0 ? r : out_write(p, end, sizeof(end), ZSTD_e_continue, err);
}

/* The later of two of one name. */
static const struct npmtar_entry *entry_find(const struct npmtar *tar, const char *name)
{
	for (size_t i = tar->n; i-- > 0;)
		if (strcmp(tar->files[i].name, name) == 0)
			return &tar->files[i];
	return NULL;
}

/* A tarball in a file of the package; what is in it joins @tar. @bytes: of the scratch file, where it goes. */
static int open_asset(struct pack *p, uint64_t bytes, struct npmtar *tar, struct err *err)
{
	const struct npmtar_entry *f = entry_find(tar, p->asset.file);
	struct npmtar inner = { NULL, 0 };
	struct layer_spec spec = { .compression = IM_GZIP, .sized = true };
	uint64_t inner_bytes;
	int r = f ? pack_asset_find(read_scratch, p, f->at, f->bytes, p->asset.asset, &spec.from, &spec.bytes) : -ENOENT;

	if (r < 0)
		return err_set(err, r, "%s: not in the package; this version of it is another than agent-vm knows", p->asset.prefix);
	spec.fd = fcntl(p->scratch, F_DUPFD_CLOEXEC, 0);
	if (spec.fd < 0)
		return err_set(err, -errno, "image store: %s", strerror(errno));
	r = layers_add(p->layers, 1, &spec, err);
	if (r == 0)
		r = layers_grown(p->layers, 1, spec.bytes, err);
	if (r == 0)
		r = spool(p, &inner_bytes, err);
	p->scratch_from = bytes;
	if (r == 0)
		r = npmtar_index(read_scratch, p, inner_bytes, &inner, err);
	p->scratch_from = 0;
	if (r < 0)
		return r;
	tar->files = xrealloc(tar->files, (tar->n + inner.n + 1) * sizeof(*tar->files));
	for (size_t i = 0; i < inner.n; i++) {
		struct npmtar_entry *e = &tar->files[tar->n++];

		*e = inner.files[i];
		e->name = xasprintf("%s/%s", p->asset.prefix, inner.files[i].name);
		e->at += bytes;
	}
	npmtar_done(&inner);
	return 0;
}

static int pack_package(struct pack *p, struct err *err)
{
	struct npmtar tar = { NULL, 0 };
	struct pack_list l = { NULL, 0 };
	uint64_t bytes;
	int r;

	r = spool(p, &bytes, err);
	if (r == 0)
		r = npmtar_index(read_scratch, p, bytes, &tar, err);
	if (r == 0 && p->asset.prefix)
		r = open_asset(p, bytes, &tar, err);
	if (r == 0)
		r = pack_select(&tar, &p->rules, &l, err);
	if (r == 0)
		r = write_tar(p, &l, err);
	pack_list_done(&l);
	npmtar_done(&tar);
	return r;
}

/* --- orders --- */

static bool is_empty_file(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size == 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDWR;
}

static int recv_order(enum im_msg type, struct im *m, struct err *err)
{
	int r = im_recv(IM_FD_CONTROL, IM_TO_PACK, m);

	if (r == 0)
		_exit(1); /* the launcher is gone */
	if (r < 0 || m->type != type)
		return err_set(err, r < 0 ? r : -EPROTO, "agent-vm-image pack: was told something else than what comes now");
	return 0;
}

static int take_orders(struct pack *p, struct err *err)
{
	static struct im m;
	struct span in, v;
	uint16_t key;
	int r;

	r = recv_order(IM_PACK, &m, err);
	if (r < 0)
		return r;
	p->out_fd = m.fd;
	p->bytes_max = im_u64(&m, IM_K_BYTES);
	p->epoch = im_u64(&m, IM_K_EPOCH);
	in = m.body;
	while (rec_next(&in, &key, &v) == 1)
		if (key == IM_K_RULE)
			strv_take(&p->rules, xstrndup((const char *)v.p, v.n));
	r = pack_asset_wanted(&p->rules, &p->asset, err);
	if (r < 0)
		return r;
	if (p->rules.n > 0) {
		r = recv_order(IM_SCRATCH, &m, err);
		if (r < 0)
			return r;
		p->scratch = m.fd;
	}
	if (!is_empty_file(p->out_fd) || (p->scratch >= 0 && !is_empty_file(p->scratch)))
		return err_set(err, -EINVAL, "agent-vm-image pack: not an empty file that can be read and written");
	r = recv_order(IM_LAYER, &m, err);
	if (r < 0)
		return r;
	if (m.fd < 0)
		return err_set(err, -EINVAL, "agent-vm-image pack: a layer without a descriptor");
	p->in = (struct layer_spec){ .fd = m.fd, .compression = (enum im_compression)im_u64(&m, IM_K_COMPRESSION),
				     .sized = im_has(&m, IM_K_BYTES), .bytes = im_u64(&m, IM_K_BYTES) };
	return 0;
}

static int close_up(struct pack *p, struct err *err)
{
	uint8_t sum[EVP_MAX_MD_SIZE];
	unsigned int n;
	int r;

	/* Libraries read files at their first use: that must be over before the sandbox closes. */
	(void)setenv("TZ", "UTC0", 1);
	tzset();
	if (EVP_Digest("", 0, sum, &n, EVP_sha256(), NULL) != 1)
		return err_set(err, -EIO, "OpenSSL: has no SHA-256");
	r = unpack_confine(MAX(p->bytes_max, TARBALL_TAR_MAX), err);
	if (r < 0)
		return r;
	p->layers = layers_new(p->asset.prefix ? 2 : 1, p->rules.n > 0 ? TARBALL_TAR_MAX : LAYERS_BYTES_MAX);
	r = layers_start(p->layers);
	if (r < 0)
		return err_set(err, r, "thread: %s", strerror(-r));
	r = unpack_seal(err);
	if (r == 0)
		r = layers_add(p->layers, 0, &p->in, err);
	if (r == 0 && p->in.sized)
		r = layers_grown(p->layers, 0, p->in.bytes, err);
	return r;
}

static int pack(struct pack *p, struct err *err)
{
	int r = out_begin(p, err);

	if (r == 0)
		r = p->rules.n > 0 ? pack_package(p, err) : copy_stream(p, err);
	if (r == 0)
		r = out_write(p, NULL, 0, ZSTD_e_end, err);
	if (r == 0 && fsync(p->out_fd) < 0)
		r = err_set(err, -errno, "image store: the layer cannot be written: %s", strerror(errno));
	return r < 0 ? r : say_packed(p);
}

int pack_main(void)
{
	struct pack p = { .out_fd = -1, .scratch = -1 };
	struct err err = { 0 };
	int r;

	log_open("pack", IM_FD_LOG, LOG_LV_INFO);
	r = take_orders(&p, &err);
	if (r == 0)
		r = close_up(&p, &err);
	if (r == 0)
		r = pack(&p, &err);
	if (r < 0)
		say_error(r, err.text[0] ? err.text : strerror(-r));
	/* Nothing is left to free that the end does not; the other thread is in the middle of things. */
	_exit(r < 0 ? 1 : 0);
}
