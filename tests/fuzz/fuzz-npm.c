/* Metadata of npm packages, as a registry sends it: what is taken is a name, a version and an address that may be asked. */
#include "fuzz.h"

#include <errno.h>
#include <string.h>

#include "base/str.h"
#include "image/npm.h"
#include "image/pins.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct npm_version v = { NULL };
	char *text = xstrndup((const char *)p, n), *name, *version, *found;
	uint8_t sum[NPM_SHA512];
	struct err err = { 0 };

	if (npm_metadata_parse((const char *)p, n, "http://127.0.0.1:1/npm", &v, &err) == 0) {
		char *spec = xasprintf("%s@%s", v.name, v.version);

		MUST(npm_spec_parse(spec, &name, &version) == 0 && strcmp(name, v.name) == 0);
		MUST(str_starts(v.tarball, "https://") || str_starts(v.tarball, "http://127.0.0.1:1"));
		free(spec);
		free(name);
		free(version);
		npm_version_done(&v);
	} else {
		MUST(err.text[0] && !v.name);
	}
	if (npm_dependency((const char *)p, n, "d", &name, &version, &err) == 0) {
		MUST(*name && *version && !strpbrk(version, "/?#%@ "));
		free(name);
		free(version);
	}
	if (npm_integrity_parse(text, sum) == 0) {
		uint8_t again[NPM_SHA512];
		char *one = npm_integrity_text(sum);

		MUST(npm_integrity_parse(one, again) == 0 && memcmp(sum, again, sizeof(sum)) == 0 && strstr(text, one));
		free(one);
	}
	found = npmrc_registry(text);
	MUST(!found || !strpbrk(found, "\r\n \t\""));
	free(found);
	free(text);
	return 0;
}
