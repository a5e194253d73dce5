/* agent-vm why: what a launch would do with a request, and what decides it. Nothing is started or sent. */
#include <assert.h>
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "cli/launch_args.h"
#include "cli/netplan.h"
#include "cli/preflight.h"
#include "cli/sessions.h"
#include "cli/why.h"
#include "proto/gatecfg.h"
#include "proto/rec.h"

struct why_args {
	struct launch_args launch;
	const char *verb, *method;
	bool json;
};

#define AT(field) offsetof(struct why_args, field)

static const char *const verbs[] = { "claude", "codex", "opencode", "copilot", "shell", NULL };

static const struct opt why_opts[] = {
	{ "verb", OPT_CHOICE, AT(verb), "VERB", "for that verb's launch", 0,
	  "claude, codex, opencode, copilot or shell (the default).", "claude", verbs },
	{ "X", OPT_STRING, AT(method), "METHOD", "the method, which may also stand behind the URL", OPT_INITIAL, NULL,
	  "POST" },
	{ "repo", OPT_STRV, AT(launch.repos), "OWNER/REPO[=LEVEL]", "as at a launch" },
	{ "no-git", OPT_FLAG, AT(launch.no_git), NULL, "as at a launch" },
	{ "github", OPT_STRV, AT(launch.github), "KEY=VALUE", "as at a launch" },
	{ "mount", OPT_STRV, AT(launch.mounts), "HOST[:GUEST][:ro]", "as at a launch" },
	{ "expose", OPT_STRV, AT(launch.expose), "PATH", "as at a launch" },
	{ "api", OPT_STRV, AT(launch.api), "PROVIDER=CLASS", "as at a launch" },
	{ "allow-egress", OPT_STRV, AT(launch.allow_egress), "DEST", "as at a launch" },
	{ "allow-lan", OPT_FLAG, AT(launch.allow_lan), NULL, "as at a launch" },
	{ "allow-host", OPT_FLAG, AT(launch.allow_host), NULL, "as at a launch" },
	{ "allow-ssh", OPT_STRV, AT(launch.allow_ssh), "HOST[:PORT]", "as at a launch" },
	{ "no-network", OPT_FLAG, AT(launch.no_network), NULL, "as at a launch" },
	{ "json", OPT_FLAG, AT(json), NULL, "print one JSON array with the same facts" },
	{ 0 },
};

struct state {
	struct why_url url;
	enum prov_method method;
	struct plan plan;
	struct lookup lookup;
	json_t *all; /* NULL: text */
};

/* What the policy counts as this host. */
static void own_addresses(struct policy *p)
{
	struct ifaddrs *all;

	if (getifaddrs(&all) < 0)
		return;
	for (const struct ifaddrs *i = all; i && p->n_hosts < POLICY_HOSTS_MAX; i = i->ifa_next) {
		struct prefix *to = &p->hosts[p->n_hosts];
		struct addr mask;

		if (!i->ifa_addr || !lookup_addr(i->ifa_addr, &to->addr) || !i->ifa_netmask ||
		    !lookup_addr(i->ifa_netmask, &mask))
			continue;
		to->bits = 0;
		while (to->bits < (mask.family == AF_INET ? 32 : 128) && mask.b[to->bits / 8] & (0x80 >> to->bits % 8))
			to->bits++;
		p->n_hosts++;
	}
	freeifaddrs(all);
}

static void policy_of(const struct state *s, const char **inspected, struct policy *p)
{
	size_t n = 0;

	*p = (struct policy){ .no_network = s->plan.net.no_network,
			      .allow_lan = s->plan.net.allow_lan,
			      .allow_host = s->plan.net.allow_host,
			      .proxied = s->plan.net.proxy.text != NULL,
			      .n_rules = s->plan.net.n_rules,
			      .inspected = inspected };
	memcpy(p->rules, s->plan.net.rules, p->n_rules * sizeof(*p->rules));
	for (int h = 0; h < HOSTS; h++)
		if (prov_bound(&s->plan.creds.launch, (enum prov_host_id)h))
			inspected[n++] = prov_hosts[h].name;
	own_addresses(p);
}

