#include "guest/oom.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"

#define VMSTAT_MAX (64 << 10)
#define KEY "\noom_kill "

uint64_t oom_kills(void)
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	uint64_t n = 0;
	char *at;

	fd = open("/proc/vmstat", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, VMSTAT_MAX, &text, NULL) < 0)
		return 0;
	at = strstr(text, KEY);
	if (!at)
		return 0;
	at += strlen(KEY);
	at[strcspn(at, "\n")] = '\0';
	(void)str_u64(at, UINT64_MAX, &n);
	return n;
}
