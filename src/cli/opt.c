#include "cli/opt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "cli/size.h"

const struct opt *opt_find(const struct opt *opts, const char *name, size_t n)
{
	for (; opts->name; opts++)
		if (opts->kind != OPT_GROUP && strlen(opts->name) == n && memcmp(opts->name, name, n) == 0)
			return opts;
	return NULL;
}

bool opt_given(const struct opt_parsed *parsed, const char *name)
{
	return opt_at(parsed, name, 0) != PROBLEMS_AT_END;
}

unsigned opt_at(const struct opt_parsed *parsed, const char *name, size_t nth)
{
	for (size_t i = 0; i < parsed->n_uses; i++)
		if (strcmp(parsed->uses[i].opt->name, name) == 0 && nth-- == 0)
			return parsed->uses[i].at;
	return PROBLEMS_AT_END;
}

unsigned opt_distance(const char *a, const char *b, unsigned max)
{
	size_t na = strlen(a), nb = strlen(b);
	unsigned row[3][OPT_NAME_MAX + 1];

	if (na > OPT_NAME_MAX || nb > OPT_NAME_MAX)
		return max + 1;
	/* Three rows of the table: of the letter before the last, of the last, of this one. */
	for (size_t j = 0; j <= nb; j++)
		row[1][j] = (unsigned)j;
	for (size_t i = 1; i <= na; i++) {
		row[2][0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			unsigned d = row[1][j - 1] + (a[i - 1] != b[j - 1]);

			d = MIN(d, row[1][j] + 1);
			d = MIN(d, row[2][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				d = MIN(d, row[0][j - 2] + 1);
			row[2][j] = d;
		}
		memcpy(row[0], row[1], sizeof(row[0]));
		memcpy(row[1], row[2], sizeof(row[1]));
	}
	return MIN(row[1][nb], max + 1);
}

/* "write --memory SIZE, such as --memory 4" */
static char *right_use(const struct opt *o)
{
	if (o->example)
		return xasprintf("write --%s %s, such as --%s %s", o->name, o->arg, o->name, o->example);
	return xasprintf("write --%s %s", o->name, o->arg);
}

static void set_choice(const struct opt *o, const char **field, const char *value, struct opt_use *use,
		       struct problems *p)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, list);

	for (const char *const *c = o->choices; *c; c++) {
		if (strcmp(*c, value) == 0) {
			*field = *c;
			return;
		}
		if (list) {
			char *longer = xasprintf("%s%s --%s %s", list, c[1] ? "," : " or", o->name, *c);

			free(list);
			list = longer;
		} else {
			list = xasprintf("--%s %s", o->name, *c);
		}
	}
	shown = str_escape(value, strlen(value));
	problem_text(p, "--%s %s: no such value; write %s", o->name, shown, list);
	use->bad = true;
}

static void set_number(const struct opt *o, void *field, const char *value, struct opt_use *use, struct problems *p)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, right);
	uint64_t n;
	int r;

	if (o->kind == OPT_MIB)
		r = size_parse(value, field);
	else {
		r = str_u64(value, UINT32_MAX, &n);
		if (r == 0)
			*(unsigned *)field = (unsigned)n;
	}
	if (r == 0)
		return;
	use->bad = true;
	shown = str_escape(value, strlen(value));
	right = right_use(o);
	if (r == -ERANGE)
		problem_text(p, "--%s %s: too large; %s", o->name, shown, right);
	else if (o->kind == OPT_MIB)
		problem_text(p, "--%s %s: not %s; %s", o->name, shown, SIZE_FORM, right);
	else
		problem_text(p, "--%s %s: not a whole number; %s", o->name, shown, right);
}

/* @value is NULL for a flag. */
static void set(const struct opt *o, void *args, const char *value, struct opt_use *use, struct problems *p)
{
	void *field = (char *)args + o->offset;

	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)field = true;
		break;
	case OPT_STRING:
		*(const char **)field = value;
		break;
	case OPT_STRV:
		strv_add(field, value);
		break;
	case OPT_MIB:
	case OPT_INT:
		set_number(o, field, value, use, p);
		break;
	case OPT_CHOICE:
		set_choice(o, field, value, use, p);
		break;
	case OPT_GROUP:
		break;
	}
}

/* The option of argv[i], if it is one; its value is behind "=" (@ret_value) or the next word (@ret_value NULL). */
static const struct opt *split(const struct opt *opts, const char *word, const char **ret_value)
{
	const char *eq;

	if (word[0] == '-' && word[1] != '\0' && word[1] != '-' && word[2] == '\0') {
		*ret_value = NULL;
		for (; opts->name; opts++)
			if (opts->flags & OPT_INITIAL && opts->name[0] == word[1])
				return opts;
	}
	if (!str_starts(word, "--"))
		return NULL;
	eq = strchr(word, '=');
	*ret_value = eq ? eq + 1 : NULL;
	return opt_find(opts, word + 2, eq ? (size_t)(eq - word) - 2 : strlen(word) - 2);
}

