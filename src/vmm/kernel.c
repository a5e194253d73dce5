/* The kernel inside libkrunfw, and the ELF file that monitors boot it from.
 *
 * libkrunfw is a shared library whose data is one kernel as it lies in memory: no ELF headers, no sections. QEMU wants
 * an ELF file, and starts it in 32-bit protected mode at the address in a PVH note (Xen's, type 18). That note is part
 * of the image; so the file is the image behind one page of headers. libkrun takes the same file and starts it in 64-bit
 * mode at the ELF header's entry, which QEMU does not look at:
 *
 *    0      64          176     200    4096
 *   +------+-----------+-------+------+---------------------+
 *   | ehdr | PT_LOAD,  | note  | zero | the image, loaded   |
 *   |      | PT_NOTE   |       |      | at its own address  |
 *   +------+-----------+-------+------+---------------------+
 *
 * For QEMU it is written into a memfd, once a start: 21 MB take about 10 ms, which is what reading the library costs
 * anyway. For libkrun it is kept (cli/monitor.h). */
#include <assert.h>
#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "vmm/vmm.h"

#define KRUNFW_SONAME "libkrunfw.so.5" /* the name under which libkrun asks the loader for it */
#define KRUNFW_ABI 5
#define KERNEL_MIN (1 << 20)
#define KERNEL_MAX (256 << 20)	      /* twelve times today's; QEMU's memory for it is below 4 GiB */
#define KERNEL_TOP (UINT64_C(1) << 30) /* below the first hole for devices, so all monitors can place it */
#define PAGE 4096

#define XEN_ELFNOTE_PHYS32_ENTRY 18

struct pvh_note {
	Elf64_Nhdr head;
	char name[4];
	uint64_t entry;
} __attribute__((packed));

int kernel_open(const char *path, struct vmm_kernel *ret, struct err *err)
{
	AUTO_FREE(char, shown);
	char *(*get_kernel)(uint64_t *, uint64_t *, size_t *);
	int (*get_version)(void);
	struct vmm_kernel k = { 0 };
	struct stat st;
	void *lib, *again;
	int v;

	shown = str_escape(path, strlen(path));
	/* The loader's own text for this says "cannot open shared object file" also when a library that it needs is
	 * missing. */
	if (stat(path, &st) < 0)
		return err_set(err, -errno, "%s: %s; libkrunfw is looked for there", shown, strerror(errno));
	lib = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
	if (!lib) {
		AUTO_FREE(char, text);
		const char *e = dlerror();

		text = str_escape(e, strlen(e));
		return err_set(err, -ENOEXEC, "%s: not a library that can be loaded; %s", shown, text);
	}
	*(void **)&get_kernel = dlsym(lib, "krunfw_get_kernel");
	*(void **)&get_version = dlsym(lib, "krunfw_get_version");
	if (!get_kernel || !get_version)
		return err_set(err, -EINVAL, "%s: this is not libkrunfw: it has no function %s; install libkrunfw 5", shown,
			       get_kernel ? "krunfw_get_version" : "krunfw_get_kernel");
	v = get_version();
	if (v != KRUNFW_ABI)
		return err_set(err, -EINVAL, "%s: libkrunfw of ABI %d, needed is %d; install libkrunfw %d", shown, v,
			       KRUNFW_ABI, KRUNFW_ABI);
	k.image = (const uint8_t *)get_kernel(&k.load, &k.entry, &k.size);
	if (!k.image || k.size < KERNEL_MIN || k.size > KERNEL_MAX || k.load % PAGE != 0 || k.load > KERNEL_TOP - k.size ||
	    k.entry < k.load || k.entry - k.load >= k.size)
		return err_set(err, -EINVAL, "%s: the kernel in it is not one that can be placed (%zu bytes at %#" PRIx64
			       ", entry %#" PRIx64 "); install libkrunfw 5 again", shown, k.size, k.load, k.entry);
	/* libkrun asks for the soname alone; with another soname it would find another file, or none. */
	again = dlopen(KRUNFW_SONAME, RTLD_NOW | RTLD_NOLOAD);
	if (again != lib)
		return err_set(err, -EINVAL, "%s: its soname is not %s; install libkrunfw 5", shown, KRUNFW_SONAME);
	*ret = k;
	return 0;
}

