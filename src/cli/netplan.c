#include "cli/netplan.h"

#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "cli/specs.h"
#include "image/proxy.h"
#include "proto/vaultcfg.h"

#define HOST_MAX 255
#define AUTH_MAX 1000

static void add_rules(struct network_plan *net, const struct strv *words,
		      int (*parse)(const char *, struct policy_rule *, struct err *))
{
	struct err err;

	/* Their form was checked with the words. */
	net->rules = xrealloc(net->rules, (net->n_rules + words->n + 1) * sizeof(*net->rules));
	for (size_t i = 0; i < words->n; i++)
		if (parse(words->v[i], &net->rules[net->n_rules], &err) == 0)
			net->n_rules++;
}

/* no_proxy "*": then there is no proxy at all. */
static bool exceptions(struct network_plan *net, const char *(*env)(const char *), struct strv *warnings)
{
	const char *list = proxy_exceptions(env);
	AUTO_FREE(char, copy);
	char *save = NULL;
	size_t left_out = 0;

	copy = xstrdup(list ? list : "");
	for (char *e = strtok_r(copy, ", \t", &save); e; e = strtok_r(NULL, ", \t", &save)) {
		if (strcmp(e, "*") == 0)
			return true;
		if (strlen(e) > POLICY_NAME_MAX || net->proxy.except.n == VAULT_NO_PROXY_MAX)
			left_out++;
		else
			strv_add(&net->proxy.except, e);
	}
	if (left_out > 0)
		strv_addf(warnings, "no_proxy: %zu entries are left out, whose hosts are reached by the proxy; at most %d are possible, of "
			  "%d bytes each", left_out, VAULT_NO_PROXY_MAX, POLICY_NAME_MAX);
	return false;
}

static void plan_proxy(struct cli *cli, const char *(*env)(const char *), struct network_plan *net, struct strv *warnings)
{
	struct network_proxy *to = &net->proxy;
	struct proxy p = { 0 };
	struct err note;
	int r;

	r = proxy_upstream(true, env, &p, &note);
	if (r < 0)
		problem_text(&cli->problems, "%s", note.text);
	else if (r == 0 && note.text[0] != '\0')
		strv_add(warnings, note.text);
	if (r <= 0 || exceptions(net, env, warnings)) {
		proxy_done(&p);
		return;
	}
	to->variable = p.variable;
	to->port = p.port;
	if (strlen(p.host) > HOST_MAX || (p.user && strlen(p.user) + strlen(p.password) > AUTH_MAX)) {
		problem_text(&cli->problems, "%s: its %s is too long; correct or unset it", p.variable,
			     strlen(p.host) > HOST_MAX ? "host" : "user and password");
	} else {
		to->text = xasprintf("http://%s:%u", p.host, p.port);
		to->host = p.host[0] == '[' ? xstrndup(p.host + 1, strcspn(p.host + 1, "]")) : xstrdup(p.host);
		if (p.user)
			to->auth = xasprintf("%s:%s", p.user, p.password);
		if (addr_parse(to->host, &to->addrs[0]) == 0)
			to->n_addrs = 1;
		else
			lookup_add(&net->lookup, to->host);
	}
	proxy_done(&p);
}

void netplan_begin(struct cli *cli, const struct launch_args *args, const char *(*env)(const char *), struct network_plan *net,
		   struct strv *warnings)
{
	*net = (struct network_plan){ .lookup = LOOKUP_INIT, .no_network = args->no_network, .allow_lan = args->allow_lan,
				      .allow_host = args->allow_host,
				      .auto_publish = args->auto_publish };
	add_rules(net, &args->allow_egress, egress_parse);
	add_rules(net, &args->allow_ssh, ssh_dest_parse);
	if (net->n_rules > POLICY_RULES_MAX) {
		problem_text(&cli->problems, "--allow-egress and --allow-ssh: %zu of them; at most %d are possible", net->n_rules,
			     POLICY_RULES_MAX);
		net->n_rules = 0;
	}
	if (args->no_network)
		return;
	for (size_t i = 0; i < net->n_rules; i++)
		if (net->rules[i].name[0] != '\0')
			lookup_add(&net->lookup, net->rules[i].name);
	plan_proxy(cli, env, net, warnings);
	lookup_start(&net->lookup);
}

