/* GraphQL, October 2021, section 2, the executable part: operations and fragments. Selections and values are read in
 * loops that know where they are by the links upwards. Then the operation is picked and every spread is tied to its
 * fragment, with what the whole grows to once all of them stand in their places. */
#include "gate/policy/github/gql_doc.h"

#include <string.h>

#include "base/macros.h"

struct parser {
	struct gql_lexer lex;
	struct gql_arena *arena;
	struct gql_fault *fault;
	struct gql_doc *doc;
};

static bool broken(struct parser *p, const char *why, struct span name)
{
	return gql_fail(p->fault, REFUSAL_GQL_PARSE, why, NULL, name);
}

static bool same(struct span a, struct span b)
{
	return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

static void *alloc(struct parser *p, size_t n)
{
	void *v = gql_alloc(p->arena, n);

	if (!v)
		(void)gql_fail(p->fault, REFUSAL_LIMIT, "the request is too large", NULL, SPAN(NULL, 0));
	return v;
}

static bool next(struct parser *p)
{
	return gql_next(&p->lex);
}

static bool at(const struct parser *p, const char *punct)
{
	return p->lex.token == GQL_TOK_PUNCT && span_is(p->lex.text, punct);
}

static bool at_word(const struct parser *p, const char *word)
{
	return p->lex.token == GQL_TOK_NAME && span_is(p->lex.text, word);
}

static bool expect(struct parser *p, const char *punct)
{
	return at(p, punct) ? next(p) : broken(p, "the query is not well-formed", p->lex.text);
}

static bool name(struct parser *p, struct span *ret)
{
	if (p->lex.token != GQL_TOK_NAME)
		return broken(p, "a name is missing in the query", SPAN(NULL, 0));
	*ret = p->lex.text;
	return next(p);
}

/* ---- values ---- */

struct gql_value *gql_value_after(struct gql_value *v, const struct gql_value *root)
{
	if (v->first)
		return v->first;
	while (v != root && !v->next)
		v = v->up;
	return v == root ? NULL : v->next;
}

/* One that holds no others; for "[" and "{" the empty list or object, its bracket taken. */
static struct gql_value *value_begin(struct parser *p, bool constant)
{
	struct gql_value *v = alloc(p, sizeof(*v));
	bool missing = false;

	if (!v)
		return NULL;
	v->text = p->lex.text;
	switch (p->lex.token) {
	case GQL_TOK_INT:
		v->kind = GQL_INT;
		break;
	case GQL_TOK_FLOAT:
		v->kind = GQL_FLOAT;
		break;
	case GQL_TOK_STRING:
		v->kind = GQL_STRING;
		break;
	case GQL_TOK_NAME:
		v->kind = span_is(v->text, "null")				  ? GQL_NULL
			  : span_is(v->text, "true") || span_is(v->text, "false") ? GQL_BOOL
										  : GQL_ENUM;
		break;
	case GQL_TOK_PUNCT:
		if (at(p, "$") && !constant) {
			v->kind = GQL_VARIABLE;
			return next(p) && name(p, &v->text) ? v : NULL;
		}
		v->kind = at(p, "[") ? GQL_LIST : GQL_OBJECT;
		missing = v->kind == GQL_OBJECT && !at(p, "{");
		break;
	case GQL_TOK_END:
		missing = true;
		break;
	}
	if (missing)
		(void)broken(p, "a value is missing in the query", SPAN(NULL, 0));
	return !missing && next(p) ? v : NULL;
}

static bool member_is_new(struct parser *p, const struct gql_value *object, struct span n)
{
	for (const struct gql_value *m = object->first; m; m = m->next)
		if (same(m->name, n))
			return broken(p, "the same name twice", n);
	return true;
}

/**
 * values() - A value with all it holds, or the arguments of a field
 * @root:	NULL, or an object whose opening parenthesis was taken: arguments, which end with ")"
 *
 * Return: the value; NULL with a fault
 */
static struct gql_value *values(struct parser *p, struct gql_value *root, bool constant)
{
	const char *end = root ? ")" : "}";
	struct gql_value *up = root, *last = NULL, *v = root;
	unsigned depth = root ? 1 : 0;

	for (;;) {
		struct span n = SPAN(NULL, 0);

		if (up && at(p, up->kind == GQL_LIST ? "]" : up->up ? "}" : end)) {
			if (up == root && !last) {
				(void)broken(p, "a pair of parentheses holds no argument", SPAN(NULL, 0));
				return NULL;
			}
			if (!next(p))
				return NULL;
			v = last = up;
			up = up->up;
			depth--;
		} else {
			if (up && up->kind == GQL_OBJECT &&
			    (!name(p, &n) || !member_is_new(p, up, n) || !expect(p, ":")))
				return NULL;
			v = value_begin(p, constant);
			if (!v)
				return NULL;
			v->name = n;
			v->up = up;
			if (last)
				last->next = v;
			else if (up)
				up->first = v;
			last = v;
			if (v->kind == GQL_LIST || v->kind == GQL_OBJECT) {
				if (++depth > GQL_DEPTH_MAX) {
					(void)gql_fail(p->fault, REFUSAL_LIMIT, "values are nested too deeply", NULL,
						       SPAN(NULL, 0));
					return NULL;
				}
				up = v;
				last = NULL;
			}
		}
		if (!up)
			return v;
	}
}

static bool arguments(struct parser *p, struct gql_value **ret)
{
	struct gql_value *v;

	if (!at(p, "("))
		return true;
	v = alloc(p, sizeof(*v));
	if (!v || !next(p))
		return false;
	v->kind = GQL_OBJECT;
	*ret = values(p, v, false);
	return *ret != NULL;
}

static bool directives(struct parser *p, struct gql_directive **ret)
{
	while (at(p, "@")) {
		struct gql_directive *d = alloc(p, sizeof(*d));
		struct gql_value *args = NULL;
		struct span n;

		if (!d || !next(p) || !name(p, &n))
			return false;
		d->skip = span_is(n, "skip");
		if (!d->skip && !span_is(n, "include"))
			return broken(p, "a directive other than @include and @skip", n);
		if (*ret && ((*ret)->next || (*ret)->skip == d->skip))
			return broken(p, "the same directive twice", n);
		if (!arguments(p, &args))
			return false;
		if (!args || !span_is(args->first->name, "if") || args->first->next ||
		    (args->first->kind != GQL_BOOL && args->first->kind != GQL_VARIABLE))
			return broken(p, "a directive without its condition", n);
		d->cond = args->first;
		if (*ret)
			(*ret)->next = d;
		else
			*ret = d;
	}
	return true;
}

/* ---- selections ---- */

struct gql_sel *gql_sel_after(struct gql_sel *s)
{
	if (s->set.first)
		return s->set.first;
	while (s && !s->next)
		s = s->up;
	return s ? s->next : NULL;
}

static struct gql_sel *selection(struct parser *p)
{
	struct gql_sel *s = alloc(p, sizeof(*s));

	if (!s)
		return NULL;
	if (!at(p, "...")) {
		if (!name(p, &s->name))
			return NULL;
		if (at(p, ":")) {
			s->alias = s->name;
			if (!next(p) || !name(p, &s->name))
				return NULL;
		}
		if (!arguments(p, &s->args))
			return NULL;
	} else {
		s->kind = GQL_INLINE;
		if (!next(p))
			return NULL;
		if (at_word(p, "on")) {
			if (!next(p) || !name(p, &s->name))
				return NULL;
		} else if (p->lex.token == GQL_TOK_NAME) {
			s->kind = GQL_SPREAD;
			if (!name(p, &s->name))
				return NULL;
		}
	}
	return directives(p, &s->directives) ? s : NULL;
}

static bool selections(struct parser *p, struct gql_set *ret)
{
	struct gql_sel *up = NULL, *last = NULL, *s;
	unsigned depth = 1;

	if (!expect(p, "{"))
		return false;
	while (depth > 0) {
		if (at(p, "}")) {
			if (!last)
				return broken(p, "a pair of braces holds no field", SPAN(NULL, 0));
			if (!next(p))
				return false;
			last = up;
			up = up ? up->up : NULL;
			depth--;
			continue;
		}
		s = selection(p);
		if (!s)
			return false;
		s->up = up;
		if (last)
			last->next = s;
		else if (up)
			up->set.first = s;
		else
			ret->first = s;
		last = s;
		if (s->kind != GQL_SPREAD && at(p, "{")) {
			if (++depth > GQL_DEPTH_MAX)
				return gql_fail(p->fault, REFUSAL_LIMIT, "the query is nested too deeply", NULL,
						SPAN(NULL, 0));
			if (!next(p))
				return false;
			up = s;
			last = NULL;
		} else if (s->kind == GQL_INLINE) {
			return broken(p, "the query is not well-formed", s->name);
		}
	}
	return true;
}

/* ---- definitions ---- */

struct gql_variable *gql_variable(const struct gql_op *op, struct span n)
{
	struct gql_variable *v = op->variables;

	while (v && !same(v->name, n))
		v = v->next;
	return v;
}

static bool variable_type(struct parser *p, struct gql_variable *v)
{
	while (at(p, "[")) {
		if (++v->lists >= GQL_DEPTH_MAX)
			return broken(p, "the type of a variable is nested too deeply", v->name);
		if (!next(p))
			return false;
	}
	if (!name(p, &v->type))
		return false;
	for (unsigned i = v->lists;; i--) {
		if (at(p, "!")) {
			v->non_null |= UINT64_C(1) << i;
			if (!next(p))
				return false;
		}
		if (i == 0)
			return true;
		if (!expect(p, "]"))
			return false;
	}
}

static bool variables(struct parser *p, struct gql_op *op)
{
	struct gql_variable *last = NULL, *v;

	if (!at(p, "("))
		return true;
	if (!next(p))
		return false;
	do {
		v = alloc(p, sizeof(*v));
		if (!v || !expect(p, "$") || !name(p, &v->name))
			return false;
		if (gql_variable(op, v->name))
			return broken(p, "the same variable twice", v->name);
		if (!expect(p, ":") || !variable_type(p, v))
			return false;
		if (at(p, "=")) {
			if (!next(p))
				return false;
			v->fallback = values(p, NULL, true);
			if (!v->fallback)
				return false;
		}
		if (last)
			last->next = v;
		else
			op->variables = v;
		last = v;
	} while (!at(p, ")"));
	return next(p);
}

static bool operation(struct parser *p)
{
	struct gql_op *op = alloc(p, sizeof(*op)), **tail = &p->doc->ops;

	if (!op)
		return false;
	if (!at(p, "{")) {
		op->kind = at_word(p, "mutation")	? GQL_MUTATION
			   : at_word(p, "subscription") ? GQL_SUBSCRIPTION
							: GQL_QUERY;
		if (op->kind == GQL_QUERY && !at_word(p, "query"))
			return broken(p, "neither an operation nor a fragment", p->lex.text);
		if (!next(p))
			return false;
		if (p->lex.token == GQL_TOK_NAME && !name(p, &op->name))
			return false;
		if (!variables(p, op))
			return false;
	}
	for (; *tail; tail = &(*tail)->next)
		if (op->name.n == 0 || (*tail)->name.n == 0 || same((*tail)->name, op->name))
			return broken(p, "two operations of one name, or one of several without a name", op->name);
	*tail = op;
	return selections(p, &op->set);
}

static struct gql_fragment *find_fragment(const struct gql_doc *d, struct span n)
{
	struct gql_fragment *f = d->fragments;

	while (f && !same(f->name, n))
		f = f->next;
	return f;
}

static bool fragment(struct parser *p)
{
	struct gql_fragment *f = alloc(p, sizeof(*f)), **tail = &p->doc->fragments;

	if (!f || !next(p) || !name(p, &f->name))
		return false;
	if (span_is(f->name, "on") || !at_word(p, "on") || !next(p) || !name(p, &f->on))
		return broken(p, "a fragment without its type", f->name);
	if (find_fragment(p->doc, f->name))
		return broken(p, "the same fragment twice", f->name);
	while (*tail)
		tail = &(*tail)->next;
	*tail = f;
	return selections(p, &f->set);
}

/* ---- the whole ---- */

/* Every variable in a tree is declared. */
static bool values_are_declared(struct parser *p, struct gql_value *root)
{
	for (struct gql_value *v = root; v; v = gql_value_after(v, root))
		if (v->kind == GQL_VARIABLE && !gql_variable(p->doc->op, v->text))
			return broken(p, "a variable that is not declared", v->text);
	return true;
}

static bool use(struct parser *p, struct gql_sel *s)
{
	if (!values_are_declared(p, s->args))
		return false;
	for (struct gql_directive *d = s->directives; d; d = d->next)
		if (!values_are_declared(p, d->cond))
			return false;
	if (s->kind == GQL_SPREAD) {
		s->fragment = find_fragment(p->doc, s->name);
		if (!s->fragment)
			return broken(p, "a fragment that does not exist", s->name);
	}
	return true;
}

static unsigned depth_of(const struct gql_sel *s)
{
	unsigned n = 0;

	for (; s; s = s->up)
		n++;
	return n;
}

/* Follows spreads to their ends, the operation itself being the outermost fragment. What is under way is a chain by
 * @opened_by, so that one that comes up again is a circle. */
static bool tie(struct parser *p, struct gql_fragment *root)
{
	struct gql_fragment *f = root, *up, *in;

	f->state = GQL_OPEN;
	f->at = f->set.first;
	while (f) {
		struct gql_sel *s = f->at;
		unsigned size = 1, depth;

		if (!s) {
			f->state = GQL_DONE;
			up = f->opened_by;
			f = up;
			continue;
		}
		if (!use(p, s))
			return false;
		depth = depth_of(s);
		in = s->fragment;
		if (in && in->state == GQL_OPEN)
			return broken(p, "a fragment that holds itself", in->name);
		if (in && in->state == GQL_NEW) {
			in->state = GQL_OPEN;
			in->reached = true;
			in->opened_by = f;
			in->at = in->set.first;
			f = in;
			continue;
		}
		if (in) {
			size = in->size + 1;
			depth += in->depth;
		}
		f->size = MIN(f->size + size, GQL_EXPANDED_MAX + 1);
		f->depth = MAX(f->depth, depth);
		if (f->size > GQL_EXPANDED_MAX || f->depth > GQL_DEPTH_MAX)
			return gql_fail(p->fault, REFUSAL_LIMIT,
					"the query is too large once its fragments are in place", NULL, f->name);
		f->at = gql_sel_after(s);
	}
	return true;
}

static bool pick(struct parser *p, struct span wanted)
{
	struct gql_op *op = p->doc->ops;

	if (wanted.n == 0 && op && op->next)
		return broken(p, "several operations and no operationName", SPAN(NULL, 0));
	while (op && wanted.n > 0 && !same(op->name, wanted))
		op = op->next;
	if (!op)
		return broken(p, "the operation that is asked for does not exist", SPAN(NULL, 0));
	p->doc->op = op;
	return true;
}

bool gql_parse(struct span text, struct span wanted, struct gql_arena *arena, struct gql_doc *ret,
	       struct gql_fault *fault)
{
	struct parser p = {
		.lex = { .rest = text, .arena = arena, .fault = fault },
		.arena = arena,
		.fault = fault,
		.doc = ret,
	};
	struct gql_fragment whole = { 0 };

	*ret = (struct gql_doc){ 0 };
	if (!next(&p))
		return false;
	while (p.lex.token != GQL_TOK_END)
		if (!(at_word(&p, "fragment") ? fragment(&p) : operation(&p)))
			return false;
	if (!pick(&p, wanted))
		return false;
	whole.set = ret->op->set;
	return tie(&p, &whole);
}
