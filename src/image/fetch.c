/* The order of a fetch:
 *
 *	1. FETCH is read; login and CA files are read, the source's path and the store's folders opened; the sandbox is closed
 *	2. documents: what the name leads to, the platform's manifest, the config; into blobs/		-> MANIFEST, LAYER x n
 *	3. GO
 *	4. layers: four downloads at a time, the lowest first and then the largest; a local source is copied; what is stored is
 *	   hashed meanwhile, for a disk can damage it, and loaded again if it is damaged		-> PART, PROGRESS, BLOB
 *	5. DONE
 *
 * A blob that another process is loading is waited for and then found complete, or taken up where that one died. The
 * launcher's end of the socket is watched all the time: when it is closed this process ends, and what was loaded stays in
 * partial/. An error ends it too: the process is the cleanup. */
#include "image/fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/prog.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/fetch_priv.h"
#include "proto/rec.h"

#define AT_ONCE 4
#define TICK_MS 50	       /* of progress: the unpacker is as far behind */
#define BUSY_NS INT64_C(200000000) /* between looks at a blob that another process is loading */
#define HEAD_NS INT64_C(5000000000)
#define COPY_BYTES (1 << 20)
#define CHECK_BYTES (4 << 20) /* hashed between two looks at the control socket */
#define COPY_STEP 4 /* of those, between two looks at the control socket */
#define SPOOL_STEP (16 << 20) /* between two looks at the room */
#define SPOOL_LEAVES (256ULL << 20)
#define NAMES_MAX 16
#define NAME_BYTES_MAX 255
#define FILES_MAX 1024

enum load_state { LOAD_NEW, LOAD_BUSY, LOAD_CHECK, LOAD_NET, LOAD_COPY, LOAD_DONE };

/* One blob, which may be several layers. */
struct load {
	enum load_state state;
	size_t layer; /* the lowest that has it */
	bool here;    /* complete in the store at the beginning: only checked */
	const struct descriptor *d;
	struct blob *blob;
	struct op op;
	char *path, *what;
	struct part part;
	uint64_t told;
	int64_t next_ns;
};

/* The launcher is gone: nobody is left to tell. */
static _Noreturn void gone(void)
{
	_exit(1);
}

void fetch_say(struct buf *b, int pass)
{
	int r = im_send(IM_FD_CONTROL, b, pass);

	if (r == -EPIPE || r == -ECONNRESET)
		gone();
	if (r < 0) {
		log_error("a message of ours is not one: %s", strerror(-r));
		_exit(1);
	}
}

_Noreturn void fetch_fail(int code, const struct err *err)
{
	AUTO_FREE(char, text);
	struct buf b;

	text = str_escape(err->text, strlen(err->text));
	log_error("%s", text);
	im_begin(&b, IM_ERROR);
	(void)rec_put_u64(&b, IM_K_ERRNO, (uint64_t)-code);
	(void)rec_put_str(&b, IM_K_TEXT, text);
	fetch_say(&b, -1);
	_exit(1);
}

/* --- what is wanted --- */

static int take_order(struct fetch *f, struct err *err)
{
	struct im m;
	int r = im_recv(IM_FD_CONTROL, IM_TO_FETCH, &m);

	if (r == 0)
		gone();
	if (r < 0 || (m.type != IM_FETCH && m.type != IM_HEAD))
		return err_set(err, r < 0 ? r : -EPROTO, "agent-vm-image fetch: was not told what to fetch");
	f->head = m.type == IM_HEAD;
	f->source_text = im_str(&m, IM_K_SOURCE);
	f->arch = im_str(&m, IM_K_ARCH);
	f->known = im_str(&m, IM_K_SERVED);
	f->npm_registry = im_str(&m, IM_K_REGISTRY);
	f->integrity = im_str(&m, IM_K_INTEGRITY);
	f->dependency = im_str(&m, IM_K_DEPENDENCY);
	f->bytes = im_u64(&m, IM_K_BYTES);
	if (str_starts(f->source_text, "npm:"))
		f->kind = FETCH_NPM;
	else if (str_starts(f->source_text, "debian:"))
		f->kind = FETCH_DEBIAN;
	f->input = m.fd;
	return 0;
}

