#include "vault/proxy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int proxy_request(const struct vault_proxy *p, const char *name, const struct addr *a, uint16_t port, struct buf *b)
{
	char target[POLICY_NAME_MAX + 16], text[ADDR_TEXT], head[2048];
	int n;

	if (name)
		(void)snprintf(target, sizeof(target), "%s:%u", name, port);
	else
		(void)snprintf(target, sizeof(target), a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", addr_format(a, text), port);
	n = snprintf(head, sizeof(head), "CONNECT %s HTTP/1.1\r\nHost: %s\r\n", target, target);
	if (n > 0 && p->basic[0])
		n += snprintf(head + n, sizeof(head) - (size_t)n, "Proxy-Authorization: %s\r\n", p->basic);
	if (n > 0)
		n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
	return n <= 0 || (size_t)n >= sizeof(head) ? -ENOBUFS : buf_put(b, head, (size_t)n);
}

/* "HTTP/1.x NNN" and then a blank or the end of the line. */
static int status_line(struct span line)
{
	const uint8_t *p = line.p;
	int status = 0;

	if (line.n < 12 || memcmp(p, "HTTP/1.", 7) != 0 || p[7] < '0' || p[7] > '9' || p[8] != ' ')
		return -EBADMSG;
	for (size_t i = 9; i < 12; i++) {
		if (p[i] < '0' || p[i] > '9')
			return -EBADMSG;
		status = status * 10 + p[i] - '0';
	}
	return status < 100 || status > 599 || (line.n > 12 && p[12] != ' ') ? -EBADMSG : status;
}

int proxy_head(struct span in, size_t *ret_len)
{
	size_t n = in.n < PROXY_HEAD_MAX ? in.n : PROXY_HEAD_MAX, start = 0;
	int status = 0;

	for (size_t i = 0; i < n; i++) {
		size_t len = i - start;

		if (in.p[i] == '\0')
			return -EBADMSG;
		if (in.p[i] != '\n')
			continue;
		if (len > 0 && in.p[i - 1] == '\r')
			len--;
		if (status == 0)
			status = status_line(SPAN(in.p + start, len));
		else if (len == 0) {
			*ret_len = i + 1;
			return status;
		}
		if (status < 0)
			return status;
		start = i + 1;
	}
	/* What cannot become HTTP any more is found at once, not after 30 s. */
	if (status == 0 && memcmp(in.p, "HTTP/1.", n < 7 ? n : 7) != 0)
		return -EBADMSG;
	return n == PROXY_HEAD_MAX ? -EBADMSG : 0;
}