/* Reads one option. Return: words consumed */
static unsigned take(const struct opt *o, const char *attached, void *args, char **argv, unsigned i,
		     struct opt_parsed *ret, struct problems *p)
{
	AUTO_FREE(char, shown);
	AUTO_FREE(char, right);
	struct opt_use use = { .opt = o, .at = i, .value = attached };
	bool again = opt_given(ret, o->name);
	unsigned n = 1;

	problems_at(p, i);
	if (o->kind == OPT_FLAG) {
		if (attached) {
			shown = str_escape(argv[i], strlen(argv[i]));
			problem_text(p, "%s: --%s takes no value; write --%s alone or leave it out", shown, o->name,
				     o->name);
			use.bad = true;
		} else {
			set(o, args, NULL, &use, p);
		}
	} else {
		right = right_use(o);
		use.bad = true;
		if (attached && *attached == '\0') {
			problem_text(p, "--%s=: the value is empty; %s", o->name, right);
		} else if (!attached && !argv[i + 1]) {
			problem_text(p, "--%s: the value is missing; %s", o->name, right);
		} else if (!attached && str_starts(argv[i + 1], "--")) {
			/* That word is not consumed: it is looked at as an option of its own. */
			shown = str_escape(argv[i + 1], strlen(argv[i + 1]));
			problem_text(p, "--%s: the value is missing, '%s' follows; %s", o->name, shown, right);
		} else {
			use.bad = false;
			if (!attached) {
				use.value = argv[i + 1];
				n = 2;
			}
			if (*use.value == '\0') {
				use.bad = true;
				problem_text(p, "--%s '': the value is empty; %s", o->name, right);
			}
		}
		if (again && o->kind != OPT_STRV) {
			use.bad = true;
			problem_text(p, "--%s: given twice; leave one out", o->name);
		} else if (!use.bad) {
			set(o, args, use.value, &use, p);
		}
	}
	problems_at(p, PROBLEMS_AT_END);
	ret->uses = xrealloc(ret->uses, (ret->n_uses + 1) * sizeof(*ret->uses));
	ret->uses[ret->n_uses++] = use;
	return n;
}

static bool is_help(const char *word, struct opt_parsed *ret)
{
	if (strcmp(word, "-h") == 0)
		ret->help = true;
	else if (strcmp(word, "--help") == 0)
		ret->full_help = true;
	else
		return false;
	return true;
}

void opt_parse(const struct opt *opts, void *args, char **argv, unsigned first, struct opt_parsed *ret,
	       struct problems *p)
{
	unsigned i = first;

	*ret = (struct opt_parsed){ 0 };
	while (argv[i] && !is_help(argv[i], ret)) {
		const char *value;
		const struct opt *o;

		if (strcmp(argv[i], "--") == 0) {
			ret->dashes = true;
			i++;
			break;
		}
		o = split(opts, argv[i], &value);
		if (!o)
			break;
		i += take(o, value, args, argv, i, ret, p);
	}
	ret->n_read = i;
}

/* The option nearest to @name, for a hint; NULL if none is near. */
static const struct opt *nearest(const struct opt *opts, const char *name)
{
	const struct opt *best = NULL;
	unsigned least = 3;

	for (; opts->name; opts++) {
		unsigned d;

		if (opts->kind == OPT_GROUP || opts->flags & OPT_HIDDEN)
			continue;
		d = opt_distance(name, opts->name, 2);
		if (d < least) {
			least = d;
			best = opts;
		}
	}
	return best;
}

void opt_parse_mixed(const struct opt *opts, void *args, char **argv, unsigned first, char **words,
		     struct opt_parsed *ret, struct problems *p)
{
	size_t n = 0;
	unsigned i = first;

	*ret = (struct opt_parsed){ 0 };
	while (argv[i]) {
		const char *value;
		const struct opt *o;

		if (!ret->dashes && is_help(argv[i], ret))
			break;
		if (!ret->dashes && strcmp(argv[i], "--") == 0) {
			ret->dashes = true;
			i++;
			continue;
		}
		o = ret->dashes ? NULL : split(opts, argv[i], &value);
		if (o) {
			i += take(o, value, args, argv, i, ret, p);
			continue;
		}
		if (!ret->dashes && argv[i][0] == '-' && argv[i][1] != '\0') {
			AUTO_FREE(char, shown);
			AUTO_FREE(char, name);
			const struct opt *near;

			shown = str_escape(argv[i], strlen(argv[i]));
			name = xstrndup(argv[i], strcspn(argv[i], "="));
			near = str_starts(name, "--") ? nearest(opts, name + 2) : NULL;
			problems_at(p, i);
			if (near)
				problem_text(p, "%s: no such option; did you mean --%s?", shown, near->name);
			else
				problem_text(p, "%s: no such option; --help lists them", shown);
			problems_at(p, PROBLEMS_AT_END);
		} else {
			words[n++] = argv[i];
		}
		i++;
	}
	words[n] = NULL;
	ret->n_read = i;
}

void opt_parsed_done(struct opt_parsed *parsed)
{
	free(parsed->uses);
	*parsed = (struct opt_parsed){ 0 };
}

void opt_free(const struct opt *opts, void *args)
{
	for (; opts->name; opts++)
		if (opts->kind == OPT_STRV)
			strv_done((struct strv *)((char *)args + opts->offset));
}
