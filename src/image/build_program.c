/* One program after the other: agent-vm-image fetch brings its tarball, agent-vm-image pack makes a layer of it while the next
 * one is loaded. A program whose layer is there is not asked for; with --latest the registry is asked what is newest first. */
#include <errno.h>
#include <fcntl.h>
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "image/build_priv.h"
#include "image/npm.h"
#include "image/pins.h"
#include "image/pull.h"
#include "image/store_priv.h"
#include "proto/rec.h"

/* Of all files in these layers: npm's own constant (1985-10-26T08:15Z). Not the time of Debian's packages: a program's layer
 * changes when the program does. */
#define NPM_EPOCH 499162500
#define FORMAT 1 /* of what pack makes of a package; a change of it makes all layers anew */

enum job_state { JOB_WAIT, JOB_FETCH, JOB_FETCHED, JOB_PACK, JOB_DONE };

struct job {
	enum job_state state;
	struct pin pin;
	char *name; /* "claude 2.1.332" */
	char *key, *made_from;
	struct strv rules; /* the pin's, for its version */
	struct made made;
	int tarball;
	bool named, loaded; /* the registry has named it; it is whole and verified */
	uint64_t got;
};

struct programs {
	struct job jobs[BUILD_PROGRAMS_MAX];
	size_t n;
	char *registry;
	struct role fetch;
	size_t fetching; /* n: none */
	struct packer pack;
	size_t packing; /* n: none */
};

static const struct {
	const char *name;
	enum build_set from;
} list[] = {
	{ "codex", BUILD_MINIMAL }, { "claude", BUILD_MINIMAL }, { "opencode", BUILD_MINIMAL }, { "copilot", BUILD_DEFAULT },
	{ "chrome-devtools-mcp", BUILD_FULL },
};
static_assert(ARRAY_SIZE(list) <= BUILD_PROGRAMS_MAX, "BUILD_PROGRAMS_MAX is too small");

static int broken(const char *half, const char *what, struct err *err)
{
	return err_set(err, -EPROTO, "agent-vm-image %s: %s; it was stopped, nothing was stored", half, what);
}

/* What the pin says becomes a name, and what the layer is a function of. */
static void describe(struct job *j)
{
	char *text = xasprintf("format %d\n%s", FORMAT, j->pin.integrity);
	int version = (int)strcspn(j->pin.version, "-");

	strv_done(&j->rules);
	for (size_t i = 0; i < j->pin.rules.n; i++) {
		const char *rule = j->pin.rules.v[i], *mark = strstr(rule, "%v");
		char *more;

		if (mark)
			strv_addf(&j->rules, "%.*s%.*s%s", (int)(mark - rule), rule, version, j->pin.version, mark + 2);
		else
			strv_add(&j->rules, rule);
		more = xasprintf("%s\n%s", text, j->rules.v[i]);

		free(text);
		text = more;
	}
	free(j->made_from);
	j->made_from = text;
	free(j->name);
	j->name = xasprintf("%s %.*s", j->pin.program, version, j->pin.version);
}

int programs_begin(struct build *b, struct err *err)
{
	struct programs *p = xcalloc(1, sizeof(*p));
	int r = 0;

	*p = (struct programs){ .fetch = ROLE_INIT, .pack = PACKER_INIT };
	b->programs = p;
	for (size_t i = 0; i < ARRAY_SIZE(list) && r == 0; i++) {
		struct job *j = &p->jobs[p->n];

		if (b->args->set < list[i].from)
			continue;
		*j = (struct job){ .tarball = -1, .key = xasprintf("program %s", list[i].name) };
		p->n++;
		r = pins_find(pins_lock, list[i].name, IMAGE_ARCH, &j->pin, err);
		if (r < 0)
			break;
		describe(j);
		if (!b->args->latest && made_find(b->s, j->key, j->made_from, &j->made) == 0)
			j->state = JOB_DONE;
	}
	p->fetching = p->packing = p->n;
	return r < 0 ? r : pins_registry(&p->registry, err);
}

size_t programs_count(const struct build *b)
{
	return b->programs->n;
}

const char *programs_name(const struct build *b, size_t i)
{
	return b->programs->jobs[i].name;
}

const struct made *programs_made(const struct build *b, size_t i)
{
	return &b->programs->jobs[i].made;
}

uint64_t programs_bytes(const struct build *b)
{
	uint64_t n = 0;

	for (size_t i = 0; i < b->programs->n; i++)
		if (b->programs->jobs[i].state != JOB_DONE)
			n += b->programs->jobs[i].pin.bytes;
	return n;
}

bool programs_loaded(const struct build *b)
{
	for (size_t i = 0; i < b->programs->n; i++)
		if (b->programs->jobs[i].state < JOB_FETCHED)
			return false;
	return true;
}

