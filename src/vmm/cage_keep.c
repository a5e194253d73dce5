/* The keeper of the guards: puts mounts back that the host takes away.
 *
 * A mount hangs on a name. When the host renames another file over that name (`git config`, an editor that saves), or
 * removes it, the kernel takes the mount away in every mount namespace, and the guest would reach the new file. The keeper
 * is a process beside the monitor, in its namespaces, that still may mount and can do nothing else: it watches the folders
 * in which guarded names lie, and after an event with such a name it looks at every guard and mounts again what is gone.
 *
 * Between the host's rename and the mount lie some tens of microseconds in which the guest can reach the new file. That
 * cannot be closed by mounts; what was changed in that time is reported at the end (docs/threat-model.md).
 *
 * GUARD_RW is not put back: without it the guest has less. A link in the place of a guarded name cannot be mounted over;
 * the guest cannot make one there, the host can, and then it is logged.
 *
 * It hears nothing from the guest but names of files, in inotify events, which it compares and forgets. Its end is the end
 * of the VM (cage_super.c). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/capability.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/log.h"
#include "base/str.h"
#include "sandbox/caps.h"
#include "vmm/cage.h"
#include "vmm/cage_int.h"

#define EVENTS (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_ONLYDIR)
#define AGAIN_MS 20 /* when a name is not there: it may be between two steps of the host's rename */

struct keeper {
	const struct vmm_config *cfg;
	int root, notify;
	bool missing; /* a guard could not be put back now */
};

/* The folder of a relative path; "." for the share itself. */
static char *parent_of(const char *rel)
{
	const char *slash = strrchr(rel, '/');

	return slash ? xstrndup(rel, (size_t)(slash - rel)) : xstrdup(".");
}

static const char *name_of(const char *rel)
{
	const char *slash = strrchr(rel, '/');

	return slash ? slash + 1 : rel;
}

static int mount_of(int fd, uint64_t *ret)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0)
		return -errno;
	if (!(st.stx_mask & STATX_MNT_ID))
		return -ENOSYS;
	*ret = st.stx_mnt_id;
	return 0;
}

/* Is @rel there without a mount of its own? Negative errno when it cannot be looked at. */
static int is_bare(int share, const char *rel)
{
	AUTO_FREE(char, parent);
	uint64_t own, above;
	AUTO_FD(dir);
	AUTO_FD(fd);
	int r;

	parent = parent_of(rel);
	fd = file_open_beneath(share, rel, O_PATH, 0);
	if (fd < 0)
		return fd;
	dir = file_open_beneath(share, parent, O_PATH | O_DIRECTORY, 0);
	if (dir < 0)
		return dir;
	r = mount_of(fd, &own);
	if (r == 0)
		r = mount_of(dir, &above);
	return r < 0 ? r : own == above;
}

struct list {
	const struct strv *names;
	enum cage_guard kind;
};

static void lists_of(const struct vmm_share *s, struct list ret[3])
{
	/* In the order of cage_mount.c. */
	ret[0] = (struct list){ &s->guard_self, GUARD_SELF };
	ret[1] = (struct list){ &s->guard_ro, GUARD_RO };
	ret[2] = (struct list){ &s->hide, HIDE };
}

