#include "vault/reqhead.h"

#include <errno.h>
#include <stdio.h>

#include "agents/providers.h"
#include "base/base64.h"

struct to {
	uint8_t *p;
	size_t n, size;
	bool full;
};

static void put(struct to *t, struct span s)
{
	if (t->full || t->size - t->n < s.n) {
		t->full = true;
		return;
	}
	if (s.n > 0)
		memcpy(t->p + t->n, s.p, s.n);
	t->n += s.n;
}

static void put_str(struct to *t, const char *s)
{
	put(t, span_str(s));
}

static void put_field(struct to *t, struct span name, struct span value)
{
	put(t, name);
	put_str(t, ": ");
	put(t, value);
	put_str(t, "\r\n");
}

static bool is_plain(struct span s)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] < 0x21 || s.p[i] > 0x7e)
			return false;
	return s.n > 0 && s.n <= REQHEAD_SECRET_MAX;
}

/* The one place where a secret meets a request. */
ssize_t reqhead_slot(enum prov_slot slot, struct span secret, uint8_t *out, size_t size)
{
	static const char user[] = "x-access-token:";
	struct to t = { .p = out, .size = size };
	size_t n = strlen(user) + secret.n;
	uint8_t *plain;

	if (slot == SLOT_KEY) {
		put(&t, secret);
	} else if (slot != SLOT_BASIC) {
		put_str(&t, "Bearer ");
		put(&t, secret);
	} else if (size < BASE64_LEN(n) + 32 + n) {
		t.full = true;
	} else {
		/* The plain form stands at the end of the memory for a moment, and is wiped. */
		plain = out + size - n;
		memcpy(plain, user, strlen(user));
		memcpy(plain + strlen(user), secret.p, secret.n);
		put_str(&t, "Basic ");
		t.n += base64_encode(BASE64_STD, SPAN(plain, n), (char *)t.p + t.n);
		explicit_bzero(plain, n);
	}
	return t.full ? -ENOBUFS : (ssize_t)t.n;
}

static void put_slot(struct to *t, enum prov_slot slot, struct span secret)
{
	ssize_t n;

	put_str(t, slot == SLOT_KEY ? "x-api-key: " : "Authorization: ");
	n = t->full ? -ENOBUFS : reqhead_slot(slot, secret, t->p + t->n, t->size - t->n);
	if (n < 0)
		t->full = true;
	else
		t->n += (size_t)n;
	put_str(t, "\r\n");
}

bool reqhead_is_plain(const struct httpmsg_request *m, const struct span *secret, struct span account)
{
	if (m->w.flags & HTTPMSG_ACCOUNT && account.n > 0 && !is_plain(account))
		return false;
	for (int i = 0; i < HTTPMSG_CREDS; i++)
		if (m->w.kind[i] != HTTPMSG_NO_CRED && !is_plain(secret[i]))
			return false;
	return true;
}

ssize_t reqhead_write(const struct httpmsg_request *m, const struct span *secret, struct span account, uint8_t *out,
		      size_t size)
{
	struct to t = { .p = out, .size = size };
	char length[32];

	if (!reqhead_is_plain(m, secret, account))
		return -EINVAL;
	put_str(&t, prov_method_str[m->w.method]);
	put_str(&t, " ");
	put(&t, m->path);
	if (m->w.flags & HTTPMSG_HAS_QUERY)
		put_str(&t, "?");
	put(&t, m->query);
	put_str(&t, " HTTP/1.1\r\n");
	put_field(&t, span_str("Host"), span_str(prov_hosts[m->w.host].name));
	for (size_t i = 0; i < m->w.n_fields; i++)
		put_field(&t, m->f[i].name, m->f[i].value);
	if (m->w.flags & HTTPMSG_UPGRADE)
		put_str(&t, "Connection: Upgrade\r\nUpgrade: websocket\r\n");
	if (m->w.body == HTTP_BODY_STREAM) {
		put_str(&t, "Transfer-Encoding: chunked\r\n");
	} else if (m->w.body == HTTP_BODY_LENGTH && !(m->w.flags & HTTPMSG_UPGRADE)) {
		(void)snprintf(length, sizeof(length), "%llu", (unsigned long long)m->w.body_len);
		put_field(&t, span_str("Content-Length"), span_str(length));
	}
	if (m->w.flags & HTTPMSG_ACCOUNT && account.n > 0)
		put_field(&t, span_str("ChatGPT-Account-Id"), account);
	for (int i = 0; i < HTTPMSG_CREDS; i++)
		if (m->w.kind[i] != HTTPMSG_NO_CRED)
			put_slot(&t, (enum prov_slot)m->w.slot[i], secret[i]);
	put_str(&t, "\r\n");
	if (!t.full)
		return (ssize_t)t.n;
	explicit_bzero(out, size);
	return -ENOBUFS;
}
