/* The control protocol (design section 6): what launcher and guest say to each other over the named virtio-serial port,
 * and what `agent-vm exec` says to a launcher over its control socket. One definition for both sides; each treats the
 * other as hostile.
 *
 * A byte stream of frames:
 *
 *    0      1         2        4        8        12
 *   +------+---------+--------+--------+--------+----------------+
 *   | type | channel | zero   | stream | length | payload        |   little endian
 *   +------+---------+--------+--------+--------+----------------+
 *
 * The first frame of the guest is HELLO and holds the protocol version; nothing else is sent before it.
 *
 * Streams. EXEC, PUT, GET and DIAL open a stream; the opener (host) chooses its number, from 1, never used twice in a session.
 * A stream has up to three channels of bytes: 0 towards the guest (stdin, file content), 1 and 2 towards the host
 * (stdout, stderr). It ends with the guest's EXIT, after which neither side sends for it. Frames of the host for a
 * stream that has just ended are in flight legitimately, so the guest ignores frames of stream numbers that it has seen
 * opened before; the host refuses frames of streams that it did not open.
 *
 * Flow control. Each channel of each stream starts with CTL_WINDOW bytes of credit. DATA uses credit up, CREDIT gives it
 * back once the receiver has passed the bytes on. DATA beyond the credit is a protocol error. So what one side must
 * hold for a channel is bounded by CTL_WINDOW, and a flood on one stream never keeps another's frames from being read.
 *
 * EXIT comes after all that the process wrote before it died; what its children write later is not waited for.
 *
 * Any violation ends the session: the side that sees it closes the channel (the guest then syncs and powers off). */
#pragma once

#include <stdbool.h>

#include "base/buf.h"
#include "base/span.h"

#define CTL_VERSION 4
#define CTL_PORT_NAME "agent-vm.ctl" /* /sys/class/virtio-ports/vportXpY/name in the guest */
#define CTL_MAGIC 0x4d564741u	     /* "AGVM" */
#define CTL_HEAD 12
#define CTL_DATA_MAX 32768   /* payload of one DATA frame: small enough that a keystroke waits little behind it */
#define CTL_WINDOW (1 << 18) /* credit of a fresh channel, bytes */
#define CTL_STREAMS_MAX 64   /* open at one time */
#define CTL_RECS_MAX (4 << 20) /* EXEC and CONFIG: Linux takes 2 MiB of arguments and environment by default */
#define CTL_TEXT_MAX 4096
#define CTL_READY_MAX 16384 /* with the answers of the self-probe */

enum ctl_type {
	CTL_HELLO = 1, /* guest: magic u32, version u16, then records CTL_K_* */
	CTL_CONFIG,    /* host: records of proto/guestcfg.h */
	CTL_READY,     /* guest: records CTL_K_PHASE; the configuration is applied */
	CTL_FAIL,      /* guest: records CTL_K_TEXT; the session cannot go on; the guest powers off afterwards */
	CTL_EXEC,      /* host: records CTL_K_ARG ... */
	CTL_STARTED,   /* guest: pid u32 */
	CTL_DATA,
	CTL_EOF,    /* sender's end of a channel; from the host for 1 or 2: the reader is gone, so the guest closes the
		     * pipe (its writer gets SIGPIPE) and sends nothing more on it */
	CTL_CREDIT, /* u32 bytes */
	CTL_RESIZE, /* host: rows, columns, x pixels, y pixels, u16 each */
	CTL_SIGNAL, /* host: u32 signal, to the stream's foreground process group */
	CTL_EXIT,   /* guest: enum ctl_exit u32, value u32, text */
	CTL_CLOSE,  /* host: the stream is given up: SIGHUP, then SIGKILL after 2 s; EXIT still comes */
	CTL_PUT,    /* host: CTL_K_PATH, CTL_K_MODE; content on channel 0; EXIT 0 when it is in place and synced */
	CTL_GET,    /* host: CTL_K_PATH, CTL_K_MAX; answer FILE, content on channel 1, EOF, EXIT */
	CTL_FILE,   /* guest: mode u32, size u64 */
	CTL_CLOCK,  /* host: CLOCK_REALTIME in ns, u64 */
	CTL_PING,   /* both: cookie u64 */
	CTL_PONG,   /* both: the same cookie */
	CTL_SHUTDOWN, /* host: grace in ms u32: SIGTERM to everything, SIGKILL after it, sync, unmount, power off */
	CTL_BYE,      /* guest: records CTL_K_PHASE; everything of the project is synced, the power goes off now */
	CTL_LOG,      /* guest: level u8, text */
	CTL_PORT,     /* guest, when CONFIG asked for it: port u16, u8 1: something listens there, 0: no longer; port 0: nothing
		       * listens any more */
	CTL_DIAL,   /* host: CTL_K_ADDR, CTL_K_PORT; a TCP connection of the guest's: channel 0 is sent, 1 comes; for the self-probe */
	CTL_TYPES
};

