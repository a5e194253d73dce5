/* Shared by fetch*.c only. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "image/auth.h"
#include "image/blobs.h"
#include "image/http.h"
#include "image/plan.h"
#include "image/registry.h"
#include "image/source.h"
#include "image/trust.h"
#include "proto/imagemsg.h"

struct load;

/* What a build asks for besides images. */
enum fetch_kind { FETCH_IMAGE, FETCH_NPM, FETCH_DEBIAN };

struct fetch {
	bool head;
	enum fetch_kind kind;
	char *source_text, *arch, *known; /* known: hex, NULL */
	char *npm_registry, *integrity, *dependency; /* of npm; NULL: not said */
	uint64_t bytes;				     /* of npm; 0: not said */
	int input;
	struct source source;
	struct blobs blobs;
	struct auth auth;
	struct trust *trust;
	struct http *http;
	struct registry *reg;
	struct plan plan;
	bool told; /* the error names its object already */
	struct load *loads;
	size_t n_loads;
	bool wanted[IM_LAYERS_MAX];
};

void fetch_say(struct buf *b, int pass);
_Noreturn void fetch_fail(int code, const struct err *err);
/* Work for at most @timeout_ms; ends the process when the launcher is gone. */
void fetch_step(struct fetch *f, int timeout_ms);
/* Run one operation to its end. */
int fetch_run(struct fetch *f, struct op *op, struct err *err);
/* AGENT_VM_INSECURE_REGISTRY: plain HTTP to other machines. The launcher has refused a wrong value; here it is off. */
bool fetch_may_be_plain(void);
/* Wait for IM_GO. */
void fetch_take_go(struct fetch *f);

/* fetch_npm.c: the client for a host named by a URL, then the whole of "npm:" and "debian:". */
int fetch_urls_open(struct fetch *f, struct err *err);
void fetch_npm(struct fetch *f);
void fetch_debian(struct fetch *f);
