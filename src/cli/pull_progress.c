#include "cli/pull_progress.h"

#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "base/macros.h"

#define DRAW_NS INT64_C(100000000)
#define EVENT_NS INT64_C(1000000000)
#define RATE_NS INT64_C(500000000) /* shorter spans say nothing */
#define RATE_OLD 0.7
#define BAR 22
#define MB 1e6
#define LAYERS_SHOWN 8
#define WAIT_NS INT64_C(2000000000)

void pull_view_init(struct pull_view *v, const char *reference, bool quiet, bool json)
{
	*v = (struct pull_view){ .next_draw_ns = 0 };
	progress_init(&v->p, reference, quiet, json);
}

void pull_view_done(struct pull_view *v)
{
	progress_done(&v->p);
	free(v->layers);
	v->layers = NULL;
}

static void rate_take(struct rate *r, uint64_t bytes, int64_t now)
{
	double per_s;

	if (r->at_ns == 0 || bytes < r->bytes) {
		*r = (struct rate){ bytes, now, 0 };
		return;
	}
	if (now - r->at_ns < RATE_NS)
		return;
	per_s = (double)(bytes - r->bytes) * 1e9 / (double)(now - r->at_ns);
	r->per_s = r->per_s > 0 ? RATE_OLD * r->per_s + (1 - RATE_OLD) * per_s : per_s;
	r->bytes = bytes;
	r->at_ns = now;
}

struct sums {
	uint64_t got, size;	   /* of all blobs, each once */
	uint64_t done_bytes;	   /* of layers that are whole */
	size_t loaded, unpacked;   /* layers */
};

static bool is_repeated(const struct pull_state *st, size_t layer)
{
	for (size_t i = 0; i < layer; i++)
		if (strcmp(st->layers[i].blob, st->layers[layer].blob) == 0)
			return true;
	return false;
}

static struct sums sums_of(const struct pull_state *st)
{
	struct sums s = { 0 };

	for (size_t i = 0; i < st->n_layers; i++) {
		const struct pull_layer *l = &st->layers[i];

		s.loaded += l->loaded;
		s.unpacked += l->done;
		if (is_repeated(st, i))
			continue;
		s.got += l->got;
		s.size += l->bytes;
		s.done_bytes += l->loaded ? l->bytes : 0;
	}
	return s;
}

static char *left_text(const struct rate *r, uint64_t left)
{
	double s;

	if (left == 0 || r->per_s < 1)
		return xstrdup("");
	s = (double)left / r->per_s;
	if (s < 60)
		return xasprintf("%.0f s left", s + 0.5);
	return s < 6000 ? xasprintf("%.0f min left", s / 60 + 0.5) : xasprintf("%.0f h left", s / 3600 + 0.5);
}

static bool is_being_checked(const struct pull_layer *l)
{
	return !l->has_part && l->checked > 0;
}

static void layer_line(const struct pull_view *v, const struct pull_state *st, size_t i, struct strv *lines)
{
	const struct pull_layer *l = &st->layers[i];
	AUTO_FREE(char, bar);

	if (is_being_checked(l)) {
		bar = progress_bar(l->checked, l->had, BAR);
		strv_addf(lines, "    %.12s  %s %5.1f/%.1f MB  checking what is here", l->blob, bar, (double)l->checked / MB,
			  (double)l->had / MB);
		return;
	}
	bar = progress_bar(l->got, l->bytes, BAR);
	strv_addf(lines, "    %.12s  %s %5.1f/%.1f MB  %.1f MB/s", l->blob, bar, (double)l->got / MB, (double)l->bytes / MB,
		  v->layers[i].per_s / MB);
}

/* What is here and waits for its check is not. */
static bool is_under_way(const struct pull_layer *l)
{
	return !l->loaded && (is_being_checked(l) || l->has_part || (l->got > 0 && l->got != l->had));
}

