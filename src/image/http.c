#include "image/http.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"
#include "image/challenge.h"
#include "image/trust.h"

#define CONNECT_MS 10000
#define STALL_S 30
#define REDIRECTS_MAX 5
#define READ_BYTES (512L << 10)
#define PER_HOST 8L
#define USER_AGENT "agent-vm/" AGENT_VM_VERSION

struct http {
	CURLM *multi;
	struct trust *trust;
	bool plain;
};

static void wipe(char **s)
{
	if (*s)
		explicit_bzero(*s, strlen(*s));
	free(*s);
	*s = NULL;
}

int http_new(struct trust *trust, bool plain, struct http **ret, struct err *err)
{
	struct http *h;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
		return err_set(err, -ENOMEM, "libcurl: cannot be started");
	h = xcalloc(1, sizeof(*h));
	*h = (struct http){ .multi = curl_multi_init(), .trust = trust, .plain = plain };
	if (!h->multi)
		abort(); /* out of memory */
	(void)curl_multi_setopt(h->multi, CURLMOPT_MAX_HOST_CONNECTIONS, PER_HOST);
	*ret = h;
	return 0;
}

void http_free(struct http *h)
{
	if (!h)
		return;
	(void)curl_multi_cleanup(h->multi);
	free(h);
	curl_global_cleanup();
}

bool http_plain_ok(const struct http *h, const char *host)
{
	return h->plain || host_is_loopback(host);
}

static void answer_clear(struct http_answer *a)
{
	for (size_t i = 0; i < a->n_www; i++)
		free(a->www[i]);
	free(a->body);
	*a = (struct http_answer){ 0 };
}

/* --- URLs --- */

struct url {
	char *scheme, *host, *origin; /* host without brackets; origin SCHEME://HOST:PORT */
	uint16_t port;
	bool https, has_user;
};

static void url_done(struct url *u)
{
	free(u->scheme);
	free(u->host);
	free(u->origin);
}

static char *url_part(CURLU *u, CURLUPart what, unsigned int flags)
{
	AUTO_FREE(char, copy);
	char *s = NULL;

	if (curl_url_get(u, what, &s, flags) != CURLUE_OK)
		return NULL;
	copy = xstrdup(s);
	curl_free(s);
	return TAKE_PTR(copy);
}

static bool url_parse(const char *text, struct url *ret)
{
	AUTO_FREE(char, port);
	AUTO_FREE(char, user);
	struct url out = { 0 };
	CURLU *u = curl_url();
	uint64_t n = 0;
	bool ok = false;

	if (u && curl_url_set(u, CURLUPART_URL, text, 0) == CURLUE_OK) {
		out.scheme = url_part(u, CURLUPART_SCHEME, 0);
		out.host = url_part(u, CURLUPART_HOST, 0);
		port = url_part(u, CURLUPART_PORT, CURLU_DEFAULT_PORT);
		user = url_part(u, CURLUPART_USER, 0);
		ok = out.scheme && out.host && port && str_u64(port, UINT16_MAX, &n) == 0 &&
		     (strcmp(out.scheme, "https") == 0 || strcmp(out.scheme, "http") == 0);
	}
	curl_url_cleanup(u);
	if (!ok) {
		url_done(&out);
		return false;
	}
	out.origin = xasprintf("%s://%s:%llu", out.scheme, out.host, (unsigned long long)n);
	for (char *s = out.origin; *s; s++)
		if (*s >= 'A' && *s <= 'Z')
			*s = (char)(*s - 'A' + 'a');
	if (out.host[0] == '[' && strlen(out.host) > 2) {
		memmove(out.host, out.host + 1, strlen(out.host));
		out.host[strcspn(out.host, "]")] = '\0';
	}
	out.port = (uint16_t)n;
	out.https = strcmp(out.scheme, "https") == 0;
	out.has_user = user != NULL;
	*ret = out;
	return true;
}

/* --- what comes --- */

static void keep(char *to, size_t size, const char *p, size_t n)
{
	/* Too long counts as absent: none of these is long in earnest. */
	if (n < size) {
		memcpy(to, p, n);
		to[n] = '\0';
	}
}

static bool is_2xx(long status)
{
	return status >= 200 && status <= 299;
}