/* First all are looked at, then put: a mount on a folder would make its guarded names look as if they had theirs. */
static void keep_share(struct keeper *k, const struct vmm_share *s)
{
	struct cage_place place = { .root = k->root, .path = s->path };
	AUTO_FREE(bool, bare);
	struct list lists[3];
	size_t n = 0, at = 0;
	AUTO_FD(share);
	struct err err;

	share = open(s->path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (share < 0) {
		log_error("keeper: %s: %s", s->path, strerror(errno));
		_exit(1);
	}
	place.share = place.host = share;
	lists_of(s, lists);
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		n += lists[l].names->n;
	bare = xcalloc(n + 1, sizeof(*bare));
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		for (size_t i = 0; i < lists[l].names->n; i++, at++)
			bare[at] = is_bare(share, lists[l].names->v[i]) == 1;
	at = 0;
	for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
		for (size_t i = 0; i < lists[l].names->n; i++, at++) {
			if (!bare[at])
				continue;
			if (cage_guard_put(&place, lists[l].names->v[i], lists[l].kind, &err) < 0) {
				log_warn("keeper: %s", err.text);
				k->missing = true;
			} else {
				log_info("keeper: the host replaced %s; it is guarded again", lists[l].names->v[i]);
			}
		}
}

/* Watch every folder in which a guarded name lies; for one that is watched already this changes nothing. */
static void watch_share(struct keeper *k, const struct vmm_share *s)
{
	struct list lists[3];
	AUTO_FD(share);

	share = open(s->path, O_PATH | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	lists_of(s, lists);
	for (size_t l = 0; share >= 0 && l < ARRAY_SIZE(lists); l++)
		for (size_t i = 0; i < lists[l].names->n; i++) {
			AUTO_FREE(char, parent);
			AUTO_FREE(char, path);
			AUTO_FD(dir);

			parent = parent_of(lists[l].names->v[i]);
			dir = file_open_beneath(share, parent, O_PATH | O_DIRECTORY, 0);
			if (dir < 0)
				continue;
			path = xasprintf("/proc/self/fd/%d", dir);
			if (inotify_add_watch(k->notify, path, EVENTS) < 0 && errno == ENOSPC) {
				log_error("keeper: too many inotify watches; raise fs.inotify.max_user_watches");
				_exit(1);
			}
		}
}

static void keep_all(struct keeper *k)
{
	k->missing = false;
	/* Watches first: what changes after the look is heard of. */
	for (size_t i = 0; i < k->cfg->n_shares; i++)
		watch_share(k, &k->cfg->shares[i]);
	for (size_t i = 0; i < k->cfg->n_shares; i++)
		keep_share(k, &k->cfg->shares[i]);
}

static bool is_guarded_name(const struct keeper *k, const char *name)
{
	for (size_t s = 0; s < k->cfg->n_shares; s++) {
		struct list lists[3];

		lists_of(&k->cfg->shares[s], lists);
		for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
			for (size_t i = 0; i < lists[l].names->n; i++)
				if (strcmp(name_of(lists[l].names->v[i]), name) == 0)
					return true;
	}
	return false;
}

/* Whether one of the events that wait concerns a guard. */
static bool concerns(const struct keeper *k)
{
	_Alignas(struct inotify_event) char bytes[16384];
	const struct inotify_event *e;
	bool found = false;
	ssize_t n;

	while ((n = read(k->notify, bytes, sizeof(bytes))) > 0)
		for (ssize_t at = 0; at < n; at += (ssize_t)(sizeof(*e) + e->len)) {
			e = (const struct inotify_event *)(const void *)(bytes + at);
			found = found || e->mask & IN_Q_OVERFLOW || (e->len > 0 && is_guarded_name(k, e->name));
		}
	return found;
}

bool cage_keeper_needed(const struct vmm_config *cfg)
{
	for (size_t s = 0; s < cfg->n_shares; s++) {
		struct list lists[3];

		lists_of(&cfg->shares[s], lists);
		for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
			if (lists[l].names->n > 0)
				return true;
	}
	return false;
}

void cage_keep(const struct vmm_config *cfg)
{
	struct keeper k = { .cfg = cfg, .root = -1, .notify = -1 };
	struct pollfd p = { .events = POLLIN };
	struct err err = { "" };

	for (int fd = VMM_FD_CONTROL; fd < VMM_FDS_END; fd++)
		if (fd != VMM_FD_LOG)
			(void)close(fd);
	(void)prctl(PR_SET_NAME, "vmm-keeper");
	(void)prctl(PR_SET_DUMPABLE, 0);
	k.root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	k.notify = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (k.root < 0 || k.notify < 0) {
		log_error("keeper: inotify: %s", strerror(errno));
		_exit(1);
	}
	/* SYS_ADMIN to mount; the others to pass folders of the guest as its root does. */
	if (caps_keep(CAP_BIT(CAP_SYS_ADMIN) | CAP_BIT(CAP_DAC_READ_SEARCH) | CAP_BIT(CAP_DAC_OVERRIDE), &err) < 0 ||
	    cage_seccomp_keeper(&err) < 0) {
		log_error("keeper: %s", err.text);
		_exit(1);
	}
	p.fd = k.notify;
	keep_all(&k);
	for (;;) {
		if (poll(&p, 1, k.missing ? AGAIN_MS : -1) < 0 && errno != EINTR)
			_exit(1);
		if (concerns(&k) || k.missing)
			keep_all(&k);
	}
}
