/* adapter stream|seqpacket SOCKET TAP [partial] [loss PERMILLE]: a TAP of this network namespace at one end, an engine's unix
 * socket at the other.
 *
 * stream: 4-byte big-endian length and a frame; each frame of the TAP goes out whole before the next is read, as the
 * monitors do. seqpacket: a frame a packet. partial: the TAP leaves checksums to be done upward (what libkrun's CSUM bit
 * does), and says nothing downward. loss: that many frames in a thousand are dropped each way. Failed TAP writes are counted
 * and printed at the end, and on SIGUSR1; not 0: the run is void. */
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#define VNET 12
#define FRAME 65600

static uint8_t in[2 << 20];
static size_t in_n;
static uint64_t failed;
static unsigned int loss;
static uint64_t seed = 88172645463325252u;
static volatile sig_atomic_t stop, tell;

static void on_signal(int sig)
{
	if (sig == SIGUSR1)
		tell = 1;
	else
		stop = 1;
}

static void report(void)
{
	(void)printf("failed tap writes: %llu\n", (unsigned long long)failed);
	(void)fflush(stdout);
}

static bool lost(void)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return loss && seed % 1000 < loss;
}

static void send_all(int s, struct iovec *v, int n)
{
	while (n > 0) {
		ssize_t k = writev(s, v, n);

		if (k < 0 && errno == EINTR && !stop)
			continue;
		if (k < 0)
			exit(stop ? 0 : 1);
		while (n > 0 && (size_t)k >= v->iov_len) {
			k -= (ssize_t)v->iov_len;
			v++;
			n--;
		}
		if (n > 0) {
			v->iov_base = (uint8_t *)v->iov_base + k;
			v->iov_len -= (size_t)k;
		}
	}
}

static void to_tap(int tap, uint8_t *frame, size_t n, bool partial)
{
	static uint8_t zero[VNET];
	struct iovec v[2] = { { zero, partial ? VNET : 0 }, { frame, n } };

	if (!lost() && writev(tap, v, 2) < 0)
		failed++;
}

static bool from_engine(int s, int tap, bool stream, bool partial)
{
	ssize_t k = read(s, in + in_n, stream ? sizeof(in) - in_n > 1 << 20 ? 1 << 20 : sizeof(in) - in_n : FRAME);
	size_t at = 0;

	if (k <= 0)
		return k < 0 && errno == EINTR;
	if (!stream) {
		to_tap(tap, in, (size_t)k, partial);
		return true;
	}
	in_n += (size_t)k;
	while (in_n - at >= 4) {
		uint8_t *h = in + at;
		size_t n = (size_t)h[0] << 24 | (size_t)h[1] << 16 | (size_t)h[2] << 8 | h[3];

		if (n > FRAME)
			exit(3);
		if (in_n - at < 4 + n)
			break;
		to_tap(tap, h + 4, n, partial);
		at += 4 + n;
	}
	memmove(in, in + at, in_n - at);
	in_n -= at;
	return true;
}

static bool from_tap(int tap, int s, bool stream, bool partial)
{
	static uint8_t frame[FRAME + VNET];
	ssize_t k = read(tap, frame, sizeof(frame));
	size_t skip = partial ? VNET : 0;
	uint32_t len;
	struct iovec v[2] = { { &len, stream ? 4 : 0 }, { frame + skip, 0 } };

	if (k <= (ssize_t)skip)
		return k < 0 && (errno == EINTR || errno == EAGAIN);
	if (lost())
		return true;
	v[1].iov_len = (size_t)k - skip;
	len = __builtin_bswap32((uint32_t)v[1].iov_len);
	send_all(s, v, 2);
	return true;
}

int main(int argc, char **argv)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct ifreq ifr = { .ifr_flags = IFF_TAP | IFF_NO_PI };
	bool stream, partial = false;
	int s, tap, header = VNET;

	if (argc < 4)
		return 2;
	stream = strcmp(argv[1], "stream") == 0;
	for (int i = 4; i < argc; i++) {
		if (strcmp(argv[i], "partial") == 0)
			partial = true;
		if (strcmp(argv[i], "loss") == 0 && i + 1 < argc)
			loss = (unsigned int)strtoul(argv[++i], NULL, 10);
	}
	for (int i = 0; i < 2; i++)
		(void)sigaction(i ? SIGTERM : SIGUSR1, &(struct sigaction){ .sa_handler = on_signal }, NULL);
	tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
	if (partial)
		ifr.ifr_flags |= IFF_VNET_HDR;
	(void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", argv[3]);
	if (tap < 0 || ioctl(tap, TUNSETIFF, &ifr) < 0 ||
	    (partial && (ioctl(tap, TUNSETVNETHDRSZ, &header) < 0 || ioctl(tap, TUNSETOFFLOAD, TUN_F_CSUM) < 0))) {
		perror("tap");
		return 1;
	}
	(void)snprintf(un.sun_path, sizeof(un.sun_path), "%s", argv[2]);
	for (int i = 0; i < 1000; i++) {
		s = socket(AF_UNIX, (stream ? SOCK_STREAM : SOCK_SEQPACKET) | SOCK_CLOEXEC, 0);
		if (connect(s, (struct sockaddr *)&un, sizeof(un)) == 0)
			break;
		(void)close(s);
		s = -1;
		(void)usleep(50000);
	}
	if (s < 0) {
		perror(argv[2]);
		return 1;
	}
	for (int what = SO_SNDBUFFORCE, n = 8 << 20; what; what = what == SO_SNDBUFFORCE ? SO_RCVBUFFORCE : 0)
		(void)setsockopt(s, SOL_SOCKET, what, &n, sizeof(n));
	(void)fcntl(tap, F_SETFL, O_NONBLOCK);
	(void)puts("ready");
	(void)fflush(stdout);
	while (!stop) {
		struct pollfd p[2] = { { .fd = s, .events = POLLIN }, { .fd = tap, .events = POLLIN } };

		if (tell) {
			tell = 0;
			report();
		}
		/* Not for ever: a signal just before is seen only here. */
		if (poll(p, 2, 500) <= 0)
			continue;
		if (p[0].revents && !from_engine(s, tap, stream, partial))
			break;
		for (int i = 0; p[1].revents && i < 16; i++)
			if (!from_tap(tap, s, stream, partial)) {
				stop = 1;
				break;
			} else if (errno == EAGAIN) {
				errno = 0;
				break;
			}
	}
	report();
	return 0;
}
