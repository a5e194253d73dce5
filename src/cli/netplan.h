/* What a launch asks of the network, from words and environment to the plan that vault is given (network page 8.4, 9.1). */
#pragma once

#include "cli/launch_args.h"
#include "cli/lookup.h"
#include "cli/network.h"

/**
 * netplan_begin() - Rules and proxy; names are looked up from here on
 * @env:	getenv() outside of tests
 *
 * Mistakes go to cli->problems, what is only worth a line to @warnings. netplan_end() in any case.
 */
void netplan_begin(struct cli *cli, const struct launch_args *args, const char *(*env)(const char *), struct network_plan *net,
		   struct strv *warnings);
/* Waits for the names, LOOKUP_MS from the beginning at most. */
void netplan_end(struct cli *cli, const struct launch_args *args, struct network_plan *net, struct strv *warnings);
void netplan_done(struct network_plan *net);

/* What the table says behind "network". Caller owns. */
char *netplan_text(const struct launch_args *args, const struct network_plan *net);
