/* The JSON around a query, and what its variables are. The text is checked whole first (base/jread: no member twice at
 * any depth, no half of a surrogate pair), then its values become the same trees as those of the document. */
#include "gate/policy/github/gql_doc.h"

#include <string.h>

#include "base/jread.h"
#include "base/macros.h"

struct reader {
	struct gql_arena *arena;
	struct gql_fault *fault;
	unsigned n;
};

static bool broken(struct gql_fault *f, const char *why, struct span name)
{
	return gql_fail(f, REFUSAL_GQL_PARSE, why, NULL, name);
}

static bool too_large(struct gql_fault *f)
{
	return gql_fail(f, REFUSAL_LIMIT, "the request is too large", NULL, SPAN(NULL, 0));
}

/* The text of a string of JSON. */
static bool text(struct reader *r, struct span json, struct span *ret)
{
	uint8_t *p = gql_alloc(r->arena, json.n);
	ssize_t n = p ? jread_string(json, p, json.n) : -1;

	if (n < 0)
		return too_large(r->fault);
	*ret = SPAN(p, (size_t)n);
	return true;
}

static struct gql_value *value(struct reader *r, struct span json)
{
	struct gql_value *v = ++r->n > GQL_VALUES_MAX ? NULL : gql_alloc(r->arena, sizeof(*v));

	if (!v) {
		(void)too_large(r->fault);
		return NULL;
	}
	v->text = json;
	switch (jread_type(json)) {
	case JREAD_NULL:
		v->kind = GQL_NULL;
		break;
	case JREAD_BOOL:
		v->kind = GQL_BOOL;
		break;
	case JREAD_NUMBER:
		v->kind = memchr(json.p, '.', json.n) || memchr(json.p, 'e', json.n) || memchr(json.p, 'E', json.n)
				  ? GQL_FLOAT
				  : GQL_INT;
		break;
	case JREAD_STRING:
		v->kind = GQL_STRING;
		return text(r, json, &v->text) ? v : NULL;
	case JREAD_ARRAY:
		v->kind = GQL_LIST;
		break;
	case JREAD_OBJECT:
		v->kind = GQL_OBJECT;
		break;
	}
	return v;
}

/* The tree of a checked text. A list or an object keeps in @text what of it is still to be read. */
static struct gql_value *tree(struct reader *r, struct span json)
{
	struct gql_value *root = value(r, json), *at = root, *v;
	struct span member, found;

	while (root && at) {
		bool more = at->kind == GQL_OBJECT ? jread_next_member(&at->text, &member, &found)
			    : at->kind == GQL_LIST ? jread_next_element(&at->text, &found)
						   : false;

		if (!more) {
			at->next = NULL;
			at = at->up;
			continue;
		}
		v = value(r, found);
		if (!v || (at->kind == GQL_OBJECT && !text(r, member, &v->name)))
			return NULL;
		v->up = at;
		/* While a list or an object is open, its @next is the last that it holds. */
		if (at->next)
			at->next->next = v;
		else
			at->first = v;
		at->next = v;
		if (v->kind == GQL_LIST || v->kind == GQL_OBJECT)
			at = v;
	}
	return root;
}

static bool is_text(struct span type)
{
	return span_is(type, "String") || span_is(type, "ID");
}

/* Whether a value has the kind that its declared type wants. Types that are not GraphQL's own are GitHub's to check. */
static bool is_kind(struct span type, enum gql_value_kind k)
{
	if (is_text(type))
		return k == GQL_STRING;
	if (span_is(type, "Boolean"))
		return k == GQL_BOOL;
	if (span_is(type, "Int"))
		return k == GQL_INT;
	if (span_is(type, "Float"))
		return k == GQL_INT || k == GQL_FLOAT;
	return true;
}

static bool fits(const struct gql_variable *d, struct gql_value *root, struct gql_fault *f)
{
	for (struct gql_value *v = root; v; v = gql_value_after(v, root)) {
		const struct gql_value *up = v->up;
		unsigned level = 0;

		for (; up && up->kind == GQL_LIST; up = up->up)
			level++;
		if (up || level > d->lists)
			continue; /* within an object, whose members the walk knows */
		if (v->kind == GQL_NULL			      ? (d->non_null >> level & 1) != 0
		    : v->kind == GQL_LIST && level < d->lists ? false
							      : !is_kind(d->type, v->kind))
			return broken(f, "a variable has a value of another type than is declared", d->name);
	}
	return true;
}

static bool give(struct reader *r, const struct gql_op *op, struct span object)
{
	struct span member, found, n;

	while (jread_next_member(&object, &member, &found)) {
		struct gql_variable *d;

		if (!text(r, member, &n))
			return false;
		d = gql_variable(op, n);
		if (!d)
			continue; /* is not sent either */
		d->given = tree(r, found);
		if (!d->given || !fits(d, d->given, r->fault))
			return false;
	}
	for (const struct gql_variable *d = op->variables; d; d = d->next)
		if (!d->given && !d->fallback && (d->non_null & 1))
			return broken(r->fault, "a variable has no value", d->name);
	return true;
}

bool gql_body(struct span body, struct gql_arena *arena, struct gql_doc *ret, struct gql_fault *fault)
{
	struct reader r = { .arena = arena, .fault = fault };
	struct span none = SPAN(NULL, 0), query = none, variables = none, operation = none, member, found, top;

	if (body.n > GQL_BODY_MAX)
		return too_large(fault);
	if (jread_check(body, GQL_DEPTH_MAX, &top) < 0 || jread_type(top) != JREAD_OBJECT)
		return broken(fault, "the body is not one strict JSON object", none);
	while (jread_next_member(&top, &member, &found)) {
		if (jread_string_is(member, "query") && jread_type(found) == JREAD_STRING) {
			query = found;
		} else if (jread_string_is(member, "variables") &&
			   (jread_type(found) == JREAD_OBJECT || jread_type(found) == JREAD_NULL)) {
			variables = found;
		} else if (jread_string_is(member, "operationName") &&
			   (jread_type(found) == JREAD_STRING || jread_type(found) == JREAD_NULL)) {
			operation = found;
		} else {
			return broken(fault, "a member of the body is not known, or of another type", none);
		}
	}
	if (query.n == 0)
		return broken(fault, "the body has no query", none);
	if (!text(&r, query, &query))
		return false;
	if (jread_type(operation) == JREAD_NULL)
		operation = none;
	else if (!text(&r, operation, &operation))
		return false;
	return gql_parse(query, operation, arena, ret, fault) &&
	       give(&r, ret->op, jread_type(variables) == JREAD_OBJECT ? variables : none);
}

const struct gql_value *gql_resolve(const struct gql_op *op, const struct gql_value *v)
{
	const struct gql_variable *d;

	if (!v || v->kind != GQL_VARIABLE)
		return v;
	d = gql_variable(op, v->text);
	return d->given ? d->given : d->fallback;
}

const struct gql_value *gql_member(const struct gql_op *op, const struct gql_value *object, const char *name)
{
	for (const struct gql_value *m = object ? object->first : NULL; m; m = m->next)
		if (span_is(m->name, name))
			return gql_resolve(op, m);
	return NULL;
}
