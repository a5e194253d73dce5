/* The log of a process that the guest may have taken over: a pipe, read by our loop, into a file of bounded size.
 *
 * The first CAPTURE_HEAD bytes go to the file at once; of what follows the last CAPTURE_TAIL are kept in memory and
 * written when the capture is closed, behind a line that says how much was left out:
 *
 *	| first 256 KiB | \n[123456 bytes are left out here]\n | last 256 KiB |
 *
 * The pipe does not block for its writer: what comes faster than we read is dropped by the writer (QEMU's and libkrun's
 * consoles do so), and a launcher that is stopped or dead holds nobody. Whoever is given the writing end must ignore
 * SIGPIPE. When the launcher is killed the tail is lost, the head is not. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CAPTURE_HEAD (256 << 10)
#define CAPTURE_TAIL (256 << 10)
#define CAPTURE_LINE 256 /* longest last line that is told */

struct capture {
	int pipe_fd; /* non-blocking; -1: closed */
	int file_fd; /* owned */
	uint64_t total;
	uint8_t *ring;		  /* CAPTURE_TAIL bytes, made when the head is full; byte N is at N % CAPTURE_TAIL */
	char line[CAPTURE_LINE];  /* the line at hand */
	char whole[CAPTURE_LINE]; /* the last whole one that is not empty */
	size_t line_n;
};

#define CAPTURE_INIT { .pipe_fd = -1, .file_fd = -1 }

/**
 * capture_open() - Make the pipe
 * @file_fd:	Where the bytes go; taken on success
 * @ret_write:	End for the writer, close-on-exec; caller owns
 *
 * Return: 0 or a negative errno
 */
int capture_open(struct capture *c, int file_fd, int *ret_write);

/* Take what is there, at most 256 KiB. 1: there may be more later; 0: the last writer is gone. */
int capture_read(struct capture *c);

/* Take the rest, write the tail, close. Harmless when it is not open. */
void capture_close(struct capture *c);

/* The last line that is not empty, escaped; "" when there was none. Caller owns. */
char *capture_last_line(const struct capture *c);
