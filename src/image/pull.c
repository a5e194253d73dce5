/* A pull, between two processes that do not know each other:
 *
 *	fetch   network, login; writes blobs/		unpack   neither; writes one disk
 *	  FETCH ->					  DISK ->
 *	  <- MANIFEST, LAYER x n			  LAYER x n ->		as soon as PART has brought its descriptor
 *	  [disk there? room? then GO ->]		  GROWN ->		as far as PROGRESS says
 *	  <- PART, PROGRESS, BLOB			  <- PROGRESS, LAYER_DONE
 *	  <- DONE					  <- DONE
 *
 * The launcher believes neither. A message that the order does not allow, a number beyond the manifest's or a descriptor
 * that could be written ends the pull. The disk is stored only when fetch has said of every blob that it is whole and
 * verified, and unpack has found in every layer the digest that the config promises.
 *
 * Nothing is sent that could block: unpack gets its next message when its socket has room, and then the newest numbers, so
 * a slow unpacker is told less often and the user's Ctrl-C is heard at any moment. */
#include "image/pull.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "image/disk.h"
#include "image/manifest.h"
#include "image/role.h"
#include "proto/rec.h"

#define DISK_CONTENT_MAX (12ULL << 30)	/* content above it: the next power of two (image page 4.4) */
#define DISK_BYTES_MAX (128ULL << 30)
#define DISK_SLACK (256ULL << 20)	/* least room that a guest gets besides the content, and that a pull leaves on the host's disk */
#define EXPANDS_NUM 7			/* unpacked size: 3.5 times the compressed one (image page 5) */
#define EXPANDS_DEN 2
#define LAYERS_BYTES_MAX (1ULL << 40)
#define TICK_MS 100
#define TICK_NS (TICK_MS * INT64_C(1000000))

enum stage {
	STAGE_ASK,    /* until MANIFEST */
	STAGE_LAYERS, /* until LAYER x n */
	STAGE_LOAD,   /* until both have said DONE */
	STAGE_LINK,   /* the disk is there: only the reference is wanted */
};

struct pull {
	const struct store *s;
	const struct pull_args *args;
	struct pull_state st;
	enum stage stage;
	struct role fetch, unpack;
	bool fetch_done, unpack_done;
	char *reference; /* under which it will be stored */
	char config[IMAGE_HEX + 1];
	size_t n_known, n_handed; /* layers: described, given to unpack */
	char *entry;
	struct image_ref former; /* what the reference named until now; reference is NULL when it is new */
	struct image_config image; /* of the config blob */
	char key[IMAGE_HEX + 1];
	uint64_t disk_bytes;
	char *tmp_name;
	int disk;
	int64_t next_tick;
	int refused; /* what unpack said of a layer that is not verified yet; 0: nothing */
	struct err refusal;
	/* what unpack found */
	uint64_t used, has;
	uint32_t api_version;
	char api_found[IMAGE_API_FOUND];
};

static int broken(const char *half, const char *what, struct err *err)
{
	return err_set(err, -EPROTO, "agent-vm-image %s: %s; it was stopped, nothing was stored", half, what);
}

static void tell(struct pull *p, enum pull_event e, size_t layer)
{
	if (p->args->progress)
		p->args->progress(p->args->ctx, &p->st, e, layer);
	p->next_tick = now_ns() + TICK_NS;
}

static bool is_writable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };

	return fd >= 0 && poll(&pfd, 1, 0) > 0;
}

void pull_env(struct strv *ret)
{
	static const char *const files[] = { "REGISTRY_AUTH_FILE", "DOCKER_CONFIG" };
	static const char *const names[] = { "AGENT_VM_INSECURE_REGISTRY", "PATH" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *v = getenv(names[i]);

		if (v && *v)
			strv_addf(ret, "%s=%s", names[i], v);
	}
	/* The role runs in "/". */
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		const char *v = getenv(files[i]);
		AUTO_FREE(char, here);

		here = v && *v && *v != '/' ? getcwd(NULL, 0) : NULL;
		if (v && *v)
			strv_addf(ret, "%s=%s%s%s", files[i], here ? here : "", here ? "/" : "", v);
	}
	prog_shun_env(ret); /* fetch starts credential helpers, which it looks for itself */
}

/* --- what is to be done, once the manifest is known --- */

static uint64_t total_bytes(const struct pull *p)
{
	uint64_t n = 0;

	for (size_t i = 0; i < p->st.n_layers; i++)
		n += p->st.layers[i].bytes;
	return n;
}

