#include "vault/source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "base/macros.h"
#include "vault/jwt.h"

void source_init(struct source *s, enum source_kind kind, int dirfd, const char *name, uid_t owner)
{
	*s = (struct source){ .kind = kind, .dirfd = dirfd, .name = name, .owner = owner };
}

void source_done(struct source *s)
{
	login_done(&s->login);
	host_keys_done(&s->keys);
	for (size_t i = 0; i < SOURCE_OLD_MAX; i++)
		secret_done(&s->old[i].s);
}

static struct source_id id_of(const struct stat *st)
{
	return (struct source_id){ st->st_dev, st->st_ino, st->st_size, st->st_mtim, st->st_ctim };
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same(const struct source_id *a, const struct source_id *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size && same_time(&a->mtime, &b->mtime) &&
	       same_time(&a->ctime, &b->ctime);
}

/* --- earlier contents --- */

static bool is_live(const struct source *s, const struct secret *old)
{
	const struct secret *now[] = { &s->login.access, &s->login.refresh, &s->login.id, &s->login.key };

	for (size_t i = 0; i < ARRAY_SIZE(now) + PH_KINDS; i++) {
		const struct secret *n = i < ARRAY_SIZE(now) ? now[i] : &s->keys.key[i - ARRAY_SIZE(now)];

		if (n->n == old->n && memcmp(n->p, old->p, n->n) == 0)
			return true;
	}
	return false;
}

void old_keep(struct old_secret *v, size_t n, struct secret *from, int64_t now)
{
	size_t at = 0;

	for (size_t i = 0; i < n && v[at].s.n > 0; i++)
		if (v[i].s.n == 0 || v[i].until < v[at].until)
			at = i;
	secret_done(&v[at].s);
	v[at].s = *from;
	v[at].until = now + SOURCE_OLD_MS;
	*from = (struct secret){ 0 };
}

int64_t old_until(const struct old_secret *v, size_t n)
{
	int64_t first = -1;

	for (size_t i = 0; i < n; i++)
		if (v[i].s.n > 0 && (first < 0 || v[i].until < first))
			first = v[i].until;
	return first;
}

/* Keeps @from, which is not live any more. */
static void retire(struct source *s, struct secret *from, int64_t now)
{
	if (from->n == 0 || is_live(s, from))
		secret_done(from);
	else
		old_keep(s->old, SOURCE_OLD_MAX, from, now);
}

/* Puts in place what was read, or nothing. */
static void replace(struct source *s, struct login *login, struct host_keys *keys, int64_t now)
{
	struct login was = s->login;
	struct host_keys were = s->keys;

	s->login = *login;
	s->keys = *keys;
	retire(s, &was.access, now);
	retire(s, &was.refresh, now);
	retire(s, &was.id, now);
	retire(s, &was.key, now);
	for (size_t i = 0; i < PH_KINDS; i++)
		retire(s, &were.key[i], now);
	s->generation++;
}

static int drop(struct source *s, int64_t now)
{
	struct host_keys no_keys = { 0 };
	struct login none = { 0 };

	if (s->have)
		replace(s, &none, &no_keys, now);
	s->have = s->bad = false;
	return -ENOENT;
}

/* --- reading --- */

static int refuse(struct source *s, const char *why)
{
	s->why = why;
	return -EPERM;
}

/* Whole into the arena; -EAGAIN when it changed meanwhile. */
static int read_all(int fd, struct source_id *id, uint8_t **ret)
{
	struct source_id after;
	struct stat st;
	uint8_t *p;
	size_t n;
	int r;

	r = secret_read_file(fd, HOSTFILE_MAX, &p, &n);
	if (r < 0)
		return r;
	if (fstat(fd, &st) < 0) {
		int e = errno;

		secret_free(p);
		return -e;
	}
	after = id_of(&st);
	if (n != (size_t)id->size || !same(&after, id)) {
		secret_free(p);
		return -EAGAIN;
	}
	*ret = p;
	return 0;
}

static int parse(struct source *s, struct span text, struct login *login, struct host_keys *keys)
{
	switch (s->kind) {
	case SOURCE_ANTHROPIC:
		return hostfile_anthropic(text, login, &s->why);
	case SOURCE_OPENAI:
		return hostfile_openai(text, login, &s->why);
	case SOURCE_COPILOT:
		return hostfile_copilot(text, login, &s->why);
	case SOURCE_OPENCODE:
		break;
	}
	return hostfile_opencode(text, keys, &s->why);
}

/* The user's own links are followed: a login file is often one into a folder of dotfiles. */
static int read_file(struct source *s, struct source_id *ret_id, int64_t now)
{
	struct host_keys keys = { 0 };
	struct login login = { 0 };
	AUTO_FD(fd);
	struct stat st;
	uint8_t *text;
	int r;

	fd = openat(s->dirfd, s->name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	*ret_id = id_of(&st);
	if (!S_ISREG(st.st_mode))
		return refuse(s, "it is no regular file");
	if (st.st_uid != s->owner && st.st_uid != 0)
		return refuse(s, "it belongs to another user");
	if (st.st_mode & S_IWOTH)
		return refuse(s, "every user of this host may write it; correct that with chmod 600");
	if (st.st_size > HOSTFILE_MAX)
		return refuse(s, "it is larger than 1 MiB");
	if (s->may && !s->may(fd, s->arg))
		return refuse(s, "it lies in the project or in what is shared with the guest");
	r = read_all(fd, ret_id, &text);
	if (r < 0)
		return r;
	s->why = NULL;
	r = parse(s, SPAN(text, (size_t)st.st_size), &login, &keys);
	secret_free(text);
	if (r == 0) {
		replace(s, &login, &keys, now);
		s->id = *ret_id;
		s->have = true;
		s->bad = false;
	}
	return r;
}

/* A reading that failed: is it to be repeated, bridged, or told? */
static int judge_bad(struct source *s, int64_t now)
{
	if (s->bad_result != -EBADMSG && s->bad_result != -EAGAIN)
		return s->bad_result;
	if (s->retries < SOURCE_RETRIES) {
		s->retries++;
		s->retry_at = now + SOURCE_RETRY_MS;
		return -EAGAIN;
	}
	if (s->have && now - s->bad_since < SOURCE_GOOD_MS)
		return 0;
	return -EBADMSG;
}

int source_look(struct source *s, int64_t now)
{
	struct source_id id;
	struct stat st;
	int r;

	if (fstatat(s->dirfd, s->name, &st, 0) < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return drop(s, now);
		s->why = strerror(errno);
		return -errno;
	}
	id = id_of(&st);
	if (s->have && !s->bad && same(&id, &s->id))
		return 0;
	if (s->bad && now < s->retry_at)
		return -EAGAIN;
	/* A content that was found bad is not read again, but for one that a writer may not be done with. */
	if (s->bad && same(&id, &s->bad_id) && s->bad_result != -EAGAIN && s->retries >= SOURCE_RETRIES)
		return judge_bad(s, now);
	r = read_file(s, &id, now);
	if (r == 0)
		return 0;
	if (r == -ENOENT)
		return drop(s, now);
	if (!s->bad) {
		s->bad_since = now;
		s->retries = 0;
		s->retry_at = now;
	}
	s->bad = true;
	s->bad_id = id;
	s->bad_result = r;
	return judge_bad(s, now);
}

static size_t add_needle(struct span secret, struct span *ret, size_t at, size_t max)
{
	struct jwt j;

	if (secret.n == 0 || at == max)
		return at;
	ret[at] = jwt_read(secret, &j) == 0 ? j.signature : secret;
	return at + 1;
}

size_t source_needles(struct source *s, int64_t now, struct span *ret, size_t max)
{
	size_t n = 0;

	n = add_needle(secret_span(&s->login.access), ret, n, max);
	n = add_needle(secret_span(&s->login.refresh), ret, n, max);
	n = add_needle(secret_span(&s->login.id), ret, n, max);
	n = add_needle(secret_span(&s->login.key), ret, n, max);
	for (size_t i = 0; i < PH_KINDS; i++)
		n = add_needle(secret_span(&s->keys.key[i]), ret, n, max);
	return n + old_needles(s->old, SOURCE_OLD_MAX, now, ret + n, max - n);
}

size_t old_needles(struct old_secret *v, size_t n, int64_t now, struct span *ret, size_t max)
{
	size_t found = 0;

	for (size_t i = 0; i < n; i++) {
		if (v[i].until <= now)
			secret_done(&v[i].s);
		found = add_needle(secret_span(&v[i].s), ret, found, max);
	}
	return found;
}
