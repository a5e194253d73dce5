/* What the kernel says of addresses, by rtnetlink: which are our own, which are on-link, which way leads to one. It finds
 * what no interface lists: local routes, policy routes, networks behind a VPN. */
#include <errno.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macros.h"
#include "vault/vault.h"

#define REPLY_MAX 32768
#define ON_LINK_BITS4 8	 /* wider ones without a gateway are a VPN's default route, not a network */
#define ON_LINK_BITS6 32

struct request {
	struct nlmsghdr h;
	union {
		struct {
			struct rtmsg m;
			struct rtattr a;
			uint8_t dst[16];
		} route;
		struct ifaddrmsg addr;
	};
};

static int netlink(uint32_t groups, int flags, int *ret, struct err *err)
{
	struct sockaddr_nl sa = { .nl_family = AF_NETLINK, .nl_groups = groups };
	AUTO_FD(fd);

	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | flags, NETLINK_ROUTE);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		return err_set(err, -errno, "netlink: %s; without it addresses cannot be judged, so nothing is opened", strerror(errno));
	*ret = TAKE_FD(fd);
	return 0;
}

int routes_open(struct routes *r, struct err *err)
{
	int k;

	*r = (struct routes){ .ask_fd = -1, .news_fd = -1, .stale = true };
	k = netlink(0, SOCK_NONBLOCK, &r->ask_fd, err);
	if (k == 0)
		k = netlink(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE,
			    SOCK_NONBLOCK, &r->news_fd, err);
	return k;
}

/* Whether there was anything to be thrown away. */
static bool drain(int fd)
{
	char junk[64];
	bool any = false;

	/* ENOBUFS: some was lost, so there was some. */
	while (recv(fd, junk, sizeof(junk), MSG_DONTWAIT) > 0 || errno == ENOBUFS || errno == EINTR)
		any = true;
	return any;
}

bool routes_news(struct routes *r)
{
	bool any = drain(r->news_fd);

	r->stale = r->stale || any;
	return any;
}

/* 0, or a negative errno: then nothing is known of what was asked. */
static int ask(struct routes *r, struct request *q, size_t n)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

	/* What is left of an answer that could not be read: its dump would go on, so that the kernel begins no other (EBUSY). */
	(void)drain(r->ask_fd);
	q->h.nlmsg_len = (uint32_t)n;
	q->h.nlmsg_seq = ++r->seq;
	return sendto(r->ask_fd, q, n, 0, (struct sockaddr *)&kernel, sizeof(kernel)) == (ssize_t)n ? 0 : -errno;
}

/* The kernel answers within the call, so this does not wait, or has no answer. Bytes, or a negative errno. */
static ssize_t reply(struct routes *r, void *to, size_t n)
{
	ssize_t k;

	do
		k = recv(r->ask_fd, to, n, 0);
	while (k < 0 && errno == EINTR);
	return k < 0 ? -errno : k == 0 ? -EIO : k;
}

/* What NLMSG_ERROR says; 0: it is no error. */
static int refusal(struct nlmsghdr *h)
{
	struct nlmsgerr *e = NLMSG_DATA(h);

	return h->nlmsg_type != NLMSG_ERROR ? 0 : h->nlmsg_len < NLMSG_LENGTH(sizeof(*e)) ? -EIO : e->error;
}

static void add_host(struct prefix hosts[POLICY_HOSTS_MAX], size_t *n_hosts, struct nlmsghdr *h)
{
	struct ifaddrmsg *m = NLMSG_DATA(h);
	size_t left = IFA_PAYLOAD(h), bytes = m->ifa_family == AF_INET ? 4 : 16;
	struct prefix net = { .addr.family = m->ifa_family, .bits = m->ifa_prefixlen };
	bool local = false, any = false;

	if (m->ifa_family != AF_INET && m->ifa_family != AF_INET6)
		return;
	for (struct rtattr *a = IFA_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		/* On a point-to-point link IFA_ADDRESS is the peer's. */
		if ((a->rta_type != IFA_LOCAL && (a->rta_type != IFA_ADDRESS || local)) || RTA_PAYLOAD(a) != bytes)
			continue;
		local = a->rta_type == IFA_LOCAL;
		any = true;
		memcpy(net.addr.b, RTA_DATA(a), bytes);
	}
	if (any && *n_hosts < POLICY_HOSTS_MAX)
		hosts[(*n_hosts)++] = net;
	else if (any)
		log_warn("interfaces: more than %d addresses; the others are judged by routes alone", POLICY_HOSTS_MAX);
}

