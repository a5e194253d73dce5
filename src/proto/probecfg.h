/* What the launcher tells agent-vm-probe, which speaks TLS with gate through the guest before the agent starts
 * (credentials page 5.7), and what it hears back.
 *
 *	agent-vm-probe
 *   0 /dev/null  1, 2 the launcher's log
 *   3 SOCK_SEQPACKET to the launcher: NET_CTL_READY, or NET_CTL_ERROR with what is wrong
 *   4 the launcher's log
 *   5 sealed memfd with the configuration: records PBC_*
 *   6... a stream for each PBC_HOST, in their order: the launcher plays the guest of proto/ctl.h and takes one DIAL */
#pragma once

#define PROBE_FD_CONFIG 5
#define PROBE_FD_HOST 6
#define PROBE_CONFIG_MAX (64 << 10)
#define PROBE_HOSTS_MAX 8
#define PROBE_ASKS_MAX 4 /* of one host */

enum probecfg_key {
	PBC_CA = 1,  /* bytes: the session's root, DER; nothing else is trusted */
	PBC_ADDR,    /* 5 or 17 bytes: 4 or 6, and the address that the guest dials */
	PBC_HOST,    /* records NAME, ASK+ */
	PBC_NAME,    /* string: SNI, and the name that the leaf must have */
	PBC_ASK,     /* records REQUEST, STATUS, CODE?, WHAT */
	PBC_REQUEST, /* bytes: the whole request */
	PBC_STATUS,  /* u64 */
	PBC_CODE,    /* string: of x-sandbox-policy */
	PBC_WHAT,    /* string: for the line that names what was wrong */
};
