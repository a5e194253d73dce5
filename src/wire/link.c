#include "wire/link.h"

#include <assert.h>
#include <errno.h>

#include "base/fd.h"
#include "base/macros.h"
#include "wire/eth.h"
#include "wire/tcp.h"

void link_read(struct wire *w)
{
	size_t at = 0, want;
	ssize_t n;

	/* What is left of a frame is shorter than RX_READ, so there is always room. */
	want = RX_READ - w->rx_n;
	n = read(w->link, w->rx + w->rx_n, want);
	if (n < 0) {
		if (errno == EAGAIN)
			w->link_in = false;
		else if (errno != EINTR)
			wire_over(w, NULL);
		return;
	}
	if (n == 0) {
		wire_over(w, NULL);
		return;
	}
	/* A stream that gave less than asked for is empty; more makes a new edge. A hang-up that came with it makes none. */
	if ((size_t)n < want && !w->link_hup)
		w->link_in = false;
	w->rx_n += (size_t)n;
	while (!w->over) {
		size_t left = w->rx_n - at, len;

		if (w->rx_skip > 0) {
			len = MIN(left, w->rx_skip);
			at += len;
			w->rx_skip -= len;
			if (w->rx_skip > 0)
				break;
			continue;
		}
		if (left < LINK_LEN)
			break;
		len = (size_t)get16(w->rx + at) << 16 | get16(w->rx + at + 2);
		if (len < ETH_LEN || len > FRAME_MAX) {
			if (len > FRAME_SKIP) {
				wire_over(w, "link out of step: a length above 1 MiB");
				return;
			}
			wire_count(w, C_FRAME_LEN);
			at += LINK_LEN;
			w->rx_skip = len;
			continue;
		}
		if (left < LINK_LEN + len)
			break;
		eth_input(w, w->rx + at + LINK_LEN, len);
		at += LINK_LEN + len;
	}
	tcp_gather_end(w);
	w->rx_n -= at;
	if (at > 0 && w->rx_n > 0)
		memmove(w->rx, w->rx + at, w->rx_n);
}

/* Frames from @k on were not begun: flows get them back, the others are copied behind the rest. */
static void take_back(struct wire *w, unsigned int k)
{
	for (unsigned int i = w->tx_n; i > k; i--) {
		struct tx_frame *t = &w->tx[i - 1];

		if (t->what == TX_FLOW)
			tcp_unsent(w, t);
	}
	for (; k < w->tx_n; k++) {
		struct tx_frame *t = &w->tx[k];

		if (t->what != TX_KEEP)
			continue;
		for (unsigned int i = t->iov; i < t->iov + (unsigned int)t->n_iov; i++) {
			assert(w->rest_n + w->tx_iov[i].iov_len <= sizeof(w->rest));
			memcpy(w->rest + w->rest_n, w->tx_iov[i].iov_base, w->tx_iov[i].iov_len);
			w->rest_n += w->tx_iov[i].iov_len;
		}
	}
}

static void keep_rest(struct wire *w, const struct tx_frame *t, size_t done)
{
	for (unsigned int i = t->iov; i < t->iov + (unsigned int)t->n_iov; i++) {
		const struct iovec *v = &w->tx_iov[i];
		size_t skip = MIN(done, v->iov_len);

		done -= skip;
		memcpy(w->rest + w->rest_n, (const uint8_t *)v->iov_base + skip, v->iov_len - skip);
		w->rest_n += v->iov_len - skip;
	}
}

static void small_pieces(struct wire *w)
{
	while (w->small_n > 0 && w->tx_n < TX_FRAMES && w->tx_iov_n < TX_IOV) {
		struct small *s = &w->small[w->small_head];

		w->tx[w->tx_n++] = (struct tx_frame){ .what = TX_KEEP, .iov = (uint16_t)w->tx_iov_n, .n_iov = 1, .bytes = s->len };
		w->tx_iov[w->tx_iov_n++] = (struct iovec){ s->b, s->len };
		w->tx_bytes += s->len;
		w->small_head = (w->small_head + 1) % SMALL_N;
		w->small_n--;
	}
}

static void batch_clear(struct wire *w)
{
	w->tx_n = w->tx_iov_n = w->tx_hdr_n = 0;
	w->tx_bytes = w->stage_n = 0;
}

/* Written as far as it goes; what was begun is finished before anything else. */
void link_flush(struct wire *w)
{
	unsigned int k = 0;
	ssize_t n;
	size_t done;

	if (w->link_full || w->over)
		return;
	small_pieces(w);
	if (w->tx_n == 0)
		return;
	do
		n = writev(w->link, w->tx_iov, (int)w->tx_iov_n);
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno != EAGAIN && !fd_is_lack(errno)) {
		wire_over(w, NULL);
		batch_clear(w);
		return;
	}
	done = n < 0 ? 0 : (size_t)n;
	if (done < w->tx_bytes) {
		w->link_full = true;
		(void)ev_watch(&w->ev, w->link, WIRE_WATCH_OUT, EV_LINK, 0, 0);
		while (done >= w->tx[k].bytes)
			done -= w->tx[k++].bytes;
		if (done > 0)
			keep_rest(w, &w->tx[k++], done);
		take_back(w, k);
	}
	batch_clear(w);
	if (w->small_n > 0)
		link_flush(w); /* at most once more: an empty batch has room for all of them */
}

