/* The guest's handling of what a host sends, with processes that are only pipes: nothing is executed or signalled here.
 *
 * Input: steps of one byte what, two bytes length, and bytes.
 *    0..3  the bytes come from the host       4  the loop gives processes their turns
 *    5     the first byte's stream dies       6  the host reads all
 *    7     the first byte's process reads     8  time passes
 *
 * What the guest sends must decode on the host's side, a channel never gets more than its credit, nothing is sent for a
 * stream before it opened or after EXIT, and what the guest holds stays within its bounds. */
#include "fuzz.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "guest/guest.h"

#define PID_FIRST 0x40000000 /* beyond PID_MAX_LIMIT: no such process */
#define SEEN_MAX 256

static struct {
	struct guest g;
	int their_in[CTL_STREAMS_MAX];
	unsigned int spawned;
	struct {
		bool exited;
		struct ctl_credit rx[3];
	} seen[SEEN_MAX]; /* by stream number, the low ones */
} t;

static int fake_configure(struct guest *g, struct span config, struct buf *ready, struct err *err)
{
	return config.n % 7 == 6 ? err_set(err, -EINVAL, "no") : 0;
}

static int fake_kill(pid_t pid, int sig)
{
	MUST(sig > 0 && sig < NSIG && (pid >= PID_FIRST || -pid >= PID_FIRST));
	return 0;
}

static void fake_clock(struct guest *g, uint64_t ns)
{
}

/* The program "writes" some bytes and an end, and reads when the input says so. */
static int fake_spawn(const struct spawn_req *req, struct spawned *ret)
{
	static const char words[100000];
	int in[2], out[2], err[2], status[2];
	struct spawn_note note = { .kind = NOTE_FILE, .size = 3 };
	unsigned int n = t.spawned++;

	MUST(req->kind == SPAWN_EXEC ? req->argv && req->argv[0] && req->env :
	     req->kind == SPAWN_DIAL ? (req->family == 4 || req->family == 6) && req->port != 0 : req->path && req->path[0] == '/');
	if (n % 16 == 15 || n >= CTL_STREAMS_MAX)
		return -EAGAIN;
	MUST(pipe2(in, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(out, O_CLOEXEC | O_NONBLOCK) == 0 &&
	     pipe2(err, O_CLOEXEC | O_NONBLOCK) == 0 && pipe2(status, O_CLOEXEC | O_NONBLOCK) == 0);
	(void)!write(out[1], words, n % 3 * 40000);
	(void)!write(err[1], words, n % 5 * 9);
	if (n % 8 == 7)
		note = (struct spawn_note){ .kind = NOTE_FAIL, .error = ENOENT, .text = "no" };
	if (req->kind == SPAWN_GET || n % 8 == 7)
		(void)!write(status[1], &note, sizeof(note));
	(void)close(out[1]);
	(void)close(err[1]);
	(void)close(status[1]);
	t.their_in[n] = in[0];
	*ret = (struct spawned){ .pid = PID_FIRST + (pid_t)n, .in = in[1], .out = out[0], .err = err[0], .status = status[0] };
	return 0;
}

/* The host's view of everything that waits for it. */
static void host_reads(void)
{
	struct buf *out = &t.g.port.out;
	struct ctl_frame f;
	size_t used;
	int r;

	while ((r = ctl_decode(out, CTL_SIDE_HOST, &f, &used)) == 1) {
		if (f.stream > 0 && f.stream < SEEN_MAX) {
			MUST(f.stream <= t.g.last_id && !t.seen[f.stream].exited);
			if (f.type == CTL_EXIT)
				t.seen[f.stream].exited = true;
			if (f.type == CTL_DATA)
				MUST(ctl_credit_use(&t.seen[f.stream].rx[f.channel], f.payload.n) == 0);
		}
		buf_consume(out, used);
	}
	MUST(r == 0 && out->n == 0);
}

/* The host's credit counts from when it was sent: looked for among the bytes before the guest sees them. */
static void host_credits(struct span sent)
{
	struct buf in;
	struct ctl_frame f;
	size_t used;

	buf_init(&in, CTL_HEAD + CTL_RECS_MAX);
	(void)buf_put(&in, buf_span(&t.g.port.in).p, t.g.port.in.n);
	(void)buf_put(&in, sent.p, sent.n);
	while (ctl_decode(&in, CTL_SIDE_GUEST, &f, &used) == 1) {
		uint32_t v = 0;

		if (f.type == CTL_CREDIT && f.stream < SEEN_MAX) {
			(void)span_u32(&f.payload, &v);
			if (v <= CTL_WINDOW)
				t.seen[f.stream].rx[f.channel].left += v;
		}
		buf_consume(&in, used);
	}
	buf_done(&in);
}

static void step(uint8_t what, struct span bytes, int64_t *now)
{
	static uint8_t sink[65536];
	unsigned int which = bytes.n > 0 ? bytes.p[0] % CTL_STREAMS_MAX : 0;

	switch (what % 9) {
	case 4:
		for (unsigned int i = 0; i < CTL_STREAMS_MAX; i++) {
			stream_on_status(&t.g, i, t.g.streams[i].id);
			stream_on_out(&t.g, i, 0, t.g.streams[i].id);
			stream_on_out(&t.g, i, 1, t.g.streams[i].id);
		}
		streams_pump(&t.g);
		break;
	case 5:
		stream_on_death(&t.g, PID_FIRST + (pid_t)which, which % 2 ? CLD_EXITED : CLD_KILLED, which % 2 ? 3 : SIGKILL);
		break;
	case 6:
		host_reads();
		break;
	case 7:
		if (t.their_in[which] >= 0)
			(void)!read(t.their_in[which], sink, sizeof(sink));
		for (unsigned int i = 0; i < CTL_STREAMS_MAX; i++)
			stream_on_in(&t.g, i, t.g.streams[i].id);
		break;
	case 8:
		*now += 1000000000;
		(void)streams_tick(&t.g, *now);
		break;
	default:
		host_credits(bytes);
		if (!t.g.port.lost && buf_put(&t.g.port.in, bytes.p, bytes.n) == 0)
			guest_frames(&t.g, *now);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
	static const struct guest_ops ops = {
		.configure = fake_configure, .spawn = fake_spawn, .kill = fake_kill, .set_clock = fake_clock
	};
	struct span in = SPAN(p, n), bytes;
	int64_t now = 1;
	uint8_t what;
	uint16_t len;

	t.spawned = 0;
	for (size_t i = 0; i < SEEN_MAX; i++) {
		t.seen[i].exited = false;
		for (size_t c = 0; c < 3; c++)
			t.seen[i].rx[c] = CTL_CREDIT_INIT;
	}
	for (size_t i = 0; i < CTL_STREAMS_MAX; i++)
		t.their_in[i] = -1;
	MUST(guest_init(&t.g, &ops, open("/dev/null", O_RDWR | O_CLOEXEC)) == 0);
	guest_hello(&t.g, NULL, 0);
	while (span_u8(&in, &what) == 0 && span_u16(&in, &len) == 0) {
		if (span_take(&in, MIN((size_t)len, in.n), &bytes) < 0)
			break;
		step(what, bytes, &now);
		MUST(t.g.port.out.n <= PORT_OUT_MAX);
		for (size_t i = 0; i < CTL_STREAMS_MAX; i++)
			MUST(t.g.streams[i].in.n <= CTL_WINDOW);
	}
	host_reads();
	guest_done(&t.g);
	for (size_t i = 0; i < CTL_STREAMS_MAX; i++)
		close_p(&t.their_in[i]);
	return 0;
}
