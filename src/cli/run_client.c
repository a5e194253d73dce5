/* `agent-vm exec`: programs of the same user that connect to control.sock and speak the control protocol with us in the
 * guest's place. Each client has one stream, which it numbers 1; we number it anew towards the guest. Credit is counted
 * here in both directions and handed through, so neither end can make us hold more than a window for a channel. */
#include <errno.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "cli/run_priv.h"
#include "proto/rec.h"

#define CLIENT_STREAM 1

static struct stream *stream_of(struct run *r, const struct client *c)
{
	for (size_t i = 0; i < CTL_STREAMS_MAX; i++)
		if (r->streams[i].kind == STREAM_CLIENT && &r->clients[r->streams[i].client] == c)
			return &r->streams[i];
	return NULL;
}

static void client_drop(struct run *r, struct client *c)
{
	struct stream *s = stream_of(r, c);

	/* The guest ends the program and says EXIT, which finds nobody and frees the stream. */
	if (s && !c->dying)
		(void)ctl_put(&r->port.out, CTL_CLOSE, 0, s->id, NULL, 0);
	c->dying = true;
	link_close(&c->link);
}

/* FAIL in place of any answer. The socket's buffer is empty, so it fits or the client is gone. */
static void refuse(int fd, const char *text)
{
	struct buf b;
	ssize_t at;

	buf_init(&b, CTL_HEAD + CTL_TEXT_MAX);
	at = ctl_begin(&b, CTL_FAIL, 0, 0);
	if (at >= 0 && rec_put_str(&b, CTL_K_TEXT, text) == 0) {
		ctl_end(&b, (size_t)at);
		(void)send(fd, buf_span(&b).p, buf_span(&b).n, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	buf_done(&b);
}

/* Takes @fd when it returns 0. */
static int client_new(struct run *r, int fd, bool probe)
{
	for (uint16_t slot = 0; slot < CLIENTS_MAX; slot++) {
		struct client *c = &r->clients[slot];
		int k;

		if (c->used)
			continue;
		k = link_open(&c->link, fd, CTL_SIDE_GUEST, &r->ev, EV_CLIENT, slot, ++c->gen);
		if (k < 0)
			return k;
		c->used = true;
		c->probe = probe;
		c->dying = false;
		return 0;
	}
	return -EMFILE;
}

void clients_accept(struct run *r)
{
	AUTO_FD(fd);
	struct ucred peer;
	socklen_t len = sizeof(peer);
	AUTO_FREE(char, full);
	int k;

	fd = accept4(r->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 || (peer.uid != geteuid() && peer.uid != 0))
		return;
	if (r->stage != STAGE_AGENT) {
		refuse(fd, r->stage < STAGE_AGENT ? "exec: this session is still starting; try again in a moment"
						  : "exec: this session is ending");
		return;
	}
	k = client_new(r, fd, false);
	if (k == 0) {
		(void)TAKE_FD(fd);
	} else if (k == -EMFILE) {
		full = xasprintf("exec: this session runs %d programs beside the first one already; wait until one has ended",
				 CLIENTS_MAX);
		log_warn("exec: more than %d at one time, one was refused", CLIENTS_MAX);
		refuse(fd, full);
	}
}

int clients_add(struct run *r, int fd)
{
	int k = client_new(r, fd, true);

	if (k < 0)
		(void)close(fd);
	return k;
}

/* EXEC of a client: its words, terminal and stdin; environment and folder are the session's. */
static int put_exec(struct run *r, const struct stream *s, struct span in)
{
	struct buf *out = &r->port.out;
	struct span val;
	uint16_t key;
	ssize_t at;
	int k;

	at = ctl_begin(out, CTL_EXEC, 0, s->id);
	if (at < 0)
		return -ENOBUFS;
	for (size_t i = 0; r->spec.exec_prefix && i < r->spec.exec_prefix->n; i++)
		if (rec_put_str(out, CTL_K_ARG, r->spec.exec_prefix->v[i]) < 0)
			return -ENOBUFS;
	while ((k = rec_next(&in, &key, &val)) == 1) {
		if (key == CTL_K_ENV || key == CTL_K_CWD)
			return -EBADMSG;
		if (rec_put(out, key, val.p, val.n) < 0)
			return -ENOBUFS;
	}
	for (size_t i = 0; i < r->spec.env->n; i++)
		if (rec_put_str(out, CTL_K_ENV, r->spec.env->v[i]) < 0)
			return -ENOBUFS;
	if (k < 0 || rec_put_str(out, CTL_K_CWD, r->spec.cwd) < 0)
		return -EBADMSG;
	ctl_end(out, (size_t)at);
	return 0;
}

static int client_exec(struct run *r, struct client *c, const struct ctl_frame *f)
{
	struct stream *s;
	int k;

	if (c->probe || r->stage != STAGE_AGENT || f->stream != CLIENT_STREAM || stream_of(r, c))
		return -EBADMSG;
	s = run_stream_new(r, STREAM_CLIENT);
	if (!s)
		return -EAGAIN;
	s->client = (uint16_t)(c - r->clients);
	k = put_exec(r, s, f->payload);
	if (k < 0)
		run_stream_free(s); /* the guest never heard of it */
	return k;
}

static int client_dial(struct run *r, struct client *c, const struct ctl_frame *f)
{
	struct stream *s;
	int k;

	if (!c->probe || r->stage != STAGE_PROBE || f->stream != CLIENT_STREAM || stream_of(r, c))
		return -EBADMSG;
	s = run_stream_new(r, STREAM_CLIENT);
	if (!s)
		return -EAGAIN;
	s->client = (uint16_t)(c - r->clients);
	k = ctl_put(&r->port.out, CTL_DIAL, 0, s->id, f->payload.p, f->payload.n);
	if (k < 0)
		run_stream_free(s);
	return k;
}

static int client_frame(struct run *r, struct client *c, const struct ctl_frame *f)
{
	struct stream *s = stream_of(r, c);
	struct span in = f->payload;
	uint32_t n;

	if (f->type == CTL_EXEC)
		return client_exec(r, c, f);
	if (f->type == CTL_DIAL)
		return client_dial(r, c, f);
	if (f->stream != CLIENT_STREAM)
		return -EBADMSG;
	if (!s)
		return 0; /* EXIT and this frame crossed */
	switch (f->type) {
	case CTL_DATA:
		if (s->tx_eof || ctl_credit_use(&s->tx, f->payload.n) < 0)
			return -EBADMSG;
		break;
	case CTL_EOF:
		if (f->channel == 0)
			s->tx_eof = true;
		break;
	case CTL_CREDIT:
		if (span_u32(&in, &n) < 0 || ctl_credit_add(&s->rx[f->channel - 1], n) < 0)
			return -EBADMSG;
		break;
	case CTL_RESIZE:
	case CTL_SIGNAL:
	case CTL_CLOSE:
		break;
	default:
		return -EBADMSG;
	}
	return ctl_put(&r->port.out, f->type, f->channel, s->id, f->payload.p, f->payload.n);
}

static void client_frames(struct run *r, struct client *c)
{
	struct ctl_frame f;
	size_t used;
	int k = 0;

	while (!c->dying && !link_busy(&r->port) && (k = ctl_decode(&c->link.in, CTL_SIDE_GUEST, &f, &used)) == 1) {
		size_t before = r->port.out.n;

		k = client_frame(r, c, &f);
		if (k < 0) {
			/* A frame begun for the guest is taken back: nothing of it was written yet. */
			r->port.out.n = before;
			break;
		}
		buf_consume(&c->link.in, used);
	}
	if (k < 0) {
		log_warn("exec: a client broke the protocol and was dropped");
		client_drop(r, c);
		return;
	}
	link_pause(&c->link, link_busy(&r->port));
}

void client_readable(struct run *r, struct client *c)
{
	ssize_t n = link_fill(&c->link);

	if (n < 0)
		client_drop(r, c);
	else if (n > 0)
		client_frames(r, c);
}

int client_forward(struct run *r, struct stream *s, const struct ctl_frame *f)
{
	struct client *c = &r->clients[s->client];

	if (!c->used || c->dying) {
		/* Nobody reads: give the credit back so that the program is not stuck until it is killed. */
		if (f->type == CTL_DATA) {
			uint32_t give = ctl_credit_free(&s->rx[f->channel - 1], f->payload.n);

			if (give > 0)
				return ctl_put_u32(&r->port.out, CTL_CREDIT, f->channel, s->id, give);
		}
		return 0;
	}
	if (ctl_put(&c->link.out, f->type, f->channel, CLIENT_STREAM, f->payload.p, f->payload.n) < 0)
		client_drop(r, c);
	return 0;
}

void clients_pump(struct run *r)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &r->clients[i];

		if (!c->used)
			continue;
		if (!c->dying && c->link.paused && !link_busy(&r->port))
			client_frames(r, c);
		if (!c->dying && link_flush(&c->link) < 0)
			client_drop(r, c);
		/* A slot is free again when its stream is, so that a late frame cannot meet another client. */
		if (c->dying && !stream_of(r, c))
			c->used = false;
	}
}

void clients_close(struct run *r)
{
	for (size_t i = 0; i < CLIENTS_MAX; i++)
		if (r->clients[i].used && !r->clients[i].dying)
			link_close(&r->clients[i].link);
}
