/* By rtnetlink, one request after the other with its acknowledgement: this is done once a boot, and a program that fails
 * must be told which step it was. */
#include "guest/network.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"

#define INIT_WINDOW 20 /* segments; one of 64 KiB is most of a small transfer */

struct request {
	struct nlmsghdr head;
	union {
		struct ifaddrmsg addr;
		struct ndmsg neigh;
		struct rtmsg route;
		struct ifinfomsg link;
	};
	char attrs[256];
};

struct nl {
	int fd;
	unsigned int index; /* of the interface */
	struct request req;
};

static void begin(struct nl *nl, uint16_t type, uint16_t flags, size_t body)
{
	memset(&nl->req, 0, sizeof(nl->req));
	nl->req.head.nlmsg_type = type;
	nl->req.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
	nl->req.head.nlmsg_len = (uint32_t)NLMSG_LENGTH(body);
}

static struct rtattr *attr(struct nl *nl, uint16_t type, const void *p, size_t n)
{
	size_t at = NLMSG_ALIGN(nl->req.head.nlmsg_len);
	struct rtattr *a = (struct rtattr *)(void *)((char *)&nl->req + at);

	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(n);
	if (n > 0)
		memcpy(RTA_DATA(a), p, n);
	nl->req.head.nlmsg_len = (uint32_t)(at + RTA_ALIGN(a->rta_len));
	return a;
}

static int ask(struct nl *nl)
{
	struct {
		struct nlmsghdr head;
		struct nlmsgerr error;
		char echo[512];
	} answer;
	ssize_t n;

	if (send(nl->fd, &nl->req, nl->req.head.nlmsg_len, 0) < 0)
		return -errno;
	n = recv(nl->fd, &answer, sizeof(answer), 0);
	if (n < 0)
		return -errno;
	if ((size_t)n < sizeof(answer.head) + sizeof(answer.error) || answer.head.nlmsg_type != NLMSG_ERROR)
		return -EPROTO;
	return answer.error.error;
}

static int link_up(struct nl *nl, uint32_t mtu)
{
	begin(nl, RTM_NEWLINK, 0, sizeof(nl->req.link));
	nl->req.link.ifi_index = (int)nl->index;
	nl->req.link.ifi_flags = nl->req.link.ifi_change = IFF_UP;
	(void)attr(nl, IFLA_MTU, &mtu, sizeof(mtu));
	return ask(nl);
}

static int address(struct nl *nl, uint8_t family, const uint8_t *addr, size_t n, uint8_t bits)
{
	begin(nl, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(nl->req.addr));
	nl->req.addr.ifa_family = family;
	nl->req.addr.ifa_prefixlen = bits;
	nl->req.addr.ifa_flags = IFA_F_PERMANENT | IFA_F_NODAD; /* a tentative address breaks the first second */
	nl->req.addr.ifa_index = nl->index;
	(void)attr(nl, IFA_LOCAL, addr, n);
	(void)attr(nl, IFA_ADDRESS, addr, n);
	return ask(nl);
}

static int neighbour(struct nl *nl, uint8_t family, const uint8_t *addr, size_t n, const uint8_t mac[6])
{
	begin(nl, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(nl->req.neigh));
	nl->req.neigh.ndm_family = family;
	nl->req.neigh.ndm_ifindex = (int)nl->index;
	nl->req.neigh.ndm_state = NUD_PERMANENT;
	(void)attr(nl, NDA_DST, addr, n);
	(void)attr(nl, NDA_LLADDR, mac, 6);
	return ask(nl);
}

static int default_route(struct nl *nl, uint8_t family, const uint8_t *gateway, size_t n)
{
	const uint32_t window = INIT_WINDOW;
	struct rtattr *metrics;
	uint32_t before;

	begin(nl, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, sizeof(nl->req.route));
	nl->req.route.rtm_family = family;
	nl->req.route.rtm_table = RT_TABLE_MAIN;
	nl->req.route.rtm_protocol = RTPROT_STATIC;
	nl->req.route.rtm_scope = RT_SCOPE_UNIVERSE;
	nl->req.route.rtm_type = RTN_UNICAST;
	(void)attr(nl, RTA_GATEWAY, gateway, n);
	(void)attr(nl, RTA_OIF, &nl->index, sizeof(nl->index));
	before = nl->req.head.nlmsg_len;
	metrics = attr(nl, RTA_METRICS, NULL, 0);
	(void)attr(nl, RTAX_INITCWND, &window, sizeof(window));
	(void)attr(nl, RTAX_INITRWND, &window, sizeof(window));
	metrics->rta_len = (unsigned short)(nl->req.head.nlmsg_len - before);
	return ask(nl);
}

/* A setting of the kernel that is better, not needed: older kernels lack some. */
static void set(const char *path, const char *value)
{
	AUTO_FD(fd);

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, value, strlen(value));
}

static void set_of(const char *ifname, const char *name, const char *value)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%s/%s", ifname, name);
	set(path, value);
}

static int addresses(struct nl *nl, const struct config_net *c)
{
	int r = 0;

	if (c->bits4 > 0)
		r = address(nl, AF_INET, c->addr4, 4, c->bits4);
	if (c->bits4 > 0 && r == 0)
		r = neighbour(nl, AF_INET, c->gateway4, 4, c->gateway_mac);
	if (c->bits4 > 0 && r == 0)
		r = default_route(nl, AF_INET, c->gateway4, 4);
	if (c->bits6 > 0 && r == 0)
		r = address(nl, AF_INET6, c->addr6, 16, c->bits6);
	if (c->bits6 > 0 && r == 0)
		r = neighbour(nl, AF_INET6, c->gateway6, 16, c->gateway_mac);
	if (c->bits6 > 0 && r == 0)
		r = default_route(nl, AF_INET6, c->gateway6, 16);
	return r;
}

void network_loopback(void)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	AUTO_FD(fd);

	fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)ioctl(fd, SIOCSIFFLAGS, &ifr);
}

int network_up(const char *ifname, const struct config_net *c, struct err *err)
{
	struct nl nl = { 0 };
	AUTO_FD(fd);
	int r;

	nl.index = if_nametoindex(ifname);
	if (nl.index == 0)
		return err_set(err, -ENODEV, "network: the VM has no interface %s", ifname);
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return err_set(err, -errno, "network: netlink: %s", strerror(errno));
	nl.fd = fd;
	/* Before it is up: no router is asked, no link-local address is made. */
	set_of(ifname, "accept_ra", "0");
	set_of(ifname, "addr_gen_mode", "1");
	set("/proc/sys/net/ipv4/tcp_rmem", "4096 1048576 16777216");
	set("/proc/sys/net/ipv4/tcp_wmem", "4096 1048576 16777216");
	set("/proc/sys/net/ipv4/tcp_slow_start_after_idle", "0");
	r = link_up(&nl, c->mtu);
	if (r < 0)
		return err_set(err, r, "network: %s cannot be brought up with an MTU of %u: %s", ifname, c->mtu, strerror(-r));
	r = addresses(&nl, c);
	if (r < 0)
		return err_set(err, r, "network: %s cannot be given its addresses: %s", ifname, strerror(-r));
	return 0;
}
