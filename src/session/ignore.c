#include "session/ignore.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "session/ignore_match.h"

struct ignore *ignore_new(void)
{
	return xcalloc(1, sizeof(struct ignore));
}

static void pattern_done(struct ignore_pattern *p)
{
	free(p->text);
	free(p->t);
	free(p->sets);
	*p = (struct ignore_pattern){ 0 };
}

void ignore_free(struct ignore *ig)
{
	if (!ig)
		return;
	for (size_t i = 0; i < ig->n; i++)
		pattern_done(&ig->v[i]);
	free(ig->v);
	free(ig->now);
	free(ig->then);
	free(ig);
}

bool ignore_is_empty(const struct ignore *ig)
{
	return ig->n == 0;
}

static void emit(struct ignore_pattern *p, enum ignore_token_kind kind, unsigned char byte)
{
	p->t[p->n++] = (struct ignore_token){ .kind = (unsigned char)kind, .byte = byte };
}

static void set_add(struct ignore_set *s, unsigned c)
{
	s->bits[c / 8] |= (unsigned char)(1u << (c % 8));
}

static bool set_has(const struct ignore_set *s, unsigned c)
{
	return s->bits[c / 8] >> (c % 8) & 1;
}

/* "[:NAME:]" of ASCII. False: no such class. */
static bool set_class(struct ignore_set *s, const char *name, size_t n)
{
	static const struct {
		const char *name;
		int (*is)(int);
	} classes[] = {
		{ "alnum", isalnum }, { "alpha", isalpha }, { "blank", isblank }, { "cntrl", iscntrl },
		{ "digit", isdigit }, { "graph", isgraph }, { "lower", islower }, { "print", isprint },
		{ "punct", ispunct }, { "space", isspace }, { "upper", isupper }, { "xdigit", isxdigit },
	};

	for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
		if (strlen(classes[i].name) != n || memcmp(classes[i].name, name, n) != 0)
			continue;
		for (int c = 0; c < 0x80; c++)
			if (classes[i].is(c))
				set_add(s, (unsigned)c);
		return true;
	}
	return false;
}

/* @s is behind '['. Returns the bytes up to and with ']'; 0 when the set is not closed or names no class. */
static size_t compile_set(struct ignore_set *set, const char *s, size_t n)
{
	bool negated, first = true;
	size_t i = 0;
	int last = -1; /* the byte before a '-', when it can begin a range */

	negated = n > 0 && (s[0] == '!' || s[0] == '^');
	i += negated;
	for (;; first = false) {
		unsigned char c;

		if (i >= n)
			return 0;
		c = (unsigned char)s[i++];
		if (c == ']' && !first)
			break;
		if (c == '-' && last > 0 && i < n && s[i] != ']') {
			c = (unsigned char)s[i++];
			if (c == '\\') {
				if (i >= n)
					return 0;
				c = (unsigned char)s[i++];
			}
			for (unsigned k = (unsigned)last; k <= c; k++)
				set_add(set, k);
			last = -1;
			continue;
		}
		if (c == '[' && i < n && s[i] == ':') {
			const char *close = memchr(s + i + 1, ']', n - i - 1);

			if (!close)
				return 0;
			if (close - (s + i + 1) >= 1 && close[-1] == ':') {
				if (!set_class(set, s + i + 1, (size_t)(close - 1 - (s + i + 1))))
					return 0;
				i = (size_t)(close + 1 - s);
				last = -1;
				continue;
			}
		} else if (c == '\\') {
			if (i >= n)
				return 0;
			c = (unsigned char)s[i++];
		}
		set_add(set, c);
		last = c;
	}
	if (negated)
		for (size_t k = 0; k < sizeof(set->bits); k++)
			set->bits[k] ^= 0xff;
	return i;
}