/* The first layer of the same blob: only that one is counted and loaded. */
static bool is_repeated(const struct pull *p, size_t layer)
{
	for (size_t i = 0; i < layer; i++)
		if (strcmp(p->st.layers[i].blob, p->st.layers[layer].blob) == 0)
			return true;
	return false;
}

static bool former_has(const struct pull *p, const char *blob)
{
	for (size_t i = 0; i < p->former.n_layers; i++)
		if (strcmp(p->former.layers[i].digest, blob) == 0)
			return true;
	return false;
}

/* Bytes still to be loaded, and an estimate of what the disk will take. */
static void needs(struct pull *p, uint64_t *ret_load, uint64_t *ret_disk)
{
	uint64_t load = 0, fresh = 0, old_disk = 0;

	if (p->former.n_layers > 0)
		old_disk = store_disk_allocated(p->s, p->former.disk);
	for (size_t i = 0; i < p->st.n_layers; i++) {
		const struct pull_layer *l = &p->st.layers[i];

		if (!is_repeated(p, i))
			load += l->bytes - l->had;
		if (!old_disk || !former_has(p, l->blob))
			fresh += l->bytes;
	}
	*ret_load = load;
	*ret_disk = old_disk + fresh * EXPANDS_NUM / EXPANDS_DEN;
}

static int check_room(struct pull *p, struct err *err)
{
	const struct prune_rule rule = { .unused_s = -1, .dry_run = true };
	uint64_t load, disk, have = store_free_bytes(p->s);
	struct prune_list l = { NULL };
	AUTO_FREE(char, prune);

	needs(p, &load, &disk);
	if (have >= load + disk + DISK_SLACK)
		return 0;
	if (store_prune(p->s, &rule, &l, NULL) == 0 && l.bytes >= 1000000)
		prune = xasprintf("agent-vm prune would free %llu MB", (unsigned long long)l.bytes / 1000000);
	prune_list_done(&l);
	return err_set(err, -ENOSPC,
		       "%s: %llu MB are free and image %s needs %llu MB (%llu to load, %llu for its disk); %s, or set AGENT_VM_STATE_DIR to another disk",
		       p->s->path, (unsigned long long)have / 1000000, p->args->reference,
		       (unsigned long long)(load + disk + DISK_SLACK) / 1000000, (unsigned long long)load / 1000000,
		       (unsigned long long)disk / 1000000, prune ? prune : "free some");
}

static void set_disk_bytes(struct pull *p, uint64_t bytes)
{
	char (*ids)[IM_DIGEST + 1] = xcalloc(p->st.n_layers + 1, sizeof(*ids));

	p->disk_bytes = bytes;
	for (size_t i = 0; i < p->st.n_layers; i++)
		memcpy(ids[i], p->st.layers[i].diff_id, sizeof(ids[i]));
	disk_key(bytes, (const char (*)[IM_DIGEST + 1])ids, p->st.n_layers, p->key);
	free(ids);
}

/* What the compressed size lets expect; larger_disk() when it was more. */
static void choose_disk(struct pull *p)
{
	uint64_t content = total_bytes(p) * EXPANDS_NUM / EXPANDS_DEN, bytes = DISK_BYTES;

	while (content > DISK_CONTENT_MAX && bytes < content * 4 / 3 && bytes < DISK_BYTES_MAX)
		bytes *= 2;
	set_disk_bytes(p, bytes);
}

/* The config as it is in the store, checked against its digest: what runs in the guest must be what the manifest says. */
static int read_config(struct pull *p, struct err *err)
{
	AUTO_FREE(char, text);
	char hex[IMAGE_HEX + 1];
	size_t n;
	AUTO_FD(fd);
	int r;

	fd = store_blob_open(p->s, p->config);
	r = fd < 0 ? fd : fd_read_file(fd, MANIFEST_MAX, &text, &n);
	if (r < 0)
		return err_set(err, r, "%s/blobs/sha256/%.12s: cannot be read: %s", p->s->path, p->config, strerror(-r));
	image_sha256(text, n, hex);
	if (strcmp(hex, p->config) != 0)
		return err_set(err, -EBADMSG, "%s/blobs/sha256/%.12s: not what its name says; delete it and run: agent-vm pull",
			       p->s->path, p->config);
	r = config_parse(text, n, IMAGE_ARCH, p->st.n_layers, &p->image, err);
	if (r < 0)
		return err_ctx(err, r, "image %s", p->args->reference);
	for (size_t i = 0; i < p->st.n_layers; i++)
		if (strcmp(p->image.diff_ids[i], p->st.layers[i].diff_id) != 0)
			return broken("fetch", "a layer is not the config's", err);
	return 0;
}

