/* What text and host facts tell about a launch: variables, ranges, the grammar of values, options that exclude each
 * other. Walks over the options in the order typed and reports at their words. */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "cli/images.h"
#include "cli/launch_args.h"
#include "cli/size.h"
#include "cli/specs.h"

#define GIB 1024
#define OPENCODE_MIB 768 /* agents page 1: with less it dies */

struct check {
	struct cli *cli;
	struct launch_args *args;
	const struct host_facts *host;
	char *(*getenv_fn)(const char *);
	struct {
		struct publish p;
		const char *words; /* borrowed */
	} *ports; /* those that are right so far */
	size_t n_ports;
	size_t env_n; /* uses of --env so far */
};

/* "--memory 0" or "AGENT_VM_MEMORY_GIB=0", for the front of a message. @by is " " or "=". */
static char *object(const char *name, const char *by, const char *value)
{
	AUTO_FREE(char, shown);

	shown = str_escape(value, strlen(value));
	return xasprintf("%s%s%s", name, by, shown);
}

static uint64_t memory_default(const struct host_facts *host)
{
	uint64_t mib = host->memory_mib / 4;

	return mib < 2 * GIB ? 2 * GIB : mib > 8 * GIB ? 8 * GIB : mib;
}

struct launch_resources launch_resources(const struct launch_args *args, const struct host_facts *host, bool emulated)
{
	unsigned cpus = emulated ? 1 : 4; /* two emulated ones are no faster: docs/platform/libkrun.md */

	return (struct launch_resources){
		.memory_mib = args->memory_mib ? args->memory_mib : emulated ? 2 * GIB : memory_default(host),
		.disk_mib = args->disk_mib ? args->disk_mib : LAUNCH_DISK_DEFAULT_MIB,
		.cpus = args->cpus ? args->cpus : MIN(cpus, host->cpus),
	};
}

/* @what: the front of the message; @how: what a right use begins with, "write --memory " or "set AGENT_VM_MEMORY_GIB=". */
static void check_memory(struct check *c, const char *what, const char *how, uint64_t mib)
{
	AUTO_FREE(char, has);

	if (mib < LAUNCH_MEMORY_MIN_MIB) {
		problem_text(&c->cli->problems, "%s: less than 256M; for four GiB %s4", what, how);
	} else if (c->host->memory_mib && mib > c->host->memory_mib) {
		has = size_text(c->host->memory_mib);
		problem_text(&c->cli->problems, "%s: more than this host's memory, which is %s; %s%" PRIu64 "M or less",
			     what, has, how, c->host->memory_mib);
	}
}

static void check_cpus(struct check *c, const char *what, const char *how, unsigned cpus)
{
	if (cpus == 0)
		problem_text(&c->cli->problems, "%s: a VM needs one at least; %s1 or more", what, how);
	else if (cpus > c->host->cpus)
		problem_text(&c->cli->problems, "%s: more than the %u that can be used here; %s%u or less", what,
			     c->host->cpus, how, c->host->cpus);
}

/* --- options, one function each, called for every use that has a value of the right kind --- */

static void use_memory(struct check *c, const struct opt_use *use)
{
	AUTO_FREE(char, what);

	what = object("--memory", " ", use->value);
	check_memory(c, what, "write --memory ", c->args->memory_mib);
}

static void use_cpus(struct check *c, const struct opt_use *use)
{
	AUTO_FREE(char, what);

	what = object("--cpus", " ", use->value);
	check_cpus(c, what, "write --cpus ", c->args->cpus);
}

static void use_disk(struct check *c, const struct opt_use *use)
{
	AUTO_FREE(char, what);

	what = object("--disk", " ", use->value);
	if (c->args->disk_mib == 0)
		problem_text(&c->cli->problems, "%s: no room for anything; for sixteen GiB write --disk 16", what);
	else if (c->args->disk_mib > LAUNCH_DISK_MAX_MIB)
		problem_text(&c->cli->problems, "%s: more than 2 TiB, the largest disk that a guest is ready with in time; for one TiB write --disk 1T",
			     what);
}

