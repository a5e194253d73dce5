#include "cli/help.h"

#include <string.h>
#include <sys/ioctl.h>

#include "cli/help_text.h"

#define LEFT_COL 2   /* where names begin */
#define TEXT_COL 30  /* where the texts of the short help begin */
#define FULL_COL 8   /* where the texts of the full help begin */
#define NARROWEST 40 /* below, lines are broken by the terminal */

unsigned help_width(int fd)
{
	struct winsize ws;

	if (ioctl(fd, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 0)
		return MAX(ws.ws_col, NARROWEST);
	return 80;
}

/* Prints @text in words from column @at on, further lines indented by @indent; paragraphs are divided by empty lines. */
static void wrap(FILE *to, const char *text, unsigned at, unsigned indent, unsigned width)
{
	unsigned col = at;
	bool first = true;

	while (*text) {
		unsigned len = (unsigned)strcspn(text, " \n");

		if (len > 0) {
			if (!first && col + 1 + len > width) {
				fprintf(to, "\n%*s", (int)indent, "");
				col = indent;
			} else if (!first) {
				fputc(' ', to);
				col++;
			}
			fwrite(text, 1, len, to);
			col += len;
			first = false;
			text += len;
		}
		if (text[0] == '\n') {
			fprintf(to, "\n\n%*s", (int)indent, "");
			col = indent;
			first = true;
			text += strspn(text, "\n");
		} else if (*text) {
			text++;
		}
	}
	fputc('\n', to);
}

/* A name and its text, in two columns. */
static void row(FILE *to, const char *left, const char *text, unsigned col, unsigned width)
{
	unsigned n = LEFT_COL + (unsigned)strlen(left);

	fprintf(to, "%*s%s", LEFT_COL, "", left);
	if (n + 2 > col) {
		fputc('\n', to);
		n = 0;
	}
	fprintf(to, "%*s", (int)(col - n), "");
	wrap(to, text, col, col, width);
}

static void examples(FILE *to, const char *text, unsigned width)
{
	unsigned widest = 0;

	if (!text)
		return;
	fputs("\nExamples\n", to);
	for (const char *s = text; *s; s = strchr(s, '\n') + 1)
		widest = MAX(widest, (unsigned)strcspn(s, "\t"));
	for (const char *s = text; *s; s = strchr(s, '\n') + 1) {
		size_t n = strcspn(s, "\t");
		AUTO_FREE(char, left);
		AUTO_FREE(char, right);

		left = xstrndup(s, n);
		right = xstrndup(s + n + 1, strcspn(s + n + 1, "\n"));
		row(to, left, right, LEFT_COL + widest + 2, width);
	}
}

static void commands(FILE *to, unsigned width)
{
	fputs("\nCommands\n", to);
	for (const struct cmd *const *c = cmds; *c; c++)
		if (!(*c)->hidden)
			row(to, (*c)->name, (*c)->summary, LEFT_COL + 11, width);
}

static void options(FILE *to, const struct opt *opts, bool full, unsigned width)
{
	if (opts->name && opts->kind != OPT_GROUP)
		fputs("\nOptions\n", to);
	for (const struct opt *o = opts; o->name; o++) {
		AUTO_FREE(char, left);
		AUTO_FREE(char, text);

		if (o->flags & OPT_HIDDEN)
			continue;
		if (o->kind == OPT_GROUP) {
			fprintf(to, "\n%s\n", o->name);
			continue;
		}
		left = help_opt_left(o);
		if (full) {
			text = help_opt_text(o);
			fprintf(to, "%*s%s\n%*s", LEFT_COL, "", left, FULL_COL, "");
			wrap(to, text, FULL_COL, FULL_COL, width);
		} else {
			row(to, left, o->help, TEXT_COL, width);
		}
	}
}

static void usage(FILE *to, const struct cmd *cmd)
{
	if (cmd)
		fprintf(to, "Usage: agent-vm %s%s%s\n", cmd->name, *cmd->usage ? " " : "", cmd->usage);
	else
		fputs("Usage: agent-vm COMMAND [OPTIONS] [--] [WORDS]\n", to);
}

static void summary(FILE *to, const struct cmd *cmd, unsigned width)
{
	AUTO_FREE(char, text);

	text = xasprintf("%s: %s", cmd ? cmd->name : "agent-vm", cmd ? cmd->summary : help_summary);
	wrap(to, text, 0, 0, width);
}

void help_short(FILE *to, const struct cmd *cmd, unsigned width)
{
	const struct opt *opts = cmd ? cmd->opts : help_launch->opts;

	usage(to, cmd);
	summary(to, cmd, width);
	if (!cmd)
		commands(to, width);
	options(to, opts, false, width);
	examples(to, cmd ? cmd->examples : help_examples, width);
	fprintf(to, "\nMore: agent-vm %s%s--help\n", cmd ? cmd->name : "", cmd ? " " : "");
}

static void directions(FILE *to, unsigned width)
{
	fputs("\nWhat is open\n", to);
	for (const struct help_direction *d = help_directions; d->from; d++) {
		AUTO_FREE(char, left);

		left = xasprintf("%s -> %s", d->from, d->to);
		row(to, left, d->text, LEFT_COL + 20, width);
	}
}

static void rows(FILE *to, const char *title, const struct help_row *r, unsigned col, unsigned width)
{
	fprintf(to, "\n%s\n", title);
	for (; r->name; r++)
		row(to, r->name, r->text, col, width);
}

void help_full(FILE *to, const struct cmd *cmd, unsigned width)
{
	const char *about = cmd ? cmd->about : help_about;
	bool launch = !cmd || cmd->launch_verb;

	usage(to, cmd);
	summary(to, cmd, width);
	if (about) {
		fputc('\n', to);
		wrap(to, about, 0, 0, width);
	}
	if (!cmd) {
		commands(to, width);
		fputc('\n', to);
		wrap(to, "agent-vm COMMAND --help says more about one. These are the options of claude, codex, opencode, "
			 "copilot and shell:",
		     0, 0, width);
	}
	options(to, cmd ? cmd->opts : help_launch->opts, true, width);
	if (launch) {
		directions(to, width);
		rows(to, "Variables", help_variables, LEFT_COL + 23, width);
		rows(to, "Exit status", help_exits, LEFT_COL + 12, width);
	}
	examples(to, cmd ? cmd->examples : help_examples, width);
}
