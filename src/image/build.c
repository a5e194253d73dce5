/* An image is made as an ordinary OCI image in the store's blobs, a layer for Debian's packages and one for each program, and
 * its disk is made from it in the way in which a registry's is (pull.c):
 *
 *	build_base.c	mmdebstrap | pack --> layer ─┐
 *	build_program.c	fetch, pack --> layer ──────┼─> config, manifest (build_oci.c) --> pull --> disk, reference
 *	                fetch, pack --> layer ──────┘                                 └--> a layout, with --output
 *
 * The first two work at the same time; this file waits for both. A lock on the store's blobs keeps prune away from layers that
 * have no reference yet. Ended in any way, the store has whole layers and no more; what was loaded in part goes on the next
 * time. */
#include "image/build.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "image/build_priv.h"
#include "image/debstrap.h"
#include "image/pull.h"
#include "proto/rec.h"

#define PROGRESS_NS 100000000
#define TICK_MS 200
#define LAYER_MAX (16ULL << 30)
#define LAYERS_MAX (BUILD_PROGRAMS_MAX + 1)
#define TAR_PER_TARBALL 4 /* of a program: its tar, with what Copilot's carries inside, is at most so many times its tarball */

const char *const build_set_str[] = {
	[BUILD_BASE] = "base", [BUILD_MINIMAL] = "minimal", [BUILD_DEFAULT] = "default", [BUILD_FULL] = "full",
};
static_assert(ARRAY_SIZE(build_set_str) == BUILD_SETS, "build_set_str[] is incomplete");

const char *const build_phase_str[] = {
	[BUILD_PACKAGES] = "packages", [BUILD_PROGRAMS] = "programs", [BUILD_LAYERS] = "layers", [BUILD_DISK] = "disk",
};
static_assert(ARRAY_SIZE(build_phase_str) == BUILD_PHASES, "build_phase_str[] is incomplete");

/* Bytes of the base's layer, a little above what was measured; checked before anything is downloaded. */
static const uint64_t base_bytes[] = {
	[BUILD_BASE] = 80000000, [BUILD_MINIMAL] = 80000000, [BUILD_DEFAULT] = 250000000, [BUILD_FULL] = 600000000,
};

static void tell(struct build *b, uint64_t bytes, const char *what, bool ends)
{
	int64_t now = now_ns();

	if (!b->progress || (!ends && now < b->next_progress))
		return;
	b->next_progress = now + PROGRESS_NS;
	b->progress(b->ctx, &(struct build_progress){ b->phase, ends, bytes, what, (now - b->phase_began) / 1000000 });
}

void build_tell(struct build *b, enum build_phase phase, uint64_t bytes, const char *what)
{
	if (phase == b->phase)
		tell(b, bytes, what, false);
}

static void phase_next(struct build *b, uint64_t bytes)
{
	tell(b, bytes, NULL, true);
	if (b->phase + 1 < BUILD_PHASES)
		b->phase++;
	b->phase_began = now_ns();
}

/* --- a layer being written --- */

static int send_layer(struct packer *p, int in, const uint64_t *in_bytes, enum im_compression compression, struct err *err)
{
	struct buf m;

	im_begin(&m, IM_LAYER);
	(void)rec_put_u64(&m, IM_K_LAYER, 0);
	(void)rec_put_u64(&m, IM_K_COMPRESSION, compression);
	if (in_bytes)
		(void)rec_put_u64(&m, IM_K_BYTES, *in_bytes);
	return role_send(&p->role, &m, in, err);
}

/* A file that has no name any more. */
static int send_scratch(struct build *b, struct packer *p, struct err *err)
{
	AUTO_FREE(char, name);
	AUTO_FD(fd);
	struct buf m;
	int r;

	r = store_tmp(b->s, 0, &name, &fd, err);
	if (r < 0)
		return r;
	store_tmp_drop(b->s, name);
	im_begin(&m, IM_SCRATCH);
	return role_send(&p->role, &m, fd, err);
}

int packer_start(struct build *b, int in, const uint64_t *in_bytes, enum im_compression compression, const struct strv *rules,
		 uint64_t epoch, struct packer *p, struct err *err)
{
	struct buf m;
	int r;

	*p = (struct packer)PACKER_INIT;
	r = store_tmp(b->s, 0, &p->tmp_name, &p->fd, err);
	if (r == 0)
		r = role_start(b->args->image_role, "pack", b->log_fd, -1, NULL, &p->role, err);
	if (r < 0)
		return r;
	im_begin(&m, IM_PACK);
	(void)rec_put_u64(&m, IM_K_BYTES, LAYER_MAX);
	(void)rec_put_u64(&m, IM_K_EPOCH, epoch);
	for (size_t i = 0; rules && i < rules->n; i++)
		(void)rec_put_str(&m, IM_K_RULE, rules->v[i]);
	r = role_send(&p->role, &m, p->fd, err);
	if (r == 0 && rules)
		r = send_scratch(b, p, err);
	return r < 0 ? r : send_layer(p, in, in_bytes, compression, err);
}