static void print_one(struct state *s, const char *what, const struct why *w)
{
	if (s->all) {
		(void)json_array_append_new(s->all,
					    json_pack("{s:s, s:s, s:s, s:s?, s:s?, s:s?, s:s?}", "what", what,
						      "decision", w->decision, "rule", w->rule, "opens", w->opens,
						      "note", w->note, "credential", w->kind, "class", w->class));
		return;
	}
	(void)printf("%s\n    decision  %s\n    rule      %s\n", what, w->decision, w->rule);
	if (w->opens)
		(void)printf("    option    %s\n", w->opens);
	if (w->note)
		(void)printf("    note      %s\n", w->note);
}

/* As gate reads what it is given. */
static struct gh_scope *scope_of(const struct ghlist *list)
{
	struct gh_scope *scope = xcalloc(1, sizeof(*scope));
	struct span in, records;
	struct buf b;
	uint16_t key;
	int r;

	buf_init(&b, GATE_CONFIG_MAX);
	gh_scope_init(scope);
	r = ghlist_put(list, &b);
	in = buf_span(&b);
	if (r == 0)
		r = rec_next(&in, &key, &records) == 1 ? gh_scope_read(records, scope) : -EBADMSG;
	assert(r == 0); /* launch_check() has looked at what was typed */
	buf_done(&b);
	return scope;
}

static void decide_request(struct state *s, enum prov_host_id host)
{
	AUTO_FREE(struct gh_scope, github);
	AUTO_FREE(char, what);
	AUTO_FREE(char, list);
	struct why w;

	what = xasprintf("%s https://%s%s", prov_method_str[s->method], s->url.host, s->url.target);
	github = scope_of(&s->plan.github);
	why_request(&s->plan.creds.launch, github, host, s->method, s->url.target, &w);
	if (prov_hosts[host].role == HOST_GITHUB && !w.note) {
		list = ghlist_text(&s->plan.github, s->plan.creds.launch.lent & PH_BIT(PH_GH));
		w.note = xasprintf("the list: %s", list);
	}
	print_one(s, what, &w);
	why_done(&w);
}

/* 0, or exit status 1 when the name has no address. */
static int decide_network(struct state *s)
{
	const char *inspected[HOSTS + 1] = { NULL };
	const struct lookup_name *found;
	bool service = prov_host_find(span_str(s->url.host)) < HOSTS;
	size_t n;
	AUTO_FREE(struct policy, p);
	AUTO_FREE(char, what);
	struct addr literal;
	struct why w;

	p = xcalloc(1, sizeof(*p));
	policy_of(s, inspected, p);
	what = xasprintf(strchr(s->url.host, ':') ? "tcp [%s]:%u" : "tcp %s:%u", s->url.host, s->url.port);
	if (addr_parse(s->url.host, &literal) == 0) {
		why_network(p, NULL, &literal, s->url.port, &w);
		print_one(s, what, &w);
		why_done(&w);
		return 0;
	}
	lookup_finish(&s->lookup);
	found = lookup_find(&s->lookup, s->url.host);
	if ((!found || found->n_addrs == 0) && !service) {
		(void)fprintf(stderr, "agent-vm: %s: %s; write its address\n", s->url.host,
			      found && found->state == LOOKUP_SILENT ? "no resolver of this host answered"
								     : "does not resolve on this host");
		return 1;
	}
	n = found ? found->n_addrs : 0;
	for (size_t i = 0; i < MAX(n, 1); i++) {
		why_network(p, s->url.host, i < n ? &found->addrs[i] : NULL, s->url.port, &w);
		if (s->url.tls && service && strcmp(w.decision, "allow") == 0)
			w.note = xstrdup("not inspected: no login that is lent goes there, so what the guest signs in "
					 "with itself works");
		print_one(s, what, &w);
		why_done(&w);
	}
	return 0;
}