/* @s: without '!', the slash at the end and the one at the start. */
static void compile(struct ignore_pattern *p, const char *s, size_t n)
{
	size_t literal = 0, i;

	/* IT_DIRS is two tokens for three bytes, all others at most one for one. */
	p->t = xcalloc(n + 1, sizeof(*p->t));
	while (literal < n && !strchr("*?[\\", s[literal]))
		emit(p, IT_BYTE, (unsigned char)s[literal++]);
	p->plain = literal == n;
	/* git matches the bytes before the first special one apart, so a "**" there counts as at the start. */
	for (i = literal; i < n; i++) {
		struct ignore_set set = { 0 };
		size_t stars;

		switch (s[i]) {
		case '?':
			emit(p, IT_ANY, 0);
			break;
		case '\\':
			if (++i == n)
				emit(p, IT_NEVER, 0);
			else
				emit(p, IT_BYTE, (unsigned char)s[i]);
			break;
		case '[':
			stars = compile_set(&set, s + i + 1, n - i - 1);
			if (stars == 0) {
				emit(p, IT_NEVER, 0);
				return;
			}
			p->sets = xrealloc(p->sets, (p->n_sets + 1) * sizeof(*p->sets));
			p->sets[p->n_sets] = set;
			emit(p, IT_SET, 0);
			p->t[p->n - 1].set = (unsigned short)p->n_sets++;
			i += stars;
			break;
		case '*':
			for (stars = 1; i + stars < n && s[i + stars] == '*'; stars++)
				;
			if (stars >= 2 && (i == literal || s[i - 1] == '/')) {
				size_t after = i + stars;

				if (after < n && s[after] == '/') {
					emit(p, IT_DIRS, 0);
					emit(p, IT_DIRS_IN, 0);
					i = after;
					break;
				}
				if (after == n || (s[after] == '\\' && after + 1 < n && s[after + 1] == '/')) {
					emit(p, IT_ALL, 0);
					i = after - 1;
					break;
				}
			}
			emit(p, IT_STAR, 0);
			i += stars - 1;
			break;
		default:
			emit(p, IT_BYTE, (unsigned char)s[i]);
		}
	}
}

/* Adds a line without its end. 1: added; 0: it says nothing. */
static int add_line(struct ignore *ig, const char *line, size_t n)
{
	struct ignore_pattern p = { 0 };
	size_t last = n, from = 0;

	if (n == 0 || line[0] == '#')
		return 0;
	/* Spaces at the end go, but for one behind a backslash. */
	for (size_t i = 0; i < n; i++) {
		if (line[i] == ' ') {
			if (last == n)
				last = i;
			continue;
		}
		if (line[i] == '\\' && ++i == n) {
			last = n;
			break;
		}
		last = n;
	}
	n = last;
	p.text = xstrndup(line, n);
	if (n > 0 && line[0] == '!') {
		p.negative = true;
		from++;
	}
	if (n > from && line[n - 1] == '/') {
		p.dir_only = true;
		n--;
	}
	p.name_only = !memchr(line + from, '/', n - from);
	if (n > from && line[from] == '/')
		from++;
	if (n == from || n - from > IGNORE_LINE_MAX) {
		pattern_done(&p);
		return n == from ? 0 : -E2BIG;
	}
	if (ig->n >= IGNORE_PATTERNS_MAX) {
		pattern_done(&p);
		return -E2BIG;
	}
	compile(&p, line + from, n - from);
	if (p.n + 1 > ig->room) {
		ig->room = p.n + 1;
		ig->now = xrealloc(ig->now, ig->room);
		ig->then = xrealloc(ig->then, ig->room);
	}
	/* Doubled at powers of two. */
	if ((ig->n & (ig->n - 1)) == 0)
		ig->v = xrealloc(ig->v, (ig->n ? 2 * ig->n : 1) * sizeof(*ig->v));
	ig->v[ig->n++] = p;
	return 1;
}

