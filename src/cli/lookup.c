#include "cli/lookup.h"

#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/macros.h"

struct found {
	uint32_t at;
	uint32_t state; /* enum lookup_state */
	uint32_t n_addrs;
	struct addr addrs[LOOKUP_ADDRS];
};

void lookup_add(struct lookup *l, const char *name)
{
	if (lookup_find(l, name))
		return;
	l->v = xrealloc(l->v, (l->n + 1) * sizeof(*l->v));
	l->v[l->n++] = (struct lookup_name){ .name = name };
}

const struct lookup_name *lookup_find(const struct lookup *l, const char *name)
{
	for (size_t i = 0; i < l->n; i++)
		if (strcmp(l->v[i].name, name) == 0)
			return &l->v[i];
	return NULL;
}

bool lookup_addr(const struct sockaddr *sa, struct addr *ret)
{
	struct addr a = { .family = sa->sa_family };

	if (sa->sa_family == AF_INET)
		memcpy(a.b, &((const struct sockaddr_in *)(const void *)sa)->sin_addr, 4);
	else if (sa->sa_family == AF_INET6)
		memcpy(a.b, &((const struct sockaddr_in6 *)(const void *)sa)->sin6_addr, 16);
	else
		return false;
	*ret = a;
	return true;
}

static void take(struct found *f, const struct addrinfo *all)
{
	for (const struct addrinfo *a = all; a && f->n_addrs < LOOKUP_ADDRS; a = a->ai_next)
		f->n_addrs += lookup_addr(a->ai_addr, &f->addrs[f->n_addrs]);
}

/* The child. All at once: one name that is slow keeps no other back. */
static void child(const struct lookup *l, int fd) __attribute__((noreturn));

static void child(const struct lookup *l, int fd)
{
	const struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	struct gaicb *asks = xcalloc(l->n, sizeof(*asks)), **list = xcalloc(l->n, sizeof(*list));
	size_t left = l->n;

	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (size_t i = 0; i < l->n; i++) {
		asks[i] = (struct gaicb){ .ar_name = l->v[i].name, .ar_request = &hints };
		list[i] = &asks[i];
	}
	if (getaddrinfo_a(GAI_NOWAIT, list, (int)l->n, NULL) != 0)
		_exit(1);
	while (left > 0) {
		(void)gai_suspend((const struct gaicb *const *)list, (int)l->n, NULL);
		for (size_t i = 0; i < l->n; i++) {
			struct found f = { .at = (uint32_t)i };
			int r = list[i] ? gai_error(list[i]) : EAI_INPROGRESS;

			if (r == EAI_INPROGRESS)
				continue;
			if (r == 0)
				take(&f, asks[i].ar_result);
			f.state = f.n_addrs > 0 ? LOOKUP_FOUND :
				  r == 0 || r == EAI_NONAME || r == EAI_NODATA || r == EAI_ADDRFAMILY ? LOOKUP_NONE : LOOKUP_SILENT;
			list[i] = NULL;
			left--;
			if (fd_send(fd, &f, sizeof(f), NULL, 0) < 0)
				_exit(1);
		}
	}
	_exit(0);
}

void lookup_start(struct lookup *l)
{
	int pair[2];

	l->until_ns = now_ns() + LOOKUP_MS * INT64_C(1000000);
	if (l->n == 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		return;
	l->pid = fork();
	if (l->pid == 0)
		child(l, pair[1]);
	(void)close(pair[1]);
	l->fd = pair[0];
	if (l->pid < 0) {
		l->pid = 0;
		close_p(&l->fd);
		l->fd = -1;
	}
}

void lookup_finish(struct lookup *l)
{
	struct found f;

	for (size_t left = l->n; left > 0 && l->fd >= 0; left--) {
		struct pollfd p = { l->fd, POLLIN, 0 };
		int64_t ms = (l->until_ns - now_ns() + 999999) / 1000000;

		if (ms <= 0 || poll(&p, 1, (int)ms) <= 0 || fd_recv(l->fd, &f, sizeof(f), NULL, 0) != sizeof(f))
			break;
		if (f.at >= l->n || f.n_addrs > LOOKUP_ADDRS)
			break;
		l->v[f.at].state = (enum lookup_state)f.state;
		l->v[f.at].n_addrs = f.n_addrs;
		memcpy(l->v[f.at].addrs, f.addrs, sizeof(f.addrs));
	}
	close_p(&l->fd);
	l->fd = -1;
	if (l->pid > 0) {
		(void)kill(l->pid, SIGKILL);
		(void)waitpid(l->pid, NULL, 0);
		l->pid = 0;
	}
}

void lookup_done(struct lookup *l)
{
	lookup_finish(&(struct lookup){ .pid = l->pid, .fd = l->fd });
	free(l->v);
	*l = (struct lookup)LOOKUP_INIT;
}
