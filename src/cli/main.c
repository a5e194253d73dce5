#include <fcntl.h>
#include <unistd.h>

#include "cli/cmd.h"

/* A descriptor of ours that was closed when we were started (`agent-vm ... >&-`) would be the next file that we open, and
 * the guest's output would go there. /dev/null opened in the wrong direction takes its place: whoever reads or writes it
 * hears EBADF, as from a closed one. */
static void std_fds_fill(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			(void)!open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY); /* the lowest number that is free: fd */
}

int main(int argc, char **argv)
{
	(void)argc;
	std_fds_fill();
	return cmd_main(argv);
}
