/* Files of the state, which other guests have written: the first byte is the form, the rest the file. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "guest/jedit.h"
#include "guest/merge.h"
#include "guest/toml.h"

#define ROOM 4096

static struct span k_projects = { (const uint8_t *)"projects", 8 }, k_path = { (const uint8_t *)"/p", 2 };

static struct config_rule rule(enum guestcfg_rule kind, struct span a, struct span b, const char *value)
{
	struct config_rule r = { .kind = kind, .keys = { a, b }, .n_keys = b.n > 0 ? 2 : 1, .value = span_str(value) };

	return r;
}

static int run(const struct config_state *s, const uint8_t *p, size_t n, struct buf *out)
{
	buf_init(out, n + ROOM);
	MUST(buf_put(out, p, n) == 0);
	return merge(s, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct config_rule rules[] = {
		rule(GC_RULE_SET, k_projects, k_path, "{\"t\":true}"),
		rule(GC_RULE_DEFAULT, SPAN("theme", 5), SPAN("", 0), "\"dark\""),
		rule(GC_RULE_DROP, SPAN("m", 1), SPAN("c", 1), ""),
		rule(GC_RULE_LOGIN, SPAN("login", 5), SPAN("", 0), "{\"login\":{\"key\":\"avm-zai-abcdefghijkmnpqrstuvwxyz23\"}}"),
		rule(GC_RULE_TAIL, SPAN("a", 1), SPAN("b", 1), "\"abcdefghijkmnpqrstuv\""),
		rule(GC_RULE_ORPHAN, SPAN("m", 1), SPAN("d", 1), ""),
	};
	struct config_rule table = rule(GC_RULE_TABLE, k_projects, k_path, "t = 1\n");
	struct config_state s = { .rules = rules, .n_rules = sizeof(rules) / sizeof(*rules), .content = span_str("x = 1\n") };
	const struct span keys[] = { k_projects, k_path };
	char orphan[] = "/p";
	struct jpath path = { keys, 2 };
	struct buf out, again;
	struct span v;
	int r;

	if (n == 0 || n > 1 << 16)
		return 0;
	rules[sizeof(rules) / sizeof(*rules) - 1].with = orphan;
	s.form = (enum guestcfg_form)(p[0] % (GC_FORM_BLOCK + 1));
	if (s.form == GC_FORM_TOML) {
		s.rules = &table;
		s.n_rules = 1;
	}
	p++;
	n--;
	r = run(&s, p, n, &out);
	if (r < 0) {
		MUST(r == -EBADMSG && out.n == n && (n == 0 || memcmp(buf_span(&out).p, p, n) == 0));
		buf_done(&out);
		return 0;
	}
	if (s.form == GC_FORM_JSON || s.form == GC_FORM_JSONC) {
		bool comments = s.form == GC_FORM_JSONC;

		MUST(jedit_check(buf_span(&out), comments) == 0);
		MUST(jedit_get(buf_span(&out), comments, path, &v) && span_is(v, "{\"t\":true}"));
		path = (struct jpath){ (const struct span[]){ SPAN("m", 1), SPAN("c", 1) }, 2 };
		MUST(!jedit_get(buf_span(&out), comments, path, &v));
		path = (struct jpath){ (const struct span[]){ SPAN("theme", 5) }, 1 };
		MUST(jedit_get(buf_span(&out), comments, path, &v));
	} else if (s.form == GC_FORM_TOML) {
		MUST(toml_has_table(buf_span(&out), keys, 2) == 1);
	}
	/* What holds is left as it is. */
	MUST(run(&s, buf_span(&out).p, out.n, &again) == r);
	MUST(again.n == out.n && memcmp(buf_span(&again).p, buf_span(&out).p, out.n) == 0);
	buf_done(&again);
	buf_done(&out);
	return 0;
}