static void header_take(struct http_answer *a, const char *name, size_t n_name, const char *v, size_t n)
{
	AUTO_FREE(char, text);
	uint64_t len;

#define IS(lit) (n_name == strlen(lit) && strncasecmp(name, lit, n_name) == 0)
	if (IS("Content-Type")) {
		keep(a->type, sizeof(a->type), v, n);
	} else if (IS("Docker-Content-Digest")) {
		keep(a->digest, sizeof(a->digest), v, n);
	} else if (IS("Content-Range")) {
		keep(a->range, sizeof(a->range), v, n);
	} else if (IS("Content-Length")) {
		text = xstrndup(v, n);
		a->has_length = str_u64(text, INT64_MAX, &len) == 0;
		a->length = a->has_length ? len : 0;
	} else if (IS("WWW-Authenticate")) {
		if (a->n_www < HTTP_WWW_MAX && n <= CHALLENGE_VALUE_MAX)
			a->www[a->n_www++] = xstrndup(v, n);
	}
#undef IS
}

static size_t on_header(char *p, size_t size, size_t count, void *ctx)
{
	struct http_req *r = ctx;
	size_t n = size * count, name, from;

	/* A status line begins an answer; 1xx and other earlier ones are forgotten. */
	if (n >= 5 && strncasecmp(p, "HTTP/", 5) == 0) {
		answer_clear(&r->answer);
		return n;
	}
	name = 0;
	while (name < n && p[name] != ':')
		name++;
	if (name == n)
		return n;
	from = name + 1;
	while (from < n && (p[from] == ' ' || p[from] == '\t'))
		from++;
	while (n > from && strchr(" \t\r\n", p[n - 1]))
		n--;
	header_take(&r->answer, p, name, p + from, n - from);
	return size * count;
}

static size_t on_body(char *p, size_t size, size_t count, void *ctx)
{
	struct http_req *r = ctx;
	struct http_answer *a = &r->answer;
	size_t n = size * count, max;

	(void)curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &a->status);
	if (r->sink && is_2xx(a->status)) {
		r->sink_r = r->sink(r, p, n);
		return r->sink_r < 0 ? 0 : n;
	}
	max = is_2xx(a->status) ? r->body_max : HTTP_ERROR_BODY_MAX;
	if (n > max - a->n_body) {
		if (!is_2xx(a->status))
			return n; /* the rest of an error page */
		r->sink_r = err_set(&r->err, -EBADMSG, "%s: an answer of more than %zu bytes", r->shown, max);
		return 0;
	}
	a->body = xrealloc(a->body, a->n_body + n + 1);
	memcpy(a->body + a->n_body, p, n);
	a->n_body += n;
	a->body[a->n_body] = '\0';
	return n;
}

/* --- begin --- */

static CURLcode on_ssl_ctx(CURL *easy, void *ctx, void *arg)
{
	trust_use(arg, ctx);
	return CURLE_OK;
}

static const char *env_get(const char *name)
{
	return getenv(name);
}

static int set_proxy(struct http_req *r, const struct url *u)
{
	AUTO_FREE(char, url);
	struct proxy p = { 0 };
	struct err note;
	int n = proxy_for(u->https, u->host, u->port, env_get, &p, &note);

	free(r->proxy);
	r->proxy = NULL;
	if (n < 0) {
		r->err = note;
		return n;
	}
	if (note.text[0])
		log_warn("%s", note.text);
	/* Both set in any case: libcurl would read the environment by rules of its own. */
	(void)curl_easy_setopt(r->easy, CURLOPT_NOPROXY, "");
	if (n == 0) {
		(void)curl_easy_setopt(r->easy, CURLOPT_PROXY, "");
		return 0;
	}
	url = xasprintf("http://%s:%u", p.host, p.port);
	(void)curl_easy_setopt(r->easy, CURLOPT_PROXY, url);
	(void)curl_easy_setopt(r->easy, CURLOPT_PROXYAUTH, (long)CURLAUTH_BASIC);
	(void)curl_easy_setopt(r->easy, CURLOPT_PROXYUSERNAME, p.user);
	(void)curl_easy_setopt(r->easy, CURLOPT_PROXYPASSWORD, p.password);
	r->proxy = TAKE_PTR(url);
	proxy_done(&p);
	return 0;
}

