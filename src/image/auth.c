#include "image/auth.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "base/macros.h"
#include "base/prog.h"
#include "base/span.h"
#include "base/str.h"
#include "image/ref.h"

#define HUB_KEY "https://index.docker.io/v1/"
#define HELPER_PREFIX "docker-credential-"
#define HELPER_NAME_MAX 64
#define NOT_FOUND "credentials not found" /* first words of every helper that has nothing */

static void json_p(json_t **j)
{
	json_decref(*j);
}

#define AUTO_JSON(name) CLEANUP(json_p) json_t *name = NULL

static void wipe(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

/* --- base64 --- */

static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* The bytes, with a NUL behind them; -EBADMSG. */
static int b64_decode(const char *s, char **ret, size_t *ret_n)
{
	char *out = xmalloc(strlen(s) / 4 * 3 + 4);
	uint32_t acc = 0;
	size_t n = 0, k = 0;

	for (; *s && *s != '='; s++, k++) {
		const char *at = strchr(b64, *s);

		if (!at)
			goto bad;
		acc = acc << 6 | (uint32_t)(at - b64);
		if (k % 4 != 0)
			out[n++] = (char)(acc >> (6 - k % 4 * 2));
	}
	/* Padding is optional, but right when it is there. */
	if (k % 4 == 1 || (*s && strlen(s) != (4 - k % 4) % 4) || strspn(s, "=") != strlen(s))
		goto bad;
	out[n] = '\0';
	*ret = out;
	*ret_n = n;
	return 0;
bad:
	explicit_bzero(out, n);
	free(out);
	return -EBADMSG;
}

char *auth_basic(const char *user, const char *password)
{
	char *plain = xasprintf("%s:%s", user, password), *out, *to;
	size_t n = strlen(plain);

	out = to = xmalloc((n + 2) / 3 * 4 + 1);
	for (size_t i = 0; i < n; i += 3) {
		uint32_t v = (uint32_t)(uint8_t)plain[i] << 16;

		if (i + 1 < n)
			v |= (uint32_t)(uint8_t)plain[i + 1] << 8;
		if (i + 2 < n)
			v |= (uint8_t)plain[i + 2];
		*to++ = b64[v >> 18];
		*to++ = b64[v >> 12 & 63];
		*to++ = i + 1 < n ? b64[v >> 6 & 63] : '=';
		*to++ = i + 2 < n ? b64[v & 63] : '=';
	}
	*to = '\0';
	wipe(&plain);
	return out;
}

/* --- one file --- */

static char *string_dup(const json_t *j, const char *key)
{
	const char *s = json_string_value(json_object_get(j, key));

	return s && *s ? xstrdup(s) : NULL;
}

/* "auth": base64 of user:password; some tools append NULs. */
static int auth_member(const char *text, struct auth_entry *e)
{
	char *plain, *colon;
	size_t n;
	int r = b64_decode(text, &plain, &n);

	if (r < 0)
		return r;
	while (n > 0 && plain[n - 1] == '\0')
		n--;
	colon = memchr(plain, ':', n);
	if (!colon || memchr(plain, '\0', n)) {
		r = -EBADMSG;
	} else {
		e->user = xstrndup(plain, (size_t)(colon - plain));
		e->password = xstrndup(colon + 1, n - (size_t)(colon + 1 - plain));
	}
	explicit_bzero(plain, n);
	free(plain);
	return r;
}

/* 1: it has credentials; 0: it is empty. */
static int entry_read(const json_t *j, struct auth_entry *e)
{
	const char *auth = json_string_value(json_object_get(j, "auth"));
	int r = 0;

	e->identity = string_dup(j, "identitytoken");
	if (auth && *auth)
		r = auth_member(auth, e);
	if (r == 0 && !e->user) {
		e->user = string_dup(j, "username");
		e->password = string_dup(j, "password");
	}
	if (r == 0 && (e->identity || (e->user && e->password)))
		return 1;
	auth_entry_done(e);
	return r;
}

static int try_key(const json_t *auths, const char *key, struct auth_entry *e)
{
	const json_t *j = json_object_get(auths, key);

	return json_is_object(j) ? entry_read(j, e) : 0;
}

static int try_domain(const json_t *auths, const char *domain, struct auth_entry *e)
{
	static const char *const prefixes[] = { "", "https://" };
	static const char *const tails[] = { "", "/", "/v1/", "/v2/", "/v1", "/v2" };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(prefixes) && r == 0; i++)
		for (size_t k = 0; k < ARRAY_SIZE(tails) && r == 0; k++) {
			AUTO_FREE(char, key);

			key = xasprintf("%s%s%s", prefixes[i], domain, tails[k]);
			r = try_key(auths, key, e);
		}
	return r;
}

