/* Reader of the launcher's order (proto/vmmcfg.h). The launcher is trusted, so the checks are there to find a launcher
 * of another build, and so that no value can become an option of QEMU or leave its folder. */
#include "vmm/config.h"

#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stddef.h>
#include <string.h>

#include "proto/rec.h"

#define RAM_MIB_MIN 128
#define RAM_MIB_MAX (16 << 20) /* 16 TiB */
#define CPUS_MAX 255	       /* libkrun takes one byte */
#define LABEL_LEN_MAX 64
#define SHARES_MAX 80
#define GUARDS_MAX 4096 /* a share */

enum kind { PATH_ABS, LABEL, NUMBER, MAC };

#define KRUN (1u << VMM_KRUN)
#define QEMU (1u << VMM_QEMU_KVM | 1u << VMM_QEMU_TCG)
#define ALL (KRUN | QEMU)

/* VC_SHARE, the only key that repeats, is not here. */
static const struct row {
	uint16_t key;
	enum kind kind;
	unsigned needed_by; /* monitors, one bit each */
	uint64_t max;
	size_t at;
	const char *name;
} rows[] = {
	{ VC_MONITOR, NUMBER, ALL, VMM_MONITORS - 1, offsetof(struct vmm_config, monitor), "monitor" },
	{ VC_RAM_MIB, NUMBER, ALL, RAM_MIB_MAX, offsetof(struct vmm_config, ram_mib), "memory" },
	{ VC_CPUS, NUMBER, ALL, CPUS_MAX, offsetof(struct vmm_config, cpus), "processors" },
	{ VC_NAMESPACES, NUMBER, ALL, VMM_NS_USED, offsetof(struct vmm_config, namespaces), "namespaces" },
	{ VC_MAC, MAC, ALL, 0, offsetof(struct vmm_config, mac), "Ethernet address" },
	{ VC_LABEL, LABEL, 0, 0, offsetof(struct vmm_config, label), "label" },
	{ VC_LIBKRUN, PATH_ABS, KRUN, 0, offsetof(struct vmm_config, libkrun), "libkrun" },
	{ VC_LIBKRUNFW, PATH_ABS, ALL, 0, offsetof(struct vmm_config, libkrunfw), "libkrunfw" },
	{ VC_KERNEL, PATH_ABS, 0, 0, offsetof(struct vmm_config, kernel), "kernel" },
	{ VC_QEMU, PATH_ABS, QEMU, 0, offsetof(struct vmm_config, qemu), "qemu" },
	{ VC_VIRTIOFSD, PATH_ABS, QEMU, 0, offsetof(struct vmm_config, virtiofsd), "virtiofsd" },
	{ VC_BOOT_DIR, PATH_ABS, KRUN, 0, offsetof(struct vmm_config, boot_dir), "boot folder" },
	{ VC_BOOT_IMAGE, PATH_ABS, QEMU, 0, offsetof(struct vmm_config, boot_image), "boot image" },
	{ VC_DISK, PATH_ABS, ALL, 0, offsetof(struct vmm_config, disk), "disk" },
	{ VC_DISK_BASE, PATH_ABS, ALL, 0, offsetof(struct vmm_config, disk_base), "disk's base" },
	{ VC_WORK_DIR, PATH_ABS, ALL, 0, offsetof(struct vmm_config, work_dir), "work folder" },
};

static_assert(sizeof(((struct vmm_config *)0)->monitor) == sizeof(uint32_t), "numbers are stored as 32 bits");
static_assert(sizeof(((struct vmm_config *)0)->namespaces) == sizeof(uint32_t), "numbers are stored as 32 bits");

static int abs_path(struct span val, char **ret)
{
	if (val.n == 0 || val.n >= PATH_MAX || val.p[0] != '/')
		return -EBADMSG;
	return span_dup(val, ret);
}

/* Below the share, in plain form: no empty, "." or ".." component. */
static int rel_path(struct span val, struct strv *to)
{
	size_t start = 0;
	char *s;
	int r;

	if (val.n == 0 || val.n >= PATH_MAX || to->n >= GUARDS_MAX)
		return -EBADMSG;
	for (size_t i = 0; i <= val.n; i++) {
		size_t n = i - start;

		if (i < val.n && val.p[i] != '/')
			continue;
		if (n == 0 || (n <= 2 && memcmp(val.p + start, "..", n) == 0))
			return -EBADMSG;
		start = i + 1;
	}
	r = span_dup(val, &s);
	if (r < 0)
		return r;
	strv_take(to, s);
	return 0;
}

static int label(struct span val, char **ret)
{
	if (val.n == 0 || val.n > LABEL_LEN_MAX)
		return -EBADMSG;
	for (size_t i = 0; i < val.n; i++)
		if (!isalnum(val.p[i]) && !strchr("._-", val.p[i]))
			return -EBADMSG;
	return span_dup(val, ret);
}

