/* The scanner of answers against a slow one that decodes from every byte on. The first bytes choose needles and cuts;
 * the rest is a program that writes text with whole, cut and encoded needles in it. */
#include "fuzz.h"

#include <string.h>

#include "base/base64.h"
#include "vault/echo.h"
#include "vault/secret.h"

#define TEXT_MAX 4096

static const char *const words[] = { "abcabcabcabcabcabcabcabc", "aaaaaaaaaaaaaaaa",
				     "CANARY-anthropic-access-7f3a9c2e5b81", "~._-/+=:,;!?()[]", "abcabcabcabcabcab" };

static int hex_digit(uint8_t c)
{
	const char *at = c ? strchr("0123456789abcdefABCDEF", c) : NULL;
	long d = at ? at - "0123456789abcdefABCDEF" : -1;

	return (int)(d > 15 ? d - 6 : d);
}

/* The reference: the end of needle @w at @at, each character raw or escaped; 0: none. */
static size_t slow_walk(const uint8_t *t, size_t n, size_t at, const char *w)
{
	for (; *w; w++) {
		size_t left = n - at;

		if (left >= 3 && t[at] == '%' && hex_digit(t[at + 1]) >= 0 && hex_digit(t[at + 2]) >= 0 &&
		    hex_digit(t[at + 1]) * 16 + hex_digit(t[at + 2]) == *w)
			at += 3;
		else if (left >= 6 && t[at] == '\\' && t[at + 1] == 'u' && t[at + 2] == '0' && t[at + 3] == '0' &&
			 hex_digit(t[at + 4]) >= 0 && hex_digit(t[at + 5]) >= 0 &&
			 hex_digit(t[at + 4]) * 16 + hex_digit(t[at + 5]) == *w)
			at += 6;
		else if (left >= 2 && t[at] == '\\' && t[at + 1] == '/' && *w == '/')
			at += 2;
		else if (left >= 1 && t[at] == (uint8_t)*w)
			at++;
		else
			return 0;
	}
	return at;
}

static void slow(const uint8_t *t, size_t n, unsigned which, uint8_t *out)
{
	memcpy(out, t, n);
	for (size_t k = 0; k < 5; k++) {
		size_t len = strlen(words[k]);

		if (!(which >> k & 1))
			continue;
		for (size_t at = 0; at < n; at++) {
			size_t end = slow_walk(t, n, at, words[k]);

			if (end > 0)
				memset(out + at, 'x', end - at);
		}
		for (size_t before = 0; before < 3; before++)
			for (int form = 0; form < 2; form++) {
				static const size_t skip[] = { 0, 2, 3 };
				char in[64] = "", enc[96];
				size_t digits = (before + len) * 8 / 6 - skip[before];

				memcpy(in + before, words[k], len);
				(void)base64_encode((enum base64)form, SPAN(in, before + len), enc);
				for (size_t at = 0; at + digits <= n; at++)
					if (memcmp(t + at, enc + skip[before], digits) == 0)
						memset(out + at, 'x', digits);
			}
	}
}

/* Each byte of the program writes something; the text's length. */
static size_t write_text(const uint8_t *p, size_t n, uint8_t *t)
{
	size_t at = 0;

	for (size_t i = 0; i < n && at + 512 < TEXT_MAX; i++) {
		const char *w = words[p[i] % 5];
		size_t len = strlen(w), k = 0, to = len;
		uint8_t how = p[i] / 5 % 8;

		if (p[i] >= 200 || how == 7) {
			t[at++] = p[i];
			continue;
		}
		if (how == 6 && i + 1 < n) {
			char in[64] = "zz", enc[96];
			size_t before = p[i + 1] % 3;

			memcpy(in + before, w, len);
			k = base64_encode(p[i + 1] & 64 ? BASE64_URL : BASE64_STD, SPAN(in, before + len), enc);
			memcpy(t + at, enc, k);
			at += k;
			i++;
			continue;
		}
		if (how == 5 && i + 1 < n)
			to = p[++i] % len;
		for (; k < to; k++) {
			uint8_t c = (uint8_t)w[k], mode = how == 0 ? 0 : (uint8_t)((p[(i + k) % n] >> how) % 4);

			if (mode == 1)
				at += (size_t)snprintf((char *)t + at, 8, k & 1 ? "%%%02x" : "%%%02X", c);
			else if (mode == 2)
				at += (size_t)snprintf((char *)t + at, 8, k & 1 ? "\\u%04x" : "\\u%04X", c);
			else if (mode == 3 && c == '/')
				at += (size_t)snprintf((char *)t + at, 8, "\\/");
			else
				t[at++] = c;
		}
	}
	return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static uint8_t text[TEXT_MAX], want[TEXT_MAX], got[TEXT_MAX], out[ECHO_HOLD_MAX + ECHO_WINDOW];
	struct span needles[5];
	struct echo_set *set;
	static bool ready;
	size_t n_needles = 0, len, to = 0, k;
	struct echo *e;
	struct err err;

	if (!ready) {
		MUST(secret_arena_open(SECRET_ARENA, &err) == 0);
		ready = true;
	}
	if (n < 2)
		return 0;
	for (size_t i = 0; i < 5; i++)
		if (p[0] >> i & 1)
			needles[n_needles++] = span_str(words[i]);
	set = echo_set_new(needles, n_needles);
	MUST(set);
	e = echo_new(set);
	MUST(e);
	echo_set_put(set);
	len = write_text(p + 2, n - 2, text);
	slow(text, len, p[0], want);
	for (size_t at = 0, step; at < len; at += step) {
		step = p[1] == 0 ? len : 1 + (p[1] + at * 7) % p[1];
		step = step < len - at ? step : len - at;
		k = echo_feed(e, SPAN(text + at, step), out);
		memcpy(got + to, out, k);
		to += k;
	}
	k = echo_end(e, out);
	memcpy(got + to, out, k);
	MUST(to + k == len);
	MUST(memcmp(got, want, len) == 0);
	echo_free(e);
	return 0;
}
