#include "cli/credprobe.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "base/fd.h"
#include "base/macros.h"
#include "cli/spawn.h"
#include "proto/netmsg.h"
#include "proto/rec.h"

/* One failure is enough: the buffer's maximum was passed. */
#define TRY(call)                        \
	do {                             \
		if ((call) < 0)          \
			return -ENOBUFS; \
	} while (0)

/* A path that no service has, and no rule names. */
#define NO_PATH "/agent-vm-self-probe"

static int put_ask(struct buf *out, const char *request, unsigned status, const char *code, const char *what)
{
	ssize_t at = rec_begin(out, PBC_ASK);

	TRY(at);
	TRY(rec_put_str(out, PBC_REQUEST, request));
	TRY(rec_put_u64(out, PBC_STATUS, status));
	if (code)
		TRY(rec_put_str(out, PBC_CODE, code));
	TRY(rec_put_str(out, PBC_WHAT, what));
	rec_end(out, (size_t)at);
	return 0;
}

static char *placeholder(const struct creds *c, enum ph_kind kind)
{
	const struct ph_claims claims = { .exp = INT32_MAX };
	struct buf b;
	char *text;

	buf_init(&b, PH_JWT_MAX + 1);
	text = ph_write(&c->set, kind, &claims, &b) == 0 ? xstrndup((const char *)buf_span(&b).p, b.n) : NULL;
	buf_done(&b);
	return text;
}

/* At a service: a placeholder where none belongs, and where it belongs on a path that is not named. GitHub has none of those: there
 * it goes with a write to a repository that no list has. */
static int put_service(const struct creds *c, enum ph_kind kind, enum prov_host_id host, struct buf *out)
{
	bool bearer = prov_slots(kind, host) & SLOT_BIT(SLOT_BEARER);
	bool github = prov_hosts[host].role == HOST_GITHUB;
	const char *name = prov_hosts[host].name;
	AUTO_FREE(char, ph);
	AUTO_FREE(char, foreign);
	AUTO_FREE(char, own);
	ssize_t at;

	ph = placeholder(c, kind);
	if (!ph)
		return -ENOBUFS;
	foreign = xasprintf("GET " NO_PATH " HTTP/1.1\r\nHost: %s\r\nX-Agent-Vm-Probe: %s\r\n\r\n", name, ph);
	own = xasprintf("%s HTTP/1.1\r\nHost: %s\r\n%s%s\r\n%s\r\n", github ? "POST /repos" NO_PATH "/none/issues" : "GET " NO_PATH, name,
			bearer ? "Authorization: Bearer " : "x-api-key: ", ph, github ? "Content-Length: 0\r\n" : "");
	at = rec_begin(out, PBC_HOST);
	TRY(at);
	TRY(rec_put_str(out, PBC_NAME, name));
	TRY(put_ask(out, foreign, 403, "slot", "a placeholder in a foreign field"));
	if (github)
		TRY(put_ask(out, own, 403, "offlist-write", "a write to a repository that is not listed"));
	else
		TRY(put_ask(out, own, 403, "path-denied", "a placeholder on an unnamed path"));
	rec_end(out, (size_t)at);
	return 0;
}

/* A sign-in of the guest's own, which would come out as the host's account. */
static int put_endpoint(enum prov_host_id host, const char *path, struct buf *out)
{
	static const char body[] = "{\"grant_type\":\"authorization_code\",\"code\":\"agent-vm-self-probe\"}";
	AUTO_FREE(char, request);
	ssize_t at;

	request = xasprintf(
		"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s", path,
		prov_hosts[host].name, strlen(body), body);
	at = rec_begin(out, PBC_HOST);
	TRY(at);
	TRY(rec_put_str(out, PBC_NAME, prov_hosts[host].name));
	TRY(put_ask(out, request, 400, NULL, "the exchange of a code"));
	rec_end(out, (size_t)at);
	return 0;
}

/* The first credential and host of a provider; false: none is lent. */
static bool service_of(const struct creds *c, enum prov prov, enum ph_kind *ret_kind, enum prov_host_id *ret_host)
{
	for (int h = 0; h < HOSTS; h++)
		for (int k = 0; k < PH_KINDS; k++)
			if (prov_hosts[h].prov == prov && c->launch.lent & PH_BIT(k) &&
			    prov_slots((enum ph_kind)k, (enum prov_host_id)h) &
				    (SLOT_BIT(SLOT_BEARER) | SLOT_BIT(SLOT_KEY))) {
				*ret_kind = (enum ph_kind)k;
				*ret_host = (enum prov_host_id)h;
				return true;
			}
	return false;
}

static int put_addr(const struct network *n, struct buf *out)
{
	/* Any public address: gate is asked by name, and what it refuses is dialled by nobody. */
	static const uint8_t v4[5] = { 4, 1, 1, 1, 1 },
			     v6[17] = { 6, 0x26, 0x06, 0x47, 0x00, 0x47, 0x00, [15] = 0x11, [16] = 0x11 };

	return n->ipv4 ? rec_put(out, PBC_ADDR, v4, sizeof(v4)) : rec_put(out, PBC_ADDR, v6, sizeof(v6));
}

