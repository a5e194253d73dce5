/* agent-vm-image: what makes disks from images, in parts that are started apart (proto/imagemsg.h):
 *
 *	agent-vm-image fetch	network, no layers
 *	agent-vm-image unpack	layers, no network
 *	agent-vm-image pack	makes a layer, no network
 *
 * A process of its own, because all read bytes that come from elsewhere: a death or a fault of one costs one pull. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "image/fetch.h"
#include "image/pack.h"
#include "image/unpack.h"
#include "proto/imagemsg.h"

#if defined(__SANITIZE_ADDRESS__)
#define WITH_ASAN
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define WITH_ASAN
#endif
#endif
#ifdef WITH_ASAN
/* The leak check at the end traces its own process, which the sandboxes refuse. The launcher's environment does not reach
 * this program, so it cannot be told there. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
	return "detect_leaks=0:use_sigaltstack=0"; /* the latter is one more call at a thread's end */
}
#endif

static const struct {
	const char *name;
	int (*run)(void);
} halves[] = {
	{ "fetch", fetch_main },
	{ "unpack", unpack_main },
	{ "pack", pack_main },
};

static int by_hand(void)
{
	int type = 0;
	socklen_t n = sizeof(type);

	return getsockopt(IM_FD_CONTROL, SOL_SOCKET, SO_TYPE, &type, &n) < 0 || type != SOCK_SEQPACKET;
}

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && !by_hand() && i < sizeof(halves) / sizeof(*halves); i++)
		if (strcmp(argv[1], halves[i].name) == 0)
			return halves[i].run();
	(void)fprintf(stderr, "agent-vm-image: started by agent-vm, not by hand\n");
	return 2;
}
