/* What the guest gets from KVM and libkrun does not ask for: a clock on AMD processors, and large pages.
 *
 * With the split interrupt controller there is no PIT, so the guest's timer is that of its local APIC. Linux takes it
 * without a PIT to check it against only when CPUID offers the TSC deadline mode (apic_needs_pit()); otherwise the check
 * fails, the timer is turned off, and the guest runs without any: sleep(1) never ends. KVM emulates the mode on every
 * processor (KVM_CAP_TSC_DEADLINE_TIMER), but until Linux 6.14 it leaves the bit to the monitor, and libkrun 1.17 sets it
 * on Intel alone. (Without the split controller the guest has the PIT, eleven interrupts, and 0.2 s longer to boot, for
 * measuring the one by the other; 2 s in the lab.)
 *
 * libkrun has no call for either. But it makes its ioctls and mappings through the C library, and the loader looks in this
 * program first, which exports ioctl() and mmap() for that reason (meson.build). */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/fd.h"
#include "vmm/vmm.h"

#ifdef __x86_64__
#define CPUID_FEATURES 1
#define LARGE ((size_t)2 << 20)
#define GUEST_MIN ((size_t)64 << 20) /* half of the least that a VM gets */
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

/* The guest's memory is what libkrun maps of this size without reserving it. KVM uses large pages only where the host's
 * address is as aligned as the guest's, which begins at 0; Linux before 6.7 aligns no such mapping. And some hosts give
 * them only to those who ask (Ubuntu's default). Without them the guest faults in each 4 KiB. */
void *guest_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t at) __asm__("mmap");
void *guest_mmap64(void *addr, size_t n, int prot, int flags, int fd, off_t at) __asm__("mmap64") __attribute__((alias("mmap")));

void *guest_mmap(void *addr, size_t n, int prot, int flags, int fd, off_t at)
{
	bool guest = !addr && (flags & MAP_ANONYMOUS) && (flags & MAP_NORESERVE) && n >= GUEST_MIN && n % LARGE == 0;
	uint8_t *p = (uint8_t *)syscall(SYS_mmap, addr, guest ? n + LARGE : n, prot, flags, fd, at);
	size_t skip = -(uintptr_t)p % LARGE;

	if (!guest || p == MAP_FAILED)
		return p;
	if (skip > 0)
		(void)munmap(p, skip);
	(void)munmap(p + skip + n, LARGE - skip);
	(void)madvise(p + skip, n, MADV_HUGEPAGE);
	return p + skip;
}

/* The C library's has one argument behind the request, whatever it is. */
int ioctl(int fd, unsigned long request, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
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
