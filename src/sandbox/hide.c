#include "sandbox/hide.h"

#include <errno.h>
#include <sys/prctl.h>
#include <sys/resource.h>

void hide_no_core(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_CORE, &l) < 0)
		return;
	if (l.rlim_max > 1)
		l.rlim_max = 1;
	l.rlim_cur = l.rlim_max;
	(void)setrlimit(RLIMIT_CORE, &l);
}

int hide_process(void)
{
	hide_no_core();
	return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 ? -errno : 0;
}