int kernel_pvh_entry(const struct vmm_kernel *k, uint32_t *ret_entry)
{
	/* What cannot vary of the note: type and name. The sizes stand before it, the address behind it. */
	static const uint8_t mark[8] = { XEN_ELFNOTE_PHYS32_ENTRY, 0, 0, 0, 'X', 'e', 'n', 0 };
	size_t at = offsetof(Elf64_Nhdr, n_type);

	while (at < k->size) {
		const uint8_t *hit = memmem(k->image + at, k->size - at, mark, sizeof(mark));
		struct span note;
		uint32_t namesz, descsz, entry;

		if (!hit)
			break;
		at = (size_t)(hit - k->image) + 1;
		hit -= offsetof(Elf64_Nhdr, n_type);
		note = SPAN(hit, k->size - (size_t)(hit - k->image));
		if ((hit - k->image) % 4 != 0 || span_u32(&note, &namesz) < 0 || span_u32(&note, &descsz) < 0 ||
		    namesz != 4 || (descsz != 4 && descsz != 8) || span_take(&note, sizeof(mark), &(struct span){ 0 }) < 0 ||
		    span_u32(&note, &entry) < 0)
			continue;
		if (descsz == 8) {
			uint32_t high;

			if (span_u32(&note, &high) < 0 || high != 0)
				continue;
		}
		if (entry < k->load || entry - k->load >= k->size)
			continue;
		*ret_entry = entry;
		return 0;
	}
	return -ENOENT;
}

int kernel_elf_write(const struct vmm_kernel *k, int fd)
{
	struct {
		Elf64_Ehdr eh;
		Elf64_Phdr load, note;
		struct pvh_note pvh;
		uint8_t zero[PAGE - sizeof(Elf64_Ehdr) - 2 * sizeof(Elf64_Phdr) - sizeof(struct pvh_note)];
	} head = { 0 };
	uint32_t pvh;
	int r;

	static_assert(sizeof(head) == PAGE, "the image must start on a page");
	memcpy(head.eh.e_ident, ELFMAG, SELFMAG);
	head.eh.e_ident[EI_CLASS] = ELFCLASS64;
	head.eh.e_ident[EI_DATA] = ELFDATA2LSB;
	head.eh.e_ident[EI_VERSION] = EV_CURRENT;
	head.eh.e_type = ET_EXEC;
	head.eh.e_machine = EM_X86_64;
	head.eh.e_version = EV_CURRENT;
	head.eh.e_entry = k->entry;
	head.eh.e_phoff = sizeof(head.eh);
	head.eh.e_ehsize = sizeof(head.eh);
	head.eh.e_phentsize = sizeof(head.load);
	head.eh.e_phnum = kernel_pvh_entry(k, &pvh) == 0 ? 2 : 1;

	head.load.p_type = PT_LOAD;
	head.load.p_flags = PF_R | PF_W | PF_X;
	head.load.p_offset = PAGE;
	head.load.p_vaddr = head.load.p_paddr = k->load;
	head.load.p_filesz = head.load.p_memsz = k->size;
	head.load.p_align = PAGE;

	head.note.p_type = PT_NOTE;
	head.note.p_flags = PF_R;
	head.note.p_offset = offsetof(__typeof__(head), pvh);
	head.note.p_filesz = head.note.p_memsz = sizeof(head.pvh);
	head.note.p_align = 4;

	head.pvh.head.n_namesz = sizeof(head.pvh.name);
	head.pvh.head.n_descsz = sizeof(head.pvh.entry);
	head.pvh.head.n_type = XEN_ELFNOTE_PHYS32_ENTRY;
	memcpy(head.pvh.name, "Xen", 4);
	head.pvh.entry = head.eh.e_phnum == 2 ? pvh : 0;

	r = fd_write_all(fd, &head, sizeof(head));
	return r < 0 ? r : fd_write_all(fd, k->image, k->size);
}

int kernel_elf(const struct vmm_kernel *k, int *ret_fd, struct err *err)
{
	AUTO_FD(fd);
	uint32_t entry;
	int r;

	r = kernel_pvh_entry(k, &entry);
	if (r < 0)
		return err_set(err, -ENOEXEC, "libkrunfw: its kernel has no PVH entry point, which QEMU needs; install another "
			       "libkrunfw 5, or use KVM with libkrun");
	fd = memfd_create("agent-vm-kernel", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return err_set(err, -errno, "memory for the guest's kernel: %s", strerror(errno));
	r = kernel_elf_write(k, fd);
	if (r < 0)
		return err_set(err, r, "memory for the guest's kernel, %zu MiB: %s; free some memory", k->size >> 20,
			       strerror(-r));
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return err_set(err, -errno, "seal the memory of the guest's kernel: %s", strerror(errno));
	*ret_fd = TAKE_FD(fd);
	return 0;
}