bool credprobe_wanted(const struct creds *c, const struct network *n)
{
	return creds_lent(c) && n->ca_n > 0 && (n->ipv4 || n->ipv6);
}

int credprobe_orders(const struct creds *c, const struct network *n, struct buf *out)
{
	static const struct {
		enum prov_host_id host;
		const char *path;
	} endpoints[] = { { HOST_CLAUDE_TOKEN, "/v1/oauth/token" }, { HOST_OPENAI_TOKEN, "/oauth/token" } };
	enum prov_host_id host;
	enum ph_kind kind;
	int hosts = 0;

	TRY(rec_put(out, PBC_CA, n->ca, n->ca_n));
	TRY(put_addr(n, out));
	for (int p = 0; p < PROV_GITHUB; p++)
		if (service_of(c, (enum prov)p, &kind, &host)) {
			TRY(put_service(c, kind, host, out));
			hosts++;
		}
	if (prov_bound(&c->launch, HOST_GITHUB_API)) {
		TRY(put_service(c, c->launch.lent & PH_BIT(PH_GH) ? PH_GH : PH_COPILOT, HOST_GITHUB_API, out));
		hosts++;
	}
	for (size_t i = 0; i < ARRAY_SIZE(endpoints); i++)
		/* With --api PROVIDER=foreign the user wants to sign in inside. */
		if (prov_bound(&c->launch, endpoints[i].host) && !prov_foreign(&c->launch, endpoints[i].host)) {
			TRY(put_endpoint(endpoints[i].host, endpoints[i].path, out));
			hosts++;
		}
	return hosts;
}

/* @fds: the probe's, of which [6] and on are made here. */
static int start(struct credprobe *p, int hosts, int config, struct err *err)
{
	int fds[PROBE_FD_HOST + PROBE_HOSTS_MAX], control[2], pair[2], r = 0;
	AUTO_FD(null);

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, control) < 0)
		return err_set(err, -errno, "self-probe: its descriptors cannot be made: %s", strerror(errno));
	fds[0] = null;
	fds[1] = fds[2] = fds[4] = p->log_fd;
	fds[NET_FD_CONTROL] = control[1];
	fds[PROBE_FD_CONFIG] = config;
	p->fd = control[0];
	for (int i = 0; i < hosts && r == 0; i++) {
		r = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
		if (r < 0)
			break;
		p->links[p->n_links++] = pair[0];
		fds[PROBE_FD_HOST + i] = pair[1];
	}
	if (r == 0)
		r = spawn_role(p->path, "agent-vm-probe", fds, PROBE_FD_HOST + hosts, -1, &p->pid);
	(void)close(control[1]);
	for (size_t i = 0; i < p->n_links; i++)
		(void)close(fds[PROBE_FD_HOST + i]);
	return r < 0 ? err_set(err, r, "agent-vm-probe: cannot be started: %s", strerror(-r)) : 0;
}

int credprobe_start(struct credprobe *p, const struct network *n, struct err *err)
{
	AUTO_FD(config);
	struct buf b;
	int hosts, r = 0;

	buf_init(&b, PROBE_CONFIG_MAX);
	hosts = credprobe_orders(p->creds, n, &b);
	if (hosts < 0 || hosts > PROBE_HOSTS_MAX)
		r = -ENOBUFS;
	else
		r = config = spawn_sealed("agent-vm-probe config", &b);
	buf_done(&b);
	if (r < 0)
		return err_set(err, r, "self-probe: its orders cannot be made: %s", strerror(-r));
	return start(p, hosts, config, err);
}

int credprobe_result(struct credprobe *p, struct err *err)
{
	uint8_t bytes[1 + ERR_TEXT_MAX];
	ssize_t n = fd_recv(p->fd, bytes, sizeof(bytes), NULL, 0);
	AUTO_FREE(char, text);

	if (n == -EAGAIN || n == -EINTR)
		return 0;
	if (n > 0 && bytes[0] == NET_CTL_READY)
		return 1;
	if (n <= 1 || bytes[0] != NET_CTL_ERROR)
		return err_set(err, -EPIPE, "self-probe: agent-vm-probe ended without a result");
	text = str_escape(bytes + 1, (size_t)n - 1);
	return err_set(err, -EPERM, "%s", text);
}

void credprobe_end(struct credprobe *p)
{
	close_p(&p->fd);
	p->fd = -1;
	for (size_t i = 0; i < p->n_links; i++)
		close_p(&p->links[i]);
	p->n_links = 0;
	if (p->pid > 0) {
		(void)kill(p->pid, SIGKILL);
		(void)waitpid(p->pid, NULL, 0);
	}
	p->pid = -1;
}
