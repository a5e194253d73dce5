/* CONFIG as the guest reads it. */
#include "fuzz.h"

#include <string.h>

#include "guest/config.h"
#include "proto/guestcfg.h"

static void must_be_path(const char *path)
{
	MUST(path && path[0] == '/' && !strstr(path, "/../"));
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	struct err err = { "" };
	struct config c;
	int r = config_parse(SPAN(p, n), &c, &err);

	if (r < 0) {
		MUST(err.text[0] != '\0');
	} else {
		MUST(c.n_binds <= GC_BINDS_MAX && c.n_probes <= GC_PROBES_MAX && c.ports.n <= GC_PORTS_MAX);
		MUST(!c.ports.wanted || c.net.bits4 > 0);
		for (size_t i = 0; i < c.ports.n; i++)
			MUST(c.ports.v[i] > 0);
		for (size_t i = 0; i < c.n_binds; i++) {
			must_be_path(c.binds[i].target);
			MUST(!c.binds[i].sub != !c.binds[i].tag && (!c.binds[i].sub || c.share_tag));
			MUST(!c.binds[i].sub || !strchr(c.binds[i].sub, '/'));
			MUST(i == 0 || strcmp(c.binds[i - 1].target, c.binds[i].target) <= 0);
		}
		for (size_t i = 0; i < c.n_links; i++)
			must_be_path(c.links[i].path);
		for (size_t i = 0; i < c.n_files; i++)
			must_be_path(c.files[i].path);
		for (size_t i = 0; i < c.n_dirs; i++)
			must_be_path(c.dirs[i].path);
		for (size_t i = 0; i < c.n_probes; i++)
			MUST(c.probes[i].port > 0 && (c.probes[i].family == 4 || c.probes[i].family == 6) &&
			     (c.probes[i].tcp || c.probes[i].say.n > 0));
	}
	config_done(&c);
	return 0;
}
