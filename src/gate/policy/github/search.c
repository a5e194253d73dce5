#include "gate/policy/github/search.h"

#include <string.h>

#include "base/macros.h"
#include "base/str.h"

/* What widens or moves a search. In lower case, as compared. */
static const char *const scope_words[] = {
	"repo", "org", "user", "owner", "enterprise", "business", "is-owner", "saved"
};

enum group { GROUP_EMPTY, GROUP_TEXT, GROUP_REPO, GROUP_OR }; /* what a group of depth 1 holds so far */

struct search {
	const struct gh_scope *scope;
	const struct gh_repo *repo;
	bool several, scoped;
	bool after_not; /* the word before is "not", which an engine may read as NOT */
	const char *why;
	unsigned depth;
	enum group group;
};

static bool no(struct search *s, const char *why)
{
	s->why = why;
	return false;
}

static uint8_t lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

static bool is_letter(uint8_t c)
{
	return lower(c) >= 'a' && lower(c) <= 'z';
}

static bool is_word(struct span s, const char *lit)
{
	return gh_same(s, span_str(lit));
}

static bool is_scope_word(struct span s)
{
	for (size_t i = 0; i < ARRAY_SIZE(scope_words); i++)
		if (is_word(s, scope_words[i]))
			return true;
	return false;
}

/* Characters that an engine may take for a space, a quote, a colon or a parenthesis, or not see at all. */
static bool is_lookalike(uint32_t c)
{
	static const struct {
		uint32_t from, to;
	} t[] = {
		{ 0x80, 0xa0 },	    { 0xad, 0xad },	{ 0x34f, 0x34f },   { 0x61c, 0x61c },	{ 0x115f, 0x1160 },
		{ 0x1680, 0x1680 }, { 0x17b4, 0x17b5 }, { 0x180b, 0x180f }, { 0x2000, 0x200f }, { 0x2018, 0x201f },
		{ 0x2028, 0x202f }, { 0x205f, 0x206f }, { 0x2236, 0x2236 }, { 0x3000, 0x3000 }, { 0x3164, 0x3164 },
		{ 0xa789, 0xa789 }, { 0xfe00, 0xfe0f }, { 0xfe13, 0xfe13 }, { 0xfe35, 0xfe36 }, { 0xfe55, 0xfe5a },
		{ 0xfeff, 0xfeff }, { 0xff01, 0xff5e }, { 0xffa0, 0xffa0 }, { 0xfff0, 0xffff }, { 0xe0000, 0xe0fff },
	};

	for (size_t i = 0; i < ARRAY_SIZE(t); i++)
		if (c >= t[i].from && c <= t[i].to)
			return true;
	return false;
}

static bool plain_characters(struct search *s, struct span q)
{
	if (!str_is_utf8((const char *)q.p, q.n))
		return no(s, "the search string is not UTF-8");
	for (size_t i = 0; i < q.n;) {
		uint8_t c = q.p[i++];
		uint32_t v = c < 0x80 ? c : c < 0xe0 ? c & 0x1f : c < 0xf0 ? c & 0x0f : c & 0x07;

		for (; i < q.n && (q.p[i] & 0xc0) == 0x80; i++)
			v = v << 6 | (q.p[i] & 0x3f);
		if ((v < ' ' && v != '\t' && v != '\n' && v != '\r') || v == 0x7f || is_lookalike(v))
			return no(s, "the search string has a space or sign other than ASCII's");
	}
	return true;
}

static bool is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The letters and dashes that end in front of @end. */
static struct span key_before(struct span s, size_t end)
{
	size_t from = end;

	while (from > 0 && (is_letter(s.p[from - 1]) || s.p[from - 1] == '-'))
		from--;
	while (from < end && s.p[from] == '-')
		from++;
	return SPAN(s.p + from, end - from);
}

/* Whether "KEY:" stands anywhere in a text; @from: from this byte on. */
static bool names_scope(struct span s, size_t from)
{
	for (size_t i = from; i < s.n; i++)
		if (s.p[i] == ':' && is_scope_word(key_before(s, i)))
			return true;
	return false;
}

static bool is_operator(struct span w)
{
	bool signs = w.n > 0;

	for (size_t i = 0; i < w.n; i++)
		signs = signs && memchr("|!&", w.p[i], 3);
	return signs || is_word(w, "or") || span_is(w, "NOT");
}

/* "repo:OWNER/NAME" of a listed repository, and nothing before it. */
static bool listed(struct search *s, struct span w)
{
	const struct gh_repo *r;

	if (w.n < 5 || !is_word(SPAN(w.p, 5), "repo:"))
		return false;
	r = gh_scope_find_slug(s->scope, SPAN(w.p + 5, w.n - 5));
	if (!r)
		return false;
	s->several = s->several || (s->repo && s->repo != r);
	s->repo = r;
	return true;
}

/* Whether a listed repository is named anywhere, whatever stands around it: this decides between the two ways to say
 * no. */
static bool mentions_listed(const struct gh_scope *scope, struct span q)
{
	for (size_t i = 0; i + 1 < q.n; i++) {
		size_t from = i + 1 + (q.p[i + 1] == '"'), to = from;

		if (q.p[i] != ':' || !is_word(key_before(q, i), "repo"))
			continue;
		while (to < q.n && (is_letter(q.p[to]) || (q.p[to] >= '-' && q.p[to] <= '9') || q.p[to] == '_'))
			to++;
		while (to > from && q.p[to - 1] == '/')
			to--;
		if (gh_scope_find_slug(scope, SPAN(q.p + from, to - from)))
			return true;
	}
	return false;
}

