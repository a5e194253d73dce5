#include "vault/audit.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "base/str.h"

#define LINE_MAX_BYTES 4096
#define OUT_MAX (1 << 20)
#define OUT_WRITE (64 << 10)

/* What a line stands for already, and how often it happened again since. */
struct audit_held {
	bool used, is_dns;
	unsigned int n;
	int64_t until_ns;
	struct audit_refused refused;
	struct audit_dns dns;
	char q[DNS_TEXT_LEN], type[12];
};

static const char *const proto_str[] = { [POLICY_TCP] = "tcp", [POLICY_UDP] = "udp", [POLICY_ECHO] = "echo" };

static const char *const group_str[] = {
	[GROUP_GATEWAY] = "gateway", [GROUP_NEVER] = "never", [GROUP_HOST] = "host", [GROUP_METADATA] = "metadata",
	[GROUP_LINK_LOCAL] = "link-local", [GROUP_PRIVATE] = "private", [GROUP_RESERVED] = "reserved", [GROUP_PUBLIC] = "public",
};
static_assert(ARRAY_SIZE(group_str) == GROUPS, "group_str[] is incomplete");

static void putf(struct buf *b, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void putf(struct buf *b, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n > 0)
		(void)buf_put(b, line, MIN((size_t)n, sizeof(line) - 1));
}

/* ,"KEY":"TEXT" */
static void put_str(struct buf *b, const char *key, const char *text)
{
	putf(b, ",\"%s\":\"", key);
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			putf(b, "\\%c", c);
		else if (c < ' ' || c >= 0x7f)
			putf(b, "\\\\x%02x", c);
		else
			(void)buf_put_u8(b, c);
	}
	(void)buf_put_u8(b, '"');
}

static void put_begin(struct buf *b, int64_t unix_ms, const char *kind)
{
	time_t s = unix_ms / 1000;
	char stamp[32];
	struct tm tm;

	(void)gmtime_r(&s, &tm);
	(void)strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &tm);
	putf(b, "{\"v\":1,\"t\":\"%s.%03dZ\",\"k\":\"%s\"", stamp, (int)(unix_ms % 1000), kind);
}

static void put_dst(struct buf *b, const char *name, const struct addr *dst, enum policy_proto proto, uint16_t port)
{
	char text[ADDR_TEXT];

	if (name) {
		put_str(b, "name", name);
		put_str(b, "by", "dns");
	}
	put_str(b, "dst", addr_format(dst, text));
	if (proto != POLICY_ECHO)
		putf(b, ",\"port\":%u", port);
}

void audit_put_flow(struct buf *b, int64_t unix_ms, const struct audit_flow *f)
{
	put_begin(b, unix_ms, proto_str[f->proto]);
	putf(b, ",\"id\":%llu", (unsigned long long)f->id);
	put_dst(b, f->name, &f->dst, f->proto, f->port);
	put_str(b, "verdict", policy_verdict_str[f->verdict]);
	put_str(b, "rule", policy_step_str[f->step]);
	if (f->via)
		put_str(b, "via", f->via);
	if (f->counted)
		putf(b, ",\"up\":%llu,\"down\":%llu", (unsigned long long)f->up, (unsigned long long)f->down);
	putf(b, ",\"ms\":%u", f->ms);
	if (f->end)
		put_str(b, "end", f->end);
	putf(b, "%s}\n", f->probe ? ",\"probe\":true" : "");
}

void audit_put_published(struct buf *b, int64_t unix_ms, const struct audit_published *p)
{
	put_begin(b, unix_ms, "published");
	if (p->udp)
		put_str(b, "p", proto_str[POLICY_UDP]);
	put_str(b, "listen", p->listen);
	put_str(b, "peer", p->peer);
	putf(b, ",\"port\":%u,\"up\":%llu,\"down\":%llu,\"ms\":%u", p->port, (unsigned long long)p->up,
	     (unsigned long long)p->down, p->ms);
	put_str(b, "end", p->end);
	putf(b, "}\n");
}

