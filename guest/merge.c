#include "guest/merge.h"

#include <errno.h>

#include "base/macros.h"
#include "base/str.h"
#include "guest/jedit.h"
#include "guest/toml.h"
#include "proto/placeholder.h"
#include "proto/placeholder_shape.h"

static bool has_placeholder(struct span text)
{
	static const struct ph_set none;

	return ph_find(&none, text, NULL) != PH_FOREIGN;
}

/* The members of the agents' login files that hold a secret. */
static bool names_secret(struct span name)
{
	static const char *const secrets[] = { "accessToken", "refreshToken", "access_token", "refresh_token", "id_token",
					       "access",      "refresh",      "key",	      "OPENAI_API_KEY" };

	for (size_t i = 0; i < ARRAY_SIZE(secrets); i++)
		if (jedit_string_is(name, span_str(secrets[i])))
			return true;
	return false;
}

/* A secret that is not ours, in a member or in an object below it. Without one there is no login: tokens that a program has
 * made empty are none. */
static bool is_foreign(bool comments, bool secret, struct span v, int depth)
{
	struct span at = v, name;

	if (v.p[0] == '"')
		return secret && v.n > 2 && !has_placeholder(v);
	if (v.p[0] != '{' || depth == 0)
		return false;
	while (jedit_next_member(comments, &at, &name, &v))
		if (is_foreign(comments, names_secret(name), v, depth - 1))
			return true;
	return false;
}

static int rule_login(struct jedit *j, const struct config_rule *rule)
{
	bool ours = false;
	int r = 0;

	for (size_t i = 0; i < rule->n_keys; i++) {
		struct jpath path = { &rule->keys[i], 1 };
		struct span v;

		if (!jedit_get(buf_span(j->text), j->comments, path, &v))
			continue;
		if (is_foreign(j->comments, span_is(rule->keys[i], "OPENAI_API_KEY"), v, 2))
			return MERGE_FOREIGN;
		ours |= has_placeholder(v);
	}
	for (size_t i = 0; r == 0 && i < rule->n_keys && (ours || rule->value.n > 0); i++) {
		struct jpath path = { &rule->keys[i], 1 };
		struct span v;

		if (rule->value.n > 0 && jedit_get(rule->value, false, path, &v))
			r = jedit_set(j, path, v);
		else
			r = jedit_drop(j, path);
	}
	return r;
}

/* "customApiKeyResponses.approved" of Claude Code: keys are known there by their last characters. */
static bool looks_like_tail(struct span v)
{
	if (v.n != GC_TAIL + 2 || v.p[0] != '"')
		return false;
	for (size_t i = 1; i <= GC_TAIL; i++)
		if (!memchr(PH_ALPHABET, v.p[i], sizeof(PH_ALPHABET) - 1))
			return false;
	return true;
}

static int rule_tail(struct jedit *j, const struct config_rule *rule)
{
	struct jpath path = { rule->keys, rule->n_keys };
	bool there, some = false;
	struct span list, v;
	struct buf out;
	int r;

	there = jedit_get(buf_span(j->text), j->comments, path, &list) && list.p[0] == '[';
	if (!there && rule->value.n == 0)
		return 0;
	buf_init(&out, j->text->max);
	r = buf_put(&out, "[", 1);
	while (there && r == 0 && jedit_next_element(j->comments, &list, &v)) {
		if (looks_like_tail(v))
			continue;
		r = some ? buf_put(&out, ",", 1) : 0;
		if (r == 0)
			r = buf_put(&out, v.p, v.n);
		some = true;
	}
	if (r == 0 && some && rule->value.n > 0)
		r = buf_put(&out, ",", 1);
	if (r == 0)
		r = buf_put(&out, rule->value.p, rule->value.n);
	if (r == 0)
		r = buf_put(&out, "]", 1);
	if (r == 0)
		r = jedit_set(j, path, buf_span(&out));
	buf_done(&out);
	return r;
}

/* Only what begins that program: the user may have an entry of the same name. */
static int rule_orphan(struct jedit *j, const struct config_rule *rule, struct span entry)
{
	const struct span key = span_str("command");
	struct span command;

	if (!jedit_get(entry, j->comments, (struct jpath){ &key, 1 }, &command) ||
	    !jedit_string_is(command, span_str(rule->with)))
		return 0;
	return jedit_drop(j, (struct jpath){ rule->keys, rule->n_keys });
}

static int rule_json(struct jedit *j, const struct config_rule *rule)
{
	struct jpath path = { rule->keys, rule->n_keys };
	struct span v;
	bool there = jedit_get(buf_span(j->text), j->comments, path, &v);

	switch (rule->kind) {
	case GC_RULE_SET:
		return jedit_set(j, path, rule->value);
	case GC_RULE_DEFAULT:
		return there ? 0 : jedit_set(j, path, rule->value);
	case GC_RULE_DROP:
		if (!there || (rule->value.n > 0 && (v.n != rule->value.n || memcmp(v.p, rule->value.p, v.n) != 0)))
			return 0;
		return jedit_drop(j, path);
	case GC_RULE_ORPHAN:
		return there ? rule_orphan(j, rule, v) : 0;
	case GC_RULE_LOGIN:
		return rule_login(j, rule);
	case GC_RULE_TAIL:
		return rule_tail(j, rule);
	default:
		return -EBADMSG;
	}
}