static void plan(struct cli *cli, struct why_args *a, struct state *s)
{
	struct host_facts host = { .memory_mib = 0, .cpus = UINT32_MAX };

	a->launch.verb = a->verb ? a->verb : "shell";
	a->launch.agent = agent_find(a->launch.verb);
	launch_check(cli, &a->launch, &host, getenv);
	lookup_add(&s->lookup, s->url.host);
	lookup_start(&s->lookup);
	s->plan = PLAN_INIT(&a->launch);
	preflight_policy(cli, &a->launch, &s->plan);
	netplan_end(cli, &a->launch, &s->plan.net, &s->plan.warnings);
}

static int take_words(char **rest, const struct why_args *a, struct state *s)
{
	const char *method = a->method ? a->method : rest[0] && rest[1] ? rest[1] : "GET";
	struct err err;

	if (!rest[0]) {
		(void)fprintf(stderr, "agent-vm: why: of what? write it as in: agent-vm why "
				      "https://api.anthropic.com/v1/messages POST\n");
		return 2;
	}
	if (why_url_parse(rest[0], &s->url, &err) < 0) {
		AUTO_FREE(char, shown);

		shown = str_escape(rest[0], strlen(rest[0]));
		(void)fprintf(stderr, "agent-vm: why %s: %s\n", shown, err.text);
		return 2;
	}
	s->method = prov_method_find(span_str(method));
	if (s->method < METHODS && !(a->method && rest[1]))
		return 0;
	(void)fprintf(stderr, a->method && rest[1]
				      ? "agent-vm: why: two methods; leave one out\n"
				      : "agent-vm: why: no such method is let in; there are GET HEAD POST PUT PATCH "
					"DELETE OPTIONS\n");
	return 2;
}

static int why_run(struct cli *cli, void *args, char **rest)
{
	struct why_args *a = args;
	struct state s = { .lookup = LOOKUP_INIT, .plan = PLAN_INIT(&a->launch) };
	enum prov_host_id host;
	int status = take_words(rest, a, &s);

	if (status != 0)
		return status;
	plan(cli, a, &s);
	status = problems_report(&cli->problems, stderr, NULL);
	if (status == 0) {
		for (size_t i = 0; i < s.plan.warnings.n; i++)
			(void)fprintf(stderr, "agent-vm: warning: %s\n", s.plan.warnings.v[i]);
		s.all = a->json ? json_array() : NULL;
		host = prov_host_find(span_str(s.url.host));
		if (s.url.http && s.url.tls && s.url.port == 443 && prov_bound(&s.plan.creds.launch, host))
			decide_request(&s, host);
		else
			status = decide_network(&s);
		if (s.all)
			status |= sessions_print_json(s.all);
		else
			status |= sessions_flush();
	}
	lookup_done(&s.lookup);
	plan_done(&s.plan);
	free(s.url.target);
	return status;
}

const struct cmd cmd_why = {
	.name = "why",
	.summary = "what a launch here would do with a request, and why",
	.usage = "[OPTIONS] URL|HOST[:PORT]|IP:PORT [METHOD]",
	.about = "Prints the decision, the rule that makes it, and the option of a launch that would change it, for "
		 "this folder and the "
		 "logins of this host as they are now. METHOD is GET when it is not said. Nothing is started and "
		 "nothing is sent; a "
		 "name is looked up.",
	.examples = "agent-vm why https://api.openai.com/v1/files\ta request\n"
		    "agent-vm why -X POST https://api.github.com/gists\ta write\n"
		    "agent-vm why 192.168.1.10:5432\ta connection\n",
	.opts = why_opts,
	.args_size = sizeof(struct why_args),
	.words = CMD_WORDS_MIXED,
	.max_words = 2,
	.run = why_run,
};
