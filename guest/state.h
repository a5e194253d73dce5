/* The files of the project's state (GC_STATE). Other guests write there at the same time, and earlier ones did. */
#pragma once

#include "base/err.h"
#include "guest/config.h"

struct guest;

/* What is not as it should be is set aside with a line in the log; only what cannot be written ends the launch. */
int state_apply(struct guest *g, struct config *c, struct err *err);
