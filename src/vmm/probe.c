/* Questions that need a process of their own, for the launcher and for doctor.
 *
 * --probe-kvm: a /dev/kvm that opens is not yet one that works. So some code is run, first as a processor starts, in real
 * mode, then in 64-bit mode with paging, each time up to an OUT that must show the right byte. A KVM that hangs instead is
 * ended by an alarm.
 *
 * The 64-bit code holds a LOCK CMPXCHG16B. Linux's allocator runs it on every boot, hardware runs it like any other
 * instruction, and KVM's instruction emulator does not know it. Seen on a paravirtual host (kvm-pvm), which emulates what
 * an ordinary guest's kernel does: everything else passes, and a kernel dies there after a few milliseconds. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/macros.h"
#include "vmm/vmm.h"

#define LIMIT_S 2
#define PORT 0x10
#define CPUID_MAX 256

/* Guest-physical layout. The page tables map the first 2 MiB onto themselves with one large page. */
#define RAM_SIZE 0x10000
#define CODE 0x1000
#define PML4 0x2000
#define PDPT 0x3000
#define PD 0x4000
#define DATA 0x5000

#define PTE_P_W 0x3
#define PTE_LARGE 0x80
#define CR0_PE (1u << 0)
#define CR0_PG (1u << 31)
#define CR4_PAE (1u << 5)
#define EFER_LME (1u << 8)
#define EFER_LMA (1u << 10)

/* mov $4, %al; add $3, %al; out %al, $PORT; hlt: the same bytes in 16 and in 64 bits */
#define ADD_AND_OUT 0xb0, 0x04, 0x04, 0x03, 0xe6, PORT, 0xf4
#define ANSWER 7

static const uint8_t real_code[] = { ADD_AND_OUT };
static const uint8_t long_code[] = { 0xf0, 0x48, 0x0f, 0xc7, 0x0f, /* lock cmpxchg16b (%rdi) */ ADD_AND_OUT };

struct machine {
	int kvm, vm, cpu;
	uint8_t *ram;
	struct kvm_run *run;
	size_t run_size;
};

static void on_alarm(int sig)
{
}

/* Capabilities without which libkrun gives up. */
static int check_caps(int kvm, struct err *err)
{
	static const struct {
		int cap;
		const char *name;
	} caps[] = {
		{ KVM_CAP_USER_MEMORY, "user memory" }, { KVM_CAP_IRQCHIP, "interrupt controller" },
		{ KVM_CAP_SPLIT_IRQCHIP, "split interrupt controller" }, { KVM_CAP_IOEVENTFD, "ioeventfd" },
		{ KVM_CAP_IRQFD, "irqfd" }, { KVM_CAP_SET_TSS_ADDR, "TSS address" }, { KVM_CAP_EXT_CPUID, "CPUID" },
	};
	int v = ioctl(kvm, KVM_GET_API_VERSION, 0);

	if (v < 0)
		return err_set(err, -errno, "/dev/kvm: not KVM: %s", strerror(errno));
	if (v != KVM_API_VERSION)
		return err_set(err, -ENOTSUP, "/dev/kvm: API version %d, needed is %d", v, KVM_API_VERSION);
	for (size_t i = 0; i < ARRAY_SIZE(caps); i++)
		if (ioctl(kvm, KVM_CHECK_EXTENSION, caps[i].cap) <= 0)
			return err_set(err, -ENOTSUP, "/dev/kvm: this host's KVM has no %s", caps[i].name);
	return 0;
}