static void check_names(struct cli *cli, const char *opt, const struct strv *words,
			int (*parse)(const char *, struct policy_rule *, struct err *), const struct network_plan *net,
			struct strv *warnings)
{
	for (size_t i = 0; i < words->n; i++) {
		const struct lookup_name *found;
		struct policy_rule rule;
		struct err err;

		if (parse(words->v[i], &rule, &err) < 0 || rule.name[0] == '\0')
			continue;
		found = lookup_find(&net->lookup, rule.name);
		if (!found || found->state == LOOKUP_FOUND)
			continue;
		if (found->state == LOOKUP_SILENT) {
			strv_addf(warnings, "--%s %s: no resolver of this host answered for %s; it opens what the session's names give later",
				  opt, words->v[i], rule.name);
			continue;
		}
		problems_at(&cli->problems, opt_at(&cli->parsed, opt, i));
		problem_world(&cli->problems, "--%s %s: %s does not resolve on this host; check the spelling, or write its address",
			      opt, words->v[i], rule.name);
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
}

void netplan_end(struct cli *cli, const struct launch_args *args, struct network_plan *net, struct strv *warnings)
{
	struct network_proxy *proxy = &net->proxy;
	const struct lookup_name *found;

	lookup_finish(&net->lookup);
	if (args->no_network)
		return;
	check_names(cli, "allow-egress", &args->allow_egress, egress_parse, net, warnings);
	check_names(cli, "allow-ssh", &args->allow_ssh, ssh_dest_parse, net, warnings);
	found = proxy->host && proxy->n_addrs == 0 ? lookup_find(&net->lookup, proxy->host) : NULL;
	if (!found)
		return;
	/* Going direct would go past the proxy, so without it there is no session. */
	if (found->state != LOOKUP_FOUND)
		problem_world(&cli->problems, "%s: %s %s; correct or unset it, or use --no-network", proxy->variable, proxy->host,
			      found->state == LOOKUP_NONE ? "does not resolve on this host" : "cannot be looked up, no resolver answered");
	proxy->n_addrs = MIN(found->n_addrs, ARRAY_SIZE(proxy->addrs));
	memcpy(proxy->addrs, found->addrs, proxy->n_addrs * sizeof(*proxy->addrs));
}

void netplan_done(struct network_plan *net)
{
	lookup_done(&net->lookup);
	free(net->wire_path);
	free(net->vault_path);
	free(net->gate_path);
	free(net->probe_path);
	free(net->rules);
	ports_done(&net->ports);
	free(net->proxy.text);
	free(net->proxy.host);
	if (net->proxy.auth)
		explicit_bzero(net->proxy.auth, strlen(net->proxy.auth));
	free(net->proxy.auth);
	strv_done(&net->proxy.except);
}

static bool proxy_on_loopback(const struct network_proxy *p)
{
	for (size_t i = 0; i < p->n_addrs; i++)
		if (policy_never(&(struct prefix){ p->addrs[i], p->addrs[i].family == AF_INET ? 32 : 128 }))
			return true;
	return false;
}

/* A rule in words: "192.168.1.10 port 5432", "10.1.0.0/16 ports 8000-8099 tcp", "ssh gitlab.com". */
static void add_rule(char **text, const char *word, bool ssh)
{
	char addr[ADDR_TEXT], net[ADDR_TEXT + 8], ports[32] = "";
	struct policy_rule r = { 0 };
	AUTO_FREE(char, words);
	struct err err;

	/* Its form was checked with the words. */
	(void)(ssh ? ssh_dest_parse : egress_parse)(word, &r, &err);
	(void)snprintf(net, sizeof(net), r.net.bits == (r.net.addr.family == AF_INET ? 32 : 128) ? "%s" : "%s/%u",
		       addr_format(&r.net.addr, addr), r.net.bits);
	if (r.lo != r.hi)
		(void)snprintf(ports, sizeof(ports), " ports %u-%u", r.lo, r.hi);
	else if (r.lo != (ssh ? 22 : 0))
		(void)snprintf(ports, sizeof(ports), " port %u", r.lo);
	words = xasprintf(", %s%s%s%s", ssh ? "ssh " : "", r.name[0] ? r.name : net, ports,
			  ssh || r.tcp == r.udp ? "" : r.tcp ? " tcp" : " udp");
	str_append(text, words);
}

char *netplan_text(const struct launch_args *args, const struct network_plan *net)
{
	char *text = xstrdup(net->no_network ? "none" : "public internet");

	if (!net->no_network && !net->allow_lan && !net->allow_host && net->n_rules == 0 && !net->proxy.text)
		str_append(&text, " only");
	if (net->allow_lan)
		str_append(&text, ", LAN");
	if (net->allow_host)
		str_append(&text, ", this host");
	for (size_t i = 0; i < args->allow_egress.n; i++)
		add_rule(&text, args->allow_egress.v[i], false);
	for (size_t i = 0; i < args->allow_ssh.n; i++)
		add_rule(&text, args->allow_ssh.v[i], true);
	if (net->proxy.text) {
		str_append(&text, ", by proxy ");
		str_append(&text, net->proxy.text);
		if (!proxy_on_loopback(&net->proxy))
			str_append(&text, ", which resolves names this host cannot");
	}
	return text;
}
