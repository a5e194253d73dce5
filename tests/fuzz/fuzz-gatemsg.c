/* Messages of gate. What passes the check has the fields that the vault relies on. */
#include "fuzz.h"

#include <string.h>

#include "agents/providers.h"
#include "proto/httpmsg.h"
#include "proto/pathtpl.h"
#include "proto/refusal.h"
#include "vault/vault.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct net_renew r;
	struct net_note m;
	struct net_dial d;
	int type = gate_check(p, n, false);

	MUST(type != HTTPMSG_REQUEST);
	switch (type) {
	case NET_RENEW:
		memcpy(&r, p, sizeof(r));
		MUST(n == sizeof(r) && (r.kind == PH_CLAUDE_R || r.kind == PH_CODEX_R || r.kind == PH_OPENCODE_R));
		break;
	case NET_NOTE:
		memcpy(&m, p, sizeof(m));
		MUST(n == sizeof(m) && m.host < HOSTS && m.method <= METHODS && m.code < REFUSAL_CODES && pathtpl_is(m.path));
		break;
	case NET_DIAL:
		memcpy(&d, p, sizeof(d));
		MUST(n == sizeof(d) && memchr(d.name, '\0', sizeof(d.name)));
		break;
	case NET_INSPECTED:
		MUST(n == sizeof(struct net_head));
		break;
	default:
		MUST(type < 0);
	}
	type = gate_check(p, n, true);
	MUST(type < 0 || (type == HTTPMSG_REQUEST && n >= sizeof(struct httpmsg_request_wire) && n <= HTTPMSG_MAX));
	return 0;
}
