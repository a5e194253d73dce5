/* A terminal gets one line that is drawn again; anything else gets a line at the start, one every 10 s and one at the end
 * of each phase. stdout has nothing but the result, or with --json an object a line for each event. */
#include "cli/build_progress.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"

#define LINE_NS (10 * INT64_C(1000000000))
#define WIDTH_DEFAULT 80

static void event(json_t *j)
{
	if (j && json_dumpf(j, stdout, JSON_COMPACT) == 0) {
		(void)fputc('\n', stdout);
		(void)fflush(stdout);
	}
	json_decref(j);
}

void build_view_init(struct build_view *v, const char *reference, bool quiet, bool json)
{
	*v = (struct build_view){ .quiet = quiet, .json = json, .tty = isatty(STDERR_FILENO), .reference = reference };
	v->next_line_ns = now_ns() + LINE_NS;
	if (json)
		event(json_pack("{s:s, s:s}", "event", "start", "reference", reference));
	if (!quiet)
		(void)fprintf(stderr, "==> %s\n", reference);
}

static int width(void)
{
	struct winsize ws;

	return ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col > 20 ? ws.ws_col : WIDTH_DEFAULT;
}

void build_view_clear(struct build_view *v)
{
	if (v->drawn)
		(void)fputs("\r\033[K", stderr);
	v->drawn = false;
}

/* "packages       12 s  installing packages" cut to the terminal's width at a character's border. */
static void draw(struct build_view *v, const struct build_progress *p)
{
	char line[512];
	int n = p->bytes > 0 ? snprintf(line, sizeof(line), "    %-9s %4lld s  %.1f MB  %s", build_phase_str[p->phase],
					(long long)p->elapsed_ms / 1000, (double)p->bytes / 1e6, v->what) :
			       snprintf(line, sizeof(line), "    %-9s %4lld s  %s", build_phase_str[p->phase],
					(long long)p->elapsed_ms / 1000, v->what);

	n = MIN(n, MIN(width() - 1, (int)sizeof(line) - 1));
	while (n > 0 && ((unsigned char)line[n] & 0xc0) == 0x80)
		n--;
	(void)fprintf(stderr, "\r%.*s\033[K", n, line);
	v->drawn = true;
}

void build_view_progress(void *ctx, const struct build_progress *p)
{
	struct build_view *v = ctx;

	if (p->what)
		(void)snprintf(v->what, sizeof(v->what), "%s", p->what);
	if (v->json && p->ends)
		event(json_pack("{s:s, s:s, s:I, s:I}", "event", build_phase_str[p->phase], "reference", v->reference, "got",
				(json_int_t)p->bytes, "elapsed_ms", (json_int_t)p->elapsed_ms));
	if (v->quiet)
		return;
	if (p->ends) {
		build_view_clear(v);
		(void)fprintf(stderr, "    %-9s done in %.1f s\n", build_phase_str[p->phase], (double)p->elapsed_ms / 1e3);
		v->what[0] = '\0';
	} else if (v->tty) {
		draw(v, p);
	} else if (now_ns() >= v->next_line_ns) {
		v->next_line_ns = now_ns() + LINE_NS;
		(void)fprintf(stderr, "    %-9s %lld s  %s\n", build_phase_str[p->phase], (long long)p->elapsed_ms / 1000,
			      v->what);
	}
}

void build_view_done(struct build_view *v, const struct build_result *r)
{
	bool same = strcmp(r->was, r->digest) == 0;

	build_view_clear(v);
	if (v->json) {
		event(json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "event", "done", "reference", r->reference, "digest", r->digest,
				"was", r->was, "size", (json_int_t)r->disk_allocated, "elapsed_ms", (json_int_t)r->elapsed_ms));
	} else if (same) {
		(void)printf("%s %.12s is up to date\n", r->reference, r->digest);
	} else if (r->was[0]) {
		(void)printf("%s %.12s (was %.12s; %.1f MB in %.1f s)\n", r->reference, r->digest, r->was,
			     (double)r->disk_allocated / 1e6, (double)r->elapsed_ms / 1e3);
	} else {
		(void)printf("%s %.12s (new; %.1f MB in %.1f s)\n", r->reference, r->digest, (double)r->disk_allocated / 1e6,
			     (double)r->elapsed_ms / 1e3);
	}
	if (r->now_default && !v->quiet)
		(void)fprintf(stderr, "==> it is the default image now\n");
}

void build_view_error(struct build_view *v, const char *text)
{
	build_view_clear(v);
	if (v->json)
		event(json_pack("{s:s, s:s, s:s}", "event", "error", "reference", v->reference, "reason", text));
	(void)fprintf(stderr, "agent-vm: %s\n", text);
}
