/* The control port: the descriptor and the two queues of frames. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"

/* What waits for the host. Processes are read from only below SOFT, frames of the host are handled only below HARD; a
 * frame or an ended process adds at most CTL_TEXT_MAX and a head, so that MAX is never reached. */
#define PORT_OUT_SOFT (256 << 10)
#define PORT_OUT_HARD (512 << 10)
#define PORT_OUT_MAX (2 << 20)

struct port {
	int fd;
	bool live; /* an end of file means that the host is gone; on a virtio port only after its first frame */
	bool lost;
	uint32_t events; /* watched for at present */
	struct buf in, out;
};

/* @fd is taken and made non-blocking. */
int port_init(struct port *p, int fd);
void port_done(struct port *p);

/**
 * port_find() - Open the virtio-serial port that is named @name
 * @until_ns:	now_ns() time to give up at; ports appear some milliseconds after we start
 *
 * Return: descriptor that the caller owns; -ENODEV, or another negative errno, with @err set
 */
int port_find(const char *name, int64_t until_ns, struct err *err);

/* One read. Return: bytes, 0 when there are none now, -EPIPE when the host is gone. */
int port_read(struct port *p);

/* Writes what goes out without waiting. Return: 0, or -EPIPE when the host is gone. */
int port_flush(struct port *p);

/* Writes all that is queued, waiting no longer than until @until_ns. Return: 0, -ETIMEDOUT or -EPIPE. */
int port_drain(struct port *p, int64_t until_ns);
