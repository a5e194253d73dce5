/* The part of a launcher that serves a vault's renewals (cli/renewer.h), for tests with real vaults: renewhost ROOT
 * FILE PROGRAM. Its input is the vault's control socket, whose end is its own. */
#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#include "cli/renewer.h"

int main(int argc, char **argv)
{
	struct creds creds = { .n_sources = 1 };
	struct state_root root = STATE_ROOT_INIT;
	struct loginwatch watch;
	struct strv logins = { 0 };
	struct vault_renew m;
	struct renewer *r;
	struct err err;

	if (argc != 4 || state_root_open(argv[1], true, &root, &err) < 0)
		return 2;
	creds.sources[0] = (struct creds_source){
		.kind = SOURCE_ANTHROPIC, .fd = -1, .name = ".credentials.json", .path = argv[2], .program = argv[3]
	};
	strv_add(&logins, argv[2]);
	loginwatch_begin(&logins, &watch);
	r = renewer_new(&creds, &root, &watch);
	for (;;) {
		struct pollfd fds[] = { { 0, POLLIN, 0 }, { renewer_fd(r, 0), POLLIN, 0 } };

		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return 1;
		if (fds[1].revents)
			(void)renewer_read(r, 0, 0);
		if (!fds[0].revents)
			continue;
		if (recv(0, &m, sizeof(m), 0) != sizeof(m))
			break;
		(void)renewer_ask(r, &m, 0);
	}
	renewer_free(r);
	loginwatch_done(&watch);
	strv_done(&logins);
	state_root_close(&root);
	return 0;
}
