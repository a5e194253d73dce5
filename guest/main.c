/* agent-vm-guest: PID 1 of the VM.
 *
 * Boot root. Under QEMU the kernel starts us with init=/agent-vm-guest from a small read-only ext4; under libkrun its own
 * init execs us from a virtio-fs folder. That root must hold /agent-vm-guest and the empty folders
 *
 *    /dev  /proc  /sys  /newroot
 *
 * and nothing else is asked of it. */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
	if (getpid() != 1)
		return 2;
	sync();
	(void)reboot(RB_AUTOBOOT);
	return 1;
}