static int try_auths(const json_t *auths, const char *domain, const char *path, struct auth_entry *e)
{
	AUTO_FREE(char, key);
	char *slash;
	int r = 0;

	key = xasprintf("%s/%s", domain, path);
	while (r == 0 && (slash = strrchr(key, '/')) != NULL) {
		r = try_key(auths, key, e);
		*slash = '\0';
	}
	if (r == 0)
		r = try_domain(auths, domain, e);
	if (r == 0 && strcmp(domain, REF_HUB) == 0)
		r = try_domain(auths, "index." REF_HUB, e);
	if (r == 0 && strcmp(domain, REF_HUB) == 0)
		r = try_domain(auths, "registry-1." REF_HUB, e);
	return r;
}

static bool helper_name_is_good(const char *s)
{
	return *s && strlen(s) <= HELPER_NAME_MAX &&
	       strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") == strlen(s);
}

static int try_helper(const json_t *j, const char *domain, struct auth_entry *e)
{
	const char *server = strcmp(domain, REF_HUB) == 0 ? HUB_KEY : domain;
	const json_t *helpers = json_object_get(j, "credHelpers");
	const char *name = json_string_value(json_object_get(helpers, domain));

	if (!name)
		name = json_string_value(json_object_get(helpers, server));
	if (!name)
		name = json_string_value(json_object_get(j, "credsStore"));
	if (!name || *name == '\0')
		return 0;
	if (!helper_name_is_good(name))
		return -EBADMSG;
	e->helper = xstrdup(name);
	e->server = xstrdup(server);
	return 1;
}

int auth_lookup(const void *p, size_t n, const char *domain, const char *path, struct auth_entry *ret)
{
	struct auth_entry e = { 0 };
	AUTO_JSON(j);
	int r;

	j = json_loadb(p, n, 0, NULL);
	if (!json_is_object(j))
		return -EBADMSG;
	r = try_auths(json_object_get(j, "auths"), domain, path, &e);
	if (r == 0)
		r = try_helper(j, domain, &e);
	if (r > 0)
		*ret = e;
	return r;
}

void auth_entry_done(struct auth_entry *e)
{
	wipe(&e->user);
	wipe(&e->password);
	wipe(&e->identity);
	free(e->helper);
	free(e->server);
	*e = (struct auth_entry){ 0 };
}

int auth_helper_answer(const void *p, size_t n, struct auth_entry *ret)
{
	AUTO_FREE(char, user);
	AUTO_FREE(char, secret);
	AUTO_JSON(j);

	j = json_loadb(p, n, 0, NULL);
	user = string_dup(j, "Username");
	secret = string_dup(j, "Secret");
	if (!user || !secret) {
		wipe(&secret);
		return -EBADMSG;
	}
	*ret = (struct auth_entry){ 0 };
	if (strcmp(user, "<token>") == 0) {
		ret->identity = TAKE_PTR(secret);
	} else {
		ret->user = TAKE_PTR(user);
		ret->password = TAKE_PTR(secret);
	}
	return 0;
}

/* --- helpers --- */