void link_writable(struct wire *w)
{
	while (w->rest_at < w->rest_n) {
		ssize_t n = write(w->link, w->rest + w->rest_at, w->rest_n - w->rest_at);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			if (fd_is_lack(errno)) /* no event follows by itself, for there was room */
				(void)ev_watch(&w->ev, w->link, WIRE_WATCH_OUT, EV_LINK, 0, 0);
			else if (errno != EAGAIN)
				wire_over(w, NULL);
			return;
		}
		w->rest_at += (size_t)n;
	}
	w->rest_n = w->rest_at = 0;
	if (!w->link_full)
		return;
	w->link_full = false;
	(void)ev_watch(&w->ev, w->link, WIRE_WATCH_IN, EV_LINK, 0, 0);
	w->link_since = w->now;
	while (w->q[Q_LINK].head)
		flow_queue(w, &w->flow[w->q[Q_LINK].head - 1], Q_READY);
	/* Small frames wait here alone. */
	link_flush(w);
}

uint8_t *link_hdr(struct wire *w, size_t bytes, unsigned int pieces)
{
	if (w->tx_n + 1 > TX_FRAMES || w->tx_iov_n + 1 + pieces > TX_IOV || w->tx_bytes + bytes + TX_HDR > TX_BYTES) {
		/* Not if bytes of this very frame lie on the stage: the caller had link_stage() look first. */
		link_flush(w);
	}
	if (w->link_full || w->over || w->tx_n == TX_FRAMES)
		return NULL;
	w->tx[w->tx_n] = (struct tx_frame){ .iov = (uint16_t)w->tx_iov_n, .n_iov = 1 };
	w->tx_iov[w->tx_iov_n++] = (struct iovec){ w->tx_hdr[w->tx_hdr_n], 0 };
	return w->tx_hdr[w->tx_hdr_n++] + LINK_LEN;
}

void link_piece(struct wire *w, const void *p, size_t n)
{
	struct tx_frame *t = &w->tx[w->tx_n];

	if (n == 0)
		return;
	assert(w->tx_iov_n < TX_IOV);
	w->tx_iov[w->tx_iov_n++] = (struct iovec){ (void *)(uintptr_t)p, n };
	t->n_iov++;
	t->bytes += (uint32_t)n;
}

static void end(struct wire *w, size_t n)
{
	struct tx_frame *t = &w->tx[w->tx_n++];
	struct iovec *head = &w->tx_iov[t->iov];

	assert(n + LINK_LEN <= TX_HDR);
	put32(head->iov_base, (uint32_t)(t->bytes + n));
	head->iov_len = n + LINK_LEN;
	t->bytes += (uint32_t)(n + LINK_LEN);
	w->tx_bytes += t->bytes;
}

void link_end_keep(struct wire *w, size_t n)
{
	w->tx[w->tx_n].what = TX_KEEP;
	end(w, n);
}

void link_end_flow(struct wire *w, size_t n, struct flow *f, uint32_t seq, uint32_t len, uint32_t old_max)
{
	struct tx_frame *t = &w->tx[w->tx_n];

	t->what = TX_FLOW;
	t->slot = flow_slot(w, f);
	t->gen = f->gen;
	t->seq = seq;
	t->len = len;
	t->max = old_max;
	end(w, n);
}

bool link_room(struct wire *w, size_t n)
{
	/* Room for the headers of all fragments, too. */
	if (w->stage_n + n > TX_STAGE || w->tx_bytes + n + 4096 > TX_BYTES || w->tx_n + 64 > TX_FRAMES ||
	    w->tx_iov_n + 128 > TX_IOV)
		link_flush(w);
	return !w->link_full && !w->over && n <= TX_STAGE;
}

uint8_t *link_stage(struct wire *w, size_t n)
{
	uint8_t *p;

	if (!link_room(w, n))
		return NULL;
	p = w->stage + w->stage_n;
	w->stage_n += n;
	return p;
}

uint8_t *link_small(struct wire *w, size_t n)
{
	struct small *s = &w->small[(w->small_head + w->small_n) % SMALL_N];

	assert(n + LINK_LEN <= SMALL_LEN);
	if (w->small_n == SMALL_N) {
		wire_count(w, C_SMALL_FULL);
		return NULL;
	}
	w->small_n++;
	s->len = (uint16_t)(n + LINK_LEN);
	put32(s->b, (uint32_t)n);
	return s->b + LINK_LEN;
}
