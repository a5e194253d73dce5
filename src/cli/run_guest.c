/* What the guest says. Every frame is hostile input: the decoder has checked type, direction, channel and bounds; here
 * the stage, the stream and the payload are. Anything out of order ends the session. */
#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "cli/run_priv.h"
#include "proto/rec.h"
#include "session/lock.h"

#define FRAMES_ONCE 256	     /* handled before others get their turn */
#define MS (SEC / 1000)
#define LOCK_TRY_MS 50
#define GUEST_HELD 8 /* lines about what could not be kept */
#define GUEST_LOG_LINES 10000 /* a guest that logs without end fills no disk of ours */

static int read_phase(struct run *r, struct span in)
{
	struct run_phase ph = { 0 };
	struct span val;
	uint16_t key;
	uint64_t v;
	int k, n = 0;

	while ((k = rec_next(&in, &key, &val)) == 1) {
		if (key == CTL_K_NAME) {
			if (val.n >= sizeof(ph.name))
				return -EBADMSG;
			for (size_t i = 0; i < val.n; i++) {
				if (val.p[i] < 'a' || val.p[i] > 'z')
					return -EBADMSG;
				ph.name[i] = (char)val.p[i];
			}
		} else if (key == CTL_K_NS && n < 2) {
			if (rec_u64(val, INT64_MAX, &v) < 0)
				return -EBADMSG;
			*(n++ == 0 ? &ph.start_ns : &ph.duration_ns) = (int64_t)v;
		} else {
			return -EBADMSG;
		}
	}
	if (k < 0)
		return k;
	if (r->n_phases < RUN_PHASES_MAX)
		r->phases[r->n_phases++] = ph;
	return 0;
}

/* Records of HELLO, READY and FAIL. @ret_text: escaped, caller frees. */
static int read_report(struct run *r, struct span in, char **ret_text)
{
	AUTO_FREE(char, text);
	struct span val;
	uint16_t key;
	int k;

	while ((k = rec_next(&in, &key, &val)) == 1) {
		if (key == CTL_K_PHASE) {
			k = read_phase(r, val);
			if (k < 0)
				return k;
		} else if (key == CTL_K_PROBE && r->spec.probe) {
			k = selfprobe_result(r->spec.probe, val);
			if (k < 0)
				return k;
		} else if (key == CTL_K_SEED) {
			r->seed = true;
		} else if (key == CTL_K_TEXT) {
			free(text);
			text = str_escape(val.p, val.n);
		} else {
			return -EBADMSG;
		}
	}
	if (k < 0)
		return k;
	*ret_text = TAKE_PTR(text);
	return 0;
}

static int on_hello(struct run *r, const struct ctl_frame *f)
{
	AUTO_FREE(char, text);
	struct span in = f->payload;
	uint32_t magic;
	uint16_t version;

	if (r->stage != STAGE_BOOT || span_u32(&in, &magic) < 0 || span_u16(&in, &version) < 0 || magic != CTL_MAGIC)
		return -EBADMSG;
	if (version != CTL_VERSION) {
		run_fail(r, RUN_FAILED,
			 "agent-vm-guest: it speaks control protocol %u and this launcher %u; install agent-vm again so "
			 "that both are of one version",
			 version, CTL_VERSION);
		return 0;
	}
	if (read_report(r, in, &text) < 0)
		return -EBADMSG;
	log_info("guest said hello, kernel %s", text ? text : "unknown");
	r->times.hello = now_ns();
	r->stage = STAGE_CONFIG;
	run_send_clock(r); /* before the first file is made */
	run_send_config(r);
	return 0;
}