/* Layers that are done fold into one line; those that nobody loads yet are not shown. */
static void draw(struct pull_view *v, const struct pull_state *st, const struct sums *s)
{
	struct strv lines = { 0 };
	AUTO_FREE(char, head);
	AUTO_FREE(char, bar);
	AUTO_FREE(char, left);
	size_t shown = 0;

	head = xasprintf("%zu of %zu layers done", s->loaded, st->n_layers);
	strv_addf(&lines, "    %-46s %7.1f MB", head, (double)s->done_bytes / MB);
	for (size_t i = 0; i < st->n_layers && shown < LAYERS_SHOWN; i++)
		if (is_under_way(&st->layers[i]) && !is_repeated(st, i)) {
			layer_line(v, st, i, &lines);
			shown++;
		}
	if (st->unpacking < st->n_layers) {
		const struct pull_layer *l = &st->layers[st->unpacking];

		bar = progress_bar(l->unpacked, l->bytes, BAR);
		strv_addf(&lines, "    %-12s  %s  layer %zu of %zu%s%s", "disk", bar, st->unpacking + 1, st->n_layers,
			  *st->entry ? ", " : "", st->entry);
	} else {
		strv_addf(&lines, "    %-12s  writing it out", "disk");
	}
	left = left_text(&v->total, s->size - s->got);
	if (s->got < s->size)
		strv_addf(&lines, "    total  %.1f/%.1f MB   %.1f MB/s   %s", (double)s->got / MB, (double)s->size / MB,
			  v->total.per_s / MB, left);
	progress_draw(&v->p, &lines);
	strv_done(&lines);
}

static void plain_line(struct pull_view *v, const struct pull_state *st, const struct sums *s)
{
	AUTO_FREE(char, left);

	left = left_text(&v->total, s->size - s->got);
	for (size_t i = 0; i < st->n_layers; i++)
		if (is_being_checked(&st->layers[i]) && !is_repeated(st, i)) {
			progress_line(&v->p, "    checking what is here of %.12s: %.1f/%.1f MB", st->layers[i].blob,
				      (double)st->layers[i].checked / MB, (double)st->layers[i].had / MB);
			return;
		}
	if (s->got < s->size)
		progress_line(&v->p, "    %.1f/%.1f MB, %.1f MB/s%s%s; %zu of %zu layers on the disk", (double)s->got / MB,
			      (double)s->size / MB, v->total.per_s / MB, *left ? ", " : "", left, s->unpacked, st->n_layers);
	else
		progress_line(&v->p, "    disk: %zu of %zu layers", s->unpacked, st->n_layers);
}

static json_int_t since_ms(const struct pull_state *st)
{
	return (json_int_t)((now_ns() - st->began_ns) / 1000000);
}

static void layer_event(struct pull_view *v, const struct pull_state *st, size_t i)
{
	const struct pull_layer *l = &st->layers[i];

	progress_event(&v->p, "layer",
		       json_pack("{s:s, s:I, s:I, s:I}", "digest", l->blob, "size", (json_int_t)l->bytes, "got",
				 (json_int_t)l->got, "elapsed_ms", since_ms(st)));
}

static void disk_event(struct pull_view *v, const struct pull_state *st, const struct sums *s)
{
	progress_event(&v->p, "disk",
		       json_pack("{s:I, s:I, s:I}", "size", (json_int_t)st->n_layers, "got", (json_int_t)s->unpacked,
				 "elapsed_ms", since_ms(st)));
}

static void on_known(struct pull_view *v, const struct pull_state *st, const struct sums *s)
{
	v->layers = xcalloc(st->n_layers, sizeof(*v->layers));
	progress_event(&v->p, "manifest",
		       json_pack("{s:s, s:I, s:I, s:I, s:I}", "digest", st->served, "layers", (json_int_t)st->n_layers, "size",
				 (json_int_t)s->size, "got", (json_int_t)s->got, "elapsed_ms", since_ms(st)));
	if (!v->p.tty)
		progress_line(&v->p, "    %.12s, %zu layer%s, %.1f MB, %.1f MB of it here", st->served, st->n_layers,
			      st->n_layers == 1 ? "" : "s", (double)s->size / MB, (double)s->got / MB);
}

static void on_layer_in(struct pull_view *v, const struct pull_state *st, size_t layer, const struct sums *s)
{
	layer_event(v, st, layer);
	if (s->loaded == st->n_layers && !v->p.tty)
		progress_line(&v->p, "    layers    done in %.1f s", (double)since_ms(st) / 1e3);
}