static void fill_meta(const struct pull *p, struct image_blob *blobs, struct image_meta *m)
{
	for (size_t i = 0; i < p->st.n_layers; i++) {
		memcpy(blobs[i].digest, p->st.layers[i].blob, sizeof(blobs[i].digest));
		blobs[i].bytes = p->st.layers[i].bytes;
	}
	*m = (struct image_meta){
		.reference = p->reference,
		.api_version = p->api_version,
		.api_found = p->api_found,
		.has_known = true,
		.has = p->has,
		.min_bytes = MIN(p->used + DISK_SLACK, p->disk_bytes),
		.env = &p->image.env,
		.architecture = IMAGE_ARCH,
		.served = p->args->local ? NULL : p->st.served,
		.platform = p->args->local ? NULL : p->st.platform,
		.config = p->config,
		.layers = blobs,
		.n_layers = p->st.n_layers,
	};
	memcpy(m->key, p->key, sizeof(m->key));
}

static int try_link(struct pull *p, struct err *err)
{
	AUTO_FREE(struct image_blob, blobs);
	struct image_meta meta;

	blobs = xcalloc(p->st.n_layers + 1, sizeof(*blobs));
	fill_meta(p, blobs, &meta);
	return store_link(p->s, &meta, err);
}

/* A disk of these layers that is stored, of the size that we expect or one that it came to. -ENOENT. */
static int try_links(struct pull *p, struct err *err)
{
	uint64_t expected = p->disk_bytes;
	int r = -ENOENT;

	for (uint64_t bytes = expected; r == -ENOENT && bytes <= DISK_BYTES_MAX; bytes *= 2) {
		set_disk_bytes(p, bytes);
		r = try_link(p, err);
	}
	if (r == -ENOENT)
		set_disk_bytes(p, expected);
	return r;
}

static int start_unpack(struct pull *p, struct err *err)
{
	struct buf b;
	int r;

	r = store_tmp(p->s, 0, &p->tmp_name, &p->disk, err);
	if (r == 0)
		r = role_start(p->args->image_role, "unpack", p->args->log_fd, -1, NULL, &p->unpack, err);
	if (r < 0)
		return r;
	im_begin(&b, IM_DISK);
	(void)rec_put_u64(&b, IM_K_BYTES, p->disk_bytes);
	(void)rec_put_u64(&b, IM_K_LAYERS, p->st.n_layers);
	(void)rec_put_u64(&b, IM_K_EPOCH, 0);
	return role_send(&p->unpack, &b, p->disk, err);
}

/* What is half made. */
static void drop_disk(struct pull *p)
{
	if (p->tmp_name)
		store_tmp_drop(p->s, p->tmp_name);
	free(p->tmp_name);
	p->tmp_name = NULL;
	close_p(&p->disk);
	p->disk = -1;
}

static int on_known(struct pull *p, struct err *err)
{
	struct buf b;
	int r;

	r = read_config(p, err);
	if (r < 0)
		return r;
	choose_disk(p);
	for (size_t i = 0; i < p->st.n_layers; i++) {
		struct pull_layer *l = &p->st.layers[i];

		l->had = l->got = MIN(store_blob_have(p->s, l->blob), l->bytes);
	}
	tell(p, PULL_KNOWN, 0);
	r = try_links(p, err);
	if (r != -ENOENT) {
		p->stage = STAGE_LINK;
		return r;
	}
	r = check_room(p, err);
	if (r == 0)
		r = start_unpack(p, err);
	if (r < 0)
		return r;
	p->stage = STAGE_LOAD;
	im_begin(&b, IM_GO);
	return role_send(&p->fetch, &b, -1, err);
}

/* --- from fetch --- */

/* A reference that an archive on standard input is to be stored under: the first of its names that is one. The names are the
 * archive's own word, so they are kept apart: it must not replace what came from a registry, a file or a build. */
