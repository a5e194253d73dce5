/* What gate says: connections to step aside to, requests, renewals, records. A message that breaks the rules ends the
 * session. */
#include <errno.h>
#include <string.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "vault/renewals.h"
#include "vault/upstream.h"

#define AT_ONCE 16 /* messages an event */

void request_refused(struct vault *v, enum prov_host_id host, enum refusal_code code, bool login)
{
	const uint8_t msg[] = { NET_CTL_VIOLATIONS, (uint8_t)host };

	if (v->audit.probing || !violations_add(&v->violations, host, code, login, v->now))
		return;
	log_warn(VIOLATIONS_LINE, VIOLATIONS_TOLD, prov_hosts[host].name);
	/* If the launcher is gone nobody is left to hear it. */
	(void)fd_send(NET_FD_CONTROL, msg, sizeof(msg), NULL, 0);
}

static void note(struct vault *v, const struct net_note *m)
{
	request_refused(v, m->host, m->code, m->kind < PH_KINDS);
	audit_request(&v->audit,
		      &(struct audit_request){ .host = prov_hosts[m->host].name,
					       .method = m->method < METHODS ? prov_method_str[m->method] : NULL,
					       .path = m->path,
					       .cred = m->kind < PH_KINDS ? ph_kind_str[m->kind] : NULL,
					       .verdict = m->code ? "refuse" : "answer",
					       .code = refusal_code_str[m->code],
					       .status = m->status,
					       .up = m->up,
					       .down = m->down,
					       .ms = m->ms,
					       .probe = v->audit.probing });
}

static void message(struct vault *v, const void *msg, size_t n, int fd)
{
	struct net_renew renew;
	struct net_note noted;
	struct net_dial dial;
	struct net_head head;

	switch (gate_check(msg, n, fd != -1)) {
	case NET_DIAL:
		memcpy(&dial, msg, sizeof(dial));
		opens_dial(v, &dial);
		break;
	case NET_INSPECTED:
		memcpy(&head, msg, sizeof(head));
		opens_inspected(v, &head);
		break;
	case NET_RENEW:
		memcpy(&renew, msg, sizeof(renew));
		renewals_ask(v, &renew);
		break;
	case NET_NOTE:
		memcpy(&noted, msg, sizeof(noted));
		note(v, &noted);
		break;
	case HTTPMSG_REQUEST:
		if (fd >= 0)
			exchange_begin(v, msg, n, TAKE_FD(fd));
		else /* its other end is closed by that, which gate answers */
			log_warn("a request was given up: no descriptor is free");
		break;
	default:
		vault_end(v, "gate broke the rules of the protocol");
	}
	close_p(&fd);
}

void from_gate(struct vault *v, uint32_t events)
{
	static _Alignas(8) uint8_t msg[HTTPMSG_MAX];

	if (events & EPOLLOUT)
		link_flush(v, &v->gate);
	for (int i = 0; i < AT_ONCE && !v->ended; i++) {
		int fd;
		ssize_t k = fd_recv(NET_FD_TO_GATE, msg, sizeof(msg), &fd, 1);

		if (k == -EAGAIN)
			return;
		if (k <= 0)
			vault_end(v,
				  k == 0 || k == -ECONNRESET ? "gate is gone" : "gate broke the rules of the protocol");
		else
			message(v, msg, (size_t)k, TAKE_FD(fd));
		close_p(&fd);
	}
}
