/* policy-decide VECTORS.json: the egress policy over a file of cases (network page 12). Prints "ID VERDICT RULE" a line;
 * exit status 0 when all agree with their "expect" and the first word of "why", 1 when some do not, 2 for a bad file.
 *
 *	{"id","flags":["--allow-lan",…],"host_addrs":["ADDR/BITS",…],"proto":"tcp|udp|icmp|dns","dst","port","name"?,
 *	 "expect","why"} */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"
#include "cli/specs.h"
#include "vault/policy.h"

/* What the credentials and GitHub pages would put under inspection in the cases' launch. */
static const char *const inspected[] = { "api.anthropic.com", "github.com", "api.github.com", "ssh.github.com", NULL };

static bool flag(struct policy *p, const char *f)
{
	struct policy_rule *r = &p->rules[p->n_rules];
	struct err err;

	if (strcmp(f, "--allow-lan") == 0)
		p->allow_lan = true;
	else if (strcmp(f, "--allow-host") == 0)
		p->allow_host = true;
	else if (strcmp(f, "--no-network") == 0)
		p->no_network = true;
	else if (p->n_rules == POLICY_RULES_MAX)
		return false;
	else if (str_starts(f, "--allow-egress=") && egress_parse(f + 15, r, &err) == 0)
		p->n_rules++;
	else if (str_starts(f, "--allow-ssh=") && ssh_dest_parse(f + 12, r, &err) == 0)
		p->n_rules++;
	else
		return false;
	return true;
}

static bool read_policy(const json_t *v, struct policy *p)
{
	json_t *e;
	size_t i;

	*p = (struct policy){ .inspected = inspected };
	json_array_foreach(json_object_get(v, "flags"), i, e)
		if (!json_is_string(e) || !flag(p, json_string_value(e)))
			return false;
	json_array_foreach(json_object_get(v, "host_addrs"), i, e)
		if (p->n_hosts == POLICY_HOSTS_MAX || !json_is_string(e) ||
		    prefix_parse(json_string_value(e), &p->hosts[p->n_hosts++]) < 0)
			return false;
	return true;
}

/* 1: agrees, 0: does not, -1: no case. */
static int decide(const json_t *v)
{
	static const char *const protos[] = { "tcp", "udp", "icmp" };
	const char *id, *proto, *dst, *expect, *why, *verdict, *step, *name = NULL;
	struct policy_question q = { 0 };
	struct policy_answer a;
	static struct policy p;
	const char *names[2] = { NULL, NULL };
	int port;
	bool same;

	if (json_unpack((json_t *)(uintptr_t)v, "{s:s,s:s,s:s,s:i,s:s,s:s,s?s}", "id", &id, "proto", &proto, "dst", &dst, "port",
			&port, "expect", &expect, "why", &why, "name", &name) < 0 ||
	    port < 0 || port > UINT16_MAX || !read_policy(v, &p) || addr_parse(dst, &q.dst) < 0)
		return -1;
	if (strcmp(proto, "dns") == 0) {
		a = policy_keeps(&p, &q.dst, name ? name : "");
	} else {
		while (q.proto < POLICY_PROTOS && strcmp(proto, protos[q.proto]) != 0)
			q.proto++;
		if (q.proto == POLICY_PROTOS)
			return -1;
		names[0] = name;
		q.names = names;
		q.port = (uint16_t)port;
		a = policy_decide(&p, &q);
	}
	verdict = policy_verdict_str[a.verdict];
	step = policy_step_str[a.step];
	same = strcmp(verdict, expect) == 0 && str_starts(why, step) && strchr(": ", why[strlen(step)]);
	printf("%s %s %s%s%s\n", id, verdict, step, same ? "" : "  EXPECTED ", same ? "" : why);
	return same;
}

int main(int argc, char **argv)
{
	json_error_t error;
	size_t i, wrong = 0, n;
	json_t *all, *v;

	if (argc != 2) {
		(void)fprintf(stderr, "usage: policy-decide VECTORS.json\n");
		return 2;
	}
	all = json_load_file(argv[1], JSON_REJECT_DUPLICATES, &error);
	if (!json_is_array(all)) {
		(void)fprintf(stderr, "policy-decide: %s: %s\n", argv[1], all ? "no array of cases" : error.text);
		return 2;
	}
	json_array_foreach(all, i, v) {
		int r = decide(v);

		if (r < 0) {
			(void)fprintf(stderr, "policy-decide: %s: case %zu is none that can be understood\n", argv[1], i);
			return 2;
		}
		wrong += r == 0;
	}
	n = json_array_size(all);
	json_decref(all);
	if (wrong)
		(void)fprintf(stderr, "policy-decide: %zu of %zu differ\n", wrong, n);
	return wrong ? 1 : 0;
}
