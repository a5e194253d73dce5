/* What the guest gets from KVM and libkrun does not ask for: a clock on AMD processors, and large pages.
 *
 * With the split interrupt controller there is no PIT, so the guest's timer is that of its local APIC. Linux takes it
 * without a PIT to check it against only when CPUID offers the TSC deadline mode (apic_needs_pit()); otherwise the check
 * fails, the timer is turned off, and the guest runs without any: sleep(1) never ends. KVM emulates the mode on every
 * processor (KVM_CAP_TSC_DEADLINE_TIMER), but until Linux 6.14 it leaves the bit to the monitor, and libkrun 1.17 sets it
 * on Intel alone. (Without the split controller the guest has the PIT, eleven interrupts, and 0.2 s longer to boot, for
 * measuring the one by the other; 2 s in the lab.)
 *
 * libkrun has no call for either. But it makes its ioctls through the C library, and the loader looks in this program
 * first, which exports ioctl() for that reason (meson.build). */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "vmm/vmm.h"

#ifdef __x86_64__
#define CPUID_FEATURES 1
#define ECX_TSC_DEADLINE (1u << 24) /* Intel SDM, table 3-10 */

static bool offer_deadline;

bool krun_timer_works(void)
{
	AUTO_FD(kvm);

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	offer_deadline = kvm >= 0 && ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	return offer_deadline;
}

static void cpuid_complete(struct kvm_cpuid2 *cpuid)
{
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == CPUID_FEATURES)
			cpuid->entries[i].ecx |= ECX_TSC_DEADLINE;
}

/* Where the host gives large pages only to those who ask (Ubuntu's default), the guest would fault in each 4 KiB. What
 * cannot have them stays as it is. */
static void large_pages(const struct kvm_userspace_memory_region *m)
{
	void *at;

	memcpy(&at, &m->userspace_addr, sizeof(at));
	if (m->memory_size > 0)
		(void)madvise(at, m->memory_size, MADV_HUGEPAGE);
}

/* The C library's has one argument behind the request, whatever it is. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (request == KVM_SET_USER_MEMORY_REGION)
		large_pages(arg);
	if (request == KVM_SET_CPUID2 && offer_deadline)
		cpuid_complete(arg);
	return (int)syscall(SYS_ioctl, fd, request, arg);
}
#else
bool krun_timer_works(void)
{
	return true; /* the architected timer needs no help */
}
#endif