static void add_header(struct http_req *r, char *line)
{
	struct curl_slist *l = curl_slist_append(r->headers, line);

	if (!l)
		abort(); /* out of memory */
	r->headers = l;
	explicit_bzero(line, strlen(line));
	free(line);
}

static void headers_free(struct http_req *r)
{
	for (struct curl_slist *l = r->headers; l; l = l->next)
		explicit_bzero(l->data, strlen(l->data));
	curl_slist_free_all(r->headers);
	r->headers = NULL;
}

static void set_headers(struct http_req *r, bool with_auth)
{
	headers_free(r);
	if (r->accept)
		add_header(r, xasprintf("Accept: %s", r->accept));
	if (r->auth && with_auth)
		add_header(r, xasprintf("Authorization: %s", r->auth));
	(void)curl_easy_setopt(r->easy, CURLOPT_HTTPHEADER, r->headers);
}

/* A host without its scheme, for messages; caller owns. */
static char *origin_shown(const char *origin)
{
	const char *s = strstr(origin, "://") + 3;

	return str_escape(s, strlen(s));
}

/* Plain http has no certificate that says whose answer it is, and a registry must not make us ask what it cannot reach
 * itself: a metadata service, a printer. */
static int kept_out(struct http_req *r)
{
	AUTO_FREE(char, first);

	first = origin_shown(r->origin);
	return err_set(&r->err, -EACCES, "%s sends to %s over plain http, which only this network can reach; refused", first,
		       r->shown);
}

static int plain_refused(struct http_req *r)
{
	AUTO_FREE(char, first);

	if (r->redirects == 0)
		return err_set(&r->err, -EACCES, "%s: plain HTTP is only allowed for this machine; set "
			       "AGENT_VM_INSECURE_REGISTRY=1 if the network between is trusted", r->shown);
	first = origin_shown(r->origin);
	return err_set(&r->err, -EACCES, "%s sends to %s over plain http; refused", first, r->shown);
}

