/* What `agent-vm build` needs from the network besides Debian's packages, which mmdebstrap loads itself:
 *
 *	npm:NAME@VERSION	metadata of the version, or of the platform's package that it depends on	-> PACKAGE
 *				GO, then the tarball into partial/, checked against its sha512		-> PART, PROGRESS, BLOB
 *	debian:URL URL ...	Release files: the newest date and a digest of all; who verifies signatures is apt -> RELEASE
 *
 * Metadata is believed for the address only when the launcher has pinned the integrity; without a pin it must come by https
 * or from this machine, as all that registries send. */
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/fetch_priv.h"
#include "image/npm.h"
#include "proto/rec.h"

#define TARBALL_MAX (4ULL << 30)
#define WAIT_MS 200
#define CHECK_BYTES (4 << 20)
#define TICK_NS INT64_C(50000000)

/* The host of a URL, as messages name it. */
static char *host_of(const char *url)
{
	const char *host = strstr(url, "://");

	return host ? xstrndup(host + 3, strcspn(host + 3, "/?#")) : xstrdup("");
}

int fetch_urls_open(struct fetch *f, struct err *err)
{
	const char *first = f->kind == FETCH_NPM ? f->npm_registry : f->source_text + strlen("debian:");
	bool plain = f->kind == FETCH_DEBIAN; /* mirrors of Debian: signed, and only a date is taken from here */
	int r;

	if (!first || !strstr(first, "://"))
		return err_set(err, -EINVAL, "agent-vm-image fetch: was not told where");
	f->source.ref.domain = host_of(first);
	f->source.ref.path = xstrdup("");
	r = trust_new(&f->trust, err);
	if (r == 0)
		r = http_new(f->trust, plain || fetch_may_be_plain(), &f->http, err);
	if (r == 0)
		f->reg = registry_new(f->http, &f->source.ref, &f->auth, 0);
	return r;
}

/* A small document. The caller frees it. */
static int get_text(struct fetch *f, const char *url, const char *what, char **ret, size_t *ret_n, struct err *err)
{
	struct op op = { .url = url, .what = what };
	int r = fetch_run(f, &op, err);

	if (r == 0) {
		*ret = TAKE_PTR(op.body);
		*ret_n = op.n_body;
	}
	op_done(&op);
	return r;
}

/* --- npm --- */

static int get_metadata(struct fetch *f, const char *name, const char *version, char **ret, size_t *ret_n, struct err *err)
{
	AUTO_FREE(char, url);
	AUTO_FREE(char, what);

	url = npm_url(f->npm_registry, name, version);
	what = xasprintf("%s@%s", name, version);
	return get_text(f, url, what, ret, ret_n, err);
}

static int resolve(struct fetch *f, struct npm_version *v, struct err *err)
{
	AUTO_FREE(char, name);
	AUTO_FREE(char, version);
	AUTO_FREE(char, text);
	size_t n;
	int r;

	if (npm_spec_parse(f->source_text + strlen("npm:"), &name, &version) < 0)
		return err_set(err, -EINVAL, "%.200s: not the name of an npm package with its version", f->source_text);
	r = get_metadata(f, name, version, &text, &n, err);
	if (r == 0 && f->dependency) {
		AUTO_FREE(char, umbrella);
		AUTO_FREE(char, old_name);
		AUTO_FREE(char, old_version);

		umbrella = TAKE_PTR(text);
		old_name = TAKE_PTR(name);
		old_version = TAKE_PTR(version);
		r = npm_dependency(umbrella, n, f->dependency, &name, &version, err);
		if (r < 0)
			return err_ctx(err, r, "%s@%s", old_name, old_version);
		r = get_metadata(f, name, version, &text, &n, err);
	}
	if (r == 0)
		r = npm_metadata_parse(text, n, f->npm_registry, v, err);
	if (r < 0)
		return name ? err_ctx(err, r, "%s@%s", name, version) : r;
	/* "latest" is a name for another version; any other is that version. */
	if (strcmp(v->name, name) != 0 || (strcmp(version, "latest") != 0 && strcmp(v->version, version) != 0))
		return err_set(err, -EBADMSG, "%s@%s: the registry answers with another package; try another registry", name, version);
	return 0;
}

static int check_pin(const struct fetch *f, const struct npm_version *v, struct err *err)
{
	uint8_t want[NPM_SHA512];

	if (!f->integrity)
		return 0;
	if (npm_integrity_parse(f->integrity, want) < 0)
		return err_set(err, -EINVAL, "%s@%s: its pin is no sha512", v->name, v->version);
	if (memcmp(want, v->sha512, sizeof(want)) != 0)
		return err_set(err, -EBADMSG, "%s@%s: the registry offers other content than is pinned; use another registry, or "
			       "--latest if you trust this one", v->name, v->version);
	return 0;
}

static int ask_size(struct fetch *f, const struct npm_version *v, struct err *err)
{
	struct op op = { .url = v->tarball, .what = "tarball", .head = true };
	int r;

	if (f->bytes > 0)
		return 0;
	r = fetch_run(f, &op, err);
	if (r == 0 && (op.length == 0 || op.length > TARBALL_MAX))
		r = err_set(err, -EBADMSG, "%s@%s: the registry does not say how long its tarball is; try another registry", v->name,
			    v->version);
	f->bytes = op.length;
	op_done(&op);
	return r;
}

