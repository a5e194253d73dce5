#include "gate/policy/github/lookup.h"

#include <errno.h>
#include <stdio.h>

#include "base/jread.h"
#include "base/macros.h"

static int put(struct buf *out, const char *s)
{
	return buf_put(out, s, strlen(s));
}

int gh_lookup_body(const struct gh_scope *s, bool again, struct buf *out)
{
	static const char front[] = "{\"query\":\"query{",
			  back[] = "}fragment F on Repository{id databaseId nameWithOwner owner{__typename} "
				   "parent{nameWithOwner visibility}}\"}";
	size_t n = 0;

	for (size_t i = 0; i < s->n; i++) {
		char one[GH_SLUG_MAX + 64];

		if (s->repo[i].dropped || (s->repo[i].known && !again))
			continue;
		/* Names have no byte that needs an escape. */
		(void)snprintf(one, sizeof(one), "%sr%zu:repository(owner:\\\"%s\\\",name:\\\"%s\\\"){...F}",
			       n == 0 ? front : " ", i, s->repo[i].owner, s->repo[i].name);
		if (put(out, one) < 0)
			return -ENOBUFS;
		n++;
	}
	if (n == 0)
		return 0;
	return put(out, back) < 0 ? -ENOBUFS : 1;
}

/* The text of a string member. */
static bool text(struct span object, const char *name, uint8_t *room, size_t size, struct span *ret)
{
	struct span v;
	ssize_t n = jread_member(object, name, &v) ? jread_string(v, room, size) : -1;

	if (n < 0)
		return false;
	*ret = SPAN(room, (size_t)n);
	return true;
}

static bool slug(struct span object, char *owner, char *name)
{
	uint8_t room[GH_SLUG_MAX];
	struct gh_slug s;
	struct span v;

	if (!text(object, "nameWithOwner", room, sizeof(room), &v) || !gh_slug_parse(v, &s))
		return false;
	(void)snprintf(owner, GH_OWNER_MAX + 1, "%.*s", (int)s.owner.n, (const char *)s.owner.p);
	(void)snprintf(name, GH_NAME_MAX + 1, "%.*s", (int)s.name.n, (const char *)s.name.p);
	return true;
}

static bool facts(struct span o, struct gh_facts *ret)
{
	uint8_t room[GH_NODE_MAX];
	struct span v;
	int64_t id;

	*ret = (struct gh_facts){ .has_parent = true, .parent_private = true };
	if (!jread_member(o, "databaseId", &v) || jread_int(v, &id) < 0 || id <= 0 || !slug(o, ret->owner, ret->name))
		return false;
	ret->id = (uint64_t)id;
	if (text(o, "id", room, sizeof(room), &v) && !memchr(v.p, '\0', v.n))
		(void)snprintf(ret->node[0], sizeof(ret->node[0]), "%.*s", (int)v.n, (const char *)v.p);
	ret->is_org = jread_member(o, "owner", &v) && text(v, "__typename", room, sizeof(room), &v) &&
		      span_is(v, "Organization");
	/* A parent that is not understood counts as a private one that nobody can list. */
	if (!jread_member(o, "parent", &v))
		return true;
	ret->has_parent = jread_type(v) != JREAD_NULL;
	if (ret->has_parent && slug(v, ret->parent_owner, ret->parent_name))
		ret->parent_private = !(text(v, "visibility", room, sizeof(room), &v) && span_is(v, "PUBLIC"));
	return true;
}

int gh_lookup_answer(struct gh_scope *s, struct span answer)
{
	struct span o, data, v;
	struct gh_facts f;
	int known = 0;

	if (jread_check(answer, 16, &o) < 0 || !jread_member(o, "data", &data) || jread_type(data) != JREAD_OBJECT)
		return -EBADMSG;
	for (size_t i = 0; i < s->n; i++) {
		char alias[32];

		(void)snprintf(alias, sizeof(alias), "r%zu", i);
		if (!jread_member(data, alias, &v) || jread_type(v) != JREAD_OBJECT || !facts(v, &f))
			continue;
		gh_scope_facts(s, (struct gh_slug){ span_str(s->repo[i].owner), span_str(s->repo[i].name) }, &f);
		known++;
	}
	return known;
}