/* A word, with what it has in quotes. */
static bool word(struct search *s, struct span w, bool quoted)
{
	const uint8_t *colon = memchr(w.p, ':', w.n);
	size_t key = colon ? (size_t)(colon - w.p) : w.n;
	bool is_repo;

	is_repo = listed(s, w);
	if (is_repo && names_scope(w, key + 1))
		return no(s, "a search string names two scopes in one word");
	if (!is_repo && names_scope(w, 0))
		return no(s, "a search is open for repo:OWNER/NAME of listed repositories only");
	if (s->depth == 0) {
		/* gh up to 2.46 sends the user's words bare: "not working". Whoever reads an operator there leaves out a word. */
		if (s->after_not && is_repo)
			return no(s, "\"not\" stands before repo: in a search string");
		s->after_not = !quoted && is_word(w, "not");
		if (!quoted && is_operator(w))
			return no(s, "OR and NOT must stand in parentheses, next to the repo: of a listed repository");
		s->scoped = s->scoped || is_repo;
		return true;
	}
	if (s->depth > 1 && is_repo)
		return no(s, "repo: stands in parentheses within parentheses");
	if (s->depth > 1)
		return true;
	switch (s->group) {
	case GROUP_EMPTY:
	case GROUP_TEXT:
		if (is_repo && s->group == GROUP_TEXT)
			break;
		s->group = is_repo ? GROUP_REPO : GROUP_TEXT;
		return true;
	case GROUP_REPO:
		if (!span_is(w, "OR") || quoted)
			break;
		s->group = GROUP_OR;
		return true;
	case GROUP_OR:
		if (!is_repo)
			break;
		s->group = GROUP_REPO;
		return true;
	}
	return no(s, "parentheses with repo: hold nothing but repo:OWNER/NAME joined by OR");
}

static bool parenthesis(struct search *s, bool opens)
{
	if (opens) {
		/* What a group with repo: holds cannot be a group. */
		if (s->depth == 1) {
			if (s->group == GROUP_REPO || s->group == GROUP_OR)
				return no(s, "parentheses with repo: hold nothing but repo:OWNER/NAME joined by OR");
			s->group = GROUP_TEXT;
		} else if (s->depth == 0) {
			if (s->after_not)
				return no(s, "\"not\" stands before a parenthesis in a search string");
			s->group = GROUP_EMPTY;
		}
		s->depth++;
		return true;
	}
	if (s->depth == 0)
		return no(s, "a search string closes a parenthesis that is not open");
	s->depth--;
	if (s->depth > 0)
		return true;
	if (s->group == GROUP_OR)
		return no(s, "a search string has an OR with nothing behind it");
	s->scoped = s->scoped || s->group == GROUP_REPO;
	return true;
}

/* The end of a word that begins at @from; false when quotes or parentheses stand where two readers may differ. */
static bool word_end(struct search *s, struct span q, size_t from, size_t *ret_end, bool *ret_quoted)
{
	size_t i = from;

	*ret_quoted = false;
	for (; i < q.n && !is_space(q.p[i]) && q.p[i] != ')'; i++) {
		if (q.p[i] == '(')
			return no(s, "a parenthesis stands in a word of the search string");
		if (q.p[i] != '"')
			continue;
		if (i > from && q.p[i - 1] != ':')
			return no(s, "a quote stands in a word of the search string");
		for (i++; i < q.n && q.p[i] != '"'; i++)
			if (q.p[i] == '\\' && i + 1 < q.n)
				i++;
		if (i >= q.n)
			return no(s, "a quote in the search string does not end");
		i++;
		if (i < q.n && !is_space(q.p[i]) && q.p[i] != ')')
			return no(s, "something stands right behind a quote in the search string");
		*ret_quoted = true;
		break;
	}
	*ret_end = i;
	return true;
}

static bool scan(struct search *s, struct span q)
{
	bool after_close = false, quoted;
	size_t i = 0, end;

	while (i < q.n) {
		if (is_space(q.p[i])) {
			after_close = false;
			i++;
			continue;
		}
		if (after_close && q.p[i] != ')')
			return no(s, "something stands right behind a parenthesis in the search string");
		after_close = q.p[i] == ')';
		if (q.p[i] == '(' || q.p[i] == ')') {
			if (!parenthesis(s, q.p[i] == '('))
				return false;
			i++;
			continue;
		}
		if (!word_end(s, q, i, &end, &quoted) || !word(s, SPAN(q.p + i, end - i), quoted))
			return false;
		i = end;
	}
	return s->depth == 0 ? true : no(s, "a search string does not close its parentheses");
}

enum search_verdict search_judge(const struct gh_scope *scope, struct span q, const struct gh_repo **ret_repo,
				 const char **ret_why)
{
	struct search s = { .scope = scope };

	if (q.n > SEARCH_MAX) {
		*ret_why = "the search string is too long";
		return SEARCH_REFUSED;
	}
	if (plain_characters(&s, q) && scan(&s, q) && s.scoped) {
		*ret_repo = s.several ? NULL : s.repo;
		return SEARCH_LISTED;
	}
	*ret_why = s.why ? s.why : "a search needs repo:OWNER/NAME of a listed repository";
	return mentions_listed(scope, q) ? SEARCH_REFUSED : SEARCH_UNSCOPED;
}
