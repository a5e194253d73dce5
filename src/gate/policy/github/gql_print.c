/* What was judged, as text. There is one form: no space that is not needed, every string in quotes with JSON's escapes,
 * names and numbers as they were. The reader of GitHub cannot find in it what ours did not. */
#include "gate/policy/github/gql_doc.h"

#include <stdio.h>
#include <string.h>

struct printer {
	struct buf *out;
	bool in_json; /* the text itself becomes a string of JSON */
	bool full;
};

static void raw(struct printer *p, const void *s, size_t n)
{
	if (buf_put(p->out, s, n) < 0)
		p->full = true;
}

/* One byte of the document. */
static void byte(struct printer *p, uint8_t c)
{
	if (p->in_json && (c == '"' || c == '\\'))
		raw(p, "\\", 1);
	raw(p, &c, 1);
}

static void put(struct printer *p, struct span s)
{
	size_t from = 0;

	if (!p->in_json) {
		raw(p, s.p, s.n);
		return;
	}
	for (size_t i = 0; i < s.n; i++)
		if (s.p[i] == '"' || s.p[i] == '\\') {
			raw(p, s.p + from, i - from);
			raw(p, "\\", 1);
			from = i;
		}
	raw(p, s.p + from, s.n - from);
}

static void word(struct printer *p, const char *s)
{
	put(p, span_str(s));
}

/* A string with its quotes: the escapes that GraphQL and JSON share. */
static void string(struct printer *p, struct span s)
{
	size_t from = 0;

	byte(p, '"');
	for (size_t i = 0; i < s.n; i++) {
		uint8_t c = s.p[i];
		char esc[8];

		if (c >= ' ' && c != '"' && c != '\\')
			continue;
		put(p, SPAN(s.p + from, i - from));
		from = i + 1;
		if (c == '"' || c == '\\') {
			esc[0] = '\\';
			esc[1] = (char)c;
			put(p, SPAN(esc, 2));
		} else {
			(void)snprintf(esc, sizeof(esc), "\\u%04x", c);
			word(p, esc);
		}
	}
	put(p, SPAN(s.p + from, s.n - from));
	byte(p, '"');
}

/* A value and what it holds; @parens: arguments. @json: names are strings. */
static void value(struct printer *p, const struct gql_value *root, bool parens, bool json)
{
	const struct gql_value *v = root;

	for (;;) {
		if (v != root && v->name.p) {
			if (json)
				string(p, v->name);
			else
				put(p, v->name);
			byte(p, ':');
		}
		if (v->kind == GQL_STRING)
			string(p, v->text);
		else if (v->kind == GQL_LIST || v->kind == GQL_OBJECT)
			byte(p, v->kind == GQL_LIST ? '[' : v == root && parens ? '(' : '{');
		else if (v->kind == GQL_VARIABLE)
			byte(p, '$');
		if (v->kind != GQL_STRING && v->kind != GQL_LIST && v->kind != GQL_OBJECT)
			put(p, v->text);
		if (v->first) {
			v = v->first;
			continue;
		}
		for (;; v = v->up) {
			if (v->kind == GQL_LIST || v->kind == GQL_OBJECT)
				byte(p, v->kind == GQL_LIST ? ']' : v == root && parens ? ')' : '}');
			if (v == root)
				return;
			if (v->next)
				break;
		}
		byte(p, ',');
		v = v->next;
	}
}

static void directives(struct printer *p, const struct gql_directive *d)
{
	for (; d; d = d->next) {
		word(p, d->skip ? "@skip(if:" : "@include(if:");
		value(p, d->cond, false, false);
		byte(p, ')');
	}
}

static void selection(struct printer *p, const struct gql_sel *s)
{
	if (s->kind == GQL_FIELD) {
		if (s->alias.n > 0) {
			put(p, s->alias);
			byte(p, ':');
		}
		put(p, s->name);
		if (s->args)
			value(p, s->args, true, false);
	} else {
		word(p, "...");
		if (s->kind == GQL_INLINE && s->name.n > 0)
			word(p, "on ");
		put(p, s->name);
	}
	directives(p, s->directives);
}

static const struct gql_sel *skip_absent(const struct gql_sel *s)
{
	while (s && s->absent)
		s = s->next;
	return s;
}

static void selections(struct printer *p, const struct gql_set *set)
{
	const struct gql_sel *s = skip_absent(set->first);

	byte(p, '{');
	while (s) {
		selection(p, s);
		if (s->set.first) {
			byte(p, '{');
			s = s->set.first;
			continue;
		}
		while (s && !skip_absent(s->next)) {
			s = s->up;
			if (s)
				byte(p, '}');
		}
		if (s) {
			byte(p, ' ');
			s = skip_absent(s->next);
		}
	}
	byte(p, '}');
}

static void variable(struct printer *p, const struct gql_variable *v)
{
	byte(p, '$');
	put(p, v->name);
	byte(p, ':');
	for (unsigned i = 0; i < v->lists; i++)
		byte(p, '[');
	put(p, v->type);
	for (unsigned i = v->lists;; i--) {
		if (v->non_null >> i & 1)
			byte(p, '!');
		if (i == 0)
			break;
		byte(p, ']');
	}
	if (v->fallback) {
		byte(p, '=');
		value(p, v->fallback, false, false);
	}
}

static void document(struct printer *p, const struct gql_doc *d)
{
	const struct gql_op *op = d->op;

	word(p, op->kind == GQL_QUERY ? "query" : op->kind == GQL_MUTATION ? "mutation" : "subscription");
	if (op->name.n > 0) {
		byte(p, ' ');
		put(p, op->name);
	}
	for (const struct gql_variable *v = op->variables; v; v = v->next) {
		byte(p, v == op->variables ? '(' : ',');
		variable(p, v);
	}
	if (op->variables)
		byte(p, ')');
	selections(p, &op->set);
	for (const struct gql_fragment *f = d->fragments; f; f = f->next) {
		if (!f->reached)
			continue;
		word(p, " fragment ");
		put(p, f->name);
		word(p, " on ");
		put(p, f->on);
		selections(p, &f->set);
	}
}

bool gql_print(const struct gql_doc *d, struct buf *out)
{
	struct printer p = { .out = out };

	document(&p, d);
	return !p.full;
}

bool gql_print_body(const struct gql_doc *d, struct buf *out)
{
	static const char begin[] = "{\"query\":\"", middle[] = "\",\"variables\":{";
	struct printer p = { .out = out };
	bool first = true;

	raw(&p, begin, strlen(begin));
	p.in_json = true;
	document(&p, d);
	p.in_json = false;
	raw(&p, middle, strlen(middle));
	for (const struct gql_variable *v = d->op->variables; v; v = v->next) {
		if (!v->given)
			continue;
		if (!first)
			byte(&p, ',');
		first = false;
		string(&p, v->name);
		byte(&p, ':');
		value(&p, v->given, false, true);
	}
	raw(&p, "}}", 2);
	return !p.full;
}
