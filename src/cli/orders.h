/* What a plan means for the other programs: records for agent-vm-vmm and for the guest. */
#pragma once

#include "base/buf.h"
#include "cli/preflight.h"
#include "cli/selfprobe.h"
#include "session/session.h"

#define ORDERS_MAX (4 << 20)

/* Configuration of agent-vm-vmm (proto/vmmcfg.h). 0, or -ENOBUFS when it is longer than ORDERS_MAX. */
int orders_vmm(const struct plan *p, const struct session *s, struct buf *out);

/* A file of the guest, as a record of CONFIG. 0 or -ENOBUFS. */
int orders_file(struct buf *out, const char *path, uint64_t mode, const char *content);

/* CONFIG for the guest (proto/guestcfg.h), and its /etc/hosts, links, folders and addresses, and the self-probe. */
int orders_guest(const struct plan *p, const struct session *s, const struct network *net, struct selfprobe *probe,
		 struct buf *out);