/* A copy, so that nothing is half done. */
static int copy(struct buf *to, const struct buf *from)
{
	buf_init(to, from->max);
	return buf_put(to, buf_span(from).p, from->n);
}

static bool is_empty(const struct jedit *j)
{
	struct span object, name, v;

	return jedit_get(buf_span(j->text), j->comments, (struct jpath){ NULL, 0 }, &object) &&
	       !jedit_next_member(j->comments, &object, &name, &v);
}

static int merge_json(const struct config_state *s, struct buf *text)
{
	struct jedit j = { .comments = s->form == GC_FORM_JSONC };
	struct buf work;
	int r, mask = 0;

	r = copy(&work, text);
	if (r == 0 && work.n == 0)
		r = buf_put(&work, "{\n}\n", 4);
	if (r == 0)
		r = jedit_check(buf_span(&work), j.comments);
	j.text = &work;
	for (size_t i = 0; r == 0 && i < s->n_rules; i++) {
		r = rule_json(&j, &s->rules[i]);
		if (r > 0) {
			mask |= r;
			r = 0;
		}
	}
	if (r == 0 && is_empty(&j)) {
		buf_done(&work);
		buf_init(&work, text->max);
	}
	if (r < 0) {
		buf_done(&work);
		return r;
	}
	buf_done(text);
	*text = work;
	return mask;
}

static int merge_toml(const struct config_state *s, struct buf *text)
{
	struct buf work;
	int r, has;

	r = copy(&work, text);
	if (r == 0 && work.n == 0)
		r = buf_put(&work, s->content.p, s->content.n);
	for (size_t i = 0; r == 0 && i < s->n_rules; i++) {
		const struct config_rule *rule = &s->rules[i];

		has = toml_has_table(buf_span(&work), rule->keys, rule->n_keys);
		r = has < 0 ? has : has ? 0 : toml_add_table(&work, rule->keys, rule->n_keys, rule->value);
	}
	if (r < 0) {
		buf_done(&work);
		return r;
	}
	buf_done(text);
	*text = work;
	return 0;
}

/* A line that is just @mark: where it begins, or NULL. @ret_end: behind its newline. */
static const uint8_t *find_line(struct span s, const char *mark, const uint8_t **ret_end)
{
	const uint8_t *end = s.p + s.n;
	size_t n = strlen(mark);

	for (const uint8_t *line = s.p, *nl; line < end; line = nl + 1) {
		nl = memchr(line, '\n', (size_t)(end - line));
		if ((size_t)((nl ? nl : end) - line) == n && memcmp(line, mark, n) == 0) {
			*ret_end = nl ? nl + 1 : end;
			return line;
		}
		if (!nl)
			break;
	}
	return NULL;
}

static int merge_block(const struct config_state *s, struct buf *text)
{
	struct span all = buf_span(text);
	const uint8_t *begin, *end = NULL, *stop = all.p + all.n, *behind = NULL;
	struct buf work;
	int r;

	if (!str_is_utf8((const char *)all.p, all.n) || (all.n > 0 && memchr(all.p, '\0', all.n)))
		return -EBADMSG;
	begin = all.n > 0 ? find_line(all, MERGE_BEGIN, &behind) : NULL;
	/* Without its end only the line itself is ours. */
	if (begin && !find_line(SPAN(behind, (size_t)(stop - behind)), MERGE_END, &end))
		end = behind;
	if (!begin)
		begin = end = stop;
	buf_init(&work, text->max);
	r = buf_put(&work, all.p, (size_t)(begin - all.p));
	if (r == 0 && s->content.n > 0) {
		const char *before = work.n == 0 || begin != stop ? "" : all.p[all.n - 1] == '\n' ? "\n" : "\n\n";

		r = buf_put(&work, before, strlen(before));
		if (r == 0)
			r = buf_put(&work, MERGE_BEGIN "\n", strlen(MERGE_BEGIN) + 1);
		if (r == 0)
			r = buf_put(&work, s->content.p, s->content.n);
		if (r == 0)
			r = buf_put(&work, MERGE_END "\n", strlen(MERGE_END) + 1);
	}
	if (r == 0)
		r = buf_put(&work, end, (size_t)(stop - end));
	if (r < 0) {
		buf_done(&work);
		return r;
	}
	buf_done(text);
	*text = work;
	return 0;
}

int merge(const struct config_state *s, struct buf *text)
{
	switch (s->form) {
	case GC_FORM_JSON:
	case GC_FORM_JSONC:
		return merge_json(s, text);
	case GC_FORM_TOML:
		return merge_toml(s, text);
	case GC_FORM_BLOCK:
		return merge_block(s, text);
	case GC_FORM_TEXT:
		buf_done(text);
		return buf_put(text, s->content.p, s->content.n);
	default:
		return -EBADMSG;
	}
}
