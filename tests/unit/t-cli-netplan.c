/* From words and environment to the plan of the network, and what the self-probe makes of the guest's answers. */
#include <errno.h>
#include <sys/socket.h>

#include "cli/netplan.h"
#include "cli/selfprobe.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"
#include "test.h"
#include "vault/config.h"
#include "vault/dnsmsg.h"

static const char *const *variables; /* NAME, VALUE, ..., NULL */

static const char *env(const char *name)
{
	for (const char *const *v = variables; v && *v; v += 2)
		if (strcmp(*v, name) == 0)
			return v[1];
	return NULL;
}

struct plan {
	struct cli cli;
	struct launch_args args;
	struct network_plan net;
	struct strv warnings;
};

static void plan(struct plan *p, const char *const *vars)
{
	variables = vars;
	problems_init(&p->cli.problems);
	netplan_begin(&p->cli, &p->args, env, &p->net, &p->warnings);
	netplan_end(&p->cli, &p->args, &p->net, &p->warnings);
}

static void done(struct plan *p)
{
	problems_done(&p->cli.problems);
	netplan_done(&p->net);
	strv_done(&p->args.allow_egress);
	strv_done(&p->args.allow_ssh);
	strv_done(&p->warnings);
}

TEST(the_proxy_is_the_first_of_three_without_its_password_in_what_is_shown)
{
	static const char *const vars[] = { "HTTPS_PROXY", "http://other:1", "https_proxy", "http://al%3aice:p%40ss@[::1]:3128/", "no_proxy",
					    ".corp, 10.0.0.0/8:80", NULL };
	AUTO_FREE(char, text);
	struct plan p = { 0 };

	plan(&p, vars);
	CHECK_INT(p.cli.problems.n, ==, 0);
	CHECK_STR(p.net.proxy.text, "http://[::1]:3128");
	CHECK_STR(p.net.proxy.auth, "al:ice:p@ss");
	CHECK_INT(p.net.proxy.n_addrs, ==, 1);
	CHECK_INT(p.net.proxy.addrs[0].family, ==, AF_INET6);
	CHECK_INT(p.net.proxy.except.n, ==, 2);
	text = netplan_text(&p.args, &p.net);
	CHECK_STR(text, "public internet, by proxy http://[::1]:3128");
	done(&p);
}

TEST(a_proxy_elsewhere_is_said_to_resolve_names)
{
	static const char *const vars[] = { "https_proxy", "http://10.1.2.3:8080", NULL };
	AUTO_FREE(char, text);
	struct plan p = { 0 };

	plan(&p, vars);
	text = netplan_text(&p.args, &p.net);
	CHECK_STR(text, "public internet, by proxy http://10.1.2.3:8080, which resolves names this host cannot");
	done(&p);
}

TEST(rules_are_printed_in_words)
{
	static const char *const vars[] = { NULL };
	static const char *const egress[] = { "192.168.1.10:5432", "10.1.0.0/16:8000-8099/tcp", "[fd12::/16]:53/udp", "fd12::5", "10.2.0.0/24" };
	AUTO_FREE(char, text);
	struct plan p = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(egress); i++)
		strv_add(&p.args.allow_egress, egress[i]);
	strv_add(&p.args.allow_ssh, "192.168.1.77");
	strv_add(&p.args.allow_ssh, "192.168.1.78:2222");
	plan(&p, vars);
	text = netplan_text(&p.args, &p.net);
	CHECK_STR(text, "public internet, 192.168.1.10 port 5432, 10.1.0.0/16 ports 8000-8099 tcp, fd12::/16 port 53 udp, fd12::5, "
			"10.2.0.0/24, ssh 192.168.1.77, ssh 192.168.1.78 port 2222");
	done(&p);
}

TEST(no_proxy_of_all_and_kinds_that_are_not_spoken_go_direct)
{
	static const char *const all[] = { "http_proxy", "h:1", "NO_PROXY", "a, *", NULL };
	static const char *const socks[] = { "all_proxy", "socks5h://user:pw@h:1", NULL };
	static const char *const bad[] = { "all_proxy", "http://user:secret@h:99999", NULL };
	struct plan p = { 0 };

	plan(&p, all);
	CHECK(!p.net.proxy.text);
	done(&p);
	p = (struct plan){ 0 };
	plan(&p, socks);
	CHECK(!p.net.proxy.text);
	CHECK_INT(p.warnings.n, ==, 1);
	CHECK(!strstr(p.warnings.v[0], "pw"));
	done(&p);
	p = (struct plan){ 0 };
	plan(&p, bad);
	CHECK_INT(p.cli.problems.n, ==, 1);
	CHECK(!strstr(p.cli.problems.v[0].text, "secret"));
	done(&p);
}

