#include "guest/setup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "base/str.h"
#include "guest/ca.h"
#include "guest/config.h"
#include "guest/dbs.h"
#include "guest/dbwatch.h"
#include "guest/mounts.h"
#include "guest/network.h"
#include "guest/ports.h"
#include "guest/probe.h"
#include "guest/state.h"
#include "proto/guestcfg.h"
#include "proto/imageapi.h"
#include "proto/rec.h"

#define NS ((int64_t)1000000000)
#define CLOCK_LEAVE_NS (NS / 5)
#define CLOCK_TELL_NS (2 * NS)

void setup_clock(struct guest *g, uint64_t ns)
{
	struct timespec now, want = { .tv_sec = (time_t)(ns / (uint64_t)NS), .tv_nsec = (long)(ns % (uint64_t)NS) };
	int64_t diff;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (ns > INT64_MAX || want.tv_sec > INT64_MAX / NS - 1)
		return;
	diff = (int64_t)ns - ((int64_t)now.tv_sec * NS + now.tv_nsec);
	if (diff > -CLOCK_LEAVE_NS && diff < CLOCK_LEAVE_NS)
		return;
	if (clock_settime(CLOCK_REALTIME, &want) < 0)
		guest_log(g, LOG_LV_WARN, "clock: cannot be set: %s", strerror(errno));
	else if (g->state == GUEST_SERVES && (diff < -CLOCK_TELL_NS || diff > CLOCK_TELL_NS))
		guest_log(g, LOG_LV_INFO, "clock: moved by %lld ms", (long long)(diff / 1000000));
}

/* Programs look root up; an image without users, such as one from scratch, gets the one there is. */
static void users_made(void)
{
	static const char passwd[] = "root:x:0:0:root:/root:/bin/bash\n", group[] = "root:x:0:\ntty:x:5:\n";
	AUTO_FD(etc);

	(void)mounts_make_dir("/etc");
	etc = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (faccessat(etc, "passwd", F_OK, 0) < 0)
		(void)file_replace_unsynced_at(etc, "passwd", passwd, sizeof(passwd) - 1, 0644);
	if (faccessat(etc, "group", F_OK, 0) < 0)
		(void)file_replace_unsynced_at(etc, "group", group, sizeof(group) - 1, 0644);
	(void)mkdir("/root", 0700);
}

/* Its name is an early one in that folder, so that what other files there add to PATH stays. The PATH that the shell was
 * started with is in its environment as the kernel shows it. */
const char setup_profile[] =
	"# /etc/profile may set PATH anew; here a login shell keeps the PATH that it was started with.\n"
	"__agent_vm_path=$({ sed -zn '/^PATH=/{s///p;q}' \"/proc/$$/environ\" | tr '\\0' '\\n'; } 2>/dev/null) || :\n"
	"case \":$PATH:\" in\n"
	"*\":$__agent_vm_path:\"*) ;;\n"
	"*) PATH=${__agent_vm_path:-$PATH} ;;\n"
	"esac\n"
	"unset __agent_vm_path\n";

/* The hook's PATH, or ours, also for agents that run their tools in login shells. Before the shares are there, so on the root
 * disk. An image where it cannot be works as well. */
static void profile_made(void)
{
	AUTO_FD(dir);

	(void)mounts_make_dir("/etc/profile.d");
	dir = open("/etc/profile.d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir >= 0)
		(void)file_replace_unsynced_at(dir, "agent-vm.sh", setup_profile, sizeof(setup_profile) - 1, 0644);
}

static int image_check(struct err *err)
{
	char found[IMAGE_API_FOUND];
	uint32_t v;
	int r;

	r = image_api_read(IMAGE_API_FILE, &v, found);
	if (r == -ENOENT)
		return err_set(err, r, "image: " IMAGE_API_FILE " is missing, so this is no image for agent-vm (it knows image API "
			       "%d to %d); get one with 'agent-vm pull', or choose another with --image", IMAGE_API_MIN,
			       IMAGE_API_MAX);
	if (r < 0)
		return err_set(err, r, "image: " IMAGE_API_FILE " cannot be read: %s; get the image anew with 'agent-vm pull'",
			       r == -ELOOP || r == -EINVAL ? "it is no regular file" : strerror(-r));
	if (v == 0)
		return err_set(err, -EINVAL, "image: " IMAGE_API_FILE " holds '%s', which is no number (agent-vm knows image API "
			       "%d to %d); get the image anew with 'agent-vm pull'", found, IMAGE_API_MIN, IMAGE_API_MAX);
	if (v < IMAGE_API_MIN)
		return err_set(err, -EINVAL, "image: its API is %u, too old for this agent-vm, which knows %d to %d; update the "
			       "image with 'agent-vm pull'", v, IMAGE_API_MIN, IMAGE_API_MAX);
	if (v > IMAGE_API_MAX)
		return err_set(err, -EINVAL, "image: its API is %u, too new for this agent-vm, which knows %d to %d; update "
			       "agent-vm", v, IMAGE_API_MIN, IMAGE_API_MAX);
	return 0;
}

static int bash_check(struct err *err)
{
	static const char *const places[] = { "/bin/bash", "/usr/bin/bash", "/usr/local/bin/bash" };

	for (size_t i = 0; i < ARRAY_SIZE(places); i++)
		if (access(places[i], X_OK) == 0)
			return 0;
	return err_set(err, -ENOENT, "image: it has no bash, which agent-vm needs to start programs; use an image with bash");
}

/* Folder of @path, made where missing, and the last component. */
static int parent_open(const char *path, const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE(char, dir);
	int r;

	if (slash[1] == '\0')
		return -EINVAL;
	dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
	if (!dir)
		return -ENOMEM;
	r = slash == path ? 0 : mounts_make_dir(dir);
	if (r < 0)
		return r;
	*ret_name = slash + 1;
	r = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return r < 0 ? -errno : r;
}

int setup_link(const struct config_link *l, struct err *err)
{
	const char *name;
	AUTO_FD(dir);
	struct stat st;
	int r = 0;

	dir = parent_open(l->path, &name);
	if (dir < 0)
		return err_set(err, dir, "%s: its folder cannot be made in the guest: %s", l->path, strerror(-dir));
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0)
		r = file_remove_tree_at(dir, name);
	if (r == 0 && symlinkat(l->target, dir, name) < 0)
		r = -errno;
	return r < 0 ? err_set(err, r, "%s: the link cannot be made in the guest: %s", l->path, strerror(-r)) : 0;
}

