#!/usr/bin/env python3
"""The image with the agents: tests/image/agents_test.py BUILD [SET]

Builds it (--minimal unless SET says default or full), twice: the second time nothing may be loaded and the disk must be the
same. Then boots it, and each agent prints its version, with the pinned one in it. Then, against services of the test's own
(agents_live.py), each starts by its own verb on a terminal, twice, and answers one prompt with a tool call without one. Many
minutes and half a gigabyte of download; therefore not among the tests of each run. AGENTS_ONLY=codex,claude:tty,browser runs no
more than these, with an image that is there."""
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests/vm"))
os.environ.setdefault("AGENT_VM", str(pathlib.Path(sys.argv[1]).resolve() / "agent-vm"))
os.environ.setdefault("AGENT_VM_STATE_DIR", "")
import agents_live  # noqa: E402

AGENTS = {"minimal": ["claude", "codex", "opencode"], "default": ["claude", "codex", "opencode", "copilot"],
          "full": ["claude", "codex", "opencode", "copilot"]}
# A proxy that refuses: nothing is reached.
NO_NETWORK = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}
BROWSER = r"""
set -e
cd /tmp
setpriv --reuid=9999 --regid=9999 --clear-groups --no-new-privs env -i HOME=/home/chrome PATH="$PATH" \
	chromium --headless --disable-gpu --no-first-run --dump-dom 'data:text/html,<p id=a>rendered</p>' 2>/tmp/chromium.log |
	grep -o 'rendered' || { tail -n 20 /tmp/chromium.log >&2; exit 1; }
{ printf '%s\n' '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}' \
	'{"jsonrpc":"2.0","method":"notifications/initialized"}' '{"jsonrpc":"2.0","id":2,"method":"tools/list"}'; sleep 60; } |
	CHROME_DEVTOOLS_MCP_NO_USAGE_STATISTICS=1 timeout 90 agent-vm-chrome-mcp npx -y chrome-devtools-mcp@1.0.1 --headless 2>/tmp/mcp.log |
	grep -m 1 -o '"name":"new_page"' || { tail -n 20 /tmp/mcp.log >&2; exit 1; }
"""


def pinned(program):
    lock = json.loads((TOP / "images/agents.lock").read_text())
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    found = [p for p in lock["programs"] if p["program"] == program]
    return found[0]["platforms"][arch]["version"].split("-")[0]


class Image:
    def __init__(self, agent_vm, kind, state):
        self.agent_vm, self.kind, self.state = agent_vm, kind, pathlib.Path(state)

    def build(self, **env):
        """The event of its end, and the disk's SHA-256."""
        start = time.monotonic()
        run = subprocess.run([self.agent_vm, "build", "--json", *([] if self.kind == "default" else ["--" + self.kind])],
                             env={**os.environ, "AGENT_VM_STATE_DIR": str(self.state), **env}, stdout=subprocess.PIPE)
        events = [json.loads(line) for line in run.stdout.splitlines()]
        assert run.returncode == 0, f"build: exit status {run.returncode}: {events[-1:]}"
        done = events[-1]
        assert done["event"] == "done", done
        sha = hashlib.sha256()
        with open(self.state / "images/disks" / f"{done['digest']}.ext4", "rb") as disk:
            while piece := disk.read(1 << 24):
                sha.update(piece)
        print(f"{self.kind}: {done['new']} of {done['layers']} layers new, {done['layer_bytes'] / 1e6:.1f} MB of layers, "
              f"{done['size'] / 1e6:.1f} MB of disk, {time.monotonic() - start:.1f} s with hashing; disk {sha.hexdigest()}", flush=True)
        return done, sha.hexdigest()

    def run(self, script, seconds):
        with tempfile.TemporaryDirectory(prefix="agent-vm-agents-", dir="/var/tmp") as project:
            return subprocess.run([self.agent_vm, "shell", "--quiet", "--no-update-check", "--memory", "3G", "--image",
                                   f"localhost/agent-vm:{self.kind}", "--", "sh", "-c", script], cwd=project, timeout=seconds,
                                  env={**os.environ, "AGENT_VM_STATE_DIR": str(self.state)}, stdout=subprocess.PIPE, text=True)


def main():
    build, kind = pathlib.Path(sys.argv[1]).resolve(), (sys.argv[2:] or ["minimal"])[0]
    state = os.environ.get("AGENT_VM_STATE_DIR") or str(build / "agents-state")
    pathlib.Path(state).mkdir(mode=0o700, exist_ok=True)
    image = Image(str(build / "agent-vm"), kind, state)
    only = os.environ.get("AGENTS_ONLY")
    if only:
        for agent in only.split(","):
            name, _, how = agent.partition(":")
            print(agents_live.browser(image) if name == "browser" else agents_live.interactive(image, name) if how else
                  agents_live.run(image, name), flush=True)
        return
    first, disk = image.build()
    again, disk_again = image.build(**NO_NETWORK)
    assert disk == disk_again, "two builds, two disks"
    assert again["new"] == 0 and again["digest"] == first["digest"], again
    script = "\n".join(f'printf "%s: " {a}; timeout 120 {a} --version 2>&1 | head -n 20 | tr "\\n" " "; echo' for a in AGENTS[kind])
    run = image.run(script, 900)
    print(run.stdout, end="", flush=True)
    assert run.returncode == 0, f"exit status {run.returncode}"
    said = dict(line.split(": ", 1) for line in run.stdout.splitlines() if ": " in line)
    for agent in AGENTS[kind]:
        assert pinned(agent) in said.get(agent, ""), f"{agent}: pinned {pinned(agent)}, says {said.get(agent)!r}"
    for a in AGENTS[kind]:
        print(agents_live.interactive(image, a), flush=True)
    rows = [agents_live.run(image, a) for a in AGENTS[kind]]
    print("| agent | version | one prompt with a tool call, s | requests | renewals | hosts asked |\n|---|---|---|---|---|---|")
    for row in rows:
        print(f"| {row['agent']} | {pinned(row['agent'])} | {row['seconds']} | {row['requests']} | {row['renewed']} | {', '.join(row['hosts'])} |")
    if kind == "full":
        run = image.run(BROWSER, 600)
        print(run.stdout, end="", flush=True)
        assert run.returncode == 0 and "rendered" in run.stdout and "new_page" in run.stdout, "browser or DevTools server"
        print(agents_live.browser(image), flush=True)
    print("passed")


if __name__ == "__main__":
    main()
