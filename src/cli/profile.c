#include "cli/profile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/macros.h"

struct line {
	const char *name;
	int64_t from, to;
};

int profile_wanted(void)
{
	const char *v = getenv("AGENT_VM_PROFILE");

	if (!v || str_switch(v) == 0)
		return 0;
	return strcasecmp(v, "json") == 0 ? 2 : 1;
}

int64_t profile_cpu_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* A phase that the guest timed on its own clock, which began when its kernel did: placed before @end, the moment at which
 * its report came, by its distance from the last one of that report. */
static struct line guest_phase(const struct run *r, const char *name, int64_t end, int64_t guest_end)
{
	size_t n;
	const struct run_phase *ph = run_phases(r, &n);

	for (size_t i = 0; i < n; i++)
		if (strcmp(ph[i].name, name) == 0)
			return (struct line){ name, end - guest_end + ph[i].start_ns,
					      end - guest_end + ph[i].start_ns + ph[i].duration_ns };
	return (struct line){ name, 0, 0 };
}

/* The last phase of the report in HELLO ends with that frame. */
static struct line hello_phase(const struct run *r, int64_t at)
{
	size_t n;
	const struct run_phase *ph = run_phases(r, &n);

	for (size_t i = 0; i < n; i++)
		if (strcmp(ph[i].name, "hello") == 0)
			return (struct line){ "hello", at - ph[i].duration_ns, at };
	return (struct line){ "hello", 0, 0 };
}

/* The end of what the guest reported with READY; the hook comes later. */
static int64_t guest_end(const struct run *r)
{
	int64_t end = 0;
	size_t n;
	const struct run_phase *ph = run_phases(r, &n);

	for (size_t i = 0; i < n; i++)
		if (strcmp(ph[i].name, "hook") != 0)
			end = MAX(end, ph[i].start_ns + ph[i].duration_ns);
	return end;
}

/* The guest tells the moment at which the hook ended; it begins with what becomes the agent. */
static struct line hook_phase(const struct run *r, const struct run_times *t, int64_t guest_end)
{
	struct line l = guest_phase(r, "hook", t->ready, guest_end);

	return (struct line){ "hook", l.from == 0 ? 0 : t->exec, l.from };
}

void profile_print(const struct profile *p, const struct run *r, int mode)
{
	static const struct run_times none;
	const struct run_times *t = r ? run_times(r) : &none;
	int64_t end = r ? guest_end(r) : 0;
	struct line hello = r ? hello_phase(r, t->hello) : (struct line){ "hello", 0, 0 };
	const struct line lines[] = {
		{ "parse", p->start, p->parsed },
		{ "preflight", p->parsed, p->preflight },
		{ "image", p->preflight, p->image },
		{ "spawn", p->image, p->spawned },
		{ "vmm", p->spawned, t->running },
		{ "kernel", t->running, hello.from > t->running ? hello.from : t->hello },
		hello,
		{ "config", t->hello, t->ready },
		r ? guest_phase(r, "mounts", t->ready, end) : (struct line){ "mounts", 0, 0 },
		r ? guest_phase(r, "network", t->ready, end) : (struct line){ "network", 0, 0 },
		r ? guest_phase(r, "files", t->ready, end) : (struct line){ "files", 0, 0 },
		r ? guest_phase(r, "probe", t->ready, end) : (struct line){ "probe", 0, 0 },
		r ? hook_phase(r, t, end) : (struct line){ "hook", 0, 0 },
		{ "agent-first-byte", t->exec, t->first_byte },
		{ "agent", t->exec, t->exit },
		{ "shutdown", p->down, t->gone },
		{ "report", t->gone, p->reported },
		{ "cleanup", p->reported, p->cleaned },
		{ "total", p->start, p->cleaned },
	};
	const char *sep = "";

	if (mode == 2)
		(void)fprintf(stderr, "{\"phases\":[");
	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		const struct line *l = &lines[i];
		double start = (double)(l->from - p->start) / 1e6, duration = (double)(l->to - l->from) / 1e6;

		if (l->from == 0 || l->to < l->from)
			continue;
		if (mode == 2)
			(void)fprintf(stderr, "%s{\"phase\":\"%s\",\"start_ms\":%.1f,\"duration_ms\":%.1f}", sep, l->name,
				      start, duration);
		else
			(void)fprintf(stderr, "profile %s %.1f %.1f\n", l->name, start, duration);
		sep = ",";
	}
	if (mode == 2)
		(void)fprintf(stderr, "],\"launcher_cpu_before_vmm_ms\":%.1f}\n", (double)p->cpu_before_vmm_ns / 1e6);
	else
		(void)fprintf(stderr, "profile-cpu launcher-before-vmm %.1f\n", (double)p->cpu_before_vmm_ns / 1e6);
}
