#include "session/confdiff.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/str.h"
#include "session/gitconfig.h"
#include "session/sink_places.h"

static int put(const struct gitconfig_entry *e, void *arg)
{
	struct buf *b = arg;
	AUTO_FREE(char, name);

	if (sink_config_is_harmless(e))
		return 0;
	name = gitconfig_name(e);
	if (buf_put(b, name, strlen(name) + 1) < 0 || (e->value && buf_put_u8(b, '=') < 0) ||
	    buf_put(b, e->value ? e->value : "", e->value ? strlen(e->value) + 1 : 1) < 0)
		return -ENOBUFS;
	return 0;
}

int confdiff_record(struct span text, struct buf *ret)
{
	buf_init(ret, CONFDIFF_RECORD_MAX);
	return gitconfig_read((const char *)text.p, text.n, put, ret);
}

/* The next setting of a record that is left. */
static bool take(struct span *record, const char **ret_name, const char **ret_value)
{
	struct span s[2];

	for (size_t i = 0; i < ARRAY_SIZE(s); i++) {
		const uint8_t *nul = record->n > 0 ? memchr(record->p, '\0', record->n) : NULL;

		if (!nul || span_take(record, (size_t)(nul - record->p) + 1, &s[i]) < 0)
			return false;
	}
	*ret_name = (const char *)s[0].p;
	*ret_value = s[1].p[0] == '=' ? (const char *)s[1].p + 1 : NULL;
	return true;
}

static bool same(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

/* @value NULL and @any: whatever its value. */
static bool holds(struct span record, const char *name, const char *value, bool any)
{
	const char *n, *v;

	while (take(&record, &n, &v))
		if (strcmp(n, name) == 0 && (any || same(v, value)))
			return true;
	return false;
}

struct comparison {
	struct span all, left;
	char *what;
};

static char *removed(struct span left)
{
	const char *name, *value;
	AUTO_FREE(char, text);

	if (!take(&left, &name, &value))
		return NULL;
	text = gitconfig_shown(name, value);
	return xasprintf("%s (removed)", text);
}

static int compare(const struct gitconfig_entry *e, void *arg)
{
	struct comparison *c = arg;
	struct span rest = c->left;
	const char *was, *value;
	AUTO_FREE(char, name);
	AUTO_FREE(char, text);

	if (sink_config_is_harmless(e))
		return 0;
	name = gitconfig_name(e);
	if (take(&rest, &was, &value) && strcmp(was, name) == 0 && same(value, e->value)) {
		c->left = rest;
		return 0;
	}
	/* It was there and comes too early: what stood before it has gone. */
	c->what = holds(c->left, name, e->value, false) ? removed(c->left) : NULL;
	if (!c->what) {
		text = gitconfig_shown(name, e->value);
		c->what = xasprintf("%s (%s)", text, holds(c->all, name, NULL, true) ? "changed" : "new");
	}
	return 1;
}

int confdiff(struct span record, struct span now, char **ret_what)
{
	struct comparison c = { .all = record, .left = record };
	int r = gitconfig_read((const char *)now.p, now.n, compare, &c);

	if (r == 0 && c.left.n > 0) {
		c.what = removed(c.left);
		r = 1;
	}
	if (r == -EBADMSG)
		c.what = xstrdup("is not what git would read");
	if (r != 0)
		*ret_what = c.what;
	return r;
}