void audit_put_dns(struct buf *b, int64_t unix_ms, const struct audit_dns *d, unsigned int n, bool probe)
{
	char text[ADDR_TEXT], opens[400];

	put_begin(b, unix_ms, "dns");
	put_str(b, "q", d->q);
	put_str(b, "type", d->type);
	put_str(b, "rcode", d->rcode);
	putf(b, ",\"kept\":%u,\"dropped\":%u", d->kept, d->dropped);
	if (d->rule)
		put_str(b, "rule", d->rule);
	if (d->first.family) {
		put_str(b, "first", addr_format(&d->first, text));
		put_str(b, "group", group_str[d->group]);
	}
	if (*audit_dns_opens(d, opens))
		put_str(b, "open", opens);
	if (d->server >= 0)
		putf(b, ",\"server\":%d", d->server);
	putf(b, ",\"ms\":%u,\"n\":%u%s}\n", d->ms, n, probe ? ",\"probe\":true" : "");
}

void audit_put_refused(struct buf *b, int64_t unix_ms, const struct audit_refused *r, unsigned int n, bool probe)
{
	char opens[400];

	put_begin(b, unix_ms, "refused");
	put_str(b, "p", proto_str[r->proto]);
	put_dst(b, r->name, &r->dst, r->proto, r->port);
	put_str(b, "rule", policy_step_str[r->step]);
	if (*audit_opens(r, opens))
		put_str(b, "open", opens);
	putf(b, ",\"n\":%u%s}\n", n, probe ? ",\"probe\":true" : "");
}

void audit_put_request(struct buf *b, int64_t unix_ms, const struct audit_request *r)
{
	put_begin(b, unix_ms, "request");
	put_str(b, "host", r->host);
	if (r->method)
		put_str(b, "method", r->method);
	put_str(b, "path", r->path);
	if (r->cred)
		put_str(b, "cred", r->cred);
	put_str(b, "verdict", r->verdict);
	if (*r->code)
		put_str(b, "code", r->code);
	if (r->status)
		putf(b, ",\"status\":%u", r->status);
	putf(b, ",\"up\":%llu,\"down\":%llu,\"ms\":%u", (unsigned long long)r->up, (unsigned long long)r->down, r->ms);
	if (r->end)
		put_str(b, "end", r->end);
	putf(b, "%s}\n", r->probe ? ",\"probe\":true" : "");
}

const char *audit_opens(const struct audit_refused *r, char *to)
{
	const struct addr *a = r->judged.family ? &r->judged : &r->dst;
	bool v6 = a->family == AF_INET6;
	char text[ADDR_TEXT];

	(void)addr_format(a, text);
	to[0] = '\0';
	switch (r->closed ? STEP_NEVER : r->step) {
	case STEP_PORT:
		if (r->proto == POLICY_TCP && r->port == 22) {
			(void)snprintf(to, 400, "--allow-ssh %s", r->name ? r->name : text);
			break;
		}
		__attribute__((fallthrough));
	case STEP_HOST:
		if (r->step == STEP_HOST && r->alias) {
			(void)snprintf(to, 400, "--allow-host");
			break;
		}
		__attribute__((fallthrough));
	case STEP_METADATA:
	case STEP_LINK_LOCAL:
	case STEP_PRIVATE:
	case STEP_RESERVED:
		if (r->proto == POLICY_ECHO)
			(void)snprintf(to, 400, "--allow-egress %s", text);
		else
			(void)snprintf(to, 400, v6 ? "--allow-egress [%s]:%u" : "--allow-egress %s:%u", text, r->port);
		break;
	default:
		break;
	}
	return to;
}

