#include "cli/ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/port_holder.h"
#include "session/registry.h"

#define BACKLOG 128
#define UNPRIVILEGED "net.ipv4.ip_unprivileged_port_start"

static const uint8_t loopback4[4] = { 127, 0, 0, 1 }, loopback6[16] = { [15] = 1 };

int port_socket(int family, const void *addr, uint16_t port, bool udp)
{
	static const int on = 1;
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	bool six = family == AF_INET6;
	AUTO_FD(fd);

	memcpy(six ? (void *)&v6.sin6_addr : &v4.sin_addr, addr, six ? 16 : 4);
	fd = socket(family, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
	if (fd < 0 || (six && setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on)) < 0) ||
	    /* TCP: past connections do not hold the port; one that listens still does. */
	    (!udp && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0) ||
	    bind(fd, six ? (struct sockaddr *)&v6 : (struct sockaddr *)&v4, six ? sizeof(v6) : sizeof(v4)) < 0 ||
	    (!udp && listen(fd, BACKLOG) < 0))
		return -errno;
	return TAKE_FD(fd);
}

bool port_has_loopback6(void)
{
	AUTO_FD(fd);

	fd = port_socket(AF_INET6, loopback6, 0, true);
	return fd >= 0;
}

static void listen_text(int family, const void *addr, uint16_t port, char *to, size_t size)
{
	char text[INET6_ADDRSTRLEN];

	(void)inet_ntop(family, addr, text, sizeof(text));
	(void)snprintf(to, size, family == AF_INET6 ? "[%s]:%u" : "%s:%u", text, port);
}

bool ports_is_open(const struct publish *p)
{
	const uint8_t *b = (const uint8_t *)&p->addr;

	return p->family == AF_INET6 ? memcmp(b, loopback6, 16) != 0 : p->family == AF_INET && b[0] != 127;
}

char *ports_text(const struct publish *p, bool spaces)
{
	char listen[VAULT_LISTEN_TEXT];

	listen_text(p->family == AF_INET6 ? AF_INET6 : AF_INET, p->family == AF_UNSPEC ? (const void *)loopback4 : &p->addr, p->host,
		    listen, sizeof(listen));
	return xasprintf(spaces ? "%s -> %u/%s" : "%s->%u/%s", listen, p->guest, p->udp ? "udp" : "tcp");
}

static unsigned privileged_below(void)
{
	AUTO_FREE(char, text);
	AUTO_FD(fd);
	uint64_t v;
	size_t n;

	fd = open("/proc/sys/net/ipv4/ip_unprivileged_port_start", O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fd_read_file(fd, 16, &text, &n) < 0)
		return 1024;
	text[strcspn(text, "\n")] = '\0';
	return str_u64(text, UINT16_MAX + 1, &v) < 0 ? 1024 : (unsigned)v;
}

/* Another session of this user, whose vault no ordinary user may look into. */
static char *session_holder(const struct state_root *root, int family, const void *addr, const struct publish *p)
{
	char listen[VAULT_LISTEN_TEXT];
	AUTO_FREE(char, head);
	struct session_list live;
	char *found = NULL;

	listen_text(family, addr, p->host, listen, sizeof(listen));
	head = xasprintf("%s->", listen);
	if (root->fd < 0 || registry_list(root, SESSIONS_LIVE, &live, NULL) < 0)
		return NULL;
	for (size_t i = 0; i < live.n; i++)
		for (size_t k = 0; k < live.v[i].ports.n && !found; k++)
			if (str_starts(live.v[i].ports.v[k], head) && (strstr(live.v[i].ports.v[k], "/udp") != NULL) == p->udp)
				found = xasprintf("the session %s", live.v[i].name);
	session_list_done(&live);
	return found;
}

static void problem(struct cli *cli, const struct state_root *root, const char *value, const struct publish *p, int family, const void *addr, int r)
{
	struct problems *to = &cli->problems;
	char text[INET6_ADDRSTRLEN];
	AUTO_FREE(char, shown);
	AUTO_FREE(char, holder);

	shown = str_escape(value, strlen(value));
	(void)inet_ntop(family, addr, text, sizeof(text));
	switch (-r) {
	case EADDRINUSE:
		holder = session_holder(root, family, addr, p);
		if (!holder)
			holder = port_holder(family, addr, p->host, p->udp);
		problem_world(to, "--publish %s: port %u of %s is in use by %s; choose another port", shown, p->host, text,
			      holder ? holder : "another program");
		break;
	case EACCES:
		problem_world(to, "--publish %s: port %u of %s is not permitted to you; choose one from %u up, or allow it with: "
			      "sysctl -w " UNPRIVILEGED "=%u", shown, p->host, text, privileged_below(), p->host);
		break;
	case EADDRNOTAVAIL:
		problem_world(to, "--publish %s: %s is no address of this host; choose one that 'ip address' shows, or leave it out",
			      shown, text);
		break;
	default:
		problem_world(to, "--publish %s: port %u of %s cannot be opened: %s; choose another port", shown, p->host, text,
			      strerror(-r));
	}
}

static int add(struct ports *ports, const struct publish *p, int family, const void *addr)
{
	struct port_socket s = { .guest = p->guest, .udp = p->udp };

	s.fd = port_socket(family, addr, p->host, p->udp);
	if (s.fd < 0)
		return s.fd;
	listen_text(family, addr, p->host, s.listen, sizeof(s.listen));
	ports->v[ports->n++] = s;
	return 0;
}

static void open_one(struct cli *cli, const struct state_root *root, struct ports *ports, const char *value,
		     const struct publish *p, bool has6)
{
	const struct {
		int family;
		const void *addr;
	} want[2] = { { p->family == AF_UNSPEC ? AF_INET : p->family, p->family == AF_UNSPEC ? (const void *)loopback4 : &p->addr },
		      { AF_INET6, loopback6 } };
	int r = 0;

	for (size_t i = 0; r == 0 && i < (p->family == AF_UNSPEC && has6 ? 2u : 1u); i++) {
		r = add(ports, p, want[i].family, want[i].addr);
		if (r < 0)
			problem(cli, root, value, p, want[i].family, want[i].addr, r);
	}
	ports->what[ports->n_what++] = *p;
}

void ports_open(struct cli *cli, const struct state_root *root, struct ports *ret)
{
	bool has6 = port_has_loopback6();

	ret->v = xcalloc(VAULT_PUBLISH_MAX, sizeof(*ret->v));
	ret->what = xcalloc(PORTS_PUBLISH_MAX, sizeof(*ret->what));
	for (size_t i = 0; i < cli->parsed.n_uses; i++) {
		const struct opt_use *use = &cli->parsed.uses[i];
		struct publish p;
		bool twice = false;

		if (use->bad || strcmp(use->opt->name, "publish") != 0 || publish_parse(use->value, &p, NULL) < 0)
			continue;
		problems_at(&cli->problems, use->at);
		if (ret->n_what == PORTS_PUBLISH_MAX) {
			problem_text(&cli->problems, "--publish: more than %d of them; leave some out", PORTS_PUBLISH_MAX);
			break;
		}
		for (size_t k = 0; k < ret->n_what; k++)
			twice |= publish_meets(&p, &ret->what[k]);
		if (!twice)
			open_one(cli, root, ret, use->value, &p, has6);
	}
	problems_at(&cli->problems, PROBLEMS_AT_END);
}

void ports_close(struct ports *p)
{
	for (size_t i = 0; i < p->n; i++)
		close_p(&p->v[i].fd);
	p->n = 0;
}

void ports_done(struct ports *p)
{
	ports_close(p);
	free(p->v);
	free(p->what);
}
