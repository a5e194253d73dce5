#include "gate/policy/github/scope.h"

#include <errno.h>
#include <stdio.h>

#include "base/macros.h"
#include "proto/gatecfg.h"
#include "proto/rec.h"

void gh_scope_init(struct gh_scope *s)
{
	memset(s, 0, sizeof(*s));
	s->switches = GH_SWITCHES_DEFAULT;
	(void)gh_scope_push_refs(s, span_str("refs/heads/*,refs/tags/*"));
}

static void copy(char *out, size_t size, struct span s)
{
	size_t n = MIN(s.n, size - 1);

	memcpy(out, s.p, n);
	out[n] = '\0';
}

static bool is_listed_as(const struct gh_repo *r, struct gh_slug slug)
{
	return gh_same(span_str(r->owner), slug.owner) && gh_same(span_str(r->name), slug.name);
}

int gh_scope_add(struct gh_scope *s, struct gh_slug slug, enum gh_level level)
{
	struct gh_repo *r;

	if (!gh_is_owner(slug.owner) || !gh_is_name(slug.name) || level >= GH_LEVELS)
		return -EINVAL;
	for (size_t i = 0; i < s->n; i++)
		if (is_listed_as(&s->repo[i], slug)) {
			s->repo[i].level = level;
			return 0;
		}
	if (s->n == GH_REPOS_MAX)
		return -ENOSPC;
	r = &s->repo[s->n++];
	*r = (struct gh_repo){ .level = level };
	copy(r->owner, sizeof(r->owner), slug.owner);
	copy(r->name, sizeof(r->name), slug.name);
	return 0;
}

int gh_scope_push_refs(struct gh_scope *s, struct span list)
{
	struct span glob[GH_GLOBS_MAX];
	size_t n = 0, from = 0;

	for (size_t i = 0; i <= list.n; i++) {
		if (i < list.n && list.p[i] != ',')
			continue;
		if (n == GH_GLOBS_MAX || i == from || i - from > GH_GLOB_MAX || memchr(list.p + from, '\0', i - from))
			return -EINVAL;
		glob[n++] = SPAN(list.p + from, i - from);
		from = i + 1;
	}
	for (size_t i = 0; i < n; i++)
		copy(s->push_refs[i], sizeof(s->push_refs[i]), glob[i]);
	s->n_push_refs = n;
	return 0;
}

static int read_repo(struct gh_scope *s, struct span v)
{
	const uint8_t *eq = v.n > 0 ? memchr(v.p, '=', v.n) : NULL;
	struct gh_slug slug;

	if (!eq || !gh_slug_parse(SPAN(v.p, (size_t)(eq - v.p)), &slug))
		return -EBADMSG;
	return gh_scope_add(s, slug, gh_level_find(SPAN(eq + 1, v.n - (size_t)(eq - v.p) - 1))) < 0 ? -EBADMSG : 0;
}

int gh_scope_read(struct span records, struct gh_scope *ret)
{
	bool switches = false, refs = false;
	uint16_t key;
	struct span v;
	uint64_t u;
	int r;

	gh_scope_init(ret);
	while ((r = rec_next(&records, &key, &v)) > 0) {
		if (key == GTC_REPO) {
			r = read_repo(ret, v);
		} else if (key == GTC_SWITCHES && !switches) {
			switches = true;
			r = rec_u64(v, GH_SWITCH_BIT(GH_SWITCHES) - 1, &u);
			ret->switches = r == 0 ? (unsigned)u : 0;
		} else if (key == GTC_PUSH_REFS && !refs) {
			refs = true;
			r = gh_scope_push_refs(ret, v);
		} else {
			r = -EBADMSG;
		}
		if (r < 0)
			return -EBADMSG;
	}
	return r;
}

void gh_scope_facts(struct gh_scope *s, struct gh_slug slug, const struct gh_facts *facts)
{
	for (size_t i = 0; i < s->n; i++) {
		struct gh_repo *r = &s->repo[i];

		if (!is_listed_as(r, slug))
			continue;
		if (r->known && r->facts.id != facts->id)
			r->dropped = true;
		else
			r->facts = *facts;
		r->known = true;
		return;
	}
}

static bool has_name(const struct gh_repo *r, struct gh_slug slug)
{
	return !r->dropped && (is_listed_as(r, slug) || (r->known && gh_same(span_str(r->facts.owner), slug.owner) &&
							 gh_same(span_str(r->facts.name), slug.name)));
}

const struct gh_repo *gh_scope_find(const struct gh_scope *s, struct span owner, struct span name)
{
	for (size_t i = 0; i < s->n; i++)
		if (has_name(&s->repo[i], (struct gh_slug){ owner, name }))
			return &s->repo[i];
	return NULL;
}

const struct gh_repo *gh_scope_find_slug(const struct gh_scope *s, struct span slug)
{
	struct gh_slug v;

	return gh_slug_parse(slug, &v) ? gh_scope_find(s, v.owner, v.name) : NULL;
}

const struct gh_repo *gh_scope_find_id(const struct gh_scope *s, uint64_t id)
{
	for (size_t i = 0; i < s->n && id != 0; i++)
		if (s->repo[i].known && !s->repo[i].dropped && s->repo[i].facts.id == id)
			return &s->repo[i];
	return NULL;
}

