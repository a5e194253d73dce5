/* Memory and processors that we may use. A container's limits count: a VM that is larger than they are would be killed,
 * or starve, however large the machine is. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "cli/launch_args.h"

#define SMALL_FILE_MAX (64 * 1024)

/* Content of a small file, NULL if it cannot be read. */
static char *slurp(const char *path)
{
	AUTO_FD(fd);
	char *text;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, SMALL_FILE_MAX, &text, NULL) < 0)
		return NULL;
	return text;
}

/* The number at the front of @s: 0, or -EINVAL when it is none ("max"). @ret_end: behind it; may be NULL. */
static int number(const char *s, uint64_t *ret, const char **ret_end)
{
	AUTO_FREE(char, digits);
	size_t n = strspn(s, "0123456789");

	digits = xstrndup(s, n);
	if (ret_end)
		*ret_end = s + n;
	return str_u64(digits, UINT64_MAX, ret);
}

/* Lowers the facts to the limits of one cgroup folder (version 2). */
static void apply_limits(const char *dir, struct host_facts *f)
{
	AUTO_FREE(char, cpu_path);
	AUTO_FREE(char, memory_path);
	AUTO_FREE(char, cpu);
	AUTO_FREE(char, memory);
	uint64_t quota, period, bytes;
	const char *rest;

	cpu_path = xasprintf("%s/cpu.max", dir);
	cpu = slurp(cpu_path);
	if (cpu && number(cpu, &quota, &rest) == 0 && *rest == ' ' && number(rest + 1, &period, NULL) == 0 && period) {
		/* Part of a processor counts as one: 1.5 lets two run most of the time. */
		uint64_t cpus = quota / period + (quota % period != 0);

		f->cpus = (unsigned)MIN((uint64_t)f->cpus, MAX(cpus, 1));
	}
	memory_path = xasprintf("%s/memory.max", dir);
	memory = slurp(memory_path);
	if (memory && number(memory, &bytes, NULL) == 0 && bytes >> 20)
		f->memory_mib = MIN(f->memory_mib, bytes >> 20);
}

/* Limits hold for a group and all below it, so every folder up to the top of the tree counts. */
static void apply_cgroups(const char *root, struct host_facts *f)
{
	AUTO_FREE(char, path);
	AUTO_FREE(char, groups);
	AUTO_FREE(char, dir);
	char *line, *save = NULL;
	size_t top;

	path = xasprintf("%s/proc/self/cgroup", root);
	groups = slurp(path);
	if (!groups)
		return;
	for (line = strtok_r(groups, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (str_starts(line, "0::/"))
			break;
	dir = xasprintf("%s/sys/fs/cgroup%s", root, line ? line + strlen("0::") : "/");
	top = strlen(root) + strlen("/sys/fs/cgroup");
	for (;;) {
		char *slash;

		apply_limits(dir, f);
		slash = strrchr(dir, '/');
		if ((size_t)(slash - dir) < top)
			break;
		*slash = '\0';
	}
}

static unsigned cpus_of_affinity(void)
{
	/* The mask must be as large as the kernel's; it says EINVAL until it is. */
	for (int n = 1024; n <= 1024 * 1024; n *= 2) {
		cpu_set_t *set = CPU_ALLOC(n);
		int count = 0;

		if (!set)
			break;
		if (sched_getaffinity(0, CPU_ALLOC_SIZE(n), set) == 0)
			count = CPU_COUNT_S(CPU_ALLOC_SIZE(n), set);
		CPU_FREE(set);
		if (count > 0)
			return (unsigned)count;
		if (errno != EINVAL)
			break;
	}
	return 1;
}

void host_facts_read(const char *root, struct host_facts *ret)
{
	struct host_facts f = { .memory_mib = UINT64_MAX, .cpus = cpus_of_affinity() };
	AUTO_FREE(char, path);
	AUTO_FREE(char, info);
	const char *line;
	uint64_t kib;

	path = xasprintf("%s/proc/meminfo", root);
	info = slurp(path);
	line = info ? strstr(info, "MemTotal:") : NULL;
	if (line) {
		line += strlen("MemTotal:");
		if (number(line + strspn(line, " \t"), &kib, NULL) == 0 && kib >> 10)
			f.memory_mib = kib >> 10;
	}
	apply_cgroups(root, &f);
	if (f.memory_mib == UINT64_MAX)
		f.memory_mib = 0;
	*ret = f;
}