static void share_done(struct vmm_share *s)
{
	free(s->path);
	strv_done(&s->guard_ro);
	strv_done(&s->guard_self);
	strv_done(&s->guard_rw);
	strv_done(&s->hide);
}

static int share(struct span val, struct vmm_config *cfg)
{
	struct vmm_share s = { 0 };
	bool ro_seen = false;
	uint16_t key;
	struct span v;
	uint64_t u;
	int r;

	if (cfg->n_shares >= SHARES_MAX)
		return -EBADMSG;
	while ((r = rec_next(&val, &key, &v)) > 0) {
		switch (key) {
		case VC_PATH:
			r = s.path ? -EBADMSG : abs_path(v, &s.path);
			break;
		case VC_RO:
			r = ro_seen ? -EBADMSG : rec_u64(v, 1, &u);
			if (r == 0)
				s.ro = u;
			ro_seen = true;
			break;
		case VC_GUARD_RO:
			r = rel_path(v, &s.guard_ro);
			break;
		case VC_GUARD_SELF:
			r = rel_path(v, &s.guard_self);
			break;
		case VC_GUARD_RW:
			r = rel_path(v, &s.guard_rw);
			break;
		case VC_HIDE:
			r = rel_path(v, &s.hide);
			break;
		default:
			r = -EBADMSG;
		}
		if (r < 0)
			break;
	}
	if (r == 0 && (!s.path || !ro_seen))
		r = -EBADMSG;
	if (r < 0) {
		share_done(&s);
		return r;
	}
	cfg->shares = xrealloc(cfg->shares, (cfg->n_shares + 1) * sizeof(s));
	cfg->shares[cfg->n_shares++] = s;
	return 0;
}

static int value(const struct row *row, struct span val, struct vmm_config *cfg)
{
	void *at = (char *)cfg + row->at;
	uint64_t u;
	int r;

	switch (row->kind) {
	case PATH_ABS:
		return abs_path(val, at);
	case LABEL:
		return label(val, at);
	case MAC:
		if (val.n != 6 || val.p[0] & 1) /* a group's */
			return -EBADMSG;
		memcpy(at, val.p, 6);
		return 0;
	case NUMBER:
		r = rec_u64(val, row->max, &u);
		if (r == 0)
			*(uint32_t *)at = (uint32_t)u;
		return r;
	}
	return -EBADMSG;
}

static int parse(struct span in, struct vmm_config *cfg, struct err *err)
{
	uint32_t seen = 0; /* one bit a row */
	uint16_t key;
	struct span val;
	int r;

	static_assert(ARRAY_SIZE(rows) <= 32, "seen is too small");
	while ((r = rec_next(&in, &key, &val)) > 0) {
		size_t i = 0;

		if (key == VC_SHARE) {
			if (share(val, cfg) < 0)
				return err_set(err, -EBADMSG, "configuration of the VM: share %zu is malformed", cfg->n_shares);
			continue;
		}
		while (i < ARRAY_SIZE(rows) && rows[i].key != key)
			i++;
		if (i == ARRAY_SIZE(rows))
			return err_set(err, -EBADMSG, "configuration of the VM: unknown key %u", key);
		if (seen & 1u << i)
			return err_set(err, -EBADMSG, "configuration of the VM: %s is given twice", rows[i].name);
		if (value(&rows[i], val, cfg) < 0)
			return err_set(err, -EBADMSG, "configuration of the VM: %s is malformed or out of range", rows[i].name);
		seen |= 1u << i;
	}
	if (r < 0)
		return err_set(err, -EBADMSG, "configuration of the VM: bytes that are no record");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!(seen & 1u << i) && rows[i].needed_by & 1u << cfg->monitor)
			return err_set(err, -EBADMSG, "configuration of the VM: %s is missing", rows[i].name);
	if (cfg->ram_mib < RAM_MIB_MIN)
		return err_set(err, -EBADMSG, "configuration of the VM: %u MiB of memory, needed are %d", cfg->ram_mib, RAM_MIB_MIN);
	if (cfg->cpus < 1)
		return err_set(err, -EBADMSG, "configuration of the VM: no processor");
	return 0;
}

int vmm_config_parse(struct span in, struct vmm_config *ret, struct err *err)
{
	struct vmm_config cfg = { 0 };
	int r;

	r = parse(in, &cfg, err);
	if (r < 0) {
		vmm_config_done(&cfg);
		return r;
	}
	if (!cfg.label)
		cfg.label = xstrdup("agent-vm");
	*ret = cfg;
	return 0;
}

void vmm_config_done(struct vmm_config *cfg)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].kind != NUMBER)
			free(*(char **)((char *)cfg + rows[i].at));
	for (size_t i = 0; i < cfg->n_shares; i++)
		share_done(&cfg->shares[i]);
	free(cfg->shares);
	*cfg = (struct vmm_config){ 0 };
}
