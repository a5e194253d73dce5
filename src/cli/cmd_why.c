/* agent-vm why: what a launch would do with a request, and what decides it. Nothing is started or sent. */
#include <errno.h>
#include <ifaddrs.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "base/prog.h"
#include "cli/creds.h"
#include "cli/ghlist.h"
#include "cli/launch_args.h"
#include "cli/netplan.h"
#include "cli/sessions.h"
#include "cli/why.h"
#include "session/project.h"

struct why_args {
	struct launch_args launch;
	const char *verb;
	bool json;
};

#define AT(field) offsetof(struct why_args, field)

static const char *const verbs[] = { "claude", "codex", "opencode", "copilot", "shell", NULL };

static const struct opt why_opts[] = {
	{ "verb", OPT_CHOICE, AT(verb), "VERB", "for that verb's launch", 0,
	  "claude, codex, opencode, copilot or shell (the default).", "claude", verbs },
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
	struct creds creds;
	struct ghlist github;
	struct network_plan net;
	struct lookup lookup;
	struct strv warnings;
	json_t *all; /* NULL: text */
};

static const char *variable(const char *name)
{
	return getenv(name);
}

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

	*p = (struct policy){ .no_network = s->net.no_network,
			      .allow_lan = s->net.allow_lan,
			      .allow_host = s->net.allow_host,
			      .proxied = s->net.proxy.text != NULL,
			      .n_rules = s->net.n_rules,
			      .inspected = inspected };
	memcpy(p->rules, s->net.rules, p->n_rules * sizeof(*p->rules));
	for (int h = 0; h < HOSTS; h++)
		if (prov_bound(&s->creds.launch, (enum prov_host_id)h))
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

static void decide_request(struct state *s, enum prov_host_id host)
{
	AUTO_FREE(char, what);
	AUTO_FREE(char, list);
	struct why w;

	what = xasprintf("%s https://%s%s", prov_method_str[s->method], s->url.host, s->url.path);
	why_request(&s->creds.launch, host, s->method, s->url.path, &w);
	if (prov_hosts[host].role == HOST_GITHUB && !w.note) {
		list = ghlist_text(&s->github, s->creds.launch.lent & PH_BIT(PH_GH));
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
	if (!found || found->n_addrs == 0) {
		(void)fprintf(stderr, "agent-vm: %s: %s; write its address\n", s->url.host,
			      found && found->state == LOOKUP_SILENT ? "no resolver of this host answered"
								     : "does not resolve on this host");
		return 1;
	}
	for (size_t i = 0; i < found->n_addrs; i++) {
		why_network(p, s->url.host, &found->addrs[i], s->url.port, &w);
		if (s->url.tls && prov_host_find(span_str(s->url.host)) < HOSTS && strcmp(w.decision, "allow") == 0)
			w.note = xstrdup("not inspected: no login that is lent goes there, so what the guest signs in "
					 "with itself works");
		print_one(s, what, &w);
		why_done(&w);
	}
	return 0;
}

/* The list of a launch here, and with a repository on it the login: then GitHub's hosts are inspected. */
static void take_github(struct why_args *a, struct state *s, const char *project)
{
	struct exposure_args ea = { .home = getenv("HOME") };
	struct gitdir_args ga = { .project = project, .home = ea.home, .uid = geteuid() };
	struct gitbind binds[GITBINDS_MAX];
	struct findings found = { 0 };
	struct layout l = { .n_shares = 0 };
	AUTO_FREE(char, root);
	AUTO_FREE(char, warning);
	struct err err;
	size_t n = 0;

	if (state_root_path(&root, &warning, &err) < 0)
		return;
	ea.state_root = root;
	ga.exposure = exposure_new(&ea);
	if (gitdir_find(&ga, &l.git, binds, &n, NULL, &found) == 0) {
		ghlist_take(&a->launch, &l, &s->github, &s->warnings);
		gitdir_done(&l.git);
	}
	while (n > 0)
		gitbind_done(&binds[--n]);
	findings_done(&found);
	exposure_free(ga.exposure);
	if (s->github.n > 0)
		creds_github(&a->launch, getenv, ea.home, &s->creds, &s->warnings);
}

/* As preflight() does it, and no further. */
static void plan(struct cli *cli, struct why_args *a, struct state *s)
{
	struct host_facts host = { .memory_mib = 0, .cpus = UINT32_MAX };
	struct project project = PROJECT_INIT;
	struct err err;

	a->launch.verb = a->verb ? a->verb : "shell";
	a->launch.agent = agent_find(a->launch.verb);
	launch_check(cli, &a->launch, &host, getenv);
	if (secret_arena_open(SECRET_ARENA, &err) < 0)
		strv_add(&s->warnings, err.text);
	creds_begin(cli, &a->launch, getenv, &s->creds, &s->warnings);
	lookup_add(&s->lookup, s->url.host);
	lookup_start(&s->lookup);
	netplan_begin(cli, &a->launch, variable, &s->net, &s->warnings);
	if (project_open_cwd(&project, &err) == 0)
		prog_shun(project.path);
	if (project.path)
		take_github(a, s, project.path);
	project_close(&project);
	creds_files(cli, &a->launch, getenv, getenv("HOME"), &s->creds, &s->warnings);
	netplan_end(cli, &a->launch, &s->net, &s->warnings);
}

static int take_words(char **rest, struct state *s)
{
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
	s->method = rest[1] ? prov_method_find(span_str(rest[1])) : METHOD_GET;
	if (s->method < METHODS)
		return 0;
	(void)fprintf(stderr,
		      "agent-vm: why: no such method is let in; there are GET HEAD POST PUT PATCH DELETE OPTIONS\n");
	return 2;
}

static int why_run(struct cli *cli, void *args, char **rest)
{
	struct state s = { .lookup = LOOKUP_INIT, .net = { .lookup = LOOKUP_INIT } };
	struct why_args *a = args;
	enum prov_host_id host;
	int status = take_words(rest, &s);

	if (status != 0)
		return status;
	plan(cli, a, &s);
	status = problems_report(&cli->problems, stderr, NULL);
	if (status == 0) {
		for (size_t i = 0; i < s.warnings.n; i++)
			(void)fprintf(stderr, "agent-vm: warning: %s\n", s.warnings.v[i]);
		s.all = a->json ? json_array() : NULL;
		host = prov_host_find(span_str(s.url.host));
		if (s.url.http && s.url.tls && s.url.port == 443 && prov_bound(&s.creds.launch, host))
			decide_request(&s, host);
		else
			status = decide_network(&s);
		if (s.all)
			status |= sessions_print_json(s.all);
		else
			status |= sessions_flush();
	}
	lookup_done(&s.lookup);
	netplan_done(&s.net);
	creds_done(&s.creds);
	strv_done(&s.warnings);
	free(s.url.path);
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
		    "agent-vm why 192.168.1.10:5432\ta connection\n",
	.opts = why_opts,
	.args_size = sizeof(struct why_args),
	.words = CMD_WORDS_MIXED,
	.max_words = 2,
	.run = why_run,
};
