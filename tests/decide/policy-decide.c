/* policy-decide VECTORS.json: the egress policy over a file of cases (network page 12). Prints "ID VERDICT RULE" a line;
 * exit status 0 when all agree with their "expect" and the first word of "why", 1 when some do not, 2 for a bad file.
 *
 *	{"id","flags":["--allow-lan",…],"host_addrs":["ADDR/BITS",…],"proto":"tcp|udp|icmp|dns","dst","port"?,"name"?,
 *	 "expect"?,"why"?}
 *
 * Each case gets its line. One that cannot be understood is refused as malformed, and standard error says why; an option that no
 * launch would take is said there too and opens nothing. Other members are not read. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"
#include "cli/specs.h"
#include "vault/policy.h"

/* What the credentials and GitHub pages would put under inspection in the cases' launch. */
static const char *const inspected[] = { "api.anthropic.com", "github.com", "api.github.com", "ssh.github.com", NULL };

/* NULL also for a string with a NUL inside. */
static const char *text(const json_t *s)
{
	return json_is_string(s) && strlen(json_string_value(s)) == json_string_length(s) ? json_string_value(s) : NULL;
}

static int rule(const char *f, struct policy_rule *r, struct err *err)
{
	if (str_starts(f, "--allow-egress="))
		return egress_parse(f + strlen("--allow-egress="), r, err);
	if (str_starts(f, "--allow-ssh="))
		return ssh_dest_parse(f + strlen("--allow-ssh="), r, err);
	return err_set(err, -EINVAL, "no option that is known here");
}

static void flag(struct policy *p, const char *id, const char *f)
{
	struct err err;

	if (strcmp(f, "--allow-lan") == 0)
		p->allow_lan = true;
	else if (strcmp(f, "--allow-host") == 0)
		p->allow_host = true;
	else if (strcmp(f, "--no-network") == 0)
		p->no_network = true;
	else if (p->n_rules == POLICY_RULES_MAX)
		(void)fprintf(stderr, "policy-decide: %s: %s: more than %d rules\n", id, f, POLICY_RULES_MAX);
	else if (rule(f, &p->rules[p->n_rules], &err) < 0)
		(void)fprintf(stderr, "policy-decide: %s: %s: %s\n", id, f, err.text);
	else
		p->n_rules++;
}

/* NULL, or what is wrong with it. */
static const char *read_policy(const json_t *v, const char *id, struct policy *p)
{
	const json_t *flags = json_object_get(v, "flags"), *hosts = json_object_get(v, "host_addrs");
	const json_t *e;
	size_t i;

	*p = (struct policy){ .inspected = inspected };
	if ((flags && !json_is_array(flags)) || (hosts && !json_is_array(hosts)))
		return "flags or host_addrs is no array";
	json_array_foreach(flags, i, e) {
		if (!text(e))
			return "a flag is no text";
		flag(p, id, text(e));
	}
	json_array_foreach(hosts, i, e) {
		if (p->n_hosts == POLICY_HOSTS_MAX)
			return "too many host_addrs";
		if (!text(e) || prefix_parse(text(e), &p->hosts[p->n_hosts++]) < 0)
			return "an entry of host_addrs is no ADDR/BITS";
	}
	return NULL;
}

/* In the form in which names are tied: lower case, no dot at the end. */
static bool read_name(const json_t *v, char name[POLICY_NAME_MAX + 2])
{
	const char *s = text(v);
	size_t n = s ? strlen(s) : 0;

	if (!s || n > POLICY_NAME_MAX + 1)
		return false;
	for (size_t i = 0; i <= n; i++)
		name[i] = (char)tolower((unsigned char)s[i]);
	if (n > 0 && name[n - 1] == '.')
		name[--n] = '\0';
	return n <= POLICY_NAME_MAX;
}

static const char *decide(const json_t *v, const char *id, struct policy_answer *ret)
{
	static const char *const protos[] = { "tcp", "udp", "icmp" };
	const char *proto = text(json_object_get(v, "proto")), *dst = text(json_object_get(v, "dst")), *wrong;
	const json_t *port = json_object_get(v, "port"), *tie = json_object_get(v, "name");
	char name[POLICY_NAME_MAX + 2] = "";
	const char *const names[] = { name, NULL };
	struct policy_question q = { 0 };
	static struct policy p;

	wrong = read_policy(v, id, &p);
	if (wrong)
		return wrong;
	if (!dst || addr_parse(dst, &q.dst) < 0)
		return "dst is no address";
	if (tie && !json_is_null(tie) && !read_name(tie, name))
		return "name is none";
	if (!proto)
		return "proto is none";
	if (port && (!json_is_integer(port) || json_integer_value(port) < 0 || json_integer_value(port) > UINT16_MAX))
		return "port is none";
	if (strcmp(proto, "dns") == 0) {
		*ret = policy_keeps(&p, &q.dst, name);
		return NULL;
	}
	while (q.proto < POLICY_PROTOS && strcmp(proto, protos[q.proto]) != 0)
		q.proto++;
	q.port = (uint16_t)json_integer_value(port);
	q.names = name[0] ? names : NULL;
	*ret = policy_decide(&p, &q); /* it refuses a protocol that is none of these */
	return NULL;
}

/* Does the case expect this? What it does not say is not compared. */
static bool agrees(const json_t *v, const char *verdict, const char *step)
{
	const json_t *expect = json_object_get(v, "expect"), *why = json_object_get(v, "why");

	if (expect && (!text(expect) || strcmp(text(expect), verdict) != 0))
		return false;
	return !why || (text(why) && str_starts(text(why), step) && strchr(": ", text(why)[strlen(step)]));
}

/* The line of one case; @at: its place, which stands for an id that is missing. */
static bool run(const json_t *v, size_t at)
{
	const json_t *own = json_object_get(v, "id");
	const char *verdict = policy_verdict_str[POLICY_REFUSE], *step = "malformed", *wrong, *expect, *why;
	struct policy_answer a;
	bool same;
	char *id;

	if (json_is_string(own))
		id = str_escape(json_string_value(own), json_string_length(own));
	else if (own)
		id = json_dumps(own, JSON_ENCODE_ANY | JSON_COMPACT);
	else
		id = xasprintf("#%zu", at);
	wrong = decide(v, id, &a);
	if (wrong) {
		(void)fprintf(stderr, "policy-decide: %s: %s\n", id, wrong);
	} else {
		verdict = policy_verdict_str[a.verdict];
		step = policy_step_str[a.step];
	}
	same = agrees(v, verdict, step);
	printf("%s %s %s", id, verdict, step);
	if (!same) {
		expect = text(json_object_get(v, "expect"));
		why = text(json_object_get(v, "why"));
		printf("  EXPECTED %s %s", expect ? expect : "-", why ? why : "-");
	}
	(void)putchar('\n');
	free(id);
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
	all = json_load_file(argv[1], JSON_ALLOW_NUL, &error);
	if (!json_is_array(all)) {
		(void)fprintf(stderr, "policy-decide: %s: %s\n", argv[1], all ? "no array of cases" : error.text);
		return 2;
	}
	json_array_foreach(all, i, v)
		wrong += !run(v, i);
	n = json_array_size(all);
	json_decref(all);
	if (wrong)
		(void)fprintf(stderr, "policy-decide: %zu of %zu differ\n", wrong, n);
	return wrong ? 1 : 0;
}