void run_send_config(struct run *r)
{
	int64_t now = now_ns();
	struct err err = { "" };
	int k = r->spec.lock ? r->spec.lock(r->spec.lock_arg, &err) : 0;

	r->lock_at = -1;
	if (k == -EWOULDBLOCK && (r->lock_since == 0 || now < r->lock_since + PROJECT_LOCK_MAX_MS * MS)) {
		r->lock_since = r->lock_since ? r->lock_since : now;
		r->lock_at = now + LOCK_TRY_MS * MS;
		if (now >= r->lock_since + PROJECT_LOCK_QUIET_MS * MS && !r->lock_told) {
			r->lock_told = true;
			run_progress_clear(r);
			run_line(r, err.text);
		}
		r->deadline = r->lock_since + (PROJECT_LOCK_MAX_MS + 1000) * MS;
		return;
	}
	if (k < 0) {
		run_fail(r, RUN_FAILED, "%s", err.text);
		return;
	}
	r->config_sent = true;
	if (r->spec.lock)
		r->deadline = now + (r->spec.emulated ? 3 : 1) * PROJECT_LOCK_HELD_MAX_MS * MS;
	if (ctl_put(&r->port.out, CTL_CONFIG, 0, 0, buf_span(r->spec.config).p, r->spec.config->n) < 0)
		run_fail(r, RUN_FAILED, "guest: its configuration cannot be sent");
}

static void unlock(struct run *r)
{
	if (r->spec.unlock)
		r->spec.unlock(r->spec.lock_arg);
}

static void probe_unwatch(struct run *r)
{
	for (size_t i = 0; i < SELFPROBE_LISTENERS; i++)
		if (r->spec.probe->listen[i].fd >= 0)
			ev_unwatch(&r->ev, r->spec.probe->listen[i].fd);
}

static int on_ready(struct run *r, const struct ctl_frame *f)
{
	AUTO_FREE(char, text);
	struct err err;

	if (r->stage != STAGE_CONFIG || !r->config_sent || read_report(r, f->payload, &text) < 0)
		return -EBADMSG;
	unlock(r);
	r->times.ready = now_ns();
	if (r->spec.probe) {
		probe_unwatch(r);
		if (selfprobe_judge(r->spec.probe, &err) < 0) {
			run_fail(r, RUN_FAILED, "%s; nothing was started; log: %s", err.text, r->spec.log_dir);
			return 0;
		}
	}
	run_ready(r);
	/* What came before was more than what is needed from now on, perhaps for days. */
	(void)malloc_trim(0);
	return 0;
}

static int on_fail(struct run *r, const struct ctl_frame *f)
{
	AUTO_FREE(char, text);

	/* For an exec client it is a launcher that does not take it. */
	if ((r->stage != STAGE_CONFIG && r->stage != STAGE_BOOT && r->vmm_pid != 0) || read_report(r, f->payload, &text) < 0)
		return -EBADMSG;
	run_fail(r, RUN_FAILED, "%s", text ? text : "guest: it failed without a reason");
	return 0;
}

static void on_log(struct run *r, const struct ctl_frame *f)
{
	static unsigned lines;
	AUTO_FREE(char, text);
	struct span in = f->payload;
	uint8_t level = LOG_LV_INFO;

	(void)span_u8(&in, &level);
	if (lines++ >= GUEST_LOG_LINES) {
		if (lines == GUEST_LOG_LINES + 1)
			log_warn("guest: more than %d log lines; the rest is dropped", GUEST_LOG_LINES);
		return;
	}
	text = str_escape(in.p, in.n);
	if (str_starts(text, "memory ran out"))
		r->oom = true;
	if (level == LOG_LV_WARN && str_starts(text, "history: ") && r->held.n < GUEST_HELD)
		strv_add(&r->held, text);
	log_at(level < LOG_LV_N ? level : LOG_LV_INFO, "guest: %s", text);
}

static int on_ports(struct run *r, const struct ctl_frame *f)
{
	AUTO_FREE(char, line);
	struct span in = f->payload;
	uint16_t port = 0;
	uint8_t open = 2;
	bool changed;

	(void)span_u16(&in, &port);
	(void)span_u8(&in, &open);
	if (!r->spec.autopub || r->stage == STAGE_CONFIG || open > 1 || (port == 0 && open))
		return -EBADMSG;
	line = autopub_change(r->spec.autopub, port, open, now_ns(), &changed);
	if (line)
		run_line(r, line);
	r->ports_changed |= changed;
	return 0;
}

static struct stream *find(struct run *r, uint32_t id)
{
	for (size_t i = 0; i < CTL_STREAMS_MAX; i++)
		if (r->streams[i].kind != STREAM_FREE && r->streams[i].id == id)
			return &r->streams[i];
	return NULL;
}

