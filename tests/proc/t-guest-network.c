/* The guest's addresses, in a network namespace of the test's own, as iproute2 shows them. */
#include "own-net.h"

#include <errno.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macros.h"
#include "base/str.h"
#include "guest/network.h"

static const struct config_net both = {
	.mtu = 65520,
	.gateway_mac = { 0x02, 0x61, 0x76, 0, 0, 1 },
	.bits4 = 29,
	.bits6 = 64,
	.addr4 = { 192, 0, 0, 2 },
	.gateway4 = { 192, 0, 0, 1 },
	.addr6 = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 2 },
	.gateway6 = { 0xfd, 0x6b, 0x91, 0xd4, 0x3e, 0x07, [15] = 1 },
};

static char *out_of(const char *line)
{
	static char out[16384];
	FILE *f = popen(line, "r");
	size_t n;

	CHECK(f);
	n = fread(out, 1, sizeof(out) - 1, f);
	out[n] = '\0';
	if (pclose(f) != 0)
		fail_msg("%s: failed: %s", line, out);
	return out;
}

/* Every word of @words stands in what @line prints. */
static void shows(const char *line, const char *const *words)
{
	const char *out = out_of(line);

	for (; *words; words++)
		if (!strstr(out, *words))
			fail_msg("%s: no '%s' in:\n%s", line, *words, out);
}

TEST(an_interface_gets_all_of_both_families)
{
	struct err err = { "" };

	own_namespace();
	(void)out_of("ip link add eth0 type veth peer name far && ip link set far up 2>&1");
	network_loopback();
	if (network_up("eth0", &both, &err) < 0)
		fail_msg("%s", err.text);
	shows("ip addr show dev eth0",
	      (const char *const[]){ "mtu 65520", "UP", "inet 192.0.0.2/29", "inet6 fd6b:91d4:3e07::2/64", NULL });
	/* No link-local address was made, and nothing is tentative. */
	CHECK(!strstr(out_of("ip addr show dev eth0"), "fe80"));
	CHECK(!strstr(out_of("ip addr show dev eth0"), "tentative"));
	shows("ip -4 route; ip -6 route",
	      (const char *const[]){ "default via 192.0.0.1 dev eth0 proto static initcwnd 20 initrwnd 20",
				     "default via fd6b:91d4:3e07::1 dev eth0 proto static", NULL });
	shows("ip neigh",
	      (const char *const[]){ "192.0.0.1 dev eth0 lladdr 02:61:76:00:00:01 PERMANENT",
				     "fd6b:91d4:3e07::1 dev eth0 lladdr 02:61:76:00:00:01 PERMANENT", NULL });
	shows("cat /proc/sys/net/ipv6/conf/eth0/accept_ra", (const char *const[]){ "0\n", NULL });
	shows("ip addr show dev lo", (const char *const[]){ "127.0.0.1/8", "LOOPBACK,UP", NULL });
}

TEST(one_family_leaves_the_other_without_addresses)
{
	struct config_net only4 = both;
	struct err err = { "" };

	only4.bits6 = 0;
	own_namespace();
	(void)out_of("ip link add eth0 type veth peer name far 2>&1");
	if (network_up("eth0", &only4, &err) < 0)
		fail_msg("%s", err.text);
	CHECK(!strstr(out_of("ip addr show dev eth0"), "inet6"));
	CHECK(out_of("ip -6 route show default")[0] == '\0');
}

TEST(what_cannot_be_done_is_told)
{
	struct config_net huge = both;
	struct err err = { "" };

	own_namespace();
	CHECK_INT(network_up("eth0", &both, &err), ==, -ENODEV);
	CHECK(strstr(err.text, "eth0"));
	(void)out_of("ip link add eth0 type veth peer name far 2>&1");
	huge.mtu = 1 << 20;
	CHECK_INT(network_up("eth0", &huge, &err), ==, -EINVAL);
	CHECK(strstr(err.text, "1048576"));
	CHECK_INT(network_up("eth0", &both, &err), ==, 0);
	CHECK_INT(network_up("eth0", &both, &err), ==, -EEXIST);
}