/* The list is read whole or stays as it was. */
static int read_hosts(struct routes *r, struct policy *p)
{
	struct request q = { .h = { .nlmsg_type = RTM_GETADDR, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP } };
	static struct prefix hosts[POLICY_HOSTS_MAX];
	size_t n_hosts = 0;
	union {
		struct nlmsghdr h;
		char bytes[REPLY_MAX];
	} in;
	ssize_t k = ask(r, &q, NLMSG_LENGTH(sizeof(q.addr)));

	while (k >= 0 && (k = reply(r, &in, sizeof(in))) > 0) {
		size_t left = (size_t)k;

		for (struct nlmsghdr *h = &in.h; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
			if (h->nlmsg_seq != r->seq)
				continue;
			if (refusal(h) < 0)
				return refusal(h);
			if (h->nlmsg_type == RTM_NEWADDR)
				add_host(hosts, &n_hosts, h);
			if (h->nlmsg_type != NLMSG_DONE)
				continue;
			memcpy(p->hosts, hosts, n_hosts * sizeof(*hosts));
			p->n_hosts = n_hosts;
			return 0;
		}
	}
	return (int)k;
}

int routes_refresh(struct routes *r, struct policy *p)
{
	int k = r->stale ? read_hosts(r, p) : 0;

	r->stale = k < 0;
	return k;
}

static bool has_gateway(struct rtattr *a, size_t left)
{
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		struct rtnexthop *nh = RTA_DATA(a);
		size_t n = RTA_PAYLOAD(a);

		if (a->rta_type == RTA_GATEWAY || a->rta_type == RTA_VIA)
			return true;
		for (; a->rta_type == RTA_MULTIPATH && RTNH_OK(nh, (int)n) && n >= sizeof(*nh); nh = RTNH_NEXT(nh)) {
			if (has_gateway(RTNH_DATA(nh), nh->rtnh_len - sizeof(*nh)))
				return true;
			n -= MIN(n, (size_t)RTNH_ALIGN(nh->rtnh_len));
		}
	}
	return false;
}

static int judge(struct nlmsghdr *h)
{
	struct rtmsg *m = NLMSG_DATA(h);

	if (fd_is_lack(-refusal(h)))
		return refusal(h);
	if (h->nlmsg_type != RTM_NEWROUTE)
		return ROUTE_UNKNOWN; /* no way there: connect() will say so */
	if (m->rtm_type == RTN_LOCAL)
		return ROUTE_LOCAL;
	if (m->rtm_type != RTN_UNICAST)
		return ROUTE_NEVER;
	if (has_gateway(RTM_RTA(m), RTM_PAYLOAD(h)))
		return ROUTE_GATEWAY;
	return m->rtm_dst_len >= (m->rtm_family == AF_INET ? ON_LINK_BITS4 : ON_LINK_BITS6) ? ROUTE_ON_LINK : ROUTE_GATEWAY;
}

int routes_to(struct routes *r, const struct addr *a)
{
	size_t bytes = a->family == AF_INET ? 4 : 16;
	struct request q = {
		.h = { .nlmsg_type = RTM_GETROUTE, .nlmsg_flags = NLM_F_REQUEST },
		.route = { .m = { .rtm_family = (uint8_t)a->family, .rtm_dst_len = (uint8_t)(bytes * 8), .rtm_flags = RTM_F_FIB_MATCH },
			   .a = { .rta_len = (uint16_t)RTA_LENGTH(bytes), .rta_type = RTA_DST } },
	};
	union {
		struct nlmsghdr h;
		char bytes[REPLY_MAX];
	} in;
	ssize_t k;

	memcpy(q.route.dst, a->b, bytes);
	k = ask(r, &q, NLMSG_LENGTH(sizeof(q.route.m)) + RTA_LENGTH(bytes));
	while (k >= 0 && (k = reply(r, &in, sizeof(in))) > 0)
		if (NLMSG_OK(&in.h, (size_t)k) && in.h.nlmsg_seq == r->seq)
			return judge(&in.h);
	return (int)k;
}

/* No packet is sent: connect() of UDP only chooses the way and the source. */
static int source_for(const struct sockaddr *to, socklen_t n, struct sockaddr_storage *ret)
{
	socklen_t len = sizeof(*ret);
	AUTO_FD(fd);

	fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, to, n) == 0 && getsockname(fd, (struct sockaddr *)ret, &len) == 0)
		return 1;
	return fd_is_lack(errno) ? -errno : 0;
}

int host_has_ipv4(void)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0x08080808) };
	struct sockaddr_storage from;

	return source_for((struct sockaddr *)&to, sizeof(to), &from);
}

int host_has_ipv6(void)
{
	struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons(9),
				   .sin6_addr.s6_addr = { 0x26, 0x06, 0x47, 0x00, 0x47, 0x00, [15] = 1 } };
	struct sockaddr_storage from;
	int r = source_for((struct sockaddr *)&to, sizeof(to), &from);

	/* A ULA or another private source reaches no global address (RFC 4193). */
	return r <= 0 ? r : (((struct sockaddr_in6 *)&from)->sin6_addr.s6_addr[0] & 0xe0) == 0x20;
}
