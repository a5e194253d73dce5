#include "cli/table.h"

#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "cli/guest_env.h"
#include "cli/monitor.h"
#include "cli/netplan.h"

#define COLUMN 10 /* width of the label, behind four spaces */

void table_banner(const struct plan *p, const struct session *s)
{
	AUTO_FREE(char, path);

	path = str_escape(p->project.path, strlen(p->project.path));
	(void)fprintf(stderr, "==> %s: %s in %s\n", s->info.name, p->args->verb, path);
}

struct printer {
	struct session *session;
	bool quiet;
};

static void row(const struct printer *pr, const char *label, const char *text)
{
	session_add_row(pr->session, label, text);
	if (!pr->quiet)
		(void)fprintf(stderr, "    %-*s%s\n", COLUMN, label, text);
}

/* Texts of the layout are escaped already. */
static void rows(const struct printer *pr, const char *label, const struct strv *texts)
{
	for (size_t i = 0; i < texts->n; i++)
		row(pr, label, texts->v[i]);
}

static char *size_text(uint64_t mib)
{
	if (mib % 1024 == 0)
		return xasprintf("%lu GiB", (unsigned long)(mib / 1024));
	if (mib > 1024)
		return xasprintf("%.1f GiB", (double)mib / 1024);
	return xasprintf("%lu MiB", (unsigned long)mib);
}

static void row_vm(const struct printer *pr, const struct plan *p)
{
	AUTO_FREE(char, memory);
	AUTO_FREE(char, disk);
	AUTO_FREE(char, text);

	memory = size_text(p->res.memory_mib);
	disk = size_text(p->res.disk_mib);
	text = xasprintf("%s, %u cpu%s, %s disk, %s%s, %s %s", memory, p->res.cpus, p->res.cpus == 1 ? "" : "s", disk,
			 monitor_name(p->monitor), p->monitor == VMM_QEMU_TCG ? " emulation" : "", p->image.reference,
			 p->image.digest_short);
	row(pr, "vm", text);
}

static void row_env(const struct printer *pr, const struct strv *env)
{
	AUTO_FREE(char, text);

	for (size_t i = 0; i < env->n; i++) {
		size_t n = (size_t)(strchrnul(env->v[i], '=') - env->v[i]);
		char *more = xasprintf("%s%s%.*s%s", text ? text : "", text ? ", " : "", (int)n, env->v[i],
				       env_name_is_secretive(env->v[i], n) ? " (in clear)" : "");

		free(text);
		text = more;
	}
	if (text)
		row(pr, "env", text);
}

static void row_login(const struct printer *pr, const struct plan *p)
{
	AUTO_FREE(char, login);
	AUTO_FREE(char, testing);

	login = creds_text(&p->creds);
	row(pr, "login", login);
	testing = upstream_text(&p->upstream);
	if (testing)
		row(pr, "testing", testing);
}

static void row_network(const struct printer *pr, const struct plan *p)
{
	AUTO_FREE(char, text);

	text = netplan_text(p->args, &p->net);
	row(pr, "network", text);
}

static void row_ports(const struct printer *pr, const struct network_plan *net)
{
	AUTO_FREE(char, text);

	text = xstrdup("");
	for (size_t i = 0; i < net->ports.n_what; i++) {
		AUTO_FREE(char, one);

		one = ports_text(&net->ports.what[i], true);
		str_append(&text, *text ? ", " : "");
		str_append(&text, one);
		str_append(&text, ports_is_open(&net->ports.what[i]) ? " (open to your network)" : "");
	}
	if (net->auto_publish) {
		str_append(&text, *text ? ", " : "");
		str_append(&text, "on 127.0.0.1 what listens in the guest");
	}
	if (*text)
		row(pr, "ports", text);
}

static void row_author(const struct printer *pr, const struct gitid *id)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, shown);

	text = id->name ? xasprintf("%s <%s>", id->name, id->email) : xstrdup("none; git will refuse to commit");
	shown = str_escape(text, strlen(text));
	row(pr, "author", shown);
}

void table_rows(const struct plan *p, struct session *s, bool quiet)
{
	const struct printer pr = { .session = s, .quiet = quiet };
	const struct layout_rows *l = &p->layout.rows;
	AUTO_FREE(char, github);

	row_vm(&pr, p);
	rows(&pr, "project", &l->project);
	rows(&pr, "git", &l->git);
	rows(&pr, "guard", &l->guard);
	rows(&pr, "mounts", &l->mounts);
	rows(&pr, "hidden", &l->hidden);
	rows(&pr, "exposed", &l->exposed);
	row_login(&pr, p);
	/* Not for want of a login, and public repositories are out of reach as well. */
	github = p->args->no_network ? xstrdup("none; there is no network")
				     : ghlist_text(&p->github, p->creds.launch.lent & PH_BIT(PH_GH));
	row(&pr, "github", github);
	row_author(&pr, &p->gitid);
	row_network(&pr, p);
	row_ports(&pr, &p->net);
	row_env(&pr, &p->args->env);
	rows(&pr, "state", &l->state);
}
