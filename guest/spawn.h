/* Processes: what EXEC asks for, and children that are started for it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#include "base/span.h"

enum spawn_kind { SPAWN_EXEC, SPAWN_PUT, SPAWN_GET, SPAWN_DIAL };

/* One order of the host in parsed form. argv and env are NULL-terminated and point into one block of ours. */
struct spawn_req {
	enum spawn_kind kind;
	char **argv, **env; /* EXEC */
	char *path;	    /* PUT, GET: the file; EXEC: the folder to be in, NULL for "/" */
	bool pty, stdin_pipe;
	struct winsize size;
	uint64_t mode, max;
	uint8_t family, addr[16]; /* DIAL: 4 or 6 */
	uint16_t port;
	char *block;
};

/**
 * spawn_parse() - Read the records of EXEC, PUT, GET or DIAL
 *
 * Pure. EXEC needs one CTL_K_ARG or more, DIAL an address and a port; the others an absolute CTL_K_PATH.
 *
 * Return: 0 and a request to be freed with spawn_req_done(); -EBADMSG; -ENOMEM
 */
int spawn_parse(enum spawn_kind kind, struct span recs, struct spawn_req *ret);
void spawn_req_done(struct spawn_req *req);

/* What a child says over its status pipe, in one write. Its end of file without a note: the program runs. */
enum spawn_note_kind { NOTE_FAIL = 1, NOTE_FILE };

#define NOTE_TEXT_MAX 512

struct spawn_note {
	uint32_t kind;
	int32_t error; /* NOTE_FAIL: errno */
	uint32_t mode; /* NOTE_FILE */
	uint64_t size;
	char text[NOTE_TEXT_MAX];
};

/* A started child. All descriptors are non-blocking and the caller's; -1 for channels that there are not. */
struct spawned {
	pid_t pid;
	int in, out, err, status;
};

/* Return: 0, or a negative errno when pipes or a process were not to be had. */
int spawn(const struct spawn_req *req, struct spawned *ret);

/* In a child of spawn(), and nowhere else: says the note on @fd. */
void spawn_note(int fd, const struct spawn_note *note);
int spawn_fail(int fd, int error, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