/* Prints the reason of a parser behind the option and its value. */
static void report(struct check *c, const struct opt_use *use, const struct err *err)
{
	AUTO_FREE(char, value);

	value = str_escape(use->value, strlen(use->value));
	problem_text(&c->cli->problems, "--%s %s: %s", use->opt->name, value, err->text);
}

static void use_publish(struct check *c, const struct opt_use *use)
{
	struct publish p;
	struct err err;

	if (publish_parse(use->value, &p, &err) < 0) {
		report(c, use, &err);
		return;
	}
	for (size_t i = 0; i < c->n_ports; i++)
		if (publish_meets(&p, &c->ports[i].p)) {
			(void)err_set(&err, -EEXIST, "port %u of this host is published by --publish %s already; choose another one",
				      p.host, c->ports[i].words);
			report(c, use, &err);
			return;
		}
	c->ports = xrealloc(c->ports, (c->n_ports + 1) * sizeof(*c->ports));
	c->ports[c->n_ports].p = p;
	c->ports[c->n_ports++].words = use->value;
}

static void use_egress(struct check *c, const struct opt_use *use)
{
	struct policy_rule e;
	struct err err;

	if (egress_parse(use->value, &e, &err) < 0)
		report(c, use, &err);
}

static void use_ssh(struct check *c, const struct opt_use *use)
{
	struct policy_rule e;
	struct err err;

	if (ssh_dest_parse(use->value, &e, &err) < 0)
		report(c, use, &err);
}

static void use_repo(struct check *c, const struct opt_use *use)
{
	struct repo repo;
	struct err err;

	if (repo_parse(use->value, &repo, &err) < 0)
		report(c, use, &err);
}

static void use_github(struct check *c, const struct opt_use *use)
{
	struct err err;

	if (github_switch_check(use->value, &err) < 0)
		report(c, use, &err);
}

static void use_api(struct check *c, const struct opt_use *use)
{
	struct err err;

	if (api_class_check(use->value, &err) < 0)
		report(c, use, &err);
}

/* Values may be secrets: only the name is shown. */
static void use_env(struct check *c, const struct opt_use *use)
{
	AUTO_FREE(char, shown);
	char **entry = &c->args->env.v[c->env_n++];
	const char *value;

	shown = str_escape(use->value, strcspn(use->value, "="));
	if (env_name_len(use->value) == 0) {
		problem_text(&c->cli->problems,
			     "--env %s: no name of a variable; names are letters, digits and _, as in --env NAME=VALUE",
			     shown);
		return;
	}
	if (strchr(use->value, '='))
		return;
	value = c->getenv_fn(use->value);
	if (!value) {
		problem_text(&c->cli->problems, "--env %s: this host has no such variable; set it, or write --env %s=VALUE",
			     shown, shown);
		return;
	}
	free(*entry);
	*entry = xasprintf("%s=%s", use->value, value);
}

/* --no-network with what opens a part of it: one problem for each option, at --no-network. */
static const char *const network_opts[] = {
	"publish", "auto-publish", "allow-egress", "allow-lan", "allow-host", "allow-ssh",
};

static void use_no_network(struct check *c, const struct opt_use *use)
{
	for (size_t i = 0; i < ARRAY_SIZE(network_opts); i++)
		if (opt_given(&c->cli->parsed, network_opts[i]))
			problem_text(&c->cli->problems,
				     "--no-network and --%s: one excludes the other; leave one of them out",
				     network_opts[i]);
}

static const struct {
	const char *name;
	void (*fn)(struct check *, const struct opt_use *);
} use_checks[] = {
	{ "memory", use_memory }, { "cpus", use_cpus }, { "disk", use_disk },       { "publish", use_publish },
	{ "repo", use_repo },     { "api", use_api },   { "github", use_github },   { "allow-egress", use_egress },
	{ "allow-ssh", use_ssh }, { "env", use_env },   { "no-network", use_no_network },
};

