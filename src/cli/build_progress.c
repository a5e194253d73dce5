/* A terminal gets one line that is drawn again; anything else gets a line at the start, one every 10 s and one at the end
 * of each phase. stdout has nothing but the result, or with --json an object a line for each event. */
#include "cli/build_progress.h"

#include <stdio.h>
#include <string.h>

#include "base/macros.h"

void build_view_init(struct build_view *v, const char *reference, bool quiet, bool json)
{
	v->what[0] = '\0';
	progress_init(&v->p, reference, quiet, json);
}

/* "packages       12 s  installing packages" */
static char *line_of(const struct build_view *v, const struct build_progress *p)
{
	long long s = (long long)p->elapsed_ms / 1000;

	if (p->bytes > 0)
		return xasprintf("    %-9s %4lld s  %.1f MB  %s", build_phase_str[p->phase], s, (double)p->bytes / 1e6, v->what);
	return xasprintf("    %-9s %4lld s  %s", build_phase_str[p->phase], s, v->what);
}

void build_view_progress(void *ctx, const struct build_progress *p)
{
	struct build_view *v = ctx;
	struct strv lines = { 0 };

	if (p->what)
		(void)snprintf(v->what, sizeof(v->what), "%s", p->what);
	if (p->ends) {
		progress_event(&v->p, build_phase_str[p->phase],
			       json_pack("{s:I, s:I}", "got", (json_int_t)p->bytes, "elapsed_ms", (json_int_t)p->elapsed_ms));
		progress_line(&v->p, "    %-9s done in %.1f s", build_phase_str[p->phase], (double)p->elapsed_ms / 1e3);
		v->what[0] = '\0';
		return;
	}
	strv_take(&lines, line_of(v, p));
	progress_draw(&v->p, &lines);
	if (progress_line_is_due(&v->p))
		progress_line(&v->p, "%s", lines.v[0]);
	strv_done(&lines);
}

void build_view_done(struct build_view *v, const struct build_result *r)
{
	double mb = (double)r->layer_bytes / 1e6, s = (double)r->elapsed_ms / 1e3;

	progress_clear(&v->p);
	progress_event(&v->p, "done",
		       json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "digest", r->digest, "was", r->was, "size",
				 (json_int_t)r->disk_allocated, "layer_bytes", (json_int_t)r->layer_bytes, "layers",
				 (json_int_t)r->n_layers, "new", (json_int_t)r->n_new, "elapsed_ms",
				 (json_int_t)r->elapsed_ms));
	if (!v->p.json) {
		if (strcmp(r->was, r->digest) == 0)
			(void)printf("%s %.12s is up to date\n", r->reference, r->digest);
		else if (r->was[0])
			(void)printf("%s %.12s (was %.12s; %zu of %zu layers new, %.1f MB in %.1f s)\n", r->reference, r->digest, r->was,
				     r->n_new, r->n_layers, mb, s);
		else
			(void)printf("%s %.12s (new; %.1f MB in %.1f s)\n", r->reference, r->digest, mb, s);
	}
	if (r->note)
		progress_line(&v->p, "==> %s", r->note);
	if (r->now_default)
		progress_line(&v->p, "==> it is the default image now");
}
