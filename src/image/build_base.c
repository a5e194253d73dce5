/* mmdebstrap --tar--> pipe --> agent-vm-image pack --> a layer
 *	stderr --> build.log and the progress shown
 *
 * The packages' scripts run as root of a user namespace whose ids are nobody's on this host: for an ordinary user mmdebstrap
 * makes it, of the user's sub-ids; for root, to whom mmdebstrap gives none in any mode, we do.
 *
 * The layer is a function of the command line and of what the mirror has. What the mirror has is known from its Release files:
 * their newest date is the time of all that is made (SOURCE_DATE_EPOCH), their digest is what the layer was made from. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/distro.h"
#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "image/build_priv.h"
#include "image/debstrap.h"
#include "image/pull.h"
#include "proto/rec.h"

#define STOP_GRACE_MS 5000
#define APT_TIMEOUT_MS 10000
#define DAY_S 86400

/* Bytes of mmdebstrap's tree, a little above what was measured. */
static const uint64_t tree_bytes[] = {
	[BUILD_BASE] = 300000000, [BUILD_MINIMAL] = 300000000, [BUILD_DEFAULT] = 800000000, [BUILD_FULL] = 1900000000,
};

struct debstrap {
	struct debstrap_mirrors mirrors;
	struct strv argv;
	char *key, *state; /* of made_put() */
	uint64_t epoch;
	pid_t pid;
	struct lines lines;
	char *step, *last_error; /* what it does, why it ends; escaped */
	struct packer pack;
	struct work work;
};

/* --- what it is made from --- */

static void find_mirrors(struct debstrap *d)
{
	char *argv[] = { (char *)"apt-get", (char *)"indextargets", (char *)"--format", (char *)"$(SITE) $(RELEASE)", NULL };
	AUTO_FREE(char, path);
	AUTO_FREE(char, text);
	struct prog p = PROG_INIT;

	if (prog_find("apt-get", &path) < 0)
		return;
	p.path = path;
	p.argv = argv;
	if (prog_output(&p, 1 << 20, APT_TIMEOUT_MS, &text, NULL) == 0)
		debstrap_mirrors_parse(text, &d->mirrors);
}

static char *joined(const struct strv *v, size_t from, const char *by)
{
	char *all = xstrdup("");

	for (size_t i = from; i < v->n; i++) {
		char *more = xasprintf("%s%s%s", all, i > from ? by : "", v->v[i]);

		free(all);
		all = more;
	}
	return all;
}

static int ask_release(struct build *b, struct role *role, struct debstrap *d, struct err *err)
{
	struct pollfd pfd[2] = { { .fd = b->stop_fd, .events = POLLIN }, { .fd = role->fd, .events = POLLIN } };
	static struct im m;
	int r;

	for (;;) {
		if (poll(pfd, 2, -1) < 0 && errno != EINTR)
			return err_set(err, -errno, "poll: %s", strerror(errno));
		if (pfd[0].revents)
			return err_set(err, -EINTR, "stopped; nothing was stored");
		if (!pfd[1].revents)
			continue;
		r = role_recv(role, &m, err);
		if (r <= 0)
			return r;
		close_p(&m.fd);
		if (m.type == IM_RELEASE) {
			d->epoch = im_u64(&m, IM_K_EPOCH);
			free(d->state);
			d->state = im_str(&m, IM_K_BLOB);
		}
	}
}

/* The mirror's state. -EINTR; another negative errno when it cannot be asked. */
static int find_release(struct build *b, struct debstrap *d, struct err *err)
{
	struct role role = ROLE_INIT;
	struct strv urls = { 0 }, env = { 0 };
	AUTO_FREE(char, list);
	AUTO_FREE(char, source);
	struct buf m;
	int r;

	debstrap_release_urls(&d->mirrors, &urls);
	if (urls.n == 0)
		return err_set(err, -ENOENT, "Debian's mirror is mmdebstrap's own choice");
	list = joined(&urls, 0, " ");
	source = xasprintf("debian:%s", list);
	strv_done(&urls);
	pull_env(&env);
	r = role_start(b->args->image_role, "fetch", b->log_fd, b->s->fd, &env, &role, err);
	strv_done(&env);
	if (r == 0) {
		im_begin(&m, IM_FETCH);
		(void)rec_put_str(&m, IM_K_SOURCE, source);
		(void)rec_put_str(&m, IM_K_ARCH, IMAGE_ARCH);
		r = role_send(&role, &m, -1, err);
	}
	if (r == 0)
		r = ask_release(b, &role, d, err);
	role_end(&role);
	return r;
}