TEST(a_look_up_tells_a_name_that_is_not_from_one_that_is)
{
	struct plan p = { 0 };

	/* By the hosts file and by form alone: no resolver is asked for these (RFC 6761). */
	strv_add(&p.args.allow_egress, "localhost:5432");
	strv_add(&p.args.allow_egress, "LOCALHOST");
	plan(&p, NULL);
	CHECK_INT(p.cli.problems.n, ==, 0);
	CHECK_INT(p.net.lookup.n, ==, 1);
	CHECK_INT(p.net.lookup.v[0].state, ==, LOOKUP_FOUND);
	CHECK(p.net.lookup.v[0].n_addrs > 0);
	CHECK_INT(p.net.lookup.pid, ==, 0);
	done(&p);
}

TEST(without_names_nothing_is_started)
{
	struct plan p = { 0 };

	strv_add(&p.args.allow_egress, "10.0.0.1:80");
	problems_init(&p.cli.problems);
	netplan_begin(&p.cli, &p.args, env, &p.net, &p.warnings);
	CHECK_INT(p.net.lookup.pid, ==, 0);
	done(&p);
}

TEST(the_digest_is_of_everything_that_opens)
{
	AUTO_FREE(struct policy, p);
	char first[POLICY_DIGEST], other[POLICY_DIGEST];

	p = xcalloc(1, sizeof(*p));
	p->n_rules = 1;
	p->rules[0] = (struct policy_rule){ .net = { { AF_INET, { 10, 1, 2, 3 } }, 32 }, .lo = 80, .hi = 80, .tcp = true };
	policy_digest(p, "", first);
#define DIFFERS(change, back)                   \
	do {                                    \
		change;                         \
		policy_digest(p, "x", other);   \
		CHECK(strcmp(first, other) != 0); \
		back;                           \
	} while (0)
	DIFFERS(p->no_network = true, p->no_network = false);
	DIFFERS(p->allow_lan = true, p->allow_lan = false);
	DIFFERS(p->allow_host = true, p->allow_host = false);
	DIFFERS(p->proxied = true, p->proxied = false);
	DIFFERS(p->rules[0].net.bits = 8, p->rules[0].net.bits = 32);
	DIFFERS(p->rules[0].hi = 81, p->rules[0].hi = 80);
	DIFFERS(p->rules[0].udp = true, p->rules[0].udp = false);
	DIFFERS(p->n_rules = 0, p->n_rules = 1);
#undef DIFFERS
	policy_digest(p, "", other);
	CHECK_STR(other, first);
}

/* The guest's answers as they must be, but for target @at (-1: none), which gets @error and @reply. */
static int answers(struct selfprobe *p, int at, uint32_t error, const char *reply, struct err *err)
{
	struct network net = { .ipv4 = true };
	struct buf b;
	int r = 0;

	buf_init(&b, 1 << 16);
	CHECK_INT(selfprobe_orders(p, &net, &b), ==, 0);
	buf_done(&b);
	for (size_t i = 0; i < p->n && r == 0; i++) {
		const struct selfprobe_target *t = &p->v[i];
		uint32_t e = t->want == WANT_REFUSED ? ECONNREFUSED : t->want == WANT_NOTHING ? ENETUNREACH : 0;
		AUTO_FREE(struct dns_msg, m);
		struct dns_name name;
		uint8_t out[512], txt[65];
		int n;

		buf_init(&b, 2048);
		if ((int)i == at)
			e = error;
		(void)buf_put_u32(&b, e);
		if ((int)i == at) {
			(void)buf_put(&b, reply, strlen(reply));
		} else if (t->want == WANT_VALUE) {
			(void)buf_put(&b, p->plan->probe, strlen(p->plan->probe));
		} else if (t->name && e == 0) {
			m = xcalloc(1, sizeof(*m));
			(void)dns_name_from_text(t->name, &name);
			dns_begin(m, &name, t->type);
			txt[0] = (uint8_t)strlen(p->plan->probe);
			memcpy(txt + 1, p->plan->probe, txt[0]);
			if (t->want == WANT_TXT)
				(void)dns_add(m, DNS_ANSWER, &name, DNS_TXT, 0, txt, txt[0] + 1u);
			if (t->want == WANT_PRIVATE)
				(void)dns_add(m, DNS_ANSWER, &name, DNS_A, 0, "\12\377\377\1", 4);
			n = dns_encode(m, &(struct dns_encode){ .size = 512, .extended = -1 }, out);
			(void)buf_put(&b, out, (size_t)n);
		}
		r = selfprobe_result(p, buf_span(&b));
		buf_done(&b);
	}
	return r < 0 ? r : selfprobe_judge(p, err);
}

