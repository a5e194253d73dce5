/* Gate's sandbox; agent-vm-probe, which speaks with the guest as well, has the same. */
#pragma once

#include "base/err.h"

int gate_sandbox(struct err *err);