/* 1: credentials; 0: it has none. */
static int helper_run(struct auth_entry *e, struct err *err)
{
	char get[] = "get";
	char *argv[] = { NULL, get, NULL };
	struct prog p = PROG_INIT;
	AUTO_FREE(char, name);
	AUTO_FREE(char, path);
	AUTO_FREE(char, out);
	int in[2], status, r;

	name = xasprintf(HELPER_PREFIX "%s", e->helper);
	if (prog_find(name, &path) < 0)
		return err_set(err, -ENOENT, "%s: not found, but the registry login of %s is kept by it; install it", name,
			       e->server);
	if (pipe2(in, O_CLOEXEC) < 0)
		return err_set(err, -errno, "%s: cannot be started: %s", path, strerror(errno));
	/* Shorter than a pipe holds: cannot block. */
	r = fd_write_all(in[1], e->server, strlen(e->server));
	(void)close(in[1]);
	argv[0] = name;
	p.path = path;
	p.argv = argv;
	p.in = in[0];
	prog_user_env_take(&p.env);
	p.follows = true; /* a question on the screen goes when the pull does */
	if (r == 0)
		r = prog_capture(&p, AUTH_HELPER_MAX, AUTH_HELPER_MS, &out, &status, err);
	else
		(void)err_set(err, r, "%s: cannot be started: %s", path, strerror(-r));
	(void)close(in[0]);
	strv_done(&p.env);
	if (r < 0)
		return r;
	if (status != 0 && str_starts(out, NOT_FOUND))
		return 0;
	if (status != 0 || auth_helper_answer(out, strlen(out), e) < 0)
		r = err_set(err, -EIO, "%s: failed for %s; run it by hand: echo %s | %s get", name, e->server, e->server, name);
	explicit_bzero(out, strlen(out));
	return r < 0 ? r : 1;
}

/* What the process says: one letter, then strings that end with NUL. */
#define SAYS_LOGIN 'L' /* user, password, identity token; an empty one is none */
#define SAYS_NOTHING 'N'
#define SAYS_FAULT 'F' /* a line */
#define SAYS_MAX (AUTH_HELPER_MAX + 64)

static void put_str(struct buf *b, const char *s)
{
	(void)buf_put(b, s ? s : "", strlen(s ? s : "") + 1);
}

/* @fd stands for all descriptors: the launcher must see fetch's end of the control socket as the only one. */
static _Noreturn void helper_wait(int fd, struct auth_entry *e)
{
	struct err err;
	struct buf b;
	char c;
	int r;

	if (dup2(fd, 3) != 3 || close_range(4, ~0U, 0) < 0 || read(3, &c, 1) != 1)
		_exit(0);
	buf_init(&b, SAYS_MAX);
	r = helper_run(e, &err);
	c = r > 0 ? SAYS_LOGIN : r == 0 ? SAYS_NOTHING : SAYS_FAULT;
	(void)buf_put(&b, &c, 1);
	if (r > 0) {
		put_str(&b, e->user);
		put_str(&b, e->password);
		put_str(&b, e->identity);
	} else if (r < 0) {
		put_str(&b, err.text);
	}
	(void)fd_write_all(3, buf_span(&b).p, buf_span(&b).n);
	_exit(0);
}

static int helper_start(struct auth_entry *e)
{
	pid_t parent = getpid(), pid;
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	pid = fork();
	if (pid == 0) {
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(0);
		helper_wait(ends[1], e);
	}
	(void)close(ends[1]);
	if (pid < 0) {
		(void)close(ends[0]);
		return -EAGAIN;
	}
	return ends[0];
}

/* The next string of an answer, NULL when it is empty or there is none. */
static char *take_str(struct span *in)
{
	size_t n = strnlen((const char *)in->p, in->n);
	char *s = n > 0 ? xstrndup((const char *)in->p, n) : NULL;

	n = MIN(n + 1, in->n);
	in->p += n;
	in->n -= n;
	return s;
}

static void helper_take(struct auth *a, struct span in)
{
	char what = in.n > 0 ? (char)in.p[0] : SAYS_FAULT;

	if (in.n > 0)
		in = (struct span){ in.p + 1, in.n - 1 };
	if (what == SAYS_LOGIN) {
		a->user = take_str(&in);
		a->password = take_str(&in);
		a->identity = take_str(&in);
	} else if (what == SAYS_FAULT) {
		a->fault = take_str(&in);
		if (!a->fault)
			a->fault = xasprintf("%s: could not be asked", a->from);
	}
}