static void opened(struct selfprobe *p, struct network_plan *net)
{
	struct err err;

	CHECK_INT(selfprobe_value(net, &err), ==, 0);
	CHECK_INT(strlen(net->probe), ==, 32);
	CHECK_INT(selfprobe_open(p, net, false, &err), ==, 0);
}

TEST(as_it_must_be_passes_and_each_answer_that_is_not_is_named)
{
	static const struct network_plan plans[] = { { 0 }, { .allow_lan = true }, { .allow_host = true }, { .no_network = true } };
	struct selfprobe p;
	struct err err;
	size_t n;

	for (size_t k = 0; k < ARRAY_SIZE(plans); k++) {
		struct network_plan net = plans[k];

		opened(&p, &net);
		n = p.n;
		CHECK(n >= 9);
		CHECK_INT(answers(&p, -1, 0, "", &err), ==, 0);
		for (int i = 0; i < (int)n; i++) {
			opened(&p, &net);
			/* Reached, with something that it was not to say. */
			CHECK_INT(answers(&p, i, 0, "hello", &err), ==, -EPERM);
			CHECK(strstr(err.text, "self-probe: "));
			if (net.no_network)
				continue;
			opened(&p, &net);
			CHECK_INT(answers(&p, i, ETIMEDOUT, "", &err), ==, -EPERM);
		}
	}
}

TEST(the_line_says_what_was_reachable)
{
	struct network_plan net = { 0 };
	struct selfprobe p;
	struct err err;

	opened(&p, &net);
	for (size_t i = 0; i < p.n; i++)
		if (p.v[i].tcp && p.v[i].addr.b[0] == 169) {
			CHECK_INT(answers(&p, (int)i, 0, "", &err), ==, -EPERM);
			break;
		}
	CHECK_STR(err.text, "self-probe: tcp 169.254.169.254:80 was reachable and must not be");
}

TEST(what_a_rule_opens_is_left_out_and_nothing_else)
{
	struct policy_rule rules[] = {
		{ .net = { { AF_INET, { 169, 254, 169, 254 } }, 32 }, .lo = 80, .hi = 80, .tcp = true },
		{ .net = { { AF_INET, { 0 } }, 0 }, .tcp = true, .udp = true },
	};
	struct network_plan net = { .rules = rules, .n_rules = 2 };
	size_t tcp = 0, udp = 0, resolver = 0;
	struct selfprobe p;

	opened(&p, &net);
	for (size_t i = 0; i < p.n; i++) {
		tcp += p.v[i].addr.b[0] == 169 && p.v[i].tcp;
		udp += p.v[i].addr.b[0] == 169 && !p.v[i].tcp;
		resolver += p.v[i].addr.b[0] == 1;
	}
	CHECK_INT(tcp, ==, 0);
	CHECK_INT(udp, ==, 1);	    /* the exact rule is for TCP, and the wide one opens no metadata */
	CHECK_INT(resolver, ==, 2); /* no rule names port 53 */
	CHECK_INT(p.v[1].want, ==, WANT_PRIVATE);
	selfprobe_close(&p);
}

TEST(a_guest_that_leaves_some_out_or_says_too_much_does_not_pass)
{
	static const uint8_t zero[4 + GC_PROBE_REPLY_MAX + 1];
	struct network_plan net = { 0 };
	struct selfprobe p;
	struct err err;

	opened(&p, &net);
	CHECK_INT(selfprobe_judge(&p, &err), ==, -EPERM);
	CHECK(strstr(err.text, "did not try all"));
	opened(&p, &net);
	CHECK_INT(selfprobe_result(&p, SPAN(zero, sizeof(zero))), ==, -EBADMSG);
	CHECK_INT(selfprobe_result(&p, SPAN(zero, 3)), ==, -EBADMSG);
	p.n_results = p.n;
	CHECK_INT(selfprobe_result(&p, SPAN(zero, 4)), ==, -EBADMSG);
	selfprobe_close(&p);
}

TEST(a_connection_that_arrives_is_wrong_whatever_the_guest_says)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct network_plan net = { 0 };
	struct selfprobe p;
	struct err err;
	AUTO_FD(fd);

	opened(&p, &net);
	to.sin_port = htons(p.listen[1].port);
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK_INT(connect(fd, (struct sockaddr *)&to, sizeof(to)), ==, 0);
	CHECK_INT(answers(&p, -1, 0, "", &err), ==, -EPERM);
	CHECK(strstr(err.text, "self-probe: tcp 127.0.0.1:"));
}
