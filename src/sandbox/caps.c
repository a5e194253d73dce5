#include "sandbox/caps.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>

static int caps_get(struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3])
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };

	return syscall(SYS_capget, &h, d) < 0 ? -errno : 0;
}

int caps_effective(uint64_t *ret)
{
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
	int r;

	r = caps_get(d);
	if (r < 0)
		return r;
	*ret = d[0].effective | (uint64_t)d[1].effective << 32;
	return 0;
}

int caps_keep(uint64_t keep, struct err *err)
{
	struct __user_cap_header_struct h = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3];
	int cap, r;

	r = caps_get(d);
	if (r < 0)
		return err_set(err, r, "capabilities: %s", strerror(-r));

	/* The bounding set needs CAP_SETPCAP, so it goes first. A process without it has the set of its user, which only
	 * an exec of a setuid file could use, and no-new-privs forbids that. */
	if (d[0].effective & CAP_BIT(CAP_SETPCAP))
		for (cap = 0; prctl(PR_CAPBSET_READ, cap) >= 0; cap++)
			if (!(keep & CAP_BIT(cap)) && prctl(PR_CAPBSET_DROP, cap) < 0)
				return err_set(err, -errno, "capabilities: bounding set: %s", strerror(errno));
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
		return err_set(err, -errno, "capabilities: ambient set: %s", strerror(errno));

	d[0].permitted &= (uint32_t)keep;
	d[1].permitted &= (uint32_t)(keep >> 32);
	d[0].effective = d[0].permitted;
	d[1].effective = d[1].permitted;
	d[0].inheritable = d[1].inheritable = 0;
	if (syscall(SYS_capset, &h, d) < 0)
		return err_set(err, -errno, "capabilities: %s", strerror(errno));
	return 0;
}