/* --- loading --- */

static int fetch_start(struct build *b, struct job *j, struct err *err)
{
	struct programs *p = b->programs;
	struct strv env = { 0 };
	AUTO_FREE(char, source);
	struct buf m;
	int r;

	source = b->args->latest ? xasprintf("npm:%s@latest", j->pin.umbrella) : xasprintf("npm:%s@%s", j->pin.package, j->pin.version);
	pull_env(&env);
	r = role_start(b->args->image_role, "fetch", b->log_fd, b->s->fd, &env, &p->fetch, err);
	strv_done(&env);
	if (r < 0)
		return r;
	im_begin(&m, IM_FETCH);
	(void)rec_put_str(&m, IM_K_SOURCE, source);
	(void)rec_put_str(&m, IM_K_ARCH, IMAGE_ARCH);
	(void)rec_put_str(&m, IM_K_REGISTRY, p->registry);
	if (b->args->latest && j->pin.dependency)
		(void)rec_put_str(&m, IM_K_DEPENDENCY, j->pin.dependency);
	if (!b->args->latest) {
		(void)rec_put_str(&m, IM_K_INTEGRITY, j->pin.integrity);
		(void)rec_put_u64(&m, IM_K_BYTES, j->pin.bytes);
	}
	return role_send(&p->fetch, &m, -1, err);
}

static void replace(char **to, char *s)
{
	free(*to);
	*to = s;
}

/* What the registry calls newest takes the pin's place; a pin must be met. */
static int on_package(struct build *b, struct job *j, const struct im *m, struct err *err)
{
	AUTO_FREE(char, spec);
	AUTO_FREE(char, integrity);
	uint8_t sha512[NPM_SHA512];
	struct buf go;
	char *name, *version;

	spec = im_str(m, IM_K_PACKAGE);
	integrity = im_str(m, IM_K_INTEGRITY);
	if (j->named || npm_spec_parse(spec, &name, &version) < 0)
		return broken("fetch", "it names a package that is none", err);
	if (!b->args->latest && (strcmp(name, j->pin.package) != 0 || strcmp(version, j->pin.version) != 0 ||
				 strcmp(integrity, j->pin.integrity) != 0 || im_u64(m, IM_K_BYTES) != j->pin.bytes)) {
		free(name);
		free(version);
		return broken("fetch", "it names another package than is pinned", err);
	}
	j->named = true;
	replace(&j->pin.package, name);
	replace(&j->pin.version, version);
	replace(&j->pin.integrity, TAKE_PTR(integrity));
	j->pin.bytes = im_u64(m, IM_K_BYTES);
	if (npm_integrity_parse(j->pin.integrity, sha512) < 0)
		return broken("fetch", "it names a package without a hash", err);
	describe(j);
	if (made_find(b->s, j->key, j->made_from, &j->made) == 0) {
		j->state = JOB_DONE;
		return 0;
	}
	im_begin(&go, IM_GO);
	return role_send(&b->programs->fetch, &go, -1, err);
}

static int on_part(struct job *j, struct im *m, struct err *err)
{
	struct stat st;

	/* Read-only and a plain file: what goes on to pack must give it no way to anything else. */
	if (!j->named || j->tarball >= 0 || im_u64(m, IM_K_BYTES) > j->pin.bytes || fstat(m->fd, &st) < 0 || !S_ISREG(st.st_mode) ||
	    (fcntl(m->fd, F_GETFL) & O_ACCMODE) != O_RDONLY)
		return broken("fetch", "it handed over something that is no tarball", err);
	j->tarball = m->fd;
	m->fd = -1;
	j->got = im_u64(m, IM_K_BYTES);
	return 0;
}

static int on_fetch(struct build *b, struct job *j, struct im *m, struct err *err)
{
	switch (m->type) {
	case IM_PACKAGE:
		return on_package(b, j, m, err);
	case IM_PART:
		return on_part(j, m, err);
	case IM_PROGRESS:
		if (j->tarball < 0 || im_u64(m, IM_K_BYTES) > j->pin.bytes)
			return broken("fetch", "its progress is beyond the tarball", err);
		j->got = im_u64(m, IM_K_BYTES);
		return 0;
	case IM_BLOB:
		j->loaded = j->tarball >= 0;
		return 0;
	case IM_DONE:
		return j->loaded ? 0 : broken("fetch", "it stopped before the tarball was there", err);
	default:
		return broken("fetch", "it says something about images", err);
	}
}

static void tell_loading(struct build *b, const struct job *j)
{
	AUTO_FREE(char, what);

	what = xasprintf("%s  %.1f/%.1f MB", j->name, (double)j->got / 1e6, (double)j->pin.bytes / 1e6);
	build_tell(b, BUILD_PROGRAMS, b->loaded + j->got, what);
}