void auth_want(struct auth *a)
{
	AUTO_FREE(uint8_t, mem);
	size_t n = 0;
	ssize_t k = 1;

	if (a->helper < 0)
		return;
	mem = xmalloc(SAYS_MAX);
	if (fd_write_all(a->helper, "?", 1) == 0)
		while (n < SAYS_MAX && (k > 0 || (k < 0 && errno == EINTR))) {
			k = read(a->helper, mem + n, SAYS_MAX - n);
			n += k > 0 ? (size_t)k : 0;
		}
	close_p(&a->helper);
	a->helper = -1;
	helper_take(a, (struct span){ mem, n });
	explicit_bzero(mem, n);
}

/* --- all files --- */

static int file_read(const char *path, char **ret, size_t *ret_n, struct err *err)
{
	AUTO_FREE(char, shown);
	AUTO_FD(fd);
	struct stat st;
	int r;

	shown = str_escape(path, strlen(path));
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
		return -ENOENT;
	r = fd < 0 || fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? fd_read_file(fd, AUTH_FILE_MAX, ret, ret_n) : -EINVAL;
	if (r < 0)
		return err_set(err, r, "%s: cannot be read: %s; it holds registry logins", shown,
			       r == -EINVAL ? "no regular file" : strerror(-r));
	return 0;
}

/* 1: @ret is set. -ENOENT, without @err: there is no such file. */
static int from_file(const char *path, const char *domain, const char *repo, bool helpers, struct auth *ret, struct err *err)
{
	struct auth_entry e = { 0 };
	AUTO_FREE(char, text);
	AUTO_FREE(char, from);
	size_t n;
	int r;

	r = file_read(path, &text, &n, err);
	if (r < 0)
		return r;
	from = str_escape(path, strlen(path));
	r = auth_lookup(text, n, domain, repo, &e);
	explicit_bzero(text, n);
	if (r < 0)
		return err_set(err, r, "%s: broken where it speaks of %s; correct it or log in again", from, domain);
	if (r > 0 && !e.helper) {
		*ret = (struct auth){ e.user, e.password, e.identity, TAKE_PTR(from), NULL, -1 };
	} else if (r > 0) {
		ret->from = xasprintf(HELPER_PREFIX "%s", e.helper);
		ret->helper = helpers ? helper_start(&e) : -1;
		auth_entry_done(&e);
	}
	return r;
}

void auth_load(const char *domain, const char *path, bool helpers, struct auth *ret)
{
	static const struct {
		const char *variable, *tail;
		bool named; /* the user said that it is there */
	} places[] = {
		{ "REGISTRY_AUTH_FILE", "", true },
		{ "XDG_RUNTIME_DIR", "/containers/auth.json", false },
		{ "DOCKER_CONFIG", "/config.json", false },
		{ "HOME", "/.docker/config.json", false },
	};
	struct auth a = AUTH_INIT;
	struct err err;
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(places) && r == 0; i++) {
		const char *v = getenv(places[i].variable);
		AUTO_FREE(char, file);
		AUTO_FREE(char, shown);

		if (!v || *v == '\0')
			continue;
		file = xasprintf("%s%s", v, places[i].tail);
		r = from_file(file, domain, path, helpers, &a, &err);
		shown = str_escape(file, strlen(file));
		if (r == -ENOENT && places[i].named)
			(void)err_set(&err, r, "%s names %s, which is not there", places[i].variable, shown);
		else if (r == -ENOENT)
			r = 0;
	}
	if (r < 0)
		a.fault = xstrdup(err.text);
	*ret = a;
}

void auth_done(struct auth *a)
{
	wipe(&a->user);
	wipe(&a->password);
	wipe(&a->identity);
	free(a->from);
	free(a->fault);
	close_p(&a->helper);
	*a = (struct auth)AUTH_INIT;
}