/* The names of redirects are resolved by now. */
static curl_socket_t on_socket(void *ctx, curlsocktype purpose, struct curl_sockaddr *a)
{
	struct http_req *r = ctx;
	char text[INET6_ADDRSTRLEN];
	const void *from = a->family == AF_INET ? (const void *)&((const struct sockaddr_in *)(const void *)&a->addr)->sin_addr :
						  (const void *)&((const struct sockaddr_in6 *)(const void *)&a->addr)->sin6_addr;

	if (r->redirects > 0 && !r->secure && !r->proxy &&
	    (!inet_ntop(a->family, from, text, sizeof(text)) || host_reach(text) > r->reach)) {
		r->kept_out = true;
		return CURL_SOCKET_BAD;
	}
	return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* Check a URL and make the easy handle ask for it. */
static int aim(struct http_req *r, const char *url)
{
	AUTO_FREE(char, range);
	struct url u;
	int n;

	if (!url_parse(url, &u))
		return err_set(&r->err, -EPROTO, "%s: sends to a URL that cannot be used", r->shown ? r->shown : "registry");
	free(r->shown);
	free(r->host);
	r->shown = origin_shown(u.origin);
	r->host = xstrdup(u.host);
	if (!r->origin)
		r->origin = xstrdup(u.origin);
	r->elsewhere |= strcmp(r->origin, u.origin) != 0;
	r->secure = u.https;
	r->kept_out = false;
	n = u.has_user ? err_set(&r->err, -EPROTO, "%s: a URL with a user in it is not followed", r->shown) :
	    !u.https && !http_plain_ok(r->http, u.host) ? plain_refused(r) :
	    !u.https && r->redirects > 0 && host_reach(u.host) > r->reach ? kept_out(r) : set_proxy(r, &u);
	if (n == 0) {
		(void)curl_easy_setopt(r->easy, CURLOPT_URL, url);
		set_headers(r, !r->elsewhere);
		range = r->from > 0 ? xasprintf("%llu-", (unsigned long long)r->from) : NULL;
		(void)curl_easy_setopt(r->easy, CURLOPT_RANGE, range);
	}
	url_done(&u);
	return n;
}

static void set_fixed(struct http_req *r)
{
	CURL *e = r->easy;

	(void)curl_easy_setopt(e, CURLOPT_PRIVATE, r);
	(void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, r->errbuf);
	(void)curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http,https");
	(void)curl_easy_setopt(e, CURLOPT_FOLLOWLOCATION, 0L);
	(void)curl_easy_setopt(e, CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	(void)curl_easy_setopt(e, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	(void)curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	(void)curl_easy_setopt(e, CURLOPT_USERAGENT, USER_AGENT);
	(void)curl_easy_setopt(e, CURLOPT_BUFFERSIZE, READ_BYTES);
	(void)curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	(void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_LIMIT, 1L);
	(void)curl_easy_setopt(e, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
	(void)curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)r->max_ms);
	(void)curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
	(void)curl_easy_setopt(e, CURLOPT_HEADERDATA, r);
	(void)curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, r);
	(void)curl_easy_setopt(e, CURLOPT_OPENSOCKETFUNCTION, on_socket);
	(void)curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, r);
	/* Roots come with the context; libcurl is to read none. */
	(void)curl_easy_setopt(e, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	(void)curl_easy_setopt(e, CURLOPT_CAINFO, NULL);
	(void)curl_easy_setopt(e, CURLOPT_CAPATH, NULL);
	(void)curl_easy_setopt(e, CURLOPT_SSL_CTX_FUNCTION, on_ssl_ctx);
	(void)curl_easy_setopt(e, CURLOPT_SSL_CTX_DATA, r->http->trust);
	if (strcmp(r->method, "HEAD") == 0)
		(void)curl_easy_setopt(e, CURLOPT_NOBODY, 1L);
	if (strcmp(r->method, "POST") == 0)
		(void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->form);
}

void http_start(struct http *h, struct http_req *r)
{
	assert(!r->easy);
	r->http = h;
	r->redirects = 0;
	r->elsewhere = false;
	r->reach = REACH_PUBLIC;
	r->sink_r = 0;
	r->fault = HTTP_FINE;
	r->errbuf[0] = '\0';
	free(r->origin);
	r->origin = NULL;
	answer_clear(&r->answer);
	r->easy = curl_easy_init();
	if (!r->easy)
		abort(); /* out of memory */
	set_fixed(r);
	if (aim(r, r->url) < 0)
		r->fault = HTTP_BAD;
	/* libcurl tells the end of every handle that was added; what cannot be aimed is told as a URL that it refuses. */
	if (r->fault == HTTP_BAD)
		(void)curl_easy_setopt(r->easy, CURLOPT_URL, "");
	if (curl_multi_add_handle(h->multi, r->easy) != CURLM_OK)
		abort(); /* only for lack of memory */
}

/* --- end --- */

/* What to do is part of each line: it is printed as it is. */
static void explain_tls(struct http_req *r, const char *why)
{
	const char *until = trust_expired(r->http->trust, r->host);
	long verdict = 0;

	(void)curl_easy_getinfo(r->easy, CURLINFO_SSL_VERIFYRESULT, &verdict);
	r->fault = HTTP_TLS;
	if (verdict == X509_V_ERR_CERT_HAS_EXPIRED && until)
		(void)err_set(&r->err, -EPROTO, "%s: its certificate expired on %s; it must be renewed there, or the clock of "
			      "this machine is wrong", r->shown, until);
	else if (verdict != X509_V_OK)
		(void)err_set(&r->err, -EPROTO, "%s: TLS: %s; if it has a CA of its own, name its file in SSL_CERT_FILE",
			      r->shown, X509_verify_cert_error_string(verdict));
	else
		(void)err_set(&r->err, -EPROTO, "%s: TLS: %s; if it has a CA of its own, name its file in SSL_CERT_FILE",
			      r->shown, why);
}

static void explain_proxy(struct http_req *r, long status)
{
	r->fault = HTTP_REFUSED;
	if (status == 407)
		(void)err_set(&r->err, -EACCES, "proxy %s: wants a login for %s (407); put user and password into https_proxy",
			      r->proxy, r->shown);
	else
		(void)err_set(&r->err, -ECONNREFUSED, "proxy %s: refused the way to %s (%ld); correct https_proxy, or except the "
			      "host by no_proxy; agent-vm build needs no registry", r->proxy, r->shown, status);
}

static void explain_no_way(struct http_req *r, CURLcode code, const char *why)
{
	bool by_proxy = r->proxy != NULL, name = code == CURLE_COULDNT_RESOLVE_HOST || code == CURLE_COULDNT_RESOLVE_PROXY;
	long os = 0;

	(void)curl_easy_getinfo(r->easy, CURLINFO_OS_ERRNO, &os);
	r->fault = name ? HTTP_NO_ADDRESS : HTTP_REFUSED;
	if (by_proxy)
		(void)err_set(&r->err, name ? -EHOSTUNREACH : -ECONNREFUSED, "proxy %s: cannot be reached (%s); correct "
			      "https_proxy; agent-vm build needs no registry", r->proxy,
			      name ? "no address" : os ? strerror((int)os) : why);
	else
		(void)err_set(&r->err, name ? -EHOSTUNREACH : -ECONNREFUSED, "%s: cannot be reached (%s); check the name and "
			      "the network; agent-vm build needs no registry", r->shown,
			      name ? "no address" : os ? strerror((int)os) : why);
}

/* Whether a handshake began and no certificate was judged. */
static bool was_connected(struct http_req *r, bool *ret_secured)
{
	curl_off_t tcp = 0, tls = 0;

	(void)curl_easy_getinfo(r->easy, CURLINFO_CONNECT_TIME_T, &tcp);
	(void)curl_easy_getinfo(r->easy, CURLINFO_APPCONNECT_TIME_T, &tls);
	*ret_secured = tls > 0;
	return tcp > 0;
}

static void explain(struct http_req *r, CURLcode code)
{
	AUTO_FREE(char, why);
	const char *raw = r->errbuf[0] ? r->errbuf : curl_easy_strerror(code);
	bool connected, secured;
	long connect_status = 0;

	why = str_escape(raw, MIN(strlen(raw), (size_t)200));
	(void)curl_easy_getinfo(r->easy, CURLINFO_HTTP_CONNECTCODE, &connect_status);
	connected = was_connected(r, &secured);
	if (r->proxy && connect_status != 0 && !is_2xx(connect_status)) {
		explain_proxy(r, connect_status);
		return;
	}
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
		if (r->kept_out) {
			r->fault = HTTP_BAD;
			(void)kept_out(r);
			return;
		}
		explain_no_way(r, code, why);
		return;
	case CURLE_PEER_FAILED_VERIFICATION:
		explain_tls(r, why);
		return;
	case CURLE_SSL_CONNECT_ERROR:
		r->fault = HTTP_NOT_TLS;
		(void)err_set(&r->err, -EPROTO, "%s: TLS: %s; is it a registry with https?", r->shown, why);
		return;
	case CURLE_OPERATION_TIMEDOUT:
		if (!connected) {
			explain_no_way(r, code, "no answer within 10 s");
			return;
		}
		if (strncmp(r->url, "https", 5) == 0 && !secured && r->redirects == 0) {
			r->fault = HTTP_NOT_TLS;
			(void)err_set(&r->err, -ETIMEDOUT, "%s: TLS: no answer within 10 s; is it a registry with https?",
				      r->shown);
			return;
		}
		r->fault = HTTP_CUT;
		(void)err_set(&r->err, -ETIMEDOUT, "%s: no answer in time; try again later", r->shown);
		return;
	case CURLE_OUT_OF_MEMORY:
		abort();
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_WEIRD_SERVER_REPLY:
		r->fault = HTTP_BAD;
		(void)err_set(&r->err, -EPROTO, "%s: no HTTP answer that can be used (%s); is it a registry?", r->shown, why);
		return;
	default:
		r->fault = HTTP_CUT;
		(void)err_set(&r->err, -EIO, "%s: the connection was cut (%s); try again later", r->shown, why);
	}
}