static void check_use(struct check *c, const struct opt_use *use)
{
	for (size_t i = 0; i < ARRAY_SIZE(use_checks); i++)
		if (strcmp(use_checks[i].name, use->opt->name) == 0)
			use_checks[i].fn(c, use);
}

/* --- variables --- */

/* Value of a variable, NULL if it is unset, empty, or its option was given. */
static const char *variable(struct check *c, const char *name, const char *opt)
{
	const char *value = c->getenv_fn(name);

	return value && *value && (!opt || !opt_given(&c->cli->parsed, opt)) ? value : NULL;
}

static void check_variables(struct check *c)
{
	struct problems *p = &c->cli->problems;
	AUTO_FREE(char, memory);
	AUTO_FREE(char, cpus);
	AUTO_FREE(char, level);
	const char *value;
	struct err err;
	uint64_t n;
	int r;

	value = variable(c, "AGENT_VM_MEMORY_GIB", "memory");
	if (value) {
		memory = object("AGENT_VM_MEMORY_GIB", "=", value);
		r = size_parse(value, &n);
		if (r == -ERANGE) {
			problem_text(p, "%s: too large; for four GiB set AGENT_VM_MEMORY_GIB=4", memory);
		} else if (r < 0) {
			problem_text(p, "%s: not %s; for four GiB set AGENT_VM_MEMORY_GIB=4", memory, SIZE_FORM);
		} else {
			c->args->memory_mib = n;
			check_memory(c, memory, "set AGENT_VM_MEMORY_GIB=", n);
		}
	}
	value = variable(c, "AGENT_VM_CPUS", "cpus");
	if (value) {
		cpus = object("AGENT_VM_CPUS", "=", value);
		if (str_u64(value, UINT32_MAX, &n) < 0) {
			problem_text(p, "%s: not a whole number; for two processors set AGENT_VM_CPUS=2", cpus);
		} else {
			c->args->cpus = (unsigned)n;
			check_cpus(c, cpus, "set AGENT_VM_CPUS=", c->args->cpus);
		}
	}
	value = variable(c, "AGENT_VM_IMAGE_TAG", "image");
	if (value)
		c->args->image = value;
	if (images_insecure_check(variable(c, "AGENT_VM_INSECURE_REGISTRY", NULL), &err) < 0)
		problem_text(p, "%s", err.text);
	value = variable(c, "AGENT_VM_LOG", NULL);
	c->args->log_level = value ? log_level_parse(value) : LOG_LV_WARN;
	if (c->args->log_level < 0) {
		level = object("AGENT_VM_LOG", "=", value);
		problem_text(p, "%s: no such level; set it to error, warn, info or debug", level);
	}
}

void launch_check(struct cli *cli, struct launch_args *args, const struct host_facts *host,
		  char *(*getenv_fn)(const char *))
{
	struct check c = { .cli = cli, .args = args, .host = host, .getenv_fn = getenv_fn };

	for (size_t i = 0; i < cli->parsed.n_uses; i++) {
		const struct opt_use *use = &cli->parsed.uses[i];

		if (use->bad)
			continue;
		problems_at(&cli->problems, use->at);
		check_use(&c, use);
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
	check_variables(&c);
	if (!args->git_dir)
		args->git_dir = "auto";
	if (!args->git_config)
		args->git_config = "ro";
	free(c.ports);
}

void launch_warnings(const struct launch_args *args, struct strv *ret)
{
	if (args->no_network && args->agent->program)
		strv_addf(ret, "--no-network: %s cannot reach its service; leave the option out if it should", args->verb);
	if (args->memory_mib && args->memory_mib < OPENCODE_MIB && strcmp(args->verb, "opencode") == 0)
		strv_addf(ret, "--memory: %" PRIu64 " MiB are too little for OpenCode, which needs 1 GiB; write --memory 1 or more",
			  args->memory_mib);
}
