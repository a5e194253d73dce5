/* One turn of the loop: what the events of a batch change, then each kicked stream, then what is overdue. Who waits for
 * the events, and by which clock, is the caller's. */
#include <unistd.h>

#include "gate/gate.h"
#include "proto/gatecfg.h"

void gate_end(struct gate *g, const char *why, bool failed)
{
	if (g->ended)
		return;
	g->ended = why;
	g->failed = failed;
}

void gate_due(struct gate *g, int64_t when)
{
	if (g->due < 0 || when < g->due)
		g->due = when;
}

static void event(struct gate *g, const struct ev_event *e)
{
	char m[1];

	switch ((enum gate_ev)e->kind) {
	case EV_CONTROL:
		/* The launcher says nothing, so this is its end, or a launcher of another build. */
		gate_end(g,
			 read(NET_FD_CONTROL, m, sizeof(m)) > 0 ? "the launcher is not understood"
								: "the launcher is gone",
			 false);
		break;
	case EV_SIGNAL:
		gate_end(g, "told to end", false);
		break;
	case EV_VAULT:
		vault_event(g, e->events);
		break;
	case EV_WIRE:
		wire_event(g, e->events);
		break;
	case EV_CONN:
	case EV_DIALLED:
		conn_event(g, e);
		break;
	case EV_ASK:
		ask_event(g, e);
		break;
	case EV_LOOKUP:
		lookup_event(g, e);
		break;
	}
}

void gate_turn(struct gate *g, const struct ev_event *batch, int n)
{
	for (int i = 0; i < n && !g->ended; i++)
		event(g, &batch[i]);
	links_flush(g);
	if (g->due >= 0 && g->due <= g->now) {
		g->due = -1;
		asks_tick(g);
		lookup_tick(g);
		conns_tick(g);
	}
	conns_turn(g);
	asks_flush(g);
}