/* Without a mirror to ask: files made during the build get this day, and with the same packages a second build on the same
 * day gives the same bytes. */
static void by_day(struct debstrap *d)
{
	d->epoch = (uint64_t)time(NULL);
	d->epoch -= d->epoch % DAY_S;
	free(d->state);
	d->state = xasprintf("day %llu", (unsigned long long)d->epoch);
}

static int find_state(struct build *b, struct debstrap *d, struct made *ret, struct err *err)
{
	const char *given = getenv("SOURCE_DATE_EPOCH");
	uint64_t t;
	int r;

	r = find_release(b, d, err);
	if (r == -EINTR)
		return r;
	if (r < 0) {
		if (d->mirrors.main && made_find(b->s, d->key, NULL, ret) == 0) {
			b->note = xasprintf("Debian's mirror cannot be asked (%.*s); its packages are those of the build before",
					    (int)strcspn(err->text, ";"), err->text);
			return 1;
		}
		by_day(d);
	}
	if (given && str_u64(given, INT32_MAX, &t) == 0) {
		char *state = xasprintf("%s at %llu", d->state, (unsigned long long)t);

		free(d->state);
		d->state = state;
		d->epoch = t;
	}
	return made_find(b->s, d->key, d->state, ret) == 0;
}

/* --- mmdebstrap --- */

static int start(struct build *b, struct debstrap *d, int tar, struct err *err)
{
	AUTO_FREE(char, path);
	struct prog p = PROG_INIT;
	int log[2], r;

	r = prog_find("mmdebstrap", &path);
	if (r < 0) {
		AUTO_FREE(char, how);

		how = distro_install("mmdebstrap", "mmdebstrap", "mmdebstrap");
		return err_set(err, r, "mmdebstrap: %s; %s", r == -EPERM ? PROG_SHUNNED : "not installed", how);
	}
	r = work_begin(tree_bytes[b->args->set] * 3 / 2, &d->work, err);
	if (r == 0 && pipe2(log, O_CLOEXEC) < 0)
		r = err_set(err, -errno, "pipe: %s", strerror(errno));
	if (r < 0)
		return r;
	strv_addf(&p.env, "TMPDIR=%s", d->work.path);
	/* The builder's own settings, as in ~/.dpkg.cfg, are not for the image, and out of reach of its ids. */
	strv_addf(&p.env, "HOME=%s", d->work.path);
	strv_addf(&p.env, "SOURCE_DATE_EPOCH=%llu", (unsigned long long)d->epoch);
	p.path = path;
	p.argv = d->argv.v;
	p.out = tar;
	p.errfd = log[1];
	p.fd3 = d->work.lock;
	p.follows = true;
	p.own_ids = geteuid() == 0;
	d->lines.fd = log[0];
	r = prog_start(&p, &d->pid, err);
	(void)close(log[1]);
	strv_done(&p.env);
	return r;
}

static int start_both(struct build *b, struct debstrap *d, struct err *err)
{
	int tar[2], r;

	if (pipe2(tar, O_CLOEXEC) < 0)
		return err_set(err, -errno, "pipe: %s", strerror(errno));
	(void)fcntl(tar[1], F_SETPIPE_SZ, 1 << 20); /* fewer turns between the two; a refusal costs little */
	r = packer_start(b, tar[0], NULL, IM_PLAIN, NULL, d->epoch, &d->pack, err);
	if (r == 0)
		r = start(b, d, tar[1], err);
	(void)close(tar[0]);
	(void)close(tar[1]);
	return r;
}

int base_begin(struct build *b, struct made *ret, struct err *err)
{
	struct debstrap *d = xcalloc(1, sizeof(*d));
	int r;

	*d = (struct debstrap){ .lines.fd = -1, .pack = PACKER_INIT, .work = WORK_INIT };
	b->debstrap = d;
	find_mirrors(d);
	debstrap_argv(b->args->set, &b->args->include, &d->mirrors, &d->argv);
	/* From the third word on: the program's name and its mode do not matter. */
	d->key = joined(&d->argv, 2, "\n");
	r = find_state(b, d, ret, err);
	if (r != 0)
		return r;
	b->n_new++;
	return start_both(b, d, err);
}

