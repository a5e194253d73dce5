/* The check is agent-vm-image's fetching half with IM_HEAD: it has the network and the login and gives itself five
 * seconds. Its answer, one message, waits in the socket until the session is over; nobody looks at it before, so it can
 * delay or disturb nothing. A session that ends sooner kills it, and the next one asks again. */
#include "image/update.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "base/fd.h"
#include "base/file.h"
#include "base/macros.h"
#include "image/pull.h"
#include "image/role.h"
#include "image/store_priv.h"
#include "proto/rec.h"

#define CHECKS "checks"
#define CHECK_EVERY_S 3600

struct update {
	struct role role;
	int checks; /* folder of the stamps */
	char stamp[REF_FILE_MAX];
	char *reference;
	char served[IMAGE_HEX + 1], platform[IMAGE_HEX + 1];
};

/* Only what a registry can be asked for and whose answer can change. */
static bool can_change(const struct image *img)
{
	return img->from_registry && !strchr(img->reference, '@');
}

/* A stamp from the future (a clock that was set back) counts as none. */
static bool was_checked(const struct update *u)
{
	struct stat st;
	time_t now = time(NULL);

	return fstatat(u->checks, u->stamp, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_mtim.tv_sec <= now &&
	       now - st.st_mtim.tv_sec < CHECK_EVERY_S;
}

static void update_free(struct update *u)
{
	role_end(&u->role);
	close_p(&u->checks);
	free(u->reference);
	free(u);
}

static int ask(struct update *u, const struct store *s, const char *image_role, int log_fd)
{
	struct strv env = { 0 };
	struct buf b;
	int r;

	pull_env(&env);
	r = role_start(image_role, "fetch", log_fd, s->fd, &env, &u->role, NULL);
	strv_done(&env);
	if (r < 0)
		return r;
	im_begin(&b, IM_HEAD);
	(void)rec_put_str(&b, IM_K_SOURCE, u->reference);
	(void)rec_put_str(&b, IM_K_ARCH, IMAGE_ARCH);
	(void)rec_put_str(&b, IM_K_SERVED, u->served);
	return role_send(&u->role, &b, -1, NULL);
}

struct update *update_start(const struct store *s, const struct image *img, const char *image_role, int log_fd)
{
	struct update *u;

	if (!can_change(img))
		return NULL;
	u = xcalloc(1, sizeof(*u));
	u->role = (struct role)ROLE_INIT;
	u->checks = dir_make_at(s->fd, CHECKS, 0700) < 0 ? -1 : store_dir(s, CHECKS);
	u->reference = xstrdup(img->reference);
	memcpy(u->served, img->digest, sizeof(u->served));
	memcpy(u->platform, img->platform, sizeof(u->platform));
	store_ref_file(img->reference, u->stamp);
	u->stamp[REF_HEX] = '\0';
	if (u->checks < 0 || was_checked(u) || ask(u, s, image_role, log_fd) < 0) {
		update_free(u);
		return NULL;
	}
	return u;
}

/* 1 and the digests that the registry has now; 0: it answered something else; -1: it has not answered yet. */
static int answer(struct update *u, char served[IMAGE_HEX + 1], char platform[IMAGE_HEX + 1])
{
	struct pollfd pfd = { .fd = u->role.fd, .events = POLLIN };
	AUTO_FREE(char, s);
	AUTO_FREE(char, p);
	struct im m;

	if (poll(&pfd, 1, 0) != 1)
		return -1;
	if (im_recv(u->role.fd, IM_FROM_FETCH, &m) != 1)
		return 0;
	close_p(&m.fd);
	if (m.type != IM_MANIFEST)
		return 0;
	s = im_str(&m, IM_K_SERVED);
	p = im_str(&m, IM_K_PLATFORM);
	memcpy(served, s, IMAGE_HEX + 1);
	memcpy(platform, p, IMAGE_HEX + 1);
	return 1;
}

char *update_finish(struct update *u)
{
	char served[IMAGE_HEX + 1], platform[IMAGE_HEX + 1];
	char *note = NULL;
	AUTO_FD(stamp);
	int r;

	if (!u)
		return NULL;
	r = answer(u, served, platform);
	if (r >= 0) {
		stamp = openat(u->checks, u->stamp, O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (stamp >= 0)
			(void)futimens(stamp, NULL);
	}
	/* An index changes when any of its platforms does: only ours counts. */
	if (r == 1 && strcmp(served, u->served) != 0 && strcmp(platform, u->platform) != 0)
		note = xasprintf("image %s: a newer one is there (%.12s, this is %.12s); get it with: agent-vm pull%s%s",
				 u->reference, served, u->served,
				 strcmp(u->reference, IMAGE_REF_DEFAULT) == 0 ? "" : " --image ",
				 strcmp(u->reference, IMAGE_REF_DEFAULT) == 0 ? "" : u->reference);
	update_free(u);
	return note;
}
