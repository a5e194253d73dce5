/* Notes about words that went to the guest program and look as if they were meant for agent-vm. They change nothing.
 *
 * A "--" says that what follows is meant for the program, so there is no note behind one. */
#include <string.h>

#include "cli/launch_args.h"
#include "cli/specs.h"

#define NOTES_MAX 3  /* of one kind: a prompt may be full of such words */
#define SHORT_NAME 6 /* up to here one edit is as much as a slip changes */
#define PREFIX_MIN 3

/* Who gets the words: the agent, or for shell bash or the command. */
static const char *receiver(const struct launch_args *a)
{
	if (a->agent->program)
		return a->agent->program;
	return a->agent_part[0][0] == '-' ? "bash" : "the command";
}

/* Our option that @name (@n bytes) is probably meant to be; NULL if there is none. */
static const struct opt *meant(const char *name, size_t n)
{
	AUTO_FREE(char, word);
	const struct opt *best = NULL, *prefixed = NULL;
	unsigned least = 3;
	size_t n_prefixed = 0;

	word = xstrndup(name, n);
	for (const struct opt *o = launch_opts; o->name; o++) {
		unsigned max, d;

		if (o->kind == OPT_GROUP)
			continue;
		if (n >= PREFIX_MIN && strncmp(o->name, word, n) == 0) {
			prefixed = o;
			n_prefixed++;
		}
		max = MIN(n, strlen(o->name)) <= SHORT_NAME ? 1 : 2;
		d = opt_distance(word, o->name, max);
		if (d <= max && d < least) {
			least = d;
			best = o;
		}
	}
	return best ? best : n_prefixed == 1 ? prefixed : NULL;
}

static void hint_first(const struct launch_args *a, struct strv *ret)
{
	AUTO_FREE(char, shown);
	const char *word = a->agent_part[0];
	const struct opt *o;
	size_t n;

	if (!str_starts(word, "--") || word[2] == '\0')
		return;
	n = strcspn(word, "=");
	if (agent_knows(a->agent, word + 2, n - 2))
		return;
	o = meant(word + 2, n - 2);
	if (!o)
		return;
	shown = str_escape(word, n);
	strv_addf(ret, "'%s' is not an option of agent-vm and was passed to %s; did you mean --%s?", shown, receiver(a),
		  o->name);
}

static void hint_later(const struct launch_args *a, struct strv *ret)
{
	AUTO_FREE(char, first);
	size_t notes = 0;

	first = str_escape(a->agent_part[0], strlen(a->agent_part[0]));
	if (strcmp(a->agent_part[0], "--") == 0)
		return;
	for (char **w = a->agent_part + 1; *w && strcmp(*w, "--") != 0 && notes < NOTES_MAX; w++) {
		size_t n = strcspn(*w, "=");

		if (n <= 2 || !str_starts(*w, "--") || !opt_find(launch_opts, *w + 2, n - 2) ||
		    agent_knows(a->agent, *w + 2, n - 2))
			continue;
		strv_addf(ret, "'%.*s' comes after '%s' and was passed to %s; options of agent-vm go first", (int)n, *w,
			  first, receiver(a));
		notes++;
	}
}

static void hint_publish(const struct launch_args *a, struct strv *ret)
{
	const char *word = a->agent_part[0], *ports;
	struct publish p;

	if (!str_starts(word, "-p"))
		return;
	ports = word[2] ? word + 2 : a->agent_part[1];
	if (!ports || publish_parse(ports, &p, NULL) < 0)
		return;
	/* What publish_parse() takes holds no control byte. */
	strv_addf(ret, "'-p%s%s' was passed to %s; to publish a port write --publish %s", word[2] ? "" : " ", ports,
		  receiver(a), ports);
}

void launch_hints(const struct launch_args *args, struct strv *ret)
{
	if (args->quiet || args->agent_part_dashes || !args->agent_part[0])
		return;
	hint_first(args, ret);
	hint_later(args, ret);
	hint_publish(args, ret);
}