enum ctl_key {
	CTL_K_ARG = 1, /* EXEC: one each */
	CTL_K_ENV,     /* EXEC: NAME=VALUE, one each; the whole environment */
	CTL_K_CWD,     /* EXEC */
	CTL_K_PTY,     /* EXEC: the value of TERM; a PTY is made; 8 bytes of size follow in CTL_K_SIZE */
	CTL_K_SIZE,    /* EXEC: as RESIZE */
	CTL_K_STDIN,   /* EXEC: u64 enum ctl_stdin; without a PTY */
	CTL_K_PATH,    /* PUT, GET: absolute path in the guest */
	CTL_K_MODE,    /* PUT: u64, permission bits */
	CTL_K_MAX,     /* GET: u64, refuse larger files */
	CTL_K_TEXT,    /* FAIL: what failed and why; HELLO: kernel release */
	CTL_K_PHASE,   /* HELLO, READY, BYE: nested CTL_K_NAME, CTL_K_NS (start, guest boot clock), CTL_K_NS (duration) */
	CTL_K_NAME,
	CTL_K_NS,
	CTL_K_ADDR,    /* DIAL: 5 or 17 bytes: 4 or 6, and the address */
	CTL_K_PORT,    /* DIAL: u64 */
	CTL_K_PROBE,   /* READY: u32 errno, 0 when it was reached; then what came back */
	CTL_K_SEED,    /* READY, empty: the image has a script that is to run before the agent (cli page 11.1) */
};

enum ctl_stdin { CTL_STDIN_NULL, CTL_STDIN_PIPE };

enum ctl_exit {
	CTL_EXIT_CODE,	 /* value: exit status 0..255 */
	CTL_EXIT_SIGNAL, /* value: signal number */
	CTL_EXIT_ERRNO,	 /* value: errno; never started (EXEC) or not done (PUT, GET); text says what */
};

struct ctl_frame {
	enum ctl_type type;
	uint8_t channel;
	uint32_t stream;
	struct span payload; /* borrowed from the decoder's buffer, valid until the next call on that buffer */
};

/* Who reads: decides which types are in order at all. */
enum ctl_side { CTL_SIDE_HOST, CTL_SIDE_GUEST };

/**
 * ctl_decode() - Take the next frame off the front of @in
 * @in:		Bytes received; its maximum must be at least CTL_HEAD + CTL_RECS_MAX on the guest's side and
 *		CTL_HEAD + CTL_DATA_MAX on the host's
 * @side:	The side that reads
 * @ret:	The frame; its payload is borrowed from @in until the next call for @in
 * @ret_used:	Bytes to buf_consume() once the frame was handled
 *
 * Checks type, direction, channel, reserved bytes, stream zero or not, and the length against the type's bounds,
 * before the payload has arrived; so a hostile length costs nothing. Payloads are the business of the receiver.
 *
 * Return: 1 and a frame; 0 when more bytes are needed; -EBADMSG
 */
int ctl_decode(const struct buf *in, enum ctl_side side, struct ctl_frame *ret, size_t *ret_used);

/* Name for the log. */
const char *ctl_type_str(enum ctl_type type);

/**
 * ctl_put() - Append a whole frame
 *
 * Return: 0, or -ENOBUFS when the output queue is full
 */
int ctl_put(struct buf *out, enum ctl_type type, uint8_t channel, uint32_t stream, const void *p, size_t n);

/* A frame whose payload is one u32 or u64 or nothing. */
int ctl_put_u32(struct buf *out, enum ctl_type type, uint8_t channel, uint32_t stream, uint32_t v);
int ctl_put_u64(struct buf *out, enum ctl_type type, uint32_t stream, uint64_t v);

/**
 * ctl_begin() - Begin a frame whose payload is written piece by piece with buf_put() and rec_put()
 *
 * Return: offset to hand to ctl_end(), or -ENOBUFS
 */
ssize_t ctl_begin(struct buf *out, enum ctl_type type, uint8_t channel, uint32_t stream);
void ctl_end(struct buf *out, size_t at);

/* Receiver's and sender's half of a channel's flow control. */
struct ctl_credit {
	uint32_t left;	/* sender: bytes that may be sent; receiver: bytes that may still come */
	uint32_t freed; /* receiver: passed on, not yet given back */
};

#define CTL_CREDIT_INIT ((struct ctl_credit){ .left = CTL_WINDOW })

/* Receiver: @n bytes of DATA came; -EBADMSG when that is more than was granted, or nothing at all. */
int ctl_credit_use(struct ctl_credit *c, size_t n);
/* Receiver: @n bytes were passed on. Returns what to send in CREDIT now, 0 when it is not worth a frame yet. */
uint32_t ctl_credit_free(struct ctl_credit *c, size_t n);
/* Sender: CREDIT of @n came; -EBADMSG when it is more than the window. */
int ctl_credit_add(struct ctl_credit *c, uint32_t n);
