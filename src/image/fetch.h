/* `agent-vm-image fetch`: the half that has the network and the registry's login, and writes blobs. It parses documents and
 * tar headers of archives, never layers. Messages: proto/imagemsg.h.
 *
 * Before the sandbox: the message that says what is wanted, the login files, the CA files, the source's path. Behind it: every
 * byte from elsewhere. A credential helper is run by a process that was forked before (auth.h). */
#pragma once

#include "base/err.h"

struct blobs;

/* The role, from its start to its exit status. */
int fetch_main(void);

/**
 * fetch_sandbox() - Give up what is not needed to load an image
 * @blobs:	Its two folders stay readable and writable, and nothing else of the store; NULL: none
 * @source_fd:	A folder that stays readable; -1: none
 *
 * Landlock (where the kernel has it: else a line in the log), no capability, seccomp. Names can be resolved and connections
 * made; nothing can be executed, listened on, or reached by a local socket.
 */
int fetch_sandbox(const struct blobs *blobs, int source_fd, struct err *err);