int ignore_add_file(struct ignore *ig, const char *text, size_t n)
{
	const char *end = text + n;

	if (memchr(text, '\0', n))
		return -EBADMSG;
	if (n > IGNORE_FILE_MAX)
		return -E2BIG;
	if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
		text += 3;
	while (text < end) {
		const char *nl = memchr(text, '\n', (size_t)(end - text));
		size_t len = (size_t)((nl ? nl : end) - text);
		int r;

		r = add_line(ig, text, len > 0 && nl && text[len - 1] == '\r' ? len - 1 : len);
		if (r < 0)
			return r;
		text = nl ? nl + 1 : end;
	}
	return 0;
}

int ignore_add(struct ignore *ig, const char *pattern)
{
	int r = add_line(ig, pattern, strlen(pattern));

	return r == 0 ? -EINVAL : r < 0 ? r : 0;
}

/* Marks token @i and what can follow without a byte. */
static void enter(const struct ignore_pattern *p, unsigned char *set, size_t i)
{
	while (!set[i]) {
		set[i] = 1;
		if (i == p->n)
			return;
		if (p->t[i].kind == IT_DIRS) {
			set[i + 1] = 1;
			i += 2;
		} else if (p->t[i].kind == IT_STAR || p->t[i].kind == IT_ALL) {
			i++;
		} else {
			return;
		}
	}
}

static bool pattern_matches(struct ignore *ig, const struct ignore_pattern *p, const char *s, size_t len)
{
	unsigned char *now = ig->now, *then = ig->then;
	size_t i = 0;

	/* The plain start decides most cases. */
	for (; i < p->n && p->t[i].kind == IT_BYTE; i++)
		if (i >= len || (unsigned char)s[i] != p->t[i].byte)
			return false;
	if (i == p->n)
		return i == len;
	memset(now, 0, p->n + 1);
	enter(p, now, i);
	for (; i < len; i++) {
		unsigned char c = (unsigned char)s[i], *swap;
		bool any = false;

		memset(then, 0, p->n + 1);
		for (size_t k = 0; k < p->n; k++) {
			const struct ignore_token *t = &p->t[k];

			if (!now[k])
				continue;
			switch ((enum ignore_token_kind)t->kind) {
			case IT_BYTE:
				if (c == t->byte)
					enter(p, then, k + 1);
				break;
			case IT_ANY:
				if (c != '/')
					enter(p, then, k + 1);
				break;
			case IT_SET:
				if (c != '/' && set_has(&p->sets[t->set], c))
					enter(p, then, k + 1);
				break;
			case IT_STAR:
				if (c != '/')
					enter(p, then, k);
				break;
			case IT_ALL:
				enter(p, then, k);
				break;
			case IT_DIRS_IN:
				then[k] = 1;
				if (c == '/')
					enter(p, then, k + 1);
				break;
			case IT_DIRS:
			case IT_NEVER:
				break;
			}
		}
		for (size_t k = 0; k <= p->n && !any; k++)
			any = then[k];
		if (!any)
			return false;
		swap = now;
		now = then;
		then = swap;
	}
	return now[p->n];
}

int ignore_last_match(struct ignore *ig, const char *path, size_t len, bool is_dir)
{
	const char *name = memrchr(path, '/', len);

	name = name ? name + 1 : path;
	for (size_t i = ig->n; i > 0; i--) {
		const struct ignore_pattern *p = &ig->v[i - 1];

		if (p->dir_only && !is_dir)
			continue;
		if (p->name_only ? pattern_matches(ig, p, name, (size_t)(path + len - name)) :
				   pattern_matches(ig, p, path, len))
			return (int)(i - 1);
	}
	return -1;
}

bool ignore_hides(struct ignore *ig, const char *path, bool is_dir)
{
	size_t n = strlen(path);

	for (size_t i = 1; i <= n; i++) {
		int k;

		if (i < n && path[i] != '/')
			continue;
		k = ignore_last_match(ig, path, i, i < n || is_dir);
		if (k >= 0 && !ig->v[k].negative)
			return true;
	}
	return false;
}