/* Nothing is known yet: say what is waited for, unless it comes at once. */
static void wait_line(struct pull_view *v, const struct pull_state *st, int64_t now)
{
	struct strv lines = { 0 };
	static const char *const local[] = { "-", "oci:", "oci-archive:", "docker-archive:" };
	AUTO_FREE(char, text);

	if (now - st->began_ns < WAIT_NS)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(local) && !text; i++)
		if (str_starts(st->reference, local[i]))
			text = xasprintf("    reading %s", i == 0 ? "standard input" : v->p.reference);
	if (!text)
		text = xasprintf("    waiting for %.*s to answer", (int)strcspn(v->p.reference, "/"), v->p.reference);
	if (v->p.tty && now >= v->next_draw_ns) {
		v->next_draw_ns = now + DRAW_NS;
		strv_addf(&lines, "%s  %.0f s", text, (double)(now - st->began_ns) / 1e9);
		progress_draw(&v->p, &lines);
		strv_done(&lines);
	} else if (!v->p.tty && (!v->waits || progress_line_is_due(&v->p))) {
		progress_line(&v->p, "%s", text);
	}
	v->waits = true;
}

void pull_view_progress(void *ctx, const struct pull_state *st, enum pull_event e, size_t layer)
{
	struct pull_view *v = ctx;
	struct sums s = sums_of(st);
	int64_t now = now_ns();

	switch (e) {
	case PULL_KNOWN:
		on_known(v, st, &s);
		break;
	case PULL_LAYER_IN:
		on_layer_in(v, st, layer, &s);
		break;
	case PULL_DISK_MADE:
		disk_event(v, st, &s);
		if (!v->p.tty)
			progress_line(&v->p, "    disk      done in %.1f s", (double)since_ms(st) / 1e3);
		break;
	case PULL_WAITS:
		progress_line(&v->p, IMAGES_WAITS);
		return;
	case PULL_TICK:
		break;
	}
	if (!v->layers) {
		wait_line(v, st, now);
		return;
	}
	rate_take(&v->total, s.got, now);
	for (size_t i = 0; i < st->n_layers; i++)
		rate_take(&v->layers[i], st->layers[i].got, now);
	if (v->p.json && now >= v->next_event_ns) {
		v->next_event_ns = now + EVENT_NS;
		for (size_t i = 0; i < st->n_layers; i++)
			if (!st->layers[i].loaded && st->layers[i].got > 0)
				layer_event(v, st, i);
		disk_event(v, st, &s);
	}
	if (v->p.tty && now >= v->next_draw_ns) {
		v->next_draw_ns = now + DRAW_NS;
		draw(v, st, &s);
	} else if (progress_line_is_due(&v->p)) {
		plain_line(v, st, &s);
	}
}

char *pull_result_text(const struct pull_result *r)
{
	AUTO_FREE(char, ref);
	AUTO_FREE(char, was);
	double mb = (double)r->loaded / MB, s = (double)r->elapsed_ms / 1e3;

	ref = str_escape(r->reference, strlen(r->reference));
	was = r->was[0] ? xasprintf("was %.12s", r->was) : xstrdup("new");
	if (strcmp(r->was, r->digest) == 0 && !r->made)
		return xasprintf("%s %.12s is up to date", ref, r->digest);
	if (strcmp(r->was, r->digest) == 0)
		return xasprintf("%s %.12s (its disk was made again in %.1f s)", ref, r->digest, s);
	if (!r->made)
		return xasprintf("%s %.12s (%s; its disk was there)", ref, r->digest, was);
	return xasprintf("%s %.12s (%s; %zu of %zu layers new, %.1f MB in %.1f s)", ref, r->digest, was, r->n_new, r->n_layers,
			 mb, s);
}

void pull_view_result(struct pull_view *v, const struct pull_result *r, bool on_stderr)
{
	AUTO_FREE(char, text);

	progress_clear(&v->p);
	progress_event(&v->p, "done",
		       json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "digest", r->digest, "was", r->was, "size",
				 (json_int_t)r->disk_allocated, "got", (json_int_t)r->loaded, "layers",
				 (json_int_t)r->n_layers, "new", (json_int_t)r->n_new, "elapsed_ms", (json_int_t)r->elapsed_ms));
	text = pull_result_text(r);
	if (on_stderr)
		progress_line(&v->p, "==> %s", text);
	else if (!v->p.json)
		(void)printf("%s\n", text);
}
