#include "gate/policy/github/facts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/jread.h"
#include "gate/policy/github/nodeid.h"

static const char fields[] = "{id databaseId nameWithOwner owner{__typename} parent{nameWithOwner visibility}}";

/* Names on the list have passed the grammar: no byte of theirs needs an escape. */
int gh_facts_body(const struct gh_scope *s, struct buf *out)
{
	static const char begin[] = "{\"query\":\"{", end[] = "}\"}";
	char one[GH_SLUG_MAX + sizeof(fields) + 64];
	int r = buf_put(out, begin, strlen(begin));

	for (size_t i = 0; i < s->n; i++) {
		int n = snprintf(one, sizeof(one), " r%zu:repository(owner:\\\"%s\\\",name:\\\"%s\\\")%s", i, s->repo[i].owner,
				 s->repo[i].name, fields);

		r |= buf_put(out, one, (size_t)n);
	}
	r |= buf_put(out, end, strlen(end));
	return r < 0 ? -ENOBUFS : 0;
}

static bool text(struct span object, const char *name, char *out, size_t size)
{
	struct span v;
	ssize_t n;

	if (!jread_member(object, name, &v))
		return false;
	n = jread_string(v, (uint8_t *)out, size - 1);
	if (n < 0)
		return false;
	out[n] = '\0';
	return true;
}

static bool slug(struct span object, char *owner, char *name)
{
	char both[GH_SLUG_MAX + 1];
	struct gh_slug s;

	if (!text(object, "nameWithOwner", both, sizeof(both)) || !gh_slug_parse(span_str(both), &s))
		return false;
	memcpy(owner, s.owner.p, s.owner.n);
	memcpy(name, s.name.p, s.name.n);
	owner[s.owner.n] = name[s.name.n] = '\0';
	return true;
}

static bool one(struct span object, struct gh_facts *ret)
{
	struct gh_facts f = { 0 };
	char word[32];
	struct span v;
	int64_t id;

	if (!jread_member(object, "databaseId", &v) || jread_int(v, &id) < 0 || id <= 0 || !slug(object, f.owner, f.name) ||
	    !text(object, "id", f.node[0], sizeof(f.node[0])) || !nodeid_is_id(span_str(f.node[0])))
		return false;
	f.id = (uint64_t)id;
	f.is_org = jread_member(object, "owner", &v) && text(v, "__typename", word, sizeof(word)) &&
		   strcmp(word, "Organization") == 0;
	if (jread_member(object, "parent", &v) && jread_type(v) == JREAD_OBJECT) {
		/* One that is told oddly counts as private, and as none that is listed. */
		f.has_parent = true;
		f.parent_private = !slug(v, f.parent_owner, f.parent_name) || !text(v, "visibility", word, sizeof(word)) ||
				   strcmp(word, "PUBLIC") != 0;
	}
	*ret = f;
	return true;
}

int gh_facts_answer(struct gh_scope *s, struct span answer)
{
	struct span top, data, v;

	if (jread_check(answer, 32, &top) < 0 || !jread_member(top, "data", &data) || jread_type(data) != JREAD_OBJECT)
		return -EBADMSG;
	for (size_t i = 0; i < s->n; i++) {
		struct gh_slug asked = { span_str(s->repo[i].owner), span_str(s->repo[i].name) };
		struct gh_facts f;
		char alias[24];

		(void)snprintf(alias, sizeof(alias), "r%zu", i);
		if (jread_member(data, alias, &v) && one(v, &f))
			gh_scope_facts(s, asked, &f);
	}
	return 0;
}