const char *audit_dns_opens(const struct audit_dns *d, char *to)
{
	bool plain = *d->q && !strchr(d->q, '\\'); /* else no rule can mean it */
	char text[ADDR_TEXT];

	to[0] = '\0';
	if (d->first.family && (d->group == GROUP_RESERVED || (d->group == GROUP_PRIVATE && !plain)))
		(void)snprintf(to, 400, "--allow-egress %s", addr_format(&d->first, text));
	else if (plain && (d->first.family ? d->group == GROUP_PRIVATE : d->rule && strcmp(d->rule, "name") == 0))
		(void)snprintf(to, 400, "--allow-egress %s", d->q);
	else if (d->rule && strcmp(d->rule, "reverse") == 0)
		(void)snprintf(to, 400, "--allow-lan");
	return to;
}

void audit_open(struct audit *a, int fd, int old_fd)
{
	struct stat st;

	*a = (struct audit){ .fd = fd, .old_fd = old_fd };
	buf_init(&a->out, OUT_MAX);
	a->held = xcalloc(AUDIT_HELD_MAX, sizeof(*a->held));
	if (fd >= 0 && fstat(fd, &st) == 0)
		a->size = (uint64_t)st.st_size;
}

/* The file becomes the older one by a copy, because only descriptors are here: tens of milliseconds once in some 400,000
 * lines. */
static void rotate(struct audit *a)
{
	off_t from = 0;
	ssize_t k = 0;

	if (a->old_fd >= 0 && ftruncate(a->old_fd, 0) == 0)
		while (from < (off_t)a->size) {
			char piece[OUT_WRITE];

			k = pread(a->fd, piece, sizeof(piece), from);
			if (k <= 0 || fd_write_all(a->old_fd, piece, (size_t)k) < 0)
				break;
			from += k;
		}
	if (ftruncate(a->fd, 0) == 0)
		a->size = 0;
}

static void write_out(struct audit *a)
{
	struct span s = buf_span(&a->out);

	while (a->fd >= 0 && s.n > 0) {
		ssize_t k = write(a->fd, s.p, s.n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0) {
			for (size_t i = 0; i < s.n; i++)
				a->lost += s.p[i] == '\n';
			break;
		}
		s.p += k;
		s.n -= (size_t)k;
		a->size += (uint64_t)k;
	}
	buf_consume(&a->out, a->out.n);
	if (a->fd >= 0 && a->size >= AUDIT_FILE_MAX)
		rotate(a);
}

static void line(struct audit *a, struct buf *b)
{
	struct span s = buf_span(b);

	if (a->fd >= 0 && buf_put(&a->out, s.p, s.n) < 0)
		a->lost++;
	if (a->out.n >= OUT_WRITE)
		write_out(a);
	buf_done(b);
}

void audit_flow(struct audit *a, const struct audit_flow *f)
{
	struct buf b;

	buf_init(&b, LINE_MAX_BYTES);
	audit_put_flow(&b, wall_ms(), f);
	line(a, &b);
}

void audit_published(struct audit *a, const struct audit_published *p)
{
	struct buf b;

	buf_init(&b, LINE_MAX_BYTES);
	audit_put_published(&b, wall_ms(), p);
	line(a, &b);
}

void audit_request(struct audit *a, const struct audit_request *r)
{
	struct buf b;

	buf_init(&b, LINE_MAX_BYTES);
	audit_put_request(&b, wall_ms(), r);
	line(a, &b);
}

void audit_echo(struct audit *a, const char *host, const char *path, const char *form, size_t n)
{
	struct buf b;

	buf_init(&b, LINE_MAX_BYTES);
	put_begin(&b, wall_ms(), "echo");
	put_str(&b, "host", host);
	put_str(&b, "path", path);
	put_str(&b, "form", form);
	putf(&b, ",\"n\":%zu}\n", n);
	line(a, &b);
}

void audit_renewal(struct audit *a, const char *provider, const char *program, const char *how, uint32_t ms)
{
	struct buf b;

	buf_init(&b, LINE_MAX_BYTES);
	put_begin(&b, wall_ms(), "renewal");
	put_str(&b, "provider", provider);
	put_str(&b, "program", program);
	put_str(&b, "how", how);
	putf(&b, ",\"ms\":%u}\n", ms);
	line(a, &b);
}

