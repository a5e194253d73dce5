/* What the self-probe of the logins asks, put to gate's own judge: it must refuse each as the probe expects it. */
#include "test.h"

#include "cli/credprobe.h"
#include "gate/http1.h"
#include "gate/judge.h"
#include "proto/rec.h"

static void check_ask(const struct judge *j, const char *name, struct span ask)
{
	struct span request = { 0 }, code = { 0 }, v, body;
	struct judged judged = { 0 };
	struct http1 h;
	uint64_t status = 0;
	uint16_t key;

	while (ask.n > 0) {
		CHECK_INT(rec_next(&ask, &key, &v), >, 0);
		if (key == PBC_REQUEST)
			request = v;
		else if (key == PBC_CODE)
			code = v;
		else if (key == PBC_STATUS)
			CHECK_INT(rec_u64(v, 999, &status), ==, 0);
	}
	http1_init(&h, span_str(name));
	CHECK_INT(http1_feed(&h, &request, &body), ==, HTTP1_HEAD);
	CHECK_INT(judge_request(j, prov_host_find(span_str(name)), true, &h.req, &judged), ==, JUDGE_REFUSE);
	CHECK_INT(h.req.fault.status, ==, status);
	if (!span_is(code, refusal_code_str[h.req.fault.code]))
		fail_msg("%s: %.*s, but gate says %s", name, (int)code.n, (const char *)code.p, refusal_code_str[h.req.fault.code]);
	http1_done(&h);
}

/* The hosts that are probed, in their order. */
static void check_hosts(uint32_t lent, const struct gh_scope *list, const char *want)
{
	struct creds c = { .launch = { .lent = lent } };
	const struct network n = { .ipv4 = true, .ca_n = 1 };
	const uint8_t seed[PH_SEED] = { 3 };
	char got[200] = "", name[100];
	struct judge j;
	struct buf b;
	struct span in, host, v;
	uint16_t key;
	int hosts = 0;

	creds_draw(&c, seed);
	j = (struct judge){ .launch = c.launch, .set = c.set, .github = list };
	buf_init(&b, PROBE_CONFIG_MAX);
	CHECK_INT(credprobe_orders(&c, &n, &b), <=, PROBE_HOSTS_MAX);
	for (in = buf_span(&b); in.n > 0;) {
		CHECK_INT(rec_next(&in, &key, &host), >, 0);
		if (key != PBC_HOST)
			continue;
		hosts++;
		CHECK_INT(rec_next(&host, &key, &v), >, 0);
		CHECK_INT(key, ==, PBC_NAME);
		(void)snprintf(name, sizeof(name), "%.*s", (int)v.n, (const char *)v.p);
		(void)snprintf(got + strlen(got), sizeof(got) - strlen(got), "%s ", name);
		while (host.n > 0) {
			CHECK_INT(rec_next(&host, &key, &v), >, 0);
			CHECK_INT(key, ==, PBC_ASK);
			if (prov_hosts[prov_host_find(span_str(name))].role != HOST_TOKEN)
				check_ask(&j, name, v);
		}
	}
	CHECK_STR(got, want);
	buf_done(&b);
}

TEST(each_provider_is_asked_what_gate_refuses)
{
	static struct gh_scope list;

	gh_scope_init(&list);
	CHECK_INT(gh_scope_add(&list, (struct gh_slug){ span_str("acme"), span_str("app") }, GH_ADMIN), ==, 0);
	check_hosts(PH_BIT(PH_CLAUDE_A) | PH_BIT(PH_CLAUDE_R), NULL, "api.anthropic.com platform.claude.com ");
	check_hosts(PH_BIT(PH_GH), &list, "api.github.com ");
	check_hosts(PH_BIT(PH_ANTHROPIC_KEY) | PH_BIT(PH_GH), &list, "api.anthropic.com api.github.com ");
	check_hosts(PH_BIT(PH_COPILOT), NULL, "api.githubcopilot.com api.github.com ");
	check_hosts(PH_BIT(PH_COPILOT) | PH_BIT(PH_GH), &list, "api.githubcopilot.com api.github.com ");
}
