/* The form of gate's messages. What they mean is judged where they are used. */
#include <errno.h>
#include <string.h>

#include "agents/providers.h"
#include "proto/httpmsg.h"
#include "proto/pathtpl.h"
#include "proto/refusal.h"
#include "vault/vault.h"

static bool renew_ok(const void *msg)
{
	static const struct net_renew none;
	struct net_renew m;

	memcpy(&m, msg, sizeof(m));
	return (m.kind == PH_CLAUDE_R || m.kind == PH_CODEX_R || m.kind == PH_OPENCODE_R) &&
	       memcmp(m.zero, none.zero, sizeof(m.zero)) == 0;
}

/* Shown in the log, so of printable characters; it ends within its field, with zeros behind it. */
static bool dial_ok(const void *msg)
{
	struct net_dial m;
	size_t n;

	memcpy(&m, msg, sizeof(m));
	n = strnlen(m.name, sizeof(m.name));
	for (size_t i = 0; i < sizeof(m.name); i++)
		if (i < n ? m.name[i] <= ' ' || m.name[i] > '~' || (m.name[i] >= 'A' && m.name[i] <= 'Z') : m.name[i] != '\0')
			return false;
	return n < sizeof(m.name);
}

static bool note_ok(const void *msg)
{
	static const struct net_note none;
	struct net_note m;

	memcpy(&m, msg, sizeof(m));
	return m.host < HOSTS && m.method <= METHODS && m.code < REFUSAL_CODES &&
	       (m.kind < PH_KINDS || m.kind == 0xff) && m.status >= 100 && m.status <= 599 &&
	       memcmp(m.zero, none.zero, sizeof(m.zero)) == 0 && pathtpl_is(m.path);
}

int gate_check(const void *msg, size_t n, bool has_fd)
{
	struct net_head h;
	bool ok;

	if (n < sizeof(h))
		return -EPROTO;
	memcpy(&h, msg, sizeof(h));
	if (h.version != NET_VERSION || h.length != n || has_fd != (h.type == HTTPMSG_REQUEST))
		return -EPROTO;
	switch (h.type) {
	case NET_DIAL:
		ok = n == sizeof(struct net_dial) && dial_ok(msg);
		break;
	case NET_INSPECTED:
		ok = n == sizeof(h);
		break;
	case NET_RENEW:
		ok = n == sizeof(struct net_renew) && renew_ok(msg);
		break;
	case NET_NOTE:
		ok = n == sizeof(struct net_note) && note_ok(msg);
		break;
	case HTTPMSG_REQUEST:
		ok = n >= sizeof(struct httpmsg_request_wire) && n <= HTTPMSG_MAX;
		break;
	default:
		ok = false;
	}
	return ok ? h.type : -EPROTO;
}
