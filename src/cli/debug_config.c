#include "cli/debug_config.h"

#include <assert.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/macros.h"
#include "cli/monitor.h"
#include "cli/netplan.h"

bool debug_config_wanted(void)
{
	const char *v = getenv("AGENT_VM_DEBUG_CONFIG");

	return v && str_switch(v) != 0;
}

/* Paths and words are any bytes: what is not UTF-8 is shown as \xNN. */
static json_t *text(const char *s)
{
	AUTO_FREE(char, shown);
	json_t *j = s ? json_string(s) : json_null();

	if (j)
		return j;
	shown = str_escape(s, strlen(s));
	j = json_string(shown);
	return j ? j : json_null();
}

static json_t *texts(const struct strv *v)
{
	json_t *all = json_array();

	for (size_t i = 0; i < v->n; i++)
		(void)json_array_append_new(all, text(v->v[i]));
	return all;
}

static json_t *shares(const struct layout *l)
{
	static const char *const kinds[] = { [LAYOUT_PROJECT] = "project", [LAYOUT_GIT] = "git", [LAYOUT_MOUNT] = "mount",
					     [LAYOUT_STATE] = "state", [LAYOUT_SETTINGS] = "settings" };
	static_assert(ARRAY_SIZE(kinds) == LAYOUT_KINDS, "kinds[] is incomplete");
	json_t *all = json_array();

	for (size_t i = 0; i < l->n_shares; i++) {
		const struct layout_share *s = &l->shares[i];

		(void)json_array_append_new(all, json_pack("{s:s, s:o, s:o, s:b, s:o, s:o, s:o, s:o}", "kind", kinds[s->kind],
							    "host", text(s->host), "guest", text(s->guest), "read_only", s->ro,
							    "guard_read_only", texts(&s->guard_ro), "guard_fixed",
							    texts(&s->guard_self), "guard_writable", texts(&s->guard_rw),
							    "hidden", texts(&s->hide)));
	}
	return all;
}

static json_t *env(const struct strv *v)
{
	json_t *all = json_object();

	for (size_t i = 0; i < v->n; i++) {
		AUTO_FREE(char, name);

		name = xstrndup(v->v[i], strcspn(v->v[i], "="));
		(void)json_object_set_new(all, name, json_string("***"));
	}
	return all;
}

static json_t *github(const struct ghlist *l)
{
	json_t *all = json_array();

	for (size_t i = 0; i < l->n; i++) {
		const struct repo *r = &l->v[i].repo;
		AUTO_FREE(char, one);

		one = xasprintf("%s/%s=%s", r->owner, r->name, gh_level_str[r->level]);
		(void)json_array_append_new(all, text(one));
	}
	return all;
}

static json_t *policy(const struct plan *p)
{
	AUTO_FREE(char, network);
	AUTO_FREE(char, login);

	network = netplan_text(p->args, &p->net);
	login = creds_text(&p->creds);
	return json_pack("{s:o, s:o, s:o, s:b, s:s}", "network", text(network), "login", text(login), "github", github(&p->github),
			 "namespaces", p->namespaces, "git_config", p->args->git_config);
}

static json_t *ports(const struct network_plan *net)
{
	json_t *list = json_array();

	for (size_t i = 0; i < net->ports.n_what; i++) {
		AUTO_FREE(char, one);

		one = ports_text(&net->ports.what[i], true);
		(void)json_array_append_new(list, json_string(one));
	}
	return list;
}

char *debug_config_text(const struct plan *p, const char *session)
{
	json_t *all;
	char *out;

	all = json_pack("{s:s, s:s, s:o, s:s, s:o, s:{s:I, s:i, s:I}, s:o, s:o, s:o, s:o, s:b, s:o, s:o}", "session", session, "verb",
			p->args->verb, "project", text(p->project.path), "monitor", monitor_name(p->monitor), "image",
			text(p->pull ? p->pull : p->image.reference), "resources", "memory_mib", (json_int_t)p->res.memory_mib,
			"cpus", (int)p->res.cpus, "disk_mib", (json_int_t)p->res.disk_mib, "project_guest",
			text(p->layout.project_guest), "mounts", shares(&p->layout), "env", env(&p->args->env), "ports", ports(&p->net), "auto_publish",
			p->net.auto_publish, "policy", policy(p),
			"command", texts(&p->argv));
	out = all ? json_dumps(all, JSON_COMPACT) : NULL;
	json_decref(all);
	return out ? out : xstrdup("{}");
}