bool fetch_may_be_plain(void)
{
	const char *v = getenv("AGENT_VM_INSECURE_REGISTRY");

	return v && str_switch(v) == 1;
}

static int open_network(struct fetch *f, struct err *err)
{
	int r = trust_new(&f->trust, err);

	/* Nobody waits for the update check, and nobody is to be asked for the key of his key ring at each launch. */
	auth_load(f->source.ref.domain, f->source.ref.path, !f->head, &f->auth);
	if (r == 0)
		r = http_new(f->trust, fetch_may_be_plain(), &f->http, err);
	if (r == 0)
		f->reg = registry_new(f->http, &f->source.ref, &f->auth, f->head ? now_ns() + HEAD_NS : 0);
	return r;
}

static int prepare(struct fetch *f, struct err *err)
{
	int r = f->kind != FETCH_IMAGE ? fetch_urls_open(f, err) : source_open(f->source_text, f->input, &f->source, err);

	if (r == 0 && f->head && f->source.kind != SOURCE_REGISTRY)
		r = err_set(err, -EINVAL, "%s: only a registry can be asked for news", source_name(&f->source));
	if (r == 0 && f->kind == FETCH_IMAGE && f->source.kind == SOURCE_REGISTRY)
		r = open_network(f, err);
	if (r == 0 && !f->head)
		r = blobs_open(IM_FD_STORE, &f->blobs, err);
	(void)close(IM_FD_STORE);
	prog_user_env_forget();
	if (r == 0)
		r = fetch_sandbox(f->head ? NULL : &f->blobs, f->source.kind == SOURCE_OCI_DIR ? f->source.fd : -1, err);
	return r;
}

/* --- waiting --- */

/* Whether the launcher is still there. It has nothing to say but GO, which is read where it is due. */
static void watch(short revents)
{
	char c;

	if (revents && recv(IM_FD_CONTROL, &c, 1, MSG_PEEK | MSG_DONTWAIT) == 0)
		gone();
}

void fetch_step(struct fetch *f, int timeout_ms)
{
	struct pollfd ctl = { .fd = IM_FD_CONTROL, .events = POLLIN };

	if (f->reg) {
		registry_step(f->reg, &ctl, 1, timeout_ms);
	} else {
		ctl.revents = 0;
		(void)poll(&ctl, 1, timeout_ms);
	}
	watch(ctl.revents);
}

/* --- standard input --- */

