#include "cli/term.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"

/* What full-screen programs switch on and a killed one cannot switch off: updates held back (first, so that the rest is
 * shown), keyboard protocols of kitty (CSI < u) and xterm (modifyOtherKeys), bracketed paste, the mouse modes, focus
 * events, application cursor keys and keypad, the alternate screen, the scroll region (whose reset moves the cursor; what
 * is saved and put back with it comes after), line drawing in the place of letters, insert mode, colours, the cursor's
 * shape, the cursor, and a fresh line. */
static const char undo_modes[] = "\033[?2026l\033[<u\033[>4;0m\033[?2004l\033[?1000l\033[?1002l\033[?1003l\033[?1006l"
				 "\033[?1004l\033[?1l\033>\033[?1049l\0337\033[r\0338\017\033(B\033[4l\033[0m\033[0 q"
				 "\033[?25h\r\n";

static struct {
	int fd;
	volatile sig_atomic_t raw;
	bool saved;
	struct termios before;
} the_term = { .fd = -1 };

struct term_size term_size(int fd)
{
	struct winsize ws;

	if (ioctl(fd, TIOCGWINSZ, &ws) < 0 || ws.ws_row == 0 || ws.ws_col == 0)
		return (struct term_size){ .rows = 24, .cols = 80 };
	return (struct term_size){ ws.ws_row, ws.ws_col, ws.ws_xpixel, ws.ws_ypixel };
}

static void on_crash(int sig)
{
	term_restore(true);
	(void)signal(sig, SIG_DFL);
	(void)raise(sig);
}

int term_raw(int fd)
{
	static const int fatal[] = { SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT };
	struct termios t;

	if (!the_term.saved) {
		if (tcgetattr(fd, &the_term.before) < 0)
			return -errno;
		the_term.fd = fd;
		the_term.saved = true;
		for (size_t i = 0; i < ARRAY_SIZE(fatal); i++)
			(void)signal(fatal[i], on_crash);
	}
	t = the_term.before;
	cfmakeraw(&t);
	if (tcsetattr(fd, TCSADRAIN, &t) < 0)
		return -errno;
	the_term.raw = 1;
	return 0;
}

void term_restore(bool undo)
{
	if (!the_term.raw)
		return;
	the_term.raw = 0;
	if (undo)
		(void)!write(the_term.fd, undo_modes, sizeof(undo_modes) - 1);
	/* Not TCSAFLUSH: what the user typed ahead belongs to the shell. */
	(void)tcsetattr(the_term.fd, TCSADRAIN, &the_term.before);
}