/* Where it answered from; a name behind a proxy counts as public. */
static enum reach reach_of_first(struct http_req *r)
{
	char *ip = NULL;

	if (!r->proxy)
		(void)curl_easy_getinfo(r->easy, CURLINFO_PRIMARY_IP, &ip);
	return host_reach(ip && *ip ? ip : r->host);
}

/* True when it goes on elsewhere. */
static bool redirected(struct http_req *r)
{
	long status = r->answer.status;
	char *to = NULL;
	AUTO_FREE(char, url);
	bool was_https;

	if (status != 301 && status != 302 && status != 303 && status != 307 && status != 308)
		return false;
	if (strcmp(r->method, "POST") == 0)
		return false;
	(void)curl_easy_getinfo(r->easy, CURLINFO_REDIRECT_URL, &to);
	if (!to)
		return false;
	url = xstrdup(to);
	r->fault = HTTP_BAD;
	if (r->redirects == 0)
		r->reach = reach_of_first(r);
	if (r->redirects++ == REDIRECTS_MAX) {
		(void)err_set(&r->err, -ELOOP, "%s: more than 5 redirects", r->shown);
		return false;
	}
	(void)curl_easy_getinfo(r->easy, CURLINFO_EFFECTIVE_URL, &to);
	was_https = to && strncasecmp(to, "https:", 6) == 0;
	if (was_https && strncasecmp(url, "https:", 6) != 0) {
		(void)err_set(&r->err, -EACCES, "%s: a redirect from https to plain http is not followed", r->shown);
		return false;
	}
	answer_clear(&r->answer);
	r->errbuf[0] = '\0';
	if (aim(r, url) < 0)
		return false;
	r->fault = HTTP_FINE;
	return true;
}