/* The archive is never to fill the disk: other programs live on it, and its layers and the image's disk need room besides. */
static int spool_room(int file, uint64_t bytes, struct err *err)
{
	struct statfs fs;
	uint64_t left;

	if (fstatfs(file, &fs) < 0)
		return 0;
	left = (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
	if (left >= SPOOL_LEAVES)
		return 0;
	return err_set(err, -ENOSPC, "image store: %llu MB of standard input are here and %llu MB are left on this disk, no room for "
		       "its image; make room (agent-vm prune --dry-run lists what can go)",
		       (unsigned long long)bytes / 1000000, (unsigned long long)left / 1000000);
}

/* Copy a stream into a file without a name in the store: archives are read in any order. */
static int spool(struct fetch *f, struct err *err)
{
	struct pollfd fds[2] = { { .fd = f->source.fd, .events = POLLIN }, { .fd = IM_FD_CONTROL, .events = POLLIN } };
	AUTO_FREE(char, name);
	AUTO_FREE(uint8_t, mem);
	AUTO_FD(file);
	uint64_t bytes = 0;
	ssize_t n = 1;
	int r = 0;

	name = xasprintf(".spool.%d", (int)getpid());
	file = openat(f->blobs.partial, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (file < 0 || unlinkat(f->blobs.partial, name, 0) < 0)
		return err_set(err, -errno, "image store: a file for standard input cannot be made: %s", strerror(errno));
	mem = xmalloc(COPY_BYTES);
	while (n > 0 && r == 0) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return err_set(err, -errno, "poll: %s", strerror(errno));
		watch(fds[1].revents);
		if (fds[0].revents == 0)
			continue;
		n = read(fds[0].fd, mem, COPY_BYTES);
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			n = 1;
		else if (n < 0)
			r = err_set(err, -errno, "%s: cannot be read: %s", source_name(&f->source), strerror(errno));
		else
			r = fd_write_all(file, mem, (size_t)n);
		if (r == 0 && n > 0 && bytes / SPOOL_STEP != (bytes + (uint64_t)n) / SPOOL_STEP) {
			r = spool_room(file, bytes, err);
			if (r < 0)
				return r;
		}
		bytes += n > 0 ? (uint64_t)n : 0;
		if (r < 0 && n > 0)
			(void)err_set(err, r, "image store: no room for what comes on standard input: %s; make room (agent-vm "
				      "prune --dry-run lists what can go)", strerror(-r));
	}
	if (r < 0)
		return r;
	(void)close(f->source.fd);
	f->source.fd = TAKE_FD(file);
	return 0;
}

/* --- documents of a registry --- */

int fetch_run(struct fetch *f, struct op *op, struct err *err)
{
	registry_submit(f->reg, op);
	while (op->state != OP_DONE)
		fetch_step(f, 1000);
	if (op->error < 0) {
		*err = op->err;
		f->told = true;
	}
	return op->error;
}

static int get_document(void *ctx, const struct descriptor *d, const char *what, char **ret, size_t *ret_n, struct err *err)
{
	struct fetch *f = ctx;
	bool config = strcmp(what, "config") == 0;
	struct op op = { .what = what, .manifest = !config };
	AUTO_FREE(char, path);
	int r;

	path = xasprintf("%s/sha256:%s", config ? "blobs" : "manifests", d->hex);
	op.path = path;
	r = fetch_run(f, &op, err);
	if (r == 0) {
		*ret = TAKE_PTR(op.body);
		*ret_n = op.n_body;
	}
	op_done(&op);
	return r;
}

/* The digest that the document must have: the reference's, else the one that the registry announces. */
static const char *wanted_digest(const struct fetch *f, const struct op *op, char mem[IM_DIGEST + 1])
{
	if (f->source.ref.digest)
		return digest_parse(f->source.ref.digest, mem) == 0 ? mem : NULL;
	return op->digest[0] && digest_parse(op->digest, mem) == 0 ? mem : NULL;
}

static int plan_registry(struct fetch *f, struct plan_source *where, struct err *err)
{
	const struct ref *ref = &f->source.ref;
	struct op op = { .what = "manifest", .manifest = true };
	char want[IM_DIGEST + 1];
	AUTO_FREE(char, path);
	AUTO_FREE(char, full);
	int r;

	where->get = get_document;
	where->ctx = f;
	full = ref_full(ref);
	path = xasprintf("manifests/%s", ref->digest ? ref->digest : ref->tag);
	op.path = path;
	r = fetch_run(f, &op, err);
	if (r == 0)
		r = plan_find(where, op.body, op.n_body, op.type, wanted_digest(f, &op, want), &f->plan, err);
	/* A name with a slip in it leads to a web site, and a network that wants a login first answers for everybody. */
	if (r < 0 && !f->told && manifest_is_foreign(op.body, op.n_body, op.type)) {
		const struct err what = *err;

		(void)err_set(err, r, "%s; is %s a registry? check the name and the network", what.text, ref->domain);
	}
	op_done(&op);
	return r < 0 && !f->told ? err_ctx(err, r, "%s", full) : r;
}

/* --- messages about what was found --- */

static void say_manifest(const struct fetch *f)
{
	const struct plan *p = &f->plan;
	struct buf b;

	im_begin(&b, IM_MANIFEST);
	(void)rec_put_str(&b, IM_K_SERVED, p->served);
	(void)rec_put_str(&b, IM_K_PLATFORM, p->platform);
	if (!f->head)
		(void)rec_put_str(&b, IM_K_CONFIG, p->manifest.config.hex);
	(void)rec_put_u64(&b, IM_K_LAYERS, f->head ? 0 : p->manifest.n_layers);
	for (size_t i = 0; i < MIN(p->names.n, (size_t)NAMES_MAX); i++) {
		AUTO_FREE(char, shown);

		shown = str_escape(p->names.v[i], strlen(p->names.v[i]));
		if (strlen(shown) <= NAME_BYTES_MAX)
			(void)rec_put_str(&b, IM_K_NAME, shown);
	}
	fetch_say(&b, -1);
}

static void say_layers(const struct fetch *f)
{
	const struct manifest *m = &f->plan.manifest;

	for (size_t i = 0; i < m->n_layers; i++) {
		struct buf b;

		im_begin(&b, IM_LAYER);
		(void)rec_put_u64(&b, IM_K_LAYER, i);
		(void)rec_put_u64(&b, IM_K_COMPRESSION, m->layers[i].compression);
		(void)rec_put_str(&b, IM_K_BLOB, m->layers[i].blob.hex);
		(void)rec_put_u64(&b, IM_K_BYTES, m->layers[i].blob.bytes);
		(void)rec_put_str(&b, IM_K_DIFF_ID, f->plan.config.diff_ids[i]);
		fetch_say(&b, -1);
	}
}

/* --- the update check --- */

static void head(struct fetch *f)
{
	const struct ref *ref = &f->source.ref;
	struct op op = { .what = "manifest", .manifest = true, .head = true };
	struct plan_source where = { .arch = f->arch };
	char served[IM_DIGEST + 1];
	AUTO_FREE(char, path);
	struct err err;
	int r;

	path = xasprintf("manifests/%s", ref->digest ? ref->digest : ref->tag);
	op.path = path;
	r = fetch_run(f, &op, &err);
	if (r < 0)
		fetch_fail(r, &err);
	/* The digest is optional; a body, after a HEAD that was not allowed, is worth more. */
	if (op.n_body == 0 && op.digest[0] && digest_parse(op.digest, served) == 0 && f->known &&
	    strcmp(served, f->known) == 0) {
		memcpy(f->plan.served, served, sizeof(served));
		memcpy(f->plan.platform, served, sizeof(served));
	} else {
		r = plan_registry(f, &where, &err);
		if (r < 0)
			fetch_fail(r, &err);
	}
	op_done(&op);
	say_manifest(f);
}

/* --- layers --- */

void fetch_take_go(struct fetch *f)
{
	struct span body, v;
	bool all = true;
	struct err err;
	uint64_t layer;
	uint16_t key;
	struct im m;
	int r = im_recv(IM_FD_CONTROL, IM_TO_FETCH, &m);

	if (r == 0)
		gone();
	if (r < 0 || m.type != IM_GO) {
		r = err_set(&err, -EPROTO, "agent-vm-image fetch: was told something else than to go on");
		fetch_fail(r, &err);
	}
	body = m.body;
	while (rec_next(&body, &key, &v) == 1)
		if (key == IM_K_LAYER && rec_u64(v, IM_LAYERS_MAX - 1, &layer) == 0) {
			f->wanted[layer] = true;
			all = false;
		}
	if (all)
		memset(f->wanted, true, sizeof(f->wanted));
}

/* What is stored first and from the bottom, as it will be unpacked. */
static int by_size(const void *pa, const void *pb)
{
	const struct load *a = pa, *b = pb;

	if (a->here != b->here)
		return a->here ? -1 : 1;
	if (!a->here && a->d->bytes != b->d->bytes)
		return a->d->bytes > b->d->bytes ? -1 : 1;
	return a->layer < b->layer ? -1 : 1;
}

static bool is_here(const struct fetch *f, const struct descriptor *d)
{
	AUTO_FD(fd);

	fd = blobs_have(&f->blobs, d);
	return fd >= 0;
}

/* One load a blob; the lowest layer first, because unpacking begins with it, then the largest. */
static void make_loads(struct fetch *f)
{
	const struct manifest *m = &f->plan.manifest;

	f->loads = xcalloc(m->n_layers, sizeof(*f->loads));
	for (size_t i = 0; i < m->n_layers; i++) {
		struct load *l = &f->loads[f->n_loads];
		bool again = false;

		for (size_t k = 0; k < f->n_loads && !again; k++)
			again = strcmp(f->loads[k].d->hex, m->layers[i].blob.hex) == 0;
		if (again || !f->wanted[i])
			continue;
		*l = (struct load){ .layer = i, .d = &m->layers[i].blob, .part.fd = -1 };
		l->path = xasprintf("blobs/sha256:%s", l->d->hex);
		l->what = xasprintf("layer %zu", i + 1);
		l->here = is_here(f, l->d);
		f->n_loads++;
	}
	if (f->n_loads > 1)
		qsort(f->loads + 1, f->n_loads - 1, sizeof(*f->loads), by_size);
}

static bool is_of(const struct fetch *f, size_t layer, const struct load *l)
{
	return f->wanted[layer] && strcmp(f->plan.manifest.layers[layer].blob.hex, l->d->hex) == 0;
}

static void say_part(struct fetch *f, const struct load *l, uint64_t bytes, int fd)
{
	for (size_t i = 0; i < f->plan.manifest.n_layers; i++) {
		struct buf b;

		if (!is_of(f, i, l))
			continue;
		im_begin(&b, IM_PART);
		(void)rec_put_u64(&b, IM_K_LAYER, i);
		(void)rec_put_u64(&b, IM_K_BYTES, bytes);
		fetch_say(&b, fd);
	}
}

static void say_blob(struct fetch *f, const struct load *l)
{
	for (size_t i = 0; i < f->plan.manifest.n_layers; i++) {
		struct buf b;

		if (!is_of(f, i, l))
			continue;
		im_begin(&b, IM_BLOB);
		(void)rec_put_u64(&b, IM_K_LAYER, i);
		fetch_say(&b, -1);
	}
}

static void say_progress(struct fetch *f, struct load *l, uint64_t bytes)
{
	int64_t now = now_ns();

	/* Of a download that begins anew what is beyond the former one: the file did not shrink. */
	if (bytes <= l->told || now < l->next_ns)
		return;
	l->told = bytes;
	l->next_ns = now + TICK_MS * INT64_C(1000000);
	for (size_t i = 0; i < f->plan.manifest.n_layers; i++) {
		struct buf b;

		if (!is_of(f, i, l))
			continue;
		im_begin(&b, IM_PROGRESS);
		(void)rec_put_u64(&b, IM_K_LAYER, i);
		(void)rec_put_u64(&b, IM_K_BYTES, bytes);
		fetch_say(&b, -1);
	}
}

static void load_over(struct fetch *f, struct load *l)
{
	blob_close(l->blob);
	l->blob = NULL;
	op_done(&l->op);
	close_p(&l->part.fd);
	l->part.fd = -1;
	l->state = LOAD_DONE;
	say_blob(f, l);
}

/* What was there is hashed: hand it over, and go on where it ends. */
static int load_checked(struct fetch *f, struct load *l, struct err *err)
{
	AUTO_FD(reader);
	int r;

	if (blob_is_stored(l->blob)) {
		r = blob_finish(l->blob, err);
		if (r == -ESTALE && f->source.kind == SOURCE_STORE)
			return err_set(err, -EBADMSG, "image store: sha256:%.12s: damaged on this disk, deleted; build again: it is "
				       "made anew", l->d->hex);
		if (r == -ESTALE) {
			log_warn("%s; loaded again", err->text);
			blob_close(l->blob);
			l->blob = NULL;
			l->here = false;
			l->state = LOAD_NEW;
			return 0;
		}
		if (r < 0)
			return r;
	}
	reader = blob_reader(l->blob, err);
	if (reader < 0)
		return reader;
	l->told = blob_pos(l->blob);
	l->next_ns = 0;
	say_part(f, l, l->told, reader);
	if (l->told == l->d->bytes) {
		r = blob_is_stored(l->blob) ? 0 : blob_finish(l->blob, err);
		if (r == 0)
			load_over(f, l);
		return r;
	}
	if (f->reg) {
		l->op = (struct op){ .path = l->path, .what = l->what, .blob = l->blob };
		registry_submit(f->reg, &l->op);
		l->state = LOAD_NET;
		return 0;
	}
	l->state = LOAD_COPY;
	r = source_part(&f->source, f->source.parts.v[l->layer], &l->part, err);
	return r < 0 ? source_bad(&f->source, r, err) : 0;
}

static int load_check(struct fetch *f, struct load *l, struct err *err)
{
	int r = blob_check(l->blob, CHECK_BYTES, err);

	if (r > 0)
		return load_checked(f, l, err);
	if (r == 0)
		say_progress(f, l, blob_pos(l->blob));
	return r;
}

static int load_begin(struct fetch *f, struct load *l, struct err *err)
{
	int r = blob_begin(&f->blobs, l->d, &l->blob, err);

	if (r == -EAGAIN) {
		l->state = LOAD_BUSY;
		l->next_ns = 0;
		say_progress(f, l, blobs_under_way(&f->blobs, l->d));
		l->next_ns = now_ns() + BUSY_NS;
		return 0;
	}
	if (r < 0)
		return r;
	l->told = 0;
	l->state = LOAD_CHECK;
	return load_check(f, l, err);
}

static int copy_step(struct fetch *f, struct load *l, uint8_t *mem, struct err *err)
{
	int r = 0;

	for (int i = 0; i < COPY_STEP && r == 0; i++) {
		uint64_t pos = blob_pos(l->blob);
		ssize_t n = pos >= l->part.bytes ? 0 :
						   pread(l->part.fd, mem, MIN((uint64_t)COPY_BYTES, l->part.bytes - pos),
							 (off_t)(l->part.at + pos));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(err, -errno, "%s: cannot be read: %s", source_name(&f->source), strerror(errno));
		if (n == 0) {
			r = blob_finish(l->blob, err);
			if (r == 0)
				load_over(f, l);
			return r < 0 ? source_bad(&f->source, r, err) : 0;
		}
		r = blob_write(l->blob, mem, (size_t)n, err);
	}
	if (r == 0)
		say_progress(f, l, blob_pos(l->blob));
	return r;
}

/* Downloads have AT_ONCE places; what is stored is checked one after the other besides. */
struct load_count {
	size_t net, left;
	bool checking; /* one of the stored ones */
	bool works;    /* there is something to do without waiting */
};

static int load_step(struct fetch *f, struct load *l, struct load_count *n, uint8_t *mem, struct err *err)
{
	int r = 0;

	switch (l->state) {
	case LOAD_NET:
		if (l->op.state != OP_DONE) {
			say_progress(f, l, blob_pos(l->blob));
			break;
		}
		r = l->op.error;
		if (r < 0)
			*err = l->op.err;
		else
			load_over(f, l);
		break;
	case LOAD_COPY:
		r = copy_step(f, l, mem, err);
		break;
	case LOAD_CHECK:
		r = load_check(f, l, err);
		break;
	case LOAD_BUSY:
		if (now_ns() >= l->next_ns)
			r = load_begin(f, l, err);
		break;
	case LOAD_NEW:
		if (l->here ? !n->checking : n->net < AT_ONCE)
			r = load_begin(f, l, err);
		break;
	case LOAD_DONE:
		break;
	}
	n->checking |= l->here && l->state == LOAD_CHECK;
	n->net += l->state == LOAD_NET || l->state == LOAD_COPY || (l->state == LOAD_CHECK && !l->here);
	n->left += l->state != LOAD_DONE;
	n->works |= l->state == LOAD_COPY || l->state == LOAD_CHECK || (l->here && l->state == LOAD_NEW);
	return r;
}

static int load_all(struct fetch *f, struct err *err)
{
	AUTO_FREE(uint8_t, mem);
	struct load_count n;

	mem = xmalloc(COPY_BYTES);
	do {
		n = (struct load_count){ 0 };
		for (size_t i = 0; i < f->n_loads; i++) {
			int r = load_step(f, &f->loads[i], &n, mem, err);

			if (r < 0)
				return r;
		}
		if (n.left > 0)
			fetch_step(f, n.works ? 0 : TICK_MS);
	} while (n.left > 0);
	return 0;
}

/* --- the role --- */

static void fetch(struct fetch *f)
{
	struct plan_source where = { .arch = f->arch, .blobs = &f->blobs };
	struct err err;
	struct buf b;
	int r = 0;

	if (source_is_stream(&f->source))
		r = spool(f, &err);
	if (r == 0)
		r = f->reg ? plan_registry(f, &where, &err) : source_plan(&f->source, &where, &f->plan, &err);
	if (r < 0)
		fetch_fail(r, &err);
	if (f->plan.config.user && strcmp(f->plan.config.user, "root") != 0 && strcmp(f->plan.config.user, "0") != 0)
		log_info("the image wants another user than root; everything in the guest runs as root");
	say_manifest(f);
	say_layers(f);
	fetch_take_go(f);
	make_loads(f);
	r = load_all(f, &err);
	if (r < 0)
		fetch_fail(r, &err);
	im_begin(&b, IM_DONE);
	fetch_say(&b, -1);
}

static void fetch_done(struct fetch *f)
{
	for (size_t i = 0; i < f->n_loads; i++) {
		free(f->loads[i].path);
		free(f->loads[i].what);
	}
	free(f->loads);
	plan_done(&f->plan);
	registry_free(f->reg);
	http_free(f->http);
	trust_free(f->trust);
	auth_done(&f->auth);
	source_done(&f->source);
	blobs_close(&f->blobs);
	free(f->source_text);
	free(f->arch);
	free(f->known);
	free(f->npm_registry);
	free(f->integrity);
	free(f->dependency);
}

static void limit(int what, rlim_t to)
{
	struct rlimit l = { to, to };

	(void)setrlimit(what, &l);
}

int fetch_main(void)
{
	struct fetch f = { .input = -1, .source.fd = -1, .blobs = { -1, -1 }, .auth = AUTH_INIT };
	struct err err;
	int r;

	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_NOFILE, FILES_MAX);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); /* a file size limit of the user's is an error like a full disk */
	if (fcntl(IM_FD_CONTROL, F_GETFD) < 0 || fcntl(IM_FD_STORE, F_GETFD) < 0) {
		(void)fprintf(stderr, "agent-vm-image: started by agent-vm, not by hand\n");
		return 2;
	}
	for (int fd = IM_FD_CONTROL; fd <= IM_FD_STORE; fd++)
		(void)fd_cloexec(fd, true);
	prog_shun_from_env();
	log_open("fetch", fcntl(IM_FD_LOG, F_GETFD) < 0 ? -1 : IM_FD_LOG, LOG_LV_INFO);
	r = take_order(&f, &err);
	if (r == 0)
		r = prepare(&f, &err);
	if (r < 0)
		fetch_fail(r, &err);
	if (f.head)
		head(&f);
	else if (f.kind == FETCH_NPM)
		fetch_npm(&f);
	else if (f.kind == FETCH_DEBIAN)
		fetch_debian(&f);
	else
		fetch(&f);
	fetch_done(&f);
	return 0;
}
