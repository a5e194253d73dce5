/* References: what is taken has parts by the grammar, and its full form means the same. */
#include "fuzz.h"

#include <string.h>

#include "base/macros.h"
#include "base/str.h"
#include "image/ref.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	AUTO_FREE(char, text);
	AUTO_FREE(char, full);
	AUTO_FREE(char, again);
	struct ref r, r2;
	struct err err;

	text = xstrndup((const char *)p, n);
	if (ref_parse(text, &r, &err) < 0) {
		MUST(err.text[0] && !strchr(err.text, '\n') && !strchr(err.text, '\033'));
		return 0;
	}
	MUST(*r.domain && *r.path && (r.tag || r.digest) && *ref_api_host(&r));
	MUST(!strchr(r.domain, '/') && strspn(r.path, "abcdefghijklmnopqrstuvwxyz0123456789._-/") == strlen(r.path));
	MUST(!strstr(r.path, "..") && r.path[0] != '/' && !strstr(r.path, "//"));
	MUST(!r.tag || ref_tag_is_good(r.tag));
	MUST(!r.digest || ref_digest_is_good(r.digest));
	full = ref_full(&r);
	MUST(ref_parse(full, &r2, &err) == 0);
	again = ref_full(&r2);
	MUST(strcmp(full, again) == 0);
	ref_done(&r);
	ref_done(&r2);
	return 0;
}