static int fetch_read(struct build *b, struct err *err)
{
	struct programs *p = b->programs;
	struct job *j = &p->jobs[p->fetching];
	static struct im m;
	int r;

	r = role_recv(&p->fetch, &m, err);
	if (r == 1) {
		r = on_fetch(b, j, &m, err);
		close_p(&m.fd);
	} else if (r == 0) {
		j->state = JOB_FETCHED;
		b->loaded += j->pin.bytes;
		j->got = 0;
	}
	if (r < 0)
		return r;
	tell_loading(b, j);
	if (j->state >= JOB_FETCHED) {
		role_end(&p->fetch);
		p->fetching = p->n;
	}
	return 0;
}

/* --- packing --- */

/* The tarball has done its duty. */
static void drop_tarball(struct build *b, struct job *j)
{
	char hex[2 * NPM_SHA512 + 1];
	uint8_t sha512[NPM_SHA512];
	AUTO_FD(dir);

	close_p(&j->tarball);
	j->tarball = -1;
	dir = store_dir(b->s, "partial");
	if (dir < 0 || npm_integrity_parse(j->pin.integrity, sha512) < 0)
		return;
	for (size_t i = 0; i < NPM_SHA512; i++)
		(void)snprintf(hex + 2 * i, 3, "%02x", sha512[i]);
	(void)unlinkat(dir, hex, 0);
}

static int pack_read(struct build *b, struct err *err)
{
	struct programs *p = b->programs;
	struct job *j = &p->jobs[p->packing];
	AUTO_FREE(char, entry);
	AUTO_FREE(char, what);
	uint64_t bytes = 0;
	int r;

	r = packer_read(&p->pack, &bytes, &entry, err);
	what = xasprintf("%s%s%s", j->name, entry ? "  " : "", entry ? entry : "");
	if (r < 0)
		return err_ctx(err, r, "%s", j->name);
	build_tell(b, BUILD_LAYERS, b->packed + bytes, what);
	if (!packer_is_through(&p->pack))
		return 0;
	r = packer_place(b, &p->pack, j->key, j->made_from, err);
	if (r < 0)
		return r;
	j->made = p->pack.made;
	packer_end(b, &p->pack);
	drop_tarball(b, j);
	b->packed += j->pin.bytes;
	b->n_new++;
	j->state = JOB_DONE;
	p->packing = p->n;
	return 0;
}

/* --- both --- */

size_t programs_poll(struct build *b, struct pollfd *ret)
{
	size_t n = 0;

	if (b->programs->fetch.fd >= 0)
		ret[n++] = (struct pollfd){ .fd = b->programs->fetch.fd, .events = POLLIN };
	if (b->programs->pack.role.fd >= 0)
		ret[n++] = (struct pollfd){ .fd = b->programs->pack.role.fd, .events = POLLIN };
	return n;
}

static bool readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return fd >= 0 && poll(&pfd, 1, 0) > 0;
}

static int start_next(struct build *b, struct err *err)
{
	struct programs *p = b->programs;
	int r = 0;

	for (size_t i = 0; i < p->n && r == 0; i++) {
		struct job *j = &p->jobs[i];

		if (j->state == JOB_WAIT && p->fetching == p->n) {
			p->fetching = i;
			j->state = JOB_FETCH;
			r = fetch_start(b, j, err);
		} else if (j->state == JOB_FETCHED && p->packing == p->n) {
			p->packing = i;
			j->state = JOB_PACK;
			r = packer_start(b, j->tarball, &j->pin.bytes, IM_GZIP, &j->rules, NPM_EPOCH, &p->pack, err);
		}
	}
	return r;
}

int programs_step(struct build *b, struct err *err)
{
	struct programs *p = b->programs;
	int r = start_next(b, err);

	if (r == 0 && p->fetching < p->n && readable(p->fetch.fd))
		r = fetch_read(b, err);
	if (r == 0 && p->packing < p->n && readable(p->pack.role.fd))
		r = pack_read(b, err);
	if (r == 0)
		r = start_next(b, err);
	for (size_t i = 0; i < p->n && r == 0; i++)
		if (p->jobs[i].state != JOB_DONE)
			return 0;
	return r < 0 ? r : 1;
}

void programs_end(struct build *b)
{
	struct programs *p = b->programs;

	if (!p)
		return;
	role_end(&p->fetch);
	packer_end(b, &p->pack);
	for (size_t i = 0; i < p->n; i++) {
		close_p(&p->jobs[i].tarball);
		pin_done(&p->jobs[i].pin);
		strv_done(&p->jobs[i].rules);
		free(p->jobs[i].name);
		free(p->jobs[i].key);
		free(p->jobs[i].made_from);
	}
	free(p->registry);
	free(p);
	b->programs = NULL;
}
