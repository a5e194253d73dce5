#include "cli/state_rules.h"

#include <stdio.h>
#include <string.h>

#include "base/str.h"
#include "proto/rec.h"

void state_begin(struct state_rules *w, const char *path, enum guestcfg_form form)
{
	ssize_t at = rec_begin(w->out, GC_STATE);

	w->at = at < 0 ? 0 : (size_t)at;
	w->failed |= at < 0 || rec_put_str(w->out, GC_PATH, path) < 0 || rec_put_u64(w->out, GC_FORM, form) < 0;
}

void state_rule_with(struct state_rules *w, const char *program, enum guestcfg_rule kind, const char *const *keys, const char *value)
{
	ssize_t at = rec_begin(w->out, GC_RULE);

	w->failed |= at < 0 || rec_put_u64(w->out, GC_RULE_KIND, kind) < 0;
	for (; *keys; keys++)
		w->failed |= rec_put_str(w->out, GC_KEY, *keys) < 0;
	if (program)
		w->failed |= rec_put_str(w->out, GC_WITH, program) < 0;
	if (value)
		w->failed |= rec_put_str(w->out, GC_VALUE, value) < 0;
	if (!w->failed)
		rec_end(w->out, (size_t)at);
}

void state_rule(struct state_rules *w, enum guestcfg_rule kind, const char *const *keys, const char *value)
{
	state_rule_with(w, NULL, kind, keys, value);
}

void state_content(struct state_rules *w, const char *text)
{
	w->failed |= rec_put_str(w->out, GC_CONTENT, text) < 0;
}

void state_target(struct state_rules *w, const char *target)
{
	w->failed |= rec_put_str(w->out, GC_TARGET, target) < 0;
}

void state_end(struct state_rules *w)
{
	if (!w->failed)
		rec_end(w->out, w->at);
}

char *state_json_string(const char *s)
{
	char *out = xmalloc(strlen(s) * 6 + 3), *p = out;

	*p++ = '"';
	for (; *s; s++) {
		if ((unsigned char)*s < 0x20) {
			p += snprintf(p, 7, "\\u%04x", (unsigned char)*s);
			continue;
		}
		if (*s == '"' || *s == '\\')
			*p++ = '\\';
		*p++ = *s;
	}
	*p++ = '"';
	*p = '\0';
	return out;
}
