/* The launcher's side of agent-vm-image: start a half of it, talk to it, end it. The messages are those of
 * proto/imagemsg.h; what comes up is checked there as hostile input, here it becomes errors that a person can read. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/str.h"
#include "proto/imagemsg.h"

struct role {
	const char *half; /* "fetch", "unpack" or "pack" */
	enum im_way from;
	pid_t pid; /* 0: not running */
	int fd;	   /* control socket, to poll for reading; -1 once it was closed */
	bool done; /* IM_DONE has come */
};

#define ROLE_INIT { NULL, 0, 0, -1, false }

/**
 * role_start() - Start a half of agent-vm-image
 * @path:	Of the program, absolute
 * @half:	"fetch", "unpack" or "pack"; kept
 * @log_fd:	Its log; borrowed; -1: none
 * @store_fd:	fetch: the folder <root>/images; borrowed; otherwise -1
 * @env:	Variables besides those of prog_env(), may be NULL
 *
 * Return: 0, then @ret ends with role_end(); negative errno with @err set
 */
int role_start(const char *path, const char *half, int log_fd, int store_fd, const struct strv *env, struct role *ret,
	       struct err *err);

/**
 * role_send() - Send a message (im_begin()) and free it
 * @pass:	Descriptor for it, borrowed; -1: none
 *
 * A role that has ended is no error here: role_recv() tells why it did.
 *
 * Return: 0; negative errno with @err set
 */
int role_send(struct role *r, struct buf *b, int pass, struct err *err);

/**
 * role_recv() - Take the next message, blocking
 *
 * IM_ERROR comes as its errno and text. The end of the role before IM_DONE is an error that says how it ended.
 *
 * Return: 1 and a message whose fd the caller owns; 0: the role has ended after IM_DONE; negative errno with @err set
 */
int role_recv(struct role *r, struct im *ret, struct err *err);

/* End it if it runs, and wait: a kill, it has nothing to tidy up. Safe on ROLE_INIT and twice. */
void role_end(struct role *r);