static void say_package(const struct fetch *f, const struct npm_version *v)
{
	AUTO_FREE(char, package);
	AUTO_FREE(char, integrity);
	struct buf b;

	package = xasprintf("%s@%s", v->name, v->version);
	integrity = npm_integrity_text(v->sha512);
	im_begin(&b, IM_PACKAGE);
	(void)rec_put_str(&b, IM_K_PACKAGE, package);
	(void)rec_put_str(&b, IM_K_INTEGRITY, integrity);
	(void)rec_put_u64(&b, IM_K_BYTES, f->bytes);
	fetch_say(&b, -1);
}

static void say_layer(enum im_msg type, const uint64_t *bytes, int fd)
{
	struct buf b;

	im_begin(&b, type);
	(void)rec_put_u64(&b, IM_K_LAYER, 0);
	if (bytes)
		(void)rec_put_u64(&b, IM_K_BYTES, *bytes);
	fetch_say(&b, fd);
}

static int load(struct fetch *f, const struct npm_version *v, struct blob *blob, struct err *err)
{
	AUTO_FREE(char, what);
	struct op op = { .url = v->tarball, .blob = blob };
	uint64_t told;
	int64_t next = 0;
	AUTO_FD(reader);
	int r;

	what = xasprintf("%s@%s", v->name, v->version);
	op.what = what;
	reader = blob_reader(blob, err);
	if (reader < 0)
		return reader;
	while ((r = blob_check(blob, CHECK_BYTES, err)) == 0)
		fetch_step(f, 0);
	if (r < 0)
		return r;
	told = blob_pos(blob);
	say_layer(IM_PART, &told, reader);
	if (told == blob_size(blob))
		return blob_finish(blob, err);
	registry_submit(f->reg, &op);
	while (op.state != OP_DONE) {
		uint64_t pos;

		fetch_step(f, (int)(TICK_NS / 1000000));
		pos = blob_pos(blob);
		if (pos > told && now_ns() >= next) {
			told = pos;
			next = now_ns() + TICK_NS;
			say_layer(IM_PROGRESS, &told, -1);
		}
	}
	r = op.error;
	if (r < 0)
		*err = op.err;
	op_done(&op);
	return r;
}

void fetch_npm(struct fetch *f)
{
	struct npm_version v = { NULL };
	struct blob *blob = NULL;
	struct err err;
	struct buf b;
	int r;

	r = resolve(f, &v, &err);
	if (r == 0)
		r = check_pin(f, &v, &err);
	if (r == 0)
		r = ask_size(f, &v, &err);
	if (r < 0)
		fetch_fail(r, &err);
	say_package(f, &v);
	fetch_take_go(f);
	while ((r = blob_begin_tarball(&f->blobs, v.sha512, f->bytes, &blob, &err)) == -EAGAIN)
		fetch_step(f, WAIT_MS);
	if (r == 0)
		r = load(f, &v, blob, &err);
	if (r < 0)
		fetch_fail(r, &err);
	blob_close(blob);
	say_layer(IM_BLOB, NULL, -1);
	npm_version_done(&v);
	im_begin(&b, IM_DONE);
	fetch_say(&b, -1);
}

/* --- debian --- */

/* "Date: Sat, 15 Nov 2026 10:21:05 UTC", a line of its own (RFC 822's form, Debian's repository format). */
static int release_date(const char *text, uint64_t *ret)
{
	const char *at = str_starts(text, "Date: ") ? text : strstr(text, "\nDate: ");
	struct tm tm = { 0 };
	const char *end;
	time_t t;

	if (!at)
		return -EBADMSG;
	at += *at == '\n' ? 7 : 6;
	end = strptime(at, "%a, %d %b %Y %H:%M:%S", &tm);
	if (!end || (!str_starts(end, " UTC") && !str_starts(end, " +0000")))
		return -EBADMSG;
	t = timegm(&tm);
	if (t <= 0)
		return -EBADMSG;
	*ret = (uint64_t)t;
	return 0;
}

void fetch_debian(struct fetch *f)
{
	char *urls = f->source_text + strlen("debian:"), *save = NULL;
	char all[16 * (IM_DIGEST + 1) + 1] = "", hex[IM_DIGEST + 1];
	uint64_t newest = 0, date = 0;
	struct err err;
	struct buf b;
	int n = 0;

	for (char *url = strtok_r(urls, " ", &save); url && n < 16; url = strtok_r(NULL, " ", &save), n++) {
		AUTO_FREE(char, text);
		size_t len = 0;
		int r;

		r = get_text(f, url, "Release file", &text, &len, &err);
		if (r == 0 && release_date(text, &date) < 0)
			r = err_set(&err, -EBADMSG, "%.300s: no Release file of Debian; check the mirror", url);
		if (r < 0)
			fetch_fail(r, &err);
		newest = MAX(newest, date);
		sha256_hex(text, len, hex);
		(void)strcat(all, hex);
	}
	sha256_hex(all, strlen(all), hex);
	im_begin(&b, IM_RELEASE);
	(void)rec_put_u64(&b, IM_K_EPOCH, newest);
	(void)rec_put_str(&b, IM_K_BLOB, hex);
	fetch_say(&b, -1);
	im_begin(&b, IM_DONE);
	fetch_say(&b, -1);
}