static char *archive_name(const struct im *m)
{
	struct span in = m->body, v;
	uint16_t key;

	while (rec_next(&in, &key, &v) == 1) {
		AUTO_FREE(char, name);
		AUTO_FREE(char, ref);
		char *full;

		if (key != IM_K_NAME || span_dup(v, &name) < 0)
			continue;
		ref = xasprintf(IMAGE_REF_STDIN "%s", name);
		if (store_ref_full(ref, &full, NULL) == 0)
			return full;
	}
	return NULL;
}

static void take_digest(const struct im *m, enum im_key key, char ret[IMAGE_HEX + 1])
{
	struct span v = im_bytes(m, key);

	memcpy(ret, v.p, MIN(v.n, (size_t)IMAGE_HEX));
	ret[MIN(v.n, (size_t)IMAGE_HEX)] = '\0';
}

static int on_manifest(struct pull *p, const struct im *m, struct err *err)
{
	if (p->stage != STAGE_ASK)
		return broken("fetch", "a second manifest", err);
	if (!im_has(m, IM_K_CONFIG))
		return broken("fetch", "a manifest without a config", err);
	take_digest(m, IM_K_SERVED, p->st.served);
	take_digest(m, IM_K_PLATFORM, p->st.platform);
	take_digest(m, IM_K_CONFIG, p->config);
	p->st.n_layers = im_u64(m, IM_K_LAYERS);
	if (p->st.n_layers == 0)
		return err_set(err, -EBADMSG, "image %s: it has no layers; use another one", p->args->reference);
	if (strcmp(p->args->reference, "-") == 0) {
		free(p->reference);
		p->reference = archive_name(m);
		if (!p->reference)
			return err_set(err, -EINVAL, "standard input: the archive names no image; give it as oci-archive:FILE or docker-archive:FILE");
		(void)store_ref_read(p->s, p->reference, &p->former, NULL);
	}
	p->st.layers = xcalloc(p->st.n_layers, sizeof(*p->st.layers));
	for (size_t i = 0; i < p->st.n_layers; i++)
		p->st.layers[i].fd = -1;
	p->st.unpacking = 0;
	p->stage = STAGE_LAYERS;
	return 0;
}

static int on_layer(struct pull *p, const struct im *m, struct err *err)
{
	struct pull_layer *l;

	if (p->stage != STAGE_LAYERS || im_u64(m, IM_K_LAYER) != p->n_known || !im_has(m, IM_K_BLOB) ||
	    !im_has(m, IM_K_BYTES) || !im_has(m, IM_K_DIFF_ID) || im_u64(m, IM_K_BYTES) > LAYERS_BYTES_MAX || m->fd >= 0)
		return broken("fetch", "its description of a layer is out of order", err);
	l = &p->st.layers[p->n_known++];
	take_digest(m, IM_K_BLOB, l->blob);
	take_digest(m, IM_K_DIFF_ID, l->diff_id);
	l->compression = (enum im_compression)im_u64(m, IM_K_COMPRESSION);
	l->bytes = im_u64(m, IM_K_BYTES);
	if (total_bytes(p) > LAYERS_BYTES_MAX)
		return err_set(err, -EFBIG, "image %s: its layers are larger than %llu GB", p->args->reference,
			       LAYERS_BYTES_MAX / 1000000000);
	return p->n_known == p->st.n_layers ? on_known(p, err) : 0;
}

/* A blob is loaded once for all layers that have it. */
static void got_bytes(struct pull *p, size_t layer, uint64_t bytes)
{
	/* A download that begins anew counts down. The unpacker is told of more only: what it has read of the first one is
	 * what comes again, or its digest is wrong. */
	for (size_t i = 0; i < p->st.n_layers; i++)
		if (strcmp(p->st.layers[i].blob, p->st.layers[layer].blob) == 0)
			p->st.layers[i].got = bytes;
}

/* Of what the store has: hashed so far. */
static void got_checked(struct pull *p, size_t layer, uint64_t bytes)
{
	for (size_t i = 0; i < p->st.n_layers; i++)
		if (strcmp(p->st.layers[i].blob, p->st.layers[layer].blob) == 0)
			p->st.layers[i].checked = bytes;
}