static int on_exit_frame(struct run *r, struct stream *s, const struct ctl_frame *f)
{
	struct span in = f->payload;
	uint32_t how, value;
	int k = 0;

	if (span_u32(&in, &how) < 0 || span_u32(&in, &value) < 0 || how > CTL_EXIT_ERRNO)
		return -EBADMSG;
	if (s->kind == STREAM_CLIENT)
		k = client_forward(r, s, f);
	else
		local_exit(r, how, value, in);
	run_stream_free(s);
	return k;
}

static int on_bye(struct run *r, struct span in)
{
	struct span val;
	uint16_t key;
	int k;

	while ((k = rec_next(&in, &key, &val)) == 1) {
		if (key != CTL_K_PHASE)
			return -EBADMSG;
		k = read_phase(r, val);
		if (k < 0)
			return k;
	}
	if (k < 0)
		return k;
	if (r->stage != STAGE_DOWN && !r->bye)
		log_warn("guest: it shut down by itself");
	r->bye = true;
	r->times.bye = now_ns();
	return 0;
}

static int on_stream(struct run *r, const struct ctl_frame *f)
{
	struct stream *s = find(r, f->stream);
	struct span in = f->payload;
	unsigned ch = f->channel;
	uint32_t n;

	if (!s)
		return -EBADMSG;
	switch (f->type) {
	case CTL_STARTED:
		break;
	case CTL_DATA:
		if (s->rx_eof[ch - 1] || ctl_credit_use(&s->rx[ch - 1], f->payload.n) < 0)
			return -EBADMSG;
		break;
	case CTL_EOF:
		if (s->rx_eof[ch - 1])
			return -EBADMSG;
		s->rx_eof[ch - 1] = true;
		break;
	case CTL_CREDIT:
		if (span_u32(&in, &n) < 0 || ctl_credit_add(&s->tx, n) < 0)
			return -EBADMSG;
		break;
	case CTL_FILE:
		if (!s->file)
			return -EBADMSG;
		break;
	case CTL_EXIT:
		return on_exit_frame(r, s, f);
	default:
		return -EBADMSG;
	}
	if (s->kind == STREAM_CLIENT)
		return client_forward(r, s, f);
	if (f->type == CTL_DATA)
		return local_data(r, ch, f->payload);
	return 0;
}

static int on_frame(struct run *r, const struct ctl_frame *f)
{
	struct span in = f->payload;
	uint64_t cookie;

	if (r->stage == STAGE_BOOT && f->type != CTL_HELLO && f->type != CTL_FAIL)
		return -EBADMSG;
	/* We stopped listening to these: what it was to do is no longer wanted. */
	if (r->stage == STAGE_DOWN && (f->type == CTL_READY || f->type == CTL_FAIL || f->type == CTL_PORT))
		return 0;
	switch (f->type) {
	case CTL_HELLO:
		return on_hello(r, f);
	case CTL_READY:
		return on_ready(r, f);
	case CTL_FAIL:
		return on_fail(r, f);
	case CTL_LOG:
		on_log(r, f);
		return 0;
	case CTL_PORT:
		return on_ports(r, f);
	case CTL_PING:
		(void)span_u64(&in, &cookie);
		/* One answer at a time: pings that come faster than they are read are the guest's loss. */
		return link_busy(&r->port) ? 0 : ctl_put_u64(&r->port.out, CTL_PONG, 0, cookie);
	case CTL_PONG:
		return 0;
	case CTL_BYE:
		return on_bye(r, in);
	default:
		return on_stream(r, f);
	}
}

int run_guest_frames(struct run *r)
{
	struct ctl_frame f;
	size_t used;
	int k = 0;

	for (int i = 0; i < FRAMES_ONCE && r->port.fd >= 0; i++) {
		k = ctl_decode(&r->port.in, CTL_SIDE_HOST, &f, &used);
		if (k <= 0)
			return k;
		k = on_frame(r, &f);
		if (k < 0) {
			log_error("guest: frame %s of %zu bytes for stream %u is out of order", ctl_type_str(f.type),
				  f.payload.n, f.stream);
			return -EBADMSG;
		}
		buf_consume(&r->port.in, used);
	}
	return 1;
}