static void held_line(struct audit *a, const struct audit_held *h, unsigned int n)
{
	struct buf b;

	buf_init(&b, LINE_MAX_BYTES);
	if (h->is_dns)
		audit_put_dns(&b, wall_ms(), &h->dns, n, a->probing);
	else
		audit_put_refused(&b, wall_ms(), &h->refused, n, a->probing);
	line(a, &b);
}

static void let_go(struct audit *a, struct audit_held *h)
{
	if (h->n > 0)
		held_line(a, h, h->n);
	h->used = false;
}

static bool equal_refused(const struct audit_refused *x, const struct audit_refused *y)
{
	return x->proto == y->proto && x->port == y->port && x->step == y->step && x->closed == y->closed &&
	       addr_equal(&x->dst, &y->dst);
}

static bool equal_dns(const struct audit_dns *x, const struct audit_dns *y)
{
	return strcmp(x->q, y->q) == 0 && strcmp(x->type, y->type) == 0 && strcmp(x->rcode, y->rcode) == 0 &&
	       x->dropped == y->dropped && x->rule == y->rule /* of our own tables */;
}

/* A free place; the one that waits longest makes room. */
static struct audit_held *place(struct audit *a)
{
	struct audit_held *oldest = &a->held[0];

	for (size_t i = 0; i < AUDIT_HELD_MAX; i++) {
		if (!a->held[i].used)
			return &a->held[i];
		if (a->held[i].until_ns < oldest->until_ns)
			oldest = &a->held[i];
	}
	let_go(a, oldest);
	return oldest;
}

/* The first is told at once. */
static void hold(struct audit *a, struct audit_held *h, int64_t now)
{
	h->used = true;
	h->until_ns = now + AUDIT_JOIN_NS;
	held_line(a, h, 1);
}

void audit_refused(struct audit *a, const struct audit_refused *r, int64_t now)
{
	struct audit_held *h;

	for (size_t i = 0; i < AUDIT_HELD_MAX; i++)
		if (a->held[i].used && !a->held[i].is_dns && equal_refused(&a->held[i].refused, r)) {
			a->held[i].n++;
			return;
		}
	h = place(a);
	*h = (struct audit_held){ .refused = *r };
	if (r->name) {
		(void)snprintf(h->q, sizeof(h->q), "%s", r->name);
		h->refused.name = h->q;
	}
	hold(a, h, now);
}

void audit_dns(struct audit *a, const struct audit_dns *d, int64_t now)
{
	struct audit_held *h;

	for (size_t i = 0; i < AUDIT_HELD_MAX; i++)
		if (a->held[i].used && a->held[i].is_dns && equal_dns(&a->held[i].dns, d)) {
			a->held[i].n++;
			return;
		}
	h = place(a);
	*h = (struct audit_held){ .is_dns = true, .dns = *d };
	(void)snprintf(h->q, sizeof(h->q), "%s", d->q);
	(void)snprintf(h->type, sizeof(h->type), "%s", d->type);
	h->dns.q = h->q;
	h->dns.type = h->type;
	hold(a, h, now);
}

int64_t audit_flush(struct audit *a, int64_t now, bool all)
{
	int64_t next = -1;

	for (size_t i = 0; i < AUDIT_HELD_MAX; i++) {
		struct audit_held *h = &a->held[i];

		if (h->used && (all || h->until_ns <= now))
			let_go(a, h);
		if (h->used && (next < 0 || h->until_ns < next))
			next = h->until_ns;
	}
	if (a->out.n > 0)
		write_out(a);
	if (all && a->lost > 0)
		log_warn("audit: %llu lines were lost; the disk of the log folder is full or gone", (unsigned long long)a->lost);
	return next;
}