static int on_part(struct pull *p, struct im *m, struct err *err)
{
	uint64_t layer = im_u64(m, IM_K_LAYER), bytes = im_u64(m, IM_K_BYTES);
	struct stat st;

	/* Read-only and a plain file: what goes on to the unpacker must give it no way to anything else. */
	if (p->stage != STAGE_LOAD || layer >= p->st.n_layers || bytes > p->st.layers[layer].bytes || fstat(m->fd, &st) < 0 ||
	    !S_ISREG(st.st_mode) || (fcntl(m->fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
		return broken("fetch", "it handed over something that is no part of a layer", err);
	for (size_t i = 0; i < p->st.n_layers; i++) {
		struct pull_layer *l = &p->st.layers[i];

		if (strcmp(l->blob, p->st.layers[layer].blob) != 0 || l->has_part)
			continue;
		l->fd = fcntl(m->fd, F_DUPFD_CLOEXEC, 3);
		if (l->fd < 0)
			return err_set(err, -errno, "agent-vm: no descriptor for a layer: %s", strerror(errno));
		l->has_part = true;
		l->had = l->got = bytes;
	}
	return 0;
}

static int on_fetch_progress(struct pull *p, const struct im *m, struct err *err)
{
	uint64_t layer = im_u64(m, IM_K_LAYER), bytes = im_u64(m, IM_K_BYTES);

	if (p->stage != STAGE_LOAD || layer >= p->st.n_layers || bytes > p->st.layers[layer].bytes)
		return broken("fetch", "its progress is beyond the layer", err);
	if (!p->st.layers[layer].has_part && bytes < p->st.layers[layer].had)
		got_checked(p, layer, bytes);
	else
		got_bytes(p, layer, bytes);
	return 0;
}

static int on_blob(struct pull *p, const struct im *m, struct err *err)
{
	uint64_t layer = im_u64(m, IM_K_LAYER);

	if (p->stage != STAGE_LOAD || layer >= p->st.n_layers || !p->st.layers[layer].has_part)
		return broken("fetch", "a layer came that was not begun", err);
	got_bytes(p, layer, p->st.layers[layer].bytes);
	for (size_t i = 0; i < p->st.n_layers; i++) {
		struct pull_layer *l = &p->st.layers[i];

		if (l->loaded || strcmp(l->blob, p->st.layers[layer].blob) != 0)
			continue;
		l->loaded = true;
		tell(p, PULL_LAYER_IN, i);
	}
	return 0;
}

static int on_fetch_done(struct pull *p, struct err *err)
{
	for (size_t i = 0; i < p->st.n_layers; i++)
		if (!p->st.layers[i].loaded)
			return broken("fetch", "it stopped before all layers were there", err);
	if (p->stage != STAGE_LOAD)
		return broken("fetch", "it stopped before it was told what to load", err);
	p->fetch_done = true;
	return 0;
}

static int on_fetch(struct pull *p, struct err *err)
{
	struct im m;
	int r;

	r = role_recv(&p->fetch, &m, err);
	if (r <= 0)
		return r < 0 || p->fetch_done ? r : broken("fetch", "it ended early", err);
	switch (m.type) {
	case IM_MANIFEST:
		r = on_manifest(p, &m, err);
		break;
	case IM_LAYER:
		r = on_layer(p, &m, err);
		break;
	case IM_PART:
		r = on_part(p, &m, err);
		break;
	case IM_PROGRESS:
		r = on_fetch_progress(p, &m, err);
		break;
	case IM_BLOB:
		r = on_blob(p, &m, err);
		break;
	default:
		r = on_fetch_done(p, err);
	}
	close_p(&m.fd);
	return r;
}

/* --- to and from unpack --- */

static int hand_layer(struct pull *p, struct err *err)
{
	struct pull_layer *l = &p->st.layers[p->n_handed];
	struct buf b;
	int r;

	im_begin(&b, IM_LAYER);
	(void)rec_put_u64(&b, IM_K_LAYER, p->n_handed);
	(void)rec_put_u64(&b, IM_K_COMPRESSION, l->compression);
	(void)rec_put_str(&b, IM_K_BLOB, l->blob);
	(void)rec_put_u64(&b, IM_K_BYTES, l->bytes);
	(void)rec_put_str(&b, IM_K_DIFF_ID, l->diff_id);
	r = role_send(&p->unpack, &b, l->fd, err);
	p->n_handed++;
	return r;
}

static int send_grown(struct pull *p, size_t layer, struct err *err)
{
	struct buf b;

	im_begin(&b, IM_GROWN);
	(void)rec_put_u64(&b, IM_K_LAYER, layer);
	(void)rec_put_u64(&b, IM_K_BYTES, p->st.layers[layer].got);
	p->st.layers[layer].told = p->st.layers[layer].got;
	return role_send(&p->unpack, &b, -1, err);
}

/* Tell the unpacker what is new, as far as its socket has room. */
static int feed(struct pull *p, struct err *err)
{
	int r = 0;

	while (r == 0 && p->n_handed < p->st.n_layers && p->st.layers[p->n_handed].has_part && is_writable(p->unpack.fd))
		r = hand_layer(p, err);
	for (size_t i = 0; r == 0 && i < p->n_handed; i++)
		if (p->st.layers[i].got > p->st.layers[i].told && is_writable(p->unpack.fd))
			r = send_grown(p, i, err);
	return r;
}

static int on_unpack_progress(struct pull *p, const struct im *m, struct err *err)
{
	uint64_t layer = im_u64(m, IM_K_LAYER), bytes = im_u64(m, IM_K_BYTES);

	if (layer >= p->n_handed || layer != p->st.unpacking || bytes > p->st.layers[layer].bytes)
		return broken("unpack", "its progress is beyond the layer", err);
	p->st.layers[layer].unpacked = bytes;
	if (im_has(m, IM_K_NAME)) {
		free(p->entry);
		p->entry = im_str(m, IM_K_NAME);
		p->st.entry = p->entry;
	}
	return 0;
}

static int on_layer_done(struct pull *p, const struct im *m, struct err *err)
{
	char found[IMAGE_HEX + 1];
	struct pull_layer *l;

	if (im_u64(m, IM_K_LAYER) != p->st.unpacking || p->st.unpacking >= p->n_handed)
		return broken("unpack", "a layer was done out of order", err);
	l = &p->st.layers[p->st.unpacking];
	take_digest(m, IM_K_DIFF_ID, found);
	if (strcmp(found, l->diff_id) != 0)
		return err_set(err, -EBADMSG,
			       "image %s: layer %zu holds %.12s where its config says %.12s; the image is broken, use another tag",
			       p->args->reference, p->st.unpacking + 1, found, l->diff_id);
	l->unpacked = l->bytes;
	l->done = true;
	p->st.unpacking++;
	return 0;
}

static int on_unpack_done(struct pull *p, const struct im *m, struct err *err)
{
	struct span version = im_bytes(m, IM_K_VERSION);

	if (p->st.unpacking != p->st.n_layers || !im_has(m, IM_K_USED) || im_u64(m, IM_K_USED) > p->disk_bytes)
		return broken("unpack", "it stopped before all layers were done", err);
	p->used = im_u64(m, IM_K_USED);
	p->has = im_u64(m, IM_K_HAS);
	p->api_version = image_api_parse(version.p, version.n, p->api_found);
	p->unpack_done = true;
	tell(p, PULL_DISK_MADE, 0);
	return 0;
}

static int on_unpack(struct pull *p, struct err *err)
{
	struct im m;
	int r;

	r = role_recv(&p->unpack, &m, err);
	if (r <= 0)
		return r < 0 || p->unpack_done ? r : broken("unpack", "it ended early", err);
	switch (m.type) {
	case IM_PROGRESS:
		r = on_unpack_progress(p, &m, err);
		break;
	case IM_LAYER_DONE:
		r = on_layer_done(p, &m, err);
		break;
	default:
		r = on_unpack_done(p, &m, err);
	}
	close_p(&m.fd);
	return r;
}

/* --- the whole --- */

static bool is_over(const struct pull *p)
{
	return p->stage == STAGE_LINK || (p->fetch_done && p->unpack_done);
}

/* A role's errno is a number of its own choosing: only some mean something to our caller. */
static int judge(const struct pull *p, int r)
{
	struct pollfd stop = { .fd = p->args->stop_fd, .events = POLLIN };

	/* A wait for the store that the user has ended. */
	if (r >= 0 || (r == -EINTR && poll(&stop, 1, 0) > 0))
		return r;
	switch (r) {
	case -ENETUNREACH:
	case -EHOSTUNREACH:
	case -ENETDOWN:
	case -EHOSTDOWN:
	case -ECONNREFUSED:
	case -ENONET:
	case -ENOTCONN:
	case -ETIMEDOUT:
		return -ENETUNREACH;
	case -ENOSPC:
	case -EPROTO:
	case -EBADMSG:
	case -EINVAL:
		return r;
	default:
		return -EIO;
	}
}

/* What unpack cannot read may be the image's fault, or what came over the network: fetch knows when it has all of the layer,
 * and then also deletes what it has of it. */
static int on_refusal(struct pull *p, int r, struct err *err)
{
	if (r != -EBADMSG || p->st.unpacking >= p->st.n_layers || p->st.layers[p->st.unpacking].loaded || p->fetch.fd < 0)
		return r;
	p->refused = r;
	p->refusal = *err;
	role_end(&p->unpack);
	return 0;
}

/* How far layers expand is known when they are unpacked, not before: a disk that has proved too small is begun again, twice
 * as large. What is loaded stays, and what is still loading goes on. */
static int larger_disk(struct pull *p, int r, struct err *err)
{
	uint64_t have, need;
	struct stat st;

	if (r != -EFBIG || p->disk_bytes >= DISK_BYTES_MAX || p->n_handed == 0)
		return r;
	role_end(&p->unpack);
	need = DISK_SLACK + (fstat(p->disk, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0);
	drop_disk(p);
	have = store_free_bytes(p->s);
	if (have < need)
		return err_set(err, -ENOSPC, "%s: %llu MB are free and image %s needs more than %llu MB for its disk; free some, or set AGENT_VM_STATE_DIR to another disk",
			       p->s->path, (unsigned long long)have / 1000000, p->args->reference,
			       (unsigned long long)need / 1000000);
	for (size_t i = 0; i < p->n_handed; i++) {
		p->st.layers[i].told = p->st.layers[i].unpacked = 0;
		p->st.layers[i].done = false;
	}
	p->n_handed = p->st.unpacking = 0;
	set_disk_bytes(p, p->disk_bytes * 2);
	return start_unpack(p, err);
}

static int stopped(struct err *err)
{
	return err_set(err, -EINTR, "stopped; what was loaded is kept for the next pull");
}

/* What a layer expands to is known when it is there: one of 34 KB can hold more than any disk. Other programs live on it. */
static int room_left(const struct pull *p, struct err *err)
{
	uint64_t left = p->stage == STAGE_LOAD ? store_free_bytes(p->s) : UINT64_MAX;

	if (left >= DISK_SLACK)
		return 0;
	return err_set(err, -ENOSPC, "%s: %llu MB are left on this disk, no room for the disk of image %s; make room (agent-vm prune "
		       "--dry-run lists what can go), or set AGENT_VM_STATE_DIR to another disk", p->s->path,
		       (unsigned long long)left / 1000000, p->args->reference);
}

static int watch(struct pull *p, struct err *err)
{
	int r = 0;

	while (r >= 0 && !is_over(p)) {
		struct pollfd pfd[] = {
			{ .fd = p->args->stop_fd, .events = POLLIN },
			{ .fd = p->fetch.fd, .events = POLLIN },
			{ .fd = p->unpack.fd, .events = POLLIN },
		};

		if (poll(pfd, ARRAY_SIZE(pfd), TICK_MS) < 0 && errno != EINTR)
			return err_set(err, -errno, "poll: %s", strerror(errno));
		if (pfd[0].revents)
			return stopped(err);
		if (pfd[2].revents)
			r = on_refusal(p, judge(p, larger_disk(p, on_unpack(p, err), err)), err);
		if (r >= 0 && !is_over(p) && pfd[1].revents)
			r = judge(p, on_fetch(p, err));
		if (r >= 0 && p->refused && p->st.layers[p->st.unpacking].loaded) {
			*err = p->refusal;
			r = p->refused;
		}
		if (r >= 0)
			r = feed(p, err);
		if (r >= 0 && !is_over(p))
			r = room_left(p, err);
		if (r >= 0 && now_ns() >= p->next_tick)
			tell(p, PULL_TICK, 0);
	}
	return r < 0 ? r : 0;
}

static int start_fetch(struct pull *p, struct err *err)
{
	struct strv env = { 0 };
	struct buf b;
	int r;

	pull_env(&env);
	prog_user_env(&env); /* for credential helpers */
	r = role_start(p->args->image_role, "fetch", p->args->log_fd, p->s->fd, &env, &p->fetch, err);
	strv_done(&env);
	if (r < 0)
		return r;
	im_begin(&b, IM_FETCH);
	(void)rec_put_str(&b, IM_K_SOURCE, p->args->source ? p->args->source : p->args->reference);
	(void)rec_put_str(&b, IM_K_ARCH, IMAGE_ARCH);
	return role_send(&p->fetch, &b, p->args->archive_fd, err);
}

/* Seconds on a slow disk, in which Ctrl-C must be heard: a child waits for them. */
static int write_out(struct pull *p, struct err *err)
{
	struct pollfd pfd[2];
	int ends[2], status = 0;
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	pid = fork();
	if (pid == 0)
		_exit(fsync(p->disk) < 0 ? errno : 0);
	(void)close(ends[1]);
	pfd[0] = (struct pollfd){ .fd = p->args->stop_fd, .events = POLLIN };
	pfd[1] = (struct pollfd){ .fd = ends[0], .events = POLLIN };
	while (pid > 0 && poll(pfd, 2, TICK_MS) >= 0 && !pfd[0].revents && !pfd[1].revents)
		tell(p, PULL_TICK, 0);
	(void)close(ends[0]);
	/* One that is in the middle of it cannot be ended; it ends by itself. */
	if (pid > 0 && pfd[0].revents)
		return stopped(err);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid > 0 && WIFEXITED(status) && WEXITSTATUS(status) != 0)
		return err_set(err, -WEXITSTATUS(status), "%s/tmp/%s: cannot be written out: %s", p->s->path, p->tmp_name,
			       strerror(WEXITSTATUS(status)));
	return 0; /* store_add() makes sure of it in any case */
}

static int store_it(struct pull *p, struct err *err)
{
	AUTO_FREE(struct image_blob, blobs);
	char was[IMAGE_HEX + 1];
	struct image_meta meta;
	int r;

	r = image_api_check(p->reference, p->api_version, p->api_found, err);
	if (r < 0)
		return r;
	r = write_out(p, err);
	if (r < 0)
		return r;
	blobs = xcalloc(p->st.n_layers + 1, sizeof(*blobs));
	fill_meta(p, blobs, &meta);
	r = store_add(p->s, p->tmp_name, p->disk, &meta, was, err);
	free(p->tmp_name);
	p->tmp_name = NULL;
	return r;
}

static void fill_result(struct pull *p, struct pull_result *ret)
{
	*ret = (struct pull_result){ .reference = TAKE_PTR(p->reference), .n_layers = p->st.n_layers,
				     .made = p->stage == STAGE_LOAD };
	memcpy(ret->digest, p->args->local ? p->key : p->st.served, sizeof(ret->digest));
	if (p->former.reference)
		memcpy(ret->was, p->former.served[0] ? p->former.served : p->former.disk, sizeof(ret->was));
	for (size_t i = 0; ret->made && i < p->st.n_layers; i++)
		if (!is_repeated(p, i) && p->st.layers[i].had < p->st.layers[i].bytes) {
			ret->n_new++;
			ret->loaded += p->st.layers[i].bytes - p->st.layers[i].had;
		}
	ret->disk_allocated = store_disk_allocated(p->s, p->key);
	ret->elapsed_ms = (now_ns() - p->st.began_ns) / 1000000;
}

static void pull_end(struct pull *p)
{
	role_end(&p->fetch);
	role_end(&p->unpack);
	drop_disk(p);
	for (size_t i = 0; p->st.layers && i < p->st.n_layers; i++)
		close_p(&p->st.layers[i].fd);
	free(p->st.layers);
	free(p->reference);
	free(p->entry);
	image_ref_done(&p->former);
	config_done(&p->image);
}

static void on_waits(void *ctx)
{
	tell(ctx, PULL_WAITS, 0);
}

int image_pull(const struct store *s, const struct pull_args *args, struct pull_result *ret, struct err *err)
{
	struct store mine = *s;
	struct pull p = { .s = &mine, .args = args, .fetch = ROLE_INIT, .unpack = ROLE_INIT, .disk = -1,
			  .st = { .reference = args->reference, .entry = "", .began_ns = now_ns() } };
	AUTO_FD(pulls);
	int r;

	mine.stop_fd = args->stop_fd;
	mine.waits = on_waits;
	mine.waits_ctx = &p;
	pulls = store_pull_lock(&mine, err);
	if (pulls < 0)
		return pulls;
	p.reference = xstrdup(args->reference);
	(void)store_ref_read(&mine, p.reference, &p.former, NULL);
	r = start_fetch(&p, err);
	if (r == 0)
		r = watch(&p, err);
	if (r == 0 && p.stage == STAGE_LOAD)
		r = store_it(&p, err);
	if (r == 0) {
		/* Its blobs have a name now; those of the former one may go. */
		(void)close(pulls);
		pulls = -1;
		if (p.former.reference)
			store_blobs_drop(&mine, &p.former);
		fill_result(&p, ret);
	}
	pull_end(&p);
	return r;
}