static void take_digest(const struct im *m, enum im_key key, char ret[IMAGE_HEX + 1])
{
	struct span v = im_bytes(m, key);

	memcpy(ret, v.p, MIN(v.n, (size_t)IMAGE_HEX));
	ret[MIN(v.n, (size_t)IMAGE_HEX)] = '\0';
}

int packer_read(struct packer *p, uint64_t *ret_bytes, char **ret_name, struct err *err)
{
	static struct im m;
	int r;

	*ret_bytes = 0;
	r = role_recv(&p->role, &m, err);
	if (r < 0)
		return r;
	if (r == 0 && !p->packed)
		return err_set(err, -EPROTO, "agent-vm-image pack: it ended without a layer; nothing was stored");
	if (r == 0)
		return 0;
	close_p(&m.fd);
	if (m.type == IM_PROGRESS) {
		*ret_bytes = im_u64(&m, IM_K_BYTES);
		*ret_name = im_str(&m, IM_K_NAME);
	} else if (m.type == IM_PACKED) {
		take_digest(&m, IM_K_BLOB, p->made.blob);
		take_digest(&m, IM_K_DIFF_ID, p->made.diff_id);
		p->made.bytes = im_u64(&m, IM_K_BYTES);
		p->packed = true;
	}
	return 0;
}

bool packer_is_through(const struct packer *p)
{
	return p->packed && p->role.fd < 0;
}

int packer_place(struct build *b, struct packer *p, const char *key, const char *state, struct err *err)
{
	int r = blob_place(b->s, p->tmp_name, p->fd, &p->made, b->stop_fd, err);

	free(p->tmp_name);
	p->tmp_name = NULL;
	return r < 0 ? r : made_put(b->s, key, state, &p->made, err);
}

void packer_end(struct build *b, struct packer *p)
{
	role_end(&p->role);
	if (p->tmp_name)
		store_tmp_drop(b->s, p->tmp_name);
	free(p->tmp_name);
	close_p(&p->fd);
	*p = (struct packer)PACKER_INIT;
}

/* --- the whole --- */

/* Room for layers and scratch; pull looks again when the sizes are known, and then for the disk's. */
static int check_room(struct build *b, bool has_base, struct err *err)
{
	uint64_t have = store_free_bytes(b->s), need = 2 * programs_bytes(b) + (has_base ? 0 : base_bytes[b->args->set]);
	uint64_t disk = programs_bytes(b) * TAR_PER_TARBALL + 3 * base_bytes[b->args->set];

	if (have >= need + disk)
		return 0;
	return err_set(err, -ENOSPC, "%s: %llu MB are free and image %s needs about %llu MB; free some (agent-vm prune --dry-run lists what can go), or set AGENT_VM_STATE_DIR to another disk",
		       b->s->path, (unsigned long long)have / 1000000, build_set_str[b->args->set],
		       (unsigned long long)(need + disk) / 1000000);
}

static int wait_for(struct build *b, struct err *err)
{
	struct pollfd pfd[5] = { { .fd = b->stop_fd, .events = POLLIN } };
	size_t n = 1;

	n += base_poll(b, pfd + n);
	n += programs_poll(b, pfd + n);
	if (poll(pfd, n, TICK_MS) < 0 && errno != EINTR)
		return err_set(err, -errno, "poll: %s", strerror(errno));
	if (pfd[0].revents)
		return err_set(err, -EINTR, "stopped; what was loaded is kept for the next build");
	return 0;
}

/* All layers, bottom first. */
static int make_layers(struct build *b, struct made *base, struct err *err)
{
	bool has_base, has_programs = false;
	int r;

	r = programs_begin(b, err);
	if (r < 0)
		return r;
	r = base_begin(b, base, err);
	if (r < 0)
		return r;
	has_base = r == 1;
	r = check_room(b, has_base, err);
	while (r == 0 && !(has_base && has_programs)) {
		if (has_base && b->phase == BUILD_PACKAGES)
			phase_next(b, 0);
		if (b->phase == BUILD_PROGRAMS && programs_loaded(b))
			phase_next(b, b->loaded);
		r = has_programs ? 0 : programs_step(b, err);
		has_programs |= r == 1;
		if (r >= 0)
			r = has_base ? 0 : base_step(b, base, err);
		has_base |= r == 1;
		if (r >= 0 && !(has_base && has_programs))
			r = wait_for(b, err);
	}
	return r < 0 ? r : 0;
}