static int make(struct machine *m, struct err *err)
{
	struct kvm_userspace_memory_region slot = { .memory_size = RAM_SIZE };
	/* kvm_cpuid2 ends in an array that ABI users size themselves. */
	_Alignas(struct kvm_cpuid2) char space[sizeof(struct kvm_cpuid2) + CPUID_MAX * sizeof(struct kvm_cpuid_entry2)];
	struct kvm_cpuid2 *cpuid = memset(space, 0, sizeof(space));
	int n;

	cpuid->nent = CPUID_MAX;
	m->vm = ioctl(m->kvm, KVM_CREATE_VM, 0);
	if (m->vm < 0)
		return err_set(err, -errno, "/dev/kvm: no VM can be made: %s", strerror(errno));
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m->ram == MAP_FAILED)
		return err_set(err, -errno, "memory for the probe: %s", strerror(errno));
	slot.userspace_addr = (uintptr_t)m->ram;
	if (ioctl(m->vm, KVM_SET_TSS_ADDR, 0xfffbd000) < 0)
		return err_set(err, -errno, "/dev/kvm: the TSS address is refused: %s", strerror(errno));
	if (ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &slot) < 0)
		return err_set(err, -errno, "/dev/kvm: no memory can be given to a VM: %s", strerror(errno));
	m->cpu = ioctl(m->vm, KVM_CREATE_VCPU, 0);
	if (m->cpu < 0)
		return err_set(err, -errno, "/dev/kvm: no virtual processor can be made: %s", strerror(errno));
	n = ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (n < (int)sizeof(*m->run))
		return err_set(err, -EIO, "/dev/kvm: the state of a virtual processor has %d bytes", n);
	m->run_size = (size_t)n;
	m->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->cpu, 0);
	if (m->run == MAP_FAILED)
		return err_set(err, -errno, "/dev/kvm: map a virtual processor: %s", strerror(errno));
	if (ioctl(m->kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		return err_set(err, -errno, "/dev/kvm: CPUID cannot be read: %s", strerror(errno));
	if (cpuid->nent == 0)
		return err_set(err, -ENOTSUP, "/dev/kvm: this host's KVM offers no CPUID");
	if (ioctl(m->cpu, KVM_SET_CPUID2, cpuid) < 0)
		return err_set(err, -errno, "/dev/kvm: CPUID cannot be set: %s", strerror(errno));
	return 0;
}

static int set_state(const struct machine *m, bool long_mode, struct err *err)
{
	struct kvm_regs regs = { .rip = CODE, .rflags = 2, .rsp = RAM_SIZE, .rdi = DATA };
	struct kvm_sregs s;
	uint64_t *table;

	if (ioctl(m->cpu, KVM_GET_SREGS, &s) < 0)
		return err_set(err, -errno, "/dev/kvm: registers cannot be read: %s", strerror(errno));
	s.cs.base = 0;
	s.cs.selector = 0;
	memcpy(m->ram + CODE, real_code, sizeof(real_code));
	if (long_mode) {
		struct kvm_segment flat = { .limit = UINT32_MAX, .present = 1, .s = 1, .g = 1 };

		memcpy(m->ram + CODE, long_code, sizeof(long_code));
		table = (uint64_t *)(m->ram + PML4);
		*table = PDPT | PTE_P_W;
		table = (uint64_t *)(m->ram + PDPT);
		*table = PD | PTE_P_W;
		table = (uint64_t *)(m->ram + PD);
		*table = PTE_P_W | PTE_LARGE;
		s.cr3 = PML4;
		s.cr4 |= CR4_PAE;
		s.cr0 |= CR0_PE | CR0_PG;
		s.efer |= EFER_LME | EFER_LMA;
		flat.selector = 0x10;
		flat.type = 3; /* data, writable, accessed */
		flat.db = 1;
		s.ds = s.es = s.fs = s.gs = s.ss = flat;
		flat.selector = 0x8;
		flat.type = 11; /* code, readable, accessed */
		flat.db = 0;
		flat.l = 1;
		s.cs = flat;
	}
	if (ioctl(m->cpu, KVM_SET_SREGS, &s) < 0 || ioctl(m->cpu, KVM_SET_REGS, &regs) < 0)
		return err_set(err, -errno, "/dev/kvm: registers cannot be set for %s mode: %s", long_mode ? "64-bit" : "real",
			       strerror(errno));
	return 0;
}

static int run_code(const struct machine *m, const char *mode, struct err *err)
{
	const struct kvm_run *run = m->run;
	uint8_t got;

	if (ioctl(m->cpu, KVM_RUN, 0) < 0) {
		if (errno == EINTR)
			return err_set(err, -ETIME, "/dev/kvm: a few instructions in %s mode did not end within %d s", mode,
				       LIMIT_S);
		return err_set(err, -errno, "/dev/kvm: a virtual processor does not run in %s mode: %s", mode, strerror(errno));
	}
	if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR && run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
		return err_set(err, -ENOTSUP, "/dev/kvm: this host emulates the instructions of guests and does not know one that "
			       "Linux needs (%s mode)", mode);
	if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
		return err_set(err, -EIO, "/dev/kvm: the first instructions in %s mode failed inside KVM (internal error %u)",
			       mode, run->internal.suberror);
	if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
		return err_set(err, -EIO, "/dev/kvm: the processor refused to enter %s mode (hardware reason %#llx)", mode,
			       run->fail_entry.hardware_entry_failure_reason);
	if (run->exit_reason != KVM_EXIT_IO)
		return err_set(err, -EIO, "/dev/kvm: the first instructions in %s mode ended with exit reason %u in place of "
			       "their result", mode, run->exit_reason);
	got = *((const uint8_t *)run + run->io.data_offset);
	if (run->io.direction != KVM_EXIT_IO_OUT || run->io.port != PORT || run->io.size != 1 || got != ANSWER)
		return err_set(err, -EIO, "/dev/kvm: 4 + 3 in %s mode gave %u at port %#x", mode, got, run->io.port);
	return 0;
}

static int try_kvm(struct err *err)
{
	struct machine m = { .kvm = -1, .vm = -1, .cpu = -1 };
	struct sigaction sa = { .sa_handler = on_alarm }; /* without SA_RESTART: KVM_RUN ends with EINTR */
	int r;

	m.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (m.kvm < 0 && errno == EACCES)
		return err_set(err, -EACCES, "/dev/kvm: permission denied; join its group (usually: sudo usermod -aG kvm $USER, "
			       "then sign in again)");
	if (m.kvm < 0 && errno == ENOENT)
		return err_set(err, -ENOENT, "/dev/kvm: not there; switch virtualization on in the firmware, or load kvm_intel "
			       "or kvm_amd");
	if (m.kvm < 0)
		return err_set(err, -errno, "/dev/kvm: %s", strerror(errno));
	(void)sigaction(SIGALRM, &sa, NULL);
	(void)alarm(LIMIT_S);
	r = check_caps(m.kvm, err);
	if (r < 0)
		return r;
	r = make(&m, err);
	if (r < 0)
		return r;
	r = set_state(&m, false, err);
	if (r == 0)
		r = run_code(&m, "real", err);
	if (r == 0)
		r = set_state(&m, true, err);
	if (r == 0)
		r = run_code(&m, "64-bit", err);
	/* The process ends now; the kernel takes the machine down with its descriptors. */
	return r;
}

static int answer(int r, const struct err *err)
{
	(void)puts(r < 0 ? err->text : "usable");
	return r < 0 ? 1 : 0;
}

int probe_kvm(void)
{
	struct err err;

	return answer(try_kvm(&err), &err);
}

int probe_libkrun(const char *path)
{
	struct err err;

	return answer(krun_open(path, &err), &err);
}

int probe_kernel(const char *path, const char *to)
{
	AUTO_FREE(char, fresh);
	AUTO_FD(fd);
	struct vmm_kernel k;
	struct err err;
	int r;

	r = kernel_open(path, &k, &err);
	if (r < 0)
		return answer(r, &err);
	/* A name of our own: two first launches at once must not write into one file. */
	fresh = xasprintf("%s.%d", to, (int)getpid());
	(void)unlink(fresh);
	fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	r = fd < 0 ? -errno : kernel_elf_write(&k, fd);
	/* The next launches take it as it is, so it must be whole also after a crash of the host. */
	if (r == 0 && (fsync(fd) < 0 || rename(fresh, to) < 0))
		r = -errno;
	if (r < 0 && fd >= 0)
		(void)unlink(fresh);
	return r < 0 ? answer(err_set(&err, r, "%s: %s", to, strerror(-r)), &err) : 0;
}

int probe_krunfw(const char *path)
{
	static const char mark[] = "Linux version ";
	AUTO_FREE(char, release);
	struct vmm_kernel k;
	struct err err;
	const char *at, *end;
	uint32_t entry;
	int r;

	r = kernel_open(path, &k, &err);
	if (r < 0)
		return answer(r, &err);
	at = memmem(k.image, k.size, mark, sizeof(mark) - 1);
	if (at) {
		at += sizeof(mark) - 1;
		end = memchr(at, ' ', MIN((size_t)64, k.size - (size_t)(at - (const char *)k.image)));
		if (end)
			release = str_escape(at, (size_t)(end - at));
	}
	(void)printf("libkrunfw ABI 5, kernel %s, %zu KiB, %s\n", release ? release : "of unknown version", k.size >> 10,
		     kernel_pvh_entry(&k, &entry) == 0 ? "boots in QEMU" : "no PVH entry: does not boot in QEMU");
	return 0;
}
