# The door to meson and ninja. Everything is built into build/; build/agent-vm runs in place.
BUILD ?= build
PREFIX ?= /usr/local
SAN = build-san

.PHONY: all demo check bench soak fuzz lab agents agents-check agents-lock install clean deps

all: $(BUILD)/build.ninja
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@command -v meson >/dev/null || { echo "agent-vm: meson: not found; install what is needed with: tools/deps run" >&2; exit 1; }
	meson setup $(BUILD) --prefix $(PREFIX)

$(SAN)/build.ninja:
	meson setup $(SAN) -Db_sanitize=address,undefined -Db_lundef=false -Dbuildtype=debug

deps:
	@tools/deps run

# Build, make the guest image if there is none, and run the project's own unit tests inside a VM.
demo: deps
	@$(MAKE) --no-print-directory all >/dev/null
	@tools/demo $(BUILD)

# Everything that can be tested on any machine.
check:
	@tools/deps check
	@tools/check

# The figures of the README; the lab is made first if it is missing. What comes later is measured even if something is too slow.
bench:
	@tools/deps lab
	@$(MAKE) --no-print-directory all
	@s=0; for b in github http net; do tests/bench/$$b $(BUILD) || s=1; done; tests/bench/pull || s=1; tests/bench/run || s=1; tests/bench/memory || s=1; exit $$s

# Gate, vault and wire by LIVE_CASES seeds, where nothing may stand still; then the network under connections of every kind for
# SECONDS, then 10,000 at once; nothing may be left afterwards.
SECONDS ?= 1800
LIVE_CASES ?= 50000
soak: all
	@for t in gate aside vault wire; do $(BUILD)/tests/live/live-$$t $(LIVE_CASES) || exit 1; done
	@tests/net/run "$(CURDIR)/$(BUILD)" test_soak.py $(SECONDS)

# libkrun on real (nested) KVM.
lab:
	@tools/deps lab
	@$(MAKE) --no-print-directory all
	@tests/lab/suite

# The image with the agents, built twice and booted: each prints its version and answers a prompt of a fake service.
# AGENTS=default or full for more, LATEST=1 with the newest versions; agents-check: full, and what passed goes into the table.
AGENTS = minimal
agents-check: AGENTS = full
agents-check: export AGENTS_TESTED = docs/agents-tested.md
agents agents-check:
	@tools/deps agents
	@$(MAKE) --no-print-directory all
	@tests/image/agents_test.py $(BUILD) $(AGENTS)

# The newest versions of the agents into images/agents.lock.
agents-lock:
	@tools/agents-lock

# Each fuzz target for FUZZ_SECONDS.
FUZZ_SECONDS ?= 60
fuzz:
	@tools/deps check
	@CC=clang tests/fuzz/run $(FUZZ_SECONDS)

install: all
	@tools/install-libs --check
	@meson configure $(BUILD) --prefix $(PREFIX) >/dev/null
	@meson install -C $(BUILD) --no-rebuild

clean:
	rm -rf $(BUILD) $(SAN) build-fuzz
