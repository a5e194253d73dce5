/* The man page from the same tables as the help. */
#include <ctype.h>
#include <string.h>

#include "cli/help.h"
#include "cli/help_text.h"

/* Text in roff: dashes of options stay dashes, and no line begins with a control character. */
static void text(FILE *to, const char *s)
{
	bool start = true;

	for (; *s; s++) {
		if (start && (*s == '.' || *s == '\''))
			fputs("\\&", to);
		start = *s == '\n';
		if (*s == '\\')
			fputs("\\e", to);
		else if (*s == '-')
			fputs("\\-", to);
		else if (*s == '\n' && s[1] == '\n')
			fputs("\n.PP", to);
		else
			fputc(*s, to);
	}
	fputc('\n', to);
}

static void item(FILE *to, const char *name, const char *words)
{
	fputs(".TP\n.B ", to);
	text(to, name);
	text(to, words);
}

static void options(FILE *to, const struct opt *opts)
{
	for (const struct opt *o = opts; o->name; o++) {
		AUTO_FREE(char, left);
		AUTO_FREE(char, words);

		if (o->flags & OPT_HIDDEN)
			continue;
		if (o->kind == OPT_GROUP) {
			fprintf(to, ".SS %s\n", o->name);
			continue;
		}
		left = help_opt_left(o);
		words = help_opt_text(o);
		item(to, left, words);
	}
}

static void rows(FILE *to, const char *title, const struct help_row *r)
{
	fprintf(to, ".SH %s\n", title);
	for (; r->name; r++)
		item(to, r->name, r->text);
}

static void examples(FILE *to, const char *list)
{
	if (!list)
		return;
	for (const char *s = list; *s; s = strchr(s, '\n') + 1) {
		size_t n = strcspn(s, "\t");
		AUTO_FREE(char, left);
		AUTO_FREE(char, right);

		left = xstrndup(s, n);
		right = xstrndup(s + n + 1, strcspn(s + n + 1, "\n"));
		item(to, left, right);
	}
}

void help_man(FILE *to)
{
	fprintf(to, ".\\\" Written by agent-vm help --man from its tables of options.\n"
		    ".TH AGENT\\-VM 1 \"\" \"agent\\-vm %s\"\n.SH NAME\nagent\\-vm \\- ",
		AGENT_VM_VERSION);
	text(to, help_summary);
	fputs(".SH SYNOPSIS\n", to);
	for (const struct cmd *const *c = cmds; *c; c++) {
		if ((*c)->hidden)
			continue;
		fputs(".B agent\\-vm ", to);
		text(to, (*c)->name);
		if (*(*c)->usage)
			text(to, (*c)->usage);
		fputs(".br\n", to);
	}
	fputs(".SH DESCRIPTION\n", to);
	text(to, help_about);
	fputs(".SH COMMANDS\n", to);
	for (const struct cmd *const *c = cmds; *c; c++) {
		if ((*c)->hidden)
			continue;
		fputs(".SS ", to);
		text(to, (*c)->name);
		fputc(toupper((unsigned char)*(*c)->summary), to);
		text(to, (*c)->summary + 1);
		if ((*c)->about && !(*c)->launch_verb) {
			fputs(".PP\n", to);
			text(to, (*c)->about);
		}
		if (!(*c)->launch_verb)
			options(to, (*c)->opts);
	}
	fputs(".SH OPTIONS\nThese are the options of\n.BR claude ,\n.BR codex ,\n.BR opencode ,\n.B copilot\nand\n.BR shell .\n",
	      to);
	options(to, help_launch->opts);
	fputs(".SH WHAT IS OPEN\n", to);
	for (const struct help_direction *d = help_directions; d->from; d++) {
		AUTO_FREE(char, left);

		left = xasprintf("%s to %s", d->from, d->to);
		item(to, left, d->text);
	}
	rows(to, "ENVIRONMENT", help_variables);
	rows(to, "EXIT STATUS", help_exits);
	fputs(".SH EXAMPLES\n", to);
	examples(to, help_examples);
	examples(to, help_launch->examples);
}
