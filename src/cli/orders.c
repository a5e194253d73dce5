#include "cli/orders.h"

#include <errno.h>
#include <time.h>

#include "base/macros.h"
#include "cli/agent_files.h"
#include "cli/guest_creds.h"
#include "proto/guestcfg.h"
#include "proto/rec.h"

#define STATE_AT GC_STATE_AT

/* One failure is enough: the buffer's maximum was passed. */
#define TRY(call)                      \
	do {                           \
		if ((call) < 0)        \
			return -ENOBUFS; \
	} while (0)

static int put_list(struct buf *out, uint16_t key, const struct strv *v)
{
	for (size_t i = 0; i < v->n; i++)
		TRY(rec_put_str(out, key, v->v[i]));
	return 0;
}

static int put_path(struct buf *out, uint16_t key, const char *path)
{
	return path ? rec_put_str(out, key, path) : 0;
}

static int put_share(struct buf *out, const struct layout_share *s)
{
	ssize_t at = rec_begin(out, VC_SHARE);

	TRY(at);
	TRY(rec_put_str(out, VC_PATH, s->host));
	TRY(rec_put_u64(out, VC_RO, s->ro));
	TRY(put_list(out, VC_GUARD_SELF, &s->guard_self));
	TRY(put_list(out, VC_GUARD_RO, &s->guard_ro));
	TRY(put_list(out, VC_GUARD_RW, &s->guard_rw));
	TRY(put_list(out, VC_HIDE, &s->hide));
	rec_end(out, (size_t)at);
	return 0;
}

int orders_vmm(const struct plan *p, const struct session *s, struct buf *out)
{
	AUTO_FREE(char, disk);
	AUTO_FREE(char, work);

	disk = xasprintf("%s/" SESSION_DISK, s->dir_path);
	work = xasprintf("%s/cage", s->dir_path);
	TRY(rec_put_u64(out, VC_MONITOR, p->monitor));
	TRY(rec_put_u64(out, VC_RAM_MIB, p->res.memory_mib));
	TRY(rec_put_u64(out, VC_CPUS, p->res.cpus));
	TRY(rec_put_u64(out, VC_NAMESPACES, p->namespaces ? VMM_NS_USED : VMM_NS_NONE));
	TRY(rec_put(out, VC_MAC, p->mac, sizeof(p->mac)));
	TRY(rec_put_str(out, VC_LABEL, s->info.name));
	TRY(rec_put_str(out, VC_LIBKRUNFW, p->libkrunfw));
	if (p->monitor == VMM_KRUN) {
		TRY(put_path(out, VC_LIBKRUN, p->libkrun));
		TRY(put_path(out, VC_KERNEL, p->kernel));
		TRY(rec_put_str(out, VC_BOOT_DIR, p->boot_dir));
	} else {
		TRY(put_path(out, VC_QEMU, p->qemu));
		TRY(put_path(out, VC_VIRTIOFSD, p->virtiofsd));
		TRY(rec_put_str(out, VC_BOOT_IMAGE, p->boot_image));
	}
	TRY(rec_put_str(out, VC_DISK, disk));
	TRY(rec_put_str(out, VC_DISK_BASE, p->image.disk_path));
	TRY(rec_put_str(out, VC_WORK_DIR, work));
	for (size_t i = 0; i < p->layout.n_shares; i++)
		TRY(put_share(out, &p->layout.shares[i]));
	return 0;
}

static int put_bind(struct buf *out, const struct layout_share *s, size_t index, bool one_share)
{
	ssize_t at = rec_begin(out, GC_BIND);
	char name[48];

	TRY(at);
	(void)snprintf(name, sizeof(name), one_share ? "%zu" : VMM_SHARE_TAG ".%zu", index);
	TRY(rec_put_str(out, one_share ? GC_SUB : GC_TAG, name));
	TRY(rec_put_str(out, GC_TARGET, s->guest));
	TRY(rec_put_u64(out, GC_RO, s->ro));
	rec_end(out, (size_t)at);
	return 0;
}

static int put_link(struct buf *out, const char *path, const char *target)
{
	ssize_t at = rec_begin(out, GC_LINK);

	TRY(at);
	TRY(rec_put_str(out, GC_PATH, path));
	TRY(rec_put_str(out, GC_TARGET, target));
	rec_end(out, (size_t)at);
	return 0;
}

int orders_file(struct buf *out, const char *path, uint64_t mode, const char *content)
{
	ssize_t at = rec_begin(out, GC_FILE);

	TRY(at);
	TRY(rec_put_str(out, GC_PATH, path));
	TRY(rec_put_u64(out, GC_MODE, mode));
	TRY(rec_put_str(out, GC_CONTENT, content));
	rec_end(out, (size_t)at);
	return 0;
}

static int put_dir(struct buf *out, const char *path, uint64_t mode)
{
	ssize_t at = rec_begin(out, GC_DIR);

	TRY(at);
	TRY(rec_put_str(out, GC_PATH, path));
	TRY(rec_put_u64(out, GC_MODE, mode));
	rec_end(out, (size_t)at);
	return 0;
}

