/* The terminal that a killed program leaves. */
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli/term.h"
#include "test.h"

static int master = -1, slave = -1;

/* What has been written to the terminal. */
static const char *written(void)
{
	static char text[1024];
	ssize_t n = read(master, text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

static void open_it(void)
{
	if (master >= 0)
		return;
	CHECK_INT(openpty(&master, &slave, NULL, NULL, NULL), ==, 0);
	CHECK_INT(fcntl(master, F_SETFL, O_NONBLOCK), ==, 0);
}

static void terminal(void)
{
	open_it();
	CHECK_INT(term_raw(slave), ==, 0);
}

TEST(a_program_that_ended_by_itself_is_not_undone)
{
	struct termios before, after;

	open_it();
	CHECK_INT(tcgetattr(slave, &before), ==, 0);
	terminal();
	CHECK_INT(tcgetattr(slave, &after), ==, 0);
	CHECK(!(after.c_lflag & (ICANON | ECHO)));
	term_restore(false);
	CHECK_STR(written(), "");
	CHECK_INT(tcgetattr(slave, &after), ==, 0);
	CHECK(before.c_iflag == after.c_iflag && before.c_oflag == after.c_oflag && before.c_lflag == after.c_lflag);
}

TEST(all_that_a_killed_program_may_have_switched_on_is_undone)
{
	static const char *const all[] = {
		"\033[?2026l", "\033[<u", "\033[>4;0m", "\033[?2004l", "\033[?1000l", "\033[?1002l", "\033[?1003l", "\033[?1006l",
		"\033[?1004l", "\033[?1l", "\033>", "\033[?1049l", "\033[r", "\017", "\033(B", "\033[4l", "\033[0m", "\033[0 q",
		"\033[?25h",
	};
	const char *text, *save, *back;

	terminal();
	term_restore(true);
	text = written();
	for (size_t i = 0; i < sizeof(all) / sizeof(*all); i++)
		if (!strstr(text, all[i]))
			fail_msg("not undone: ESC%s", all[i] + 1);
	/* Nothing is shown before the updates are. */
	CHECK(strncmp(text, "\033[?2026l", 8) == 0);
	/* The whole screen scrolls, and the cursor stays: on the main screen, and what is saved with it is set after. */
	save = strstr(text, "\0337\033[r\0338");
	CHECK(save != NULL);
	CHECK(strstr(text, "\033[?1049l") < save);
	back = save + strlen("\0337\033[r\0338");
	CHECK(strstr(back, "\017") && strstr(back, "\033(B") && strstr(back, "\033[0m"));
	CHECK_STR(text + strlen(text) - 2, "\r\n");
}

TEST(it_is_undone_once)
{
	terminal();
	term_restore(true);
	(void)written();
	term_restore(true);
	CHECK_STR(written(), "");
}
