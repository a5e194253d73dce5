/* agent-vm ps: the live sessions of this user, of all projects. */
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"
#include "cli/cmd.h"
#include "cli/sessions.h"

struct ps_args {
	bool json;
};

static const struct opt ps_opts[] = {
	{ "json", OPT_FLAG, offsetof(struct ps_args, json), NULL, "print one JSON array with the same facts" },
	{ NULL },
};

static char *ports_text(const struct strv *ports)
{
	char *text = xstrdup("");

	for (size_t i = 0; i < ports->n; i++) {
		char *more = xasprintf("%s%s%s", text, i > 0 ? ", " : "", ports->v[i]);

		free(text);
		text = more;
	}
	return text;
}

static void print_table(const struct session_list *list)
{
	static const char *const heads[] = { "SESSION", "VERB", "PROJECT", "PID", "UP", "VMM", "PORTS" };
	struct table t;

	table_init(&t, ARRAY_SIZE(heads));
	for (size_t i = 0; i < ARRAY_SIZE(heads); i++)
		table_add(&t, heads[i]);
	for (size_t i = 0; i < list->n; i++) {
		const struct session_info *s = &list->v[i];
		AUTO_FREE(char, ports);
		char pid[16], up[24];

		(void)snprintf(pid, sizeof(pid), "%d", (int)s->launcher.pid);
		session_up(s, up, sizeof(up));
		ports = ports_text(&s->ports);
		table_add(&t, sessions_short(s));
		table_add(&t, s->verb);
		table_add(&t, s->project);
		table_add(&t, pid);
		table_add(&t, up);
		table_add(&t, s->monitor ? s->monitor : "-");
		table_add(&t, ports);
	}
	table_print(&t, stdout);
}

static int print_json(const struct session_list *list)
{
	json_t *all = json_array();

	for (size_t i = 0; i < list->n; i++)
		(void)json_array_append_new(all, session_info_to_json(&list->v[i]));
	return sessions_print_json(all);
}

static int ps_run(struct cli *cli, void *args, char **rest)
{
	struct state_root root = STATE_ROOT_INIT;
	struct session_list list = { NULL };
	const struct ps_args *a = args;
	struct err err;
	int r, status = 0;

	r = sessions_root(&root, &err);
	if (r > 0)
		r = registry_list(&root, SESSIONS_LIVE, &list, &err);
	if (r < 0) {
		state_root_close(&root);
		return sessions_fail(r, &err);
	}
	sessions_warn(&list.warnings);
	if (a->json)
		status = print_json(&list);
	else {
		print_table(&list);
		status = sessions_flush();
	}
	session_list_done(&list);
	state_root_close(&root);
	return status;
}

const struct cmd cmd_ps = {
	.name = "ps",
	.summary = "list the live sessions of all projects",
	.usage = "[--json]",
	.about = "One line a session: its name as stop, exec and logs take it, verb, project, the launcher's pid, how long it "
		 "runs, the monitor, and the published ports. Sessions whose launcher died are cleared away first.",
	.examples = "agent-vm ps\tthe live sessions\nagent-vm ps --json\tthe same for a script\n",
	.opts = ps_opts,
	.args_size = sizeof(struct ps_args),
	.words = CMD_WORDS_NONE,
	.run = ps_run,
};