/* What persists of the guest's home (spec/cli.md section 10.2): the folders first, so that no link dangles. */
static int put_home(const struct plan *p, struct buf *out)
{
	static const struct {
		const char *link, *name;
	} folders[] = {
		{ "/root/.claude", "claude" },
		{ NULL, "codex" },
		{ "/root/.local/share/opencode", "opencode" },
		{ "/root/.config/opencode", "opencode-config" },
		{ "/root/.copilot", "copilot" },
		{ "/root/.config/gh", "gh-config" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		AUTO_FREE(char, at);

		at = xasprintf(STATE_AT "/%s", folders[i].name);
		TRY(put_dir(out, at, 0700));
		if (folders[i].link)
			TRY(put_link(out, folders[i].link, at));
	}
	/* Its file is made by the launcher, so that a history that exists is kept. */
	TRY(put_link(out, "/root/.claude.json", STATE_AT "/claude.json"));
	TRY(put_link(out, "/root/.bash_history", STATE_AT "/bash_history"));
	return put_link(out, "/root/.gitconfig", STATE_AT "/gitconfig");
}

/* network page 1 */
static int put_net(struct buf *out, const struct network *n)
{
	static const uint8_t gateway_mac[6] = { 0x02, 0x61, 0x76, 0, 0, 1 };
	static const uint8_t v4[9] = { 192, 0, 0, 2, 192, 0, 0, 1, 29 };
	static const uint8_t v6[33] = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 2, 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07,
					[31] = 1, 64 };
	ssize_t at = rec_begin(out, GC_NET);

	TRY(at);
	TRY(rec_put_u64(out, GC_NET_MTU, GC_NET_MTU_MAX));
	TRY(rec_put(out, GC_NET_MAC, gateway_mac, sizeof(gateway_mac)));
	/* Also without IPv4 on the host: names and the host's alias are asked for by it. */
	TRY(rec_put(out, GC_NET_V4, v4, sizeof(v4)));
	if (n->ipv6)
		TRY(rec_put(out, GC_NET_V6, v6, sizeof(v6)));
	rec_end(out, (size_t)at);
	return orders_file(out, "/etc/resolv.conf", 0644, "nameserver 192.0.0.1\noptions edns0 timeout:2 attempts:3\n");
}

/* What the guest has to watch for. */
static int put_ports(struct buf *out, const struct network_plan *net)
{
	bool tcp = net->auto_publish;
	ssize_t at;

	for (size_t i = 0; i < net->ports.n_what; i++)
		tcp |= !net->ports.what[i].udp;
	if (!tcp)
		return 0;
	at = rec_begin(out, GC_PORTS);
	TRY(at);
	TRY(rec_put_u64(out, GC_AUTO, net->auto_publish));
	for (size_t i = 0; i < net->ports.n_what; i++)
		if (!net->ports.what[i].udp)
			TRY(rec_put_u64(out, GC_PORT, net->ports.what[i].guest));
	rec_end(out, (size_t)at);
	return 0;
}

#define HOST_NAMES "host.agent-vm.internal host.microsandbox.internal"

int orders_guest(const struct plan *p, const struct session *s, const struct network *net, struct selfprobe *probe,
		 struct buf *out)
{
	struct agent_logins logins;
	int r;
	AUTO_FREE(char, hosts);

	TRY(rec_put_str(out, GC_HOSTNAME, s->info.name));
	TRY(rec_put_str(out, GC_ROOT, p->monitor == VMM_KRUN ? VMM_DISK_DEV_KRUN : VMM_DISK_DEV_QEMU));
	TRY(rec_put_str(out, GC_ROOT_FS, "ext4"));
	TRY(rec_put_u64(out, GC_ROOT_BYTES, p->res.disk_mib << 20));
	if (p->namespaces)
		TRY(rec_put_str(out, GC_SHARE_TAG, VMM_SHARE_TAG));
	for (size_t i = 0; i < p->layout.n_shares; i++)
		TRY(put_bind(out, &p->layout.shares[i], i, p->namespaces));
	/* The gateway's names resolve without a network too: a program is then refused at once instead of waiting for DNS. */
	hosts = xasprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 %s\n"
			  "192.0.0.1 " HOST_NAMES "\n%s", s->info.name, net->ipv6 ? "fd6b:91d4:3e07::1 " HOST_NAMES "\n" : "");
	TRY(orders_file(out, "/etc/hosts", 0644, hosts));
	if (!p->net.no_network)
		TRY(put_net(out, net));
	TRY(put_ports(out, &p->net));
	TRY(selfprobe_orders(probe, net, out));
	TRY(put_home(p, out));
	TRY(guest_creds_put_ca(net, &p->upstream, out));
	guest_creds_logins(&p->creds, &logins);
	r = agent_files(p, &logins, out);
	guest_creds_logins_done(&logins);
	return r;
}