static void on_pull(void *ctx, const struct pull_state *p, enum pull_event e, size_t layer)
{
	struct build *b = ctx;
	AUTO_FREE(char, what);
	uint64_t bytes = 0;

	for (size_t i = 0; i < p->n_layers; i++)
		bytes += p->layers[i].unpacked;
	if (p->unpacking < p->n_layers)
		what = xasprintf("layer %zu of %zu, %s", p->unpacking + 1, p->n_layers, p->entry);
	build_tell(b, BUILD_DISK, bytes, what);
}

/* The disk, from blobs that are all there. The lock of the build ends with it, so that what the reference named before can
 * go. */
static int make_disk(struct build *b, const char *ref, const struct oci *image, int *lock, struct pull_result *res, struct err *err)
{
	struct image_ref former = { NULL };
	AUTO_FREE(char, source);
	struct pull_args args;
	int r;

	(void)store_ref_read(b->s, ref, &former, NULL);
	source = xasprintf("store:%s:%llu", image->manifest, (unsigned long long)image->manifest_bytes);
	args = (struct pull_args){ .reference = ref, .source = source, .local = true, .image_role = b->args->image_role,
				   .archive_fd = -1, .log_fd = b->log_fd, .stop_fd = b->stop_fd, .progress = on_pull, .ctx = b };
	r = image_pull(b->s, &args, res, err);
	close_p(lock);
	*lock = -1;
	if (r == 0 && former.reference)
		store_blobs_drop(b->s, &former);
	image_ref_done(&former);
	return r;
}

static int make_image(struct build *b, const char *ref, int *lock, struct build_result *ret, struct err *err)
{
	struct made layers[LAYERS_MAX];
	const char *names[LAYERS_MAX] = { "Debian packages" };
	struct pull_result res = { NULL };
	struct oci image;
	size_t n = 1;
	int r;

	r = make_layers(b, &layers[0], err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < programs_count(b); i++, n++) {
		layers[n] = *programs_made(b, i);
		names[n] = programs_name(b, i);
	}
	while (b->phase < BUILD_DISK)
		phase_next(b, b->phase == BUILD_PROGRAMS ? b->loaded : b->packed);
	r = oci_put(b->s, layers, names, n, &image, err);
	/* Before the disk: until then the lock keeps the blobs. */
	if (r == 0 && b->args->output)
		r = oci_export(b->s, &image, layers, n, b->args->output, build_set_str[b->args->set], b->stop_fd, err);
	if (r == 0)
		r = make_disk(b, ref, &image, lock, &res, err);
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++)
		ret->layer_bytes += layers[i].bytes;
	ret->n_layers = n;
	ret->n_new = b->n_new;
	ret->disk_allocated = res.disk_allocated;
	memcpy(ret->digest, res.digest, sizeof(ret->digest));
	memcpy(ret->was, res.was, sizeof(ret->was));
	free(res.reference);
	tell(b, ret->layer_bytes, NULL, true);
	if (store_has(b->s, NULL))
		return 0;
	ret->now_default = true;
	return store_set_default(b->s, ref, err);
}

int image_build(const struct store *s, const struct build_args *args,
		void (*progress)(void *ctx, const struct build_progress *p), void *ctx, int stop_fd,
		struct build_result *ret, struct err *err)
{
	struct build b = { .s = s, .args = args, .progress = progress, .ctx = ctx, .stop_fd = stop_fd, .log_fd = -1,
			   .phase_began = now_ns() };
	struct build_result res = { NULL };
	AUTO_FREE(char, ref);
	AUTO_FREE(char, given);
	int64_t began = now_ns();
	AUTO_FD(lock);
	int r;

	for (size_t i = 0; i < args->include.n; i++) {
		r = debstrap_package_check(args->include.v[i], err);
		if (r < 0)
			return r;
	}
	given = args->reference ? xstrdup(args->reference) : xasprintf("localhost/agent-vm:%s", build_set_str[args->set]);
	r = ref_normalise(given, &ref, err);
	if (r == 0 && args->output)
		r = build_output_check(args->output, err);
	if (r < 0)
		return r;
	lock = store_pull_lock(s, err);
	if (lock < 0)
		return lock;
	b.log_fd = openat(s->fd, "build.log", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);
	r = make_image(&b, ref, &lock, &res, err);
	base_end(&b);
	programs_end(&b);
	close_p(&b.log_fd);
	if (r < 0) {
		free(b.note);
		return r;
	}
	res.reference = TAKE_PTR(ref);
	res.note = b.note;
	res.elapsed_ms = (now_ns() - began) / 1000000;
	*ret = res;
	return 0;
}