const struct gh_repo *gh_scope_find_node(const struct gh_scope *s, struct span node)
{
	for (size_t i = 0; i < s->n && node.n > 0; i++)
		if (s->repo[i].known && !s->repo[i].dropped &&
		    (span_is(node, s->repo[i].facts.node[0]) || span_is(node, s->repo[i].facts.node[1])))
			return &s->repo[i];
	return NULL;
}

static bool owns(const struct gh_repo *r, struct span owner)
{
	return !r->dropped &&
	       (gh_same(span_str(r->owner), owner) || (r->known && gh_same(span_str(r->facts.owner), owner)));
}

bool gh_scope_owns(const struct gh_scope *s, struct span owner)
{
	for (size_t i = 0; i < s->n && owner.n > 0; i++)
		if (owns(&s->repo[i], owner))
			return true;
	return false;
}

bool gh_scope_owns_org(const struct gh_scope *s, struct span owner)
{
	for (size_t i = 0; i < s->n && owner.n > 0; i++)
		if (owns(&s->repo[i], owner) && s->repo[i].known && s->repo[i].facts.is_org)
			return true;
	return false;
}

bool gh_scope_has(const struct gh_scope *s, enum gh_switch sw)
{
	return s->switches & GH_SWITCH_BIT(sw);
}

/* "*" is any bytes; the last one that was met is the only one to come back to. */
static bool matches(const char *g, struct span s)
{
	const char *star = NULL;
	size_t i = 0, back = 0;

	while (i < s.n) {
		if (*g == '*') {
			star = ++g;
			back = i;
		} else if (*g != '\0' && (uint8_t)*g == s.p[i]) {
			g++;
			i++;
		} else if (star) {
			g = star;
			i = ++back;
		} else {
			return false;
		}
	}
	while (*g == '*')
		g++;
	return *g == '\0';
}

bool gh_scope_ref(const struct gh_scope *s, struct span ref)
{
	for (size_t i = 0; i < s->n_push_refs; i++)
		if (matches(s->push_refs[i], ref))
			return true;
	return false;
}

static bool has_glob(const struct gh_scope *s, const char *prefix)
{
	for (size_t i = 0; i < s->n_push_refs; i++) {
		const char *g = s->push_refs[i];
		size_t n = strcspn(g, "*");

		if (strncmp(g, prefix, n) == 0 && g[n] == '*' && g[n + 1] == '\0')
			return true;
	}
	return false;
}

bool gh_scope_any_branch(const struct gh_scope *s)
{
	return has_glob(s, "refs/heads/");
}

bool gh_scope_any_ref(const struct gh_scope *s)
{
	return gh_scope_any_branch(s) && has_glob(s, "refs/tags/");
}

bool gh_scope_head(const struct gh_scope *s, struct span head)
{
	const uint8_t *colon = head.n > 0 ? memchr(head.p, ':', head.n) : NULL, *second;
	struct span owner, rest;

	if (!colon)
		return true;
	owner = SPAN(head.p, (size_t)(colon - head.p));
	rest = SPAN(colon + 1, head.n - owner.n - 1);
	second = rest.n > 0 ? memchr(rest.p, ':', rest.n) : NULL;
	if (!second)
		return gh_scope_owns(s, owner);
	/* No ref has a colon, so with a third one it is not said what is the repository. */
	return !memchr(second + 1, ':', rest.n - (size_t)(second + 1 - rest.p)) &&
	       gh_scope_find(s, owner, SPAN(rest.p, (size_t)(second - rest.p)));
}

const struct gh_repo *gh_scope_issue_url(const struct gh_scope *s, struct span url)
{
	static const char front[] = "https://github.com/", middle[] = "/issues/";
	size_t at = strlen(front), n = 0, m = strlen(middle);

	if (url.n <= at || memcmp(url.p, front, at) != 0)
		return NULL;
	url = SPAN(url.p + at, url.n - at);
	while (n < url.n && url.p[url.n - 1 - n] >= '0' && url.p[url.n - 1 - n] <= '9')
		n++;
	if (n == 0 || url.n < n + m || memcmp(url.p + url.n - n - m, middle, m) != 0)
		return NULL;
	return gh_scope_find_slug(s, SPAN(url.p, url.n - n - m));
}

void gh_scope_print(const struct gh_scope *s, char *out, size_t size)
{
	static const char more[] = ", ...";
	size_t n = 0;

	if (size == 0)
		return;
	out[0] = '\0';
	for (size_t i = 0; i < s->n; i++) {
		const struct gh_repo *r = &s->repo[i];
		char one[GH_SLUG_MAX + 16];
		int len;

		if (r->dropped)
			continue;
		len = snprintf(one, sizeof(one), "%s%s/%s%s%s%s", n > 0 ? ", " : "", r->owner, r->name,
			       r->level == GH_WRITE ? "" : " (", r->level == GH_WRITE ? "" : gh_level_str[r->level],
			       r->level == GH_WRITE ? "" : ")");
		if (n + (size_t)len + sizeof(more) > size) {
			(void)snprintf(out + n, size - n, "%s", more);
			return;
		}
		memcpy(out + n, one, (size_t)len + 1);
		n += (size_t)len;
	}
	if (n == 0)
		(void)snprintf(out, size, "none");
}