static void finish(struct http_req *r, CURLcode code)
{
	struct http *h = r->http;
	curl_off_t after = 0;

	(void)curl_easy_getinfo(r->easy, CURLINFO_RESPONSE_CODE, &r->answer.status);
	(void)curl_easy_getinfo(r->easy, CURLINFO_RETRY_AFTER, &after);
	r->answer.retry_after_s = (long)MIN(after, (curl_off_t)INT32_MAX);
	(void)curl_multi_remove_handle(h->multi, r->easy);
	if (r->fault == HTTP_FINE && code == CURLE_OK && redirected(r)) {
		if (curl_multi_add_handle(h->multi, r->easy) != CURLM_OK)
			abort();
		return;
	}
	if (r->fault == HTTP_FINE && r->sink_r < 0)
		r->fault = HTTP_SINK;
	else if (r->fault == HTTP_FINE && code != CURLE_OK)
		explain(r, code);
	curl_easy_cleanup(r->easy);
	r->easy = NULL;
	headers_free(r);
	r->done(r);
}

void http_step(struct http *h, struct pollfd *fds, unsigned int n_fds, int timeout_ms)
{
	struct curl_waitfd extra[4];
	struct http_req *r;
	CURLMsg *m;
	int running, left;
	bool any = false;

	assert(n_fds <= ARRAY_SIZE(extra));
	(void)curl_multi_perform(h->multi, &running);
	while ((m = curl_multi_info_read(h->multi, &left))) {
		CURL *easy = m->easy_handle;
		CURLcode code = m->data.result;
		char *p = NULL;

		if (m->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &p);
		r = (struct http_req *)p;
		finish(r, code);
		any = true;
	}
	for (unsigned int i = 0; i < n_fds; i++)
		extra[i] = (struct curl_waitfd){ .fd = fds[i].fd, .events = CURL_WAIT_POLLIN };
	(void)curl_multi_poll(h->multi, extra, n_fds, any ? 0 : timeout_ms, NULL);
	for (unsigned int i = 0; i < n_fds; i++)
		fds[i].revents = extra[i].revents & CURL_WAIT_POLLIN ? POLLIN : 0;
}

void http_req_done(struct http_req *r)
{
	if (r->easy) {
		(void)curl_multi_remove_handle(r->http->multi, r->easy);
		curl_easy_cleanup(r->easy);
	}
	headers_free(r);
	answer_clear(&r->answer);
	wipe(&r->auth);
	wipe(&r->form);
	free(r->url);
	free(r->origin);
	free(r->shown);
	free(r->host);
	free(r->proxy);
	*r = (struct http_req){ 0 };
}