/* "I: ..." is what it does, "E: ..." why it stops; the rest is for the log. */
static void on_line(struct build *b, struct debstrap *d, char *line)
{
	size_t n = strlen(line);
	AUTO_FREE(char, shown);

	if (b->log_fd >= 0) {
		(void)fd_write_all(b->log_fd, line, n);
		(void)fd_write_all(b->log_fd, "\n", 1);
	}
	if (n < 3 || (memcmp(line, "I: ", 3) != 0 && memcmp(line, "E: ", 3) != 0))
		return;
	shown = str_escape(line + 3, n - 3);
	if (*line == 'I') {
		free(d->step);
		d->step = TAKE_PTR(shown);
	} else if (!d->last_error)
		d->last_error = TAKE_PTR(shown);
}

/* Read what mmdebstrap prints and hand whole lines on; at the end of the stream close it. */
static void lines_read(struct build *b, struct debstrap *d)
{
	struct lines *l = &d->lines;
	char *from = l->mem, *nl;
	ssize_t k;

	k = read(l->fd, l->mem + l->n, BUILD_LINE - l->n);
	if (k < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (k > 0)
		l->n += (size_t)k;
	l->mem[l->n] = '\0';
	while ((nl = memchr(from, '\n', l->n - (size_t)(from - l->mem)))) {
		*nl = '\0';
		on_line(b, d, from);
		from = nl + 1;
	}
	l->n -= (size_t)(from - l->mem);
	memmove(l->mem, from, l->n + 1);
	if (l->n == BUILD_LINE || (k <= 0 && l->n > 0)) {
		on_line(b, d, l->mem);
		l->n = 0;
	}
	if (k <= 0)
		close_p(&l->fd);
	if (k <= 0)
		l->fd = -1;
}

size_t base_poll(struct build *b, struct pollfd *ret)
{
	struct debstrap *d = b->debstrap;
	size_t n = 0;

	if (d->lines.fd >= 0)
		ret[n++] = (struct pollfd){ .fd = d->lines.fd, .events = POLLIN };
	if (d->pack.role.fd >= 0)
		ret[n++] = (struct pollfd){ .fd = d->pack.role.fd, .events = POLLIN };
	return n;
}

static bool readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return fd >= 0 && poll(&pfd, 1, 0) > 0;
}

/* The tar is whole only when mmdebstrap says so; until then the layer has no name. */
static int finish(struct build *b, struct debstrap *d, struct err *err)
{
	int status = prog_wait(d->pid);

	d->pid = 0;
	if (status == 0)
		return 0;
	return err_set(err, -EIO, "mmdebstrap: %s; all it said is in %s/build.log", d->last_error ? d->last_error : "failed without a word",
		       b->s->path);
}

int base_step(struct build *b, struct made *ret, struct err *err)
{
	struct debstrap *d = b->debstrap;
	AUTO_FREE(char, name);
	uint64_t bytes;
	int r = 0;

	/* pack first: when it fails mmdebstrap does so too, for want of a reader. */
	if (readable(d->pack.role.fd))
		r = packer_read(&d->pack, &bytes, &name, err);
	if (r == 0 && readable(d->lines.fd))
		lines_read(b, d);
	if (r == 0 && d->pid > 0 && d->lines.fd < 0)
		r = finish(b, d, err);
	if (r < 0)
		return r;
	/* Again and again: what comes too soon after the last is not shown, and the last line of all must be. */
	build_tell(b, BUILD_PACKAGES, 0, d->step);
	if (d->pid > 0 || !packer_is_through(&d->pack))
		return 0;
	r = packer_place(b, &d->pack, d->key, d->state, err);
	*ret = d->pack.made;
	return r < 0 ? r : 1;
}

void base_end(struct build *b)
{
	struct debstrap *d = b->debstrap;

	if (!d)
		return;
	if (d->pid > 0)
		(void)prog_stop(d->pid, STOP_GRACE_MS);
	work_end(&d->work);
	packer_end(b, &d->pack);
	close_p(&d->lines.fd);
	debstrap_mirrors_done(&d->mirrors);
	strv_done(&d->argv);
	free(d->key);
	free(d->state);
	free(d->last_error);
	free(d->step);
	free(d);
	b->debstrap = NULL;
}
