/* The user's terminal: raw mode while the guest has a PTY, and back on every way out. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct term_size {
	uint16_t rows, cols, xpixel, ypixel;
};

/* Size of the terminal at @fd; 80x24 when it is unknown. */
struct term_size term_size(int fd);

/**
 * term_raw() - Put the terminal at @fd into raw mode
 *
 * The mode before is kept and is restored by term_restore(), also from a handler of fatal signals that is installed
 * here, so that a crash of ours leaves a sane terminal. Called again after SIGCONT it only sets raw mode again.
 *
 * Return: 0 or a negative errno
 */
int term_raw(int fd);

/**
 * term_restore() - Back to the mode before term_raw(); nothing if it was not called
 * @undo:	The program inside did not end by itself: also undo what it may have switched on (alternate screen,
 *		mouse, bracketed paste, keyboard protocols, held updates, scroll region, line drawing, insert mode, colours,
 *		the cursor's shape, hidden cursor)
 *
 * Async-signal-safe.
 */
void term_restore(bool undo);