int setup_file(const struct config_file *f, struct err *err)
{
	const char *name;
	AUTO_FD(dir);
	int r;

	dir = parent_open(f->path, &name);
	r = dir < 0 ? dir : file_replace_unsynced_at(dir, name, f->content.p, f->content.n, f->mode);
	return r < 0 ? err_set(err, r, "%s: cannot be written in the guest: %s", f->path, strerror(-r)) : 0;
}

static int make_dir(const struct config_dir *d, struct err *err)
{
	const char *name;
	AUTO_FD(dir);
	int r;

	dir = parent_open(d->path, &name);
	r = dir < 0 ? dir : dir_make_at(dir, name, d->mode);
	return r < 0 ? err_set(err, r, "%s: the folder cannot be made in the guest: %s", d->path, strerror(-r)) : 0;
}

static int apply_files(const struct config *c, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < c->n_dirs && r == 0; i++)
		r = make_dir(&c->dirs[i], err);
	for (size_t i = 0; i < c->n_links && r == 0; i++)
		r = setup_link(&c->links[i], err);
	for (size_t i = 0; i < c->n_files && r == 0; i++)
		r = setup_file(&c->files[i], err);
	return r;
}

static int apply(struct guest *g, struct config *c, struct buf *ready, struct err *err)
{
	int64_t start = now_ns(), up, mounted, files, probed;
	struct probe probes[GC_PROBES_MAX];
	const char *told;
	AUTO_FREE(char, note);
	int r = 0;

	if (c->hostname && sethostname(c->hostname, strlen(c->hostname)) < 0)
		return err_set(err, -errno, "host name %s: cannot be set in the guest: %s", c->hostname, strerror(errno));
	network_loopback();
	if (c->net.mtu > 0)
		r = network_up(GC_NET_IF, &c->net, err);
	if (r < 0)
		return r;
	up = now_ns();
	probe_start(c, probes);
	if (c->n_dbs > 0)
		dbwatch_open(DBWATCH_PROGRAM);
	if (c->root) {
		r = mounts_root(c->root, c->root_fs ? c->root_fs : "ext4", c->root_bytes, &note, err);
		if (r < 0)
			return r;
	}
	if (note)
		guest_log(g, strstr(note, "cannot") ? LOG_LV_WARN : LOG_LV_INFO, "%s", note);
	users_made();
	profile_made();
	r = c->flags & GC_F_NO_IMAGE_VERSION ? 0 : image_check(err);
	if (r == 0)
		r = bash_check(err);
	if (r == 0)
		r = mounts_shares(c, err);
	if (r < 0)
		return r;
	mounted = now_ns();
	if (c->ca.own.n > 0 || c->ca.host.n > 0) {
		r = ca_install(&c->ca, &told, err);
		if (r < 0)
			return r;
		if (told)
			guest_log(g, LOG_LV_WARN, "%s", told);
	}
	r = apply_files(c, err);
	if (r == 0)
		r = state_apply(g, c, err);
	if (r == 0)
		r = dbs_load(g, c, err);
	if (r < 0)
		return r;
	files = now_ns();
	/* The self-probe's packets were on their way meanwhile. */
	r = probe_finish(c, probes, ready);
	if (r < 0)
		return err_set(err, r, "self-probe: its result cannot be told: %s", strerror(-r));
	probed = now_ns();
	if (c->ports.wanted) {
		r = (int)ports_start(&c->ports, c->net.addr4, c->net.addr6, &g->ports_fd);
		if (r < 0)
			return err_set(err, r, "guest: published ports cannot be watched: %s", strerror(-r));
	}
	if (c->n_dbs > 0)
		dbwatch_start(g);
	if (access(GC_SEED, X_OK) == 0)
		(void)rec_put(ready, CTL_K_SEED, "", 0);
	(void)guest_put_phase(ready, "mounts", up, mounted - up);
	(void)guest_put_phase(ready, "files", mounted, files - mounted);
	if (c->net.mtu > 0)
		(void)guest_put_phase(ready, "network", start, up - start);
	if (c->n_probes > 0)
		(void)guest_put_phase(ready, "probe", files, probed - files);
	return 0;
}

int setup_configure(struct guest *g, struct span in, struct buf *ready, struct err *err)
{
	struct config c;
	int r;

	r = config_parse(in, &c, err);
	if (r == 0)
		r = apply(g, &c, ready, err);
	config_done(&c);
	return r;
}
