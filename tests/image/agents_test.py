#!/usr/bin/env python3
"""The image with the agents: tests/image/agents_test.py BUILD [SET]

Builds it (--minimal unless SET says default or full), twice: the second time nothing may be loaded and the disk must be the
same. Then boots it, and each agent prints its version, with the pinned one in it. Then, against services of the test's own
(../net/test_agents.py, agents_live.py), each answers through gate and vault alone, by each kind of login; starts by its own verb on a
terminal, twice; and answers one prompt with a tool call without one. With full, the browser opens pages. Many minutes and half a
gigabyte of download; therefore not among the tests of each run.

AGENTS_ONLY=codex,claude:tty,claude:chain,browser,browser:mcp runs no more than these, with an image that is there; LATEST=1 builds with
the newest versions of the registry; AGENTS_TESTED=FILE keeps the table of what has passed in it."""
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(TOP / "tests/vm"))
os.environ.setdefault("AGENT_VM", str(pathlib.Path(sys.argv[1]).resolve() / "agent-vm"))
os.environ.setdefault("AGENT_VM_STATE_DIR", "")
import agents_live  # noqa: E402

NAMES = {"claude": "Claude Code", "codex": "Codex", "opencode": "OpenCode", "copilot": "Copilot CLI", "browser": "Chromium"}
AGENTS = {"minimal": ["claude", "codex", "opencode"], "default": ["claude", "codex", "opencode", "copilot"],
          "full": ["claude", "codex", "opencode", "copilot"]}
LATEST = os.environ.get("LATEST", "0") not in ("", "0")
# A proxy that refuses: nothing is reached.
NO_NETWORK = {name: "http://127.0.0.1:9" for name in ("http_proxy", "https_proxy", "all_proxy")}


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
        words = ([] if self.kind == "default" else ["--" + self.kind]) + (["--latest"] if LATEST else [])
        run = subprocess.run([self.agent_vm, "build", "--json", *words],
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

    def build_twice(self):
        first, disk = self.build()
        again, disk_again = self.build(**({} if LATEST else NO_NETWORK))
        assert disk == disk_again, "two builds, two disks"
        assert again["new"] == 0 and again["digest"] == first["digest"], again

    def run(self, script, seconds):
        with tempfile.TemporaryDirectory(prefix="agent-vm-agents-", dir="/var/tmp") as project:
            return subprocess.run([self.agent_vm, "shell", "--quiet", "--no-update-check", "--memory", "3G", "--image",
                                   f"localhost/agent-vm:{self.kind}", "--", "sh", "-c", script], cwd=project, timeout=seconds,
                                  env={**os.environ, "AGENT_VM_STATE_DIR": str(self.state)}, stdout=subprocess.PIPE, text=True)

    def versions(self, agents):
        """What each says of itself, and which monitor has run it."""
        script = "\n".join(f'printf "%s: " {a}; timeout 300 {a} --version 2>&1 | head -n 20 | tr "\\n" " "; echo' for a in agents if a != "browser")
        script += "\nprintf 'browser: '; dpkg-query -W -f '${Version}\\n' chromium" if "browser" in agents else ""
        run = self.run(script, 1500)
        print(run.stdout, end="", flush=True)
        assert run.returncode == 0, f"exit status {run.returncode}"
        said = dict(line.split(": ", 1) for line in run.stdout.splitlines() if ": " in line)
        for a in agents:
            assert a == "browser" or LATEST or pinned(a) in said.get(a, ""), f"{a}: pinned {pinned(a)}, says {said.get(a)!r}"
        return {a: re.search(r"\d+(\.\d+)+", said[a]).group() for a in agents}

    def chain(self, build, agent):
        """The program, taken out of the disk, through gate and vault without a VM: by each kind of login, and each way."""
        env = {**os.environ, "AGENT_VM_STATE_DIR": str(self.state)}
        images = json.loads(subprocess.run([self.agent_vm, "images", "--json"], env=env, check=True, stdout=subprocess.PIPE).stdout)
        disk = next(i["disk"] for i in images if i["reference"] == f"localhost/agent-vm:{self.kind}")
        start = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="agent-vm-program-", dir="/var/tmp") as folder:
            os.chmod(folder, 0o755)
            program = pathlib.Path(folder, "bin", agent)
            program.parent.mkdir()
            where = "/usr/local/lib/codex/bin" if agent == "codex" else "/usr/local/bin"
            subprocess.run(["/sbin/debugfs", "-R", f"dump {where}/{agent} {program}", self.state / f"images/disks/{disk}.ext4"], check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            program.chmod(0o755)
            run = subprocess.run([TOP / "tests/net/run", build, "test_agents.py", "-k", f"test_{agent}"], timeout=3600,
                                 env={**os.environ, "AGENT_VM_AGENTS": folder}, stderr=subprocess.PIPE, text=True)
        assert run.returncode == 0, f"{agent}: {run.stderr[-6000:]}"
        return "without a VM: each kind of login and each way, its prompt answered", f"{time.monotonic() - start:.0f} s"


def keep(path, agent, version, test, figures):
    """The row of the table for this agent and test; the others stay."""
    path = pathlib.Path(path)
    head = """# Which versions of the agents were tested

Kept by `make agents-check` (docs/agents.md, "How it was tested"), a row for each test that passed last.

| agent | test | version | day | figures |
|---|---|---|---|---|
"""
    rows = [line for line in (path.read_text().splitlines() if path.exists() else []) if line.startswith("| ") and not line.startswith("| agent ")]
    rows = [row for row in rows if not row.startswith(f"| {NAMES[agent]} | {test} |")]
    rows.append(f"| {NAMES[agent]} | {test} | {version} | {time.strftime('%Y-%m-%d', time.gmtime())} | {figures} |")
    path.write_text(head + "".join(row + "\n" for row in sorted(rows)))


def main():
    build, kind = pathlib.Path(sys.argv[1]).resolve(), (sys.argv[2:] or ["minimal"])[0]
    state = os.environ.get("AGENT_VM_STATE_DIR") or str(build / "agents-state")
    pathlib.Path(state).mkdir(mode=0o700, exist_ok=True)
    image = Image(str(build / "agent-vm"), kind, state)
    only = os.environ.get("AGENTS_ONLY")
    todo = only.split(",") if only else [a + how for how in (":chain", ":tty", "") for a in AGENTS[kind]] + (["browser", "browser:mcp"] if kind == "full" else [])
    if not only:
        image.build_twice()
    versions = image.versions(sorted({word.partition(":")[0] for word in todo}))
    failed = []
    for word in todo:
        agent, _, how = word.partition(":")
        try:
            what, figures = (agents_live.browser(image, how) if agent == "browser" else agents_live.interactive(image, agent) if how == "tty" else
                             image.chain(build, agent) if how == "chain" else
                             agents_live.run(image, agent))
        except (AssertionError, subprocess.TimeoutExpired) as e:
            failed.append(word)
            print(f"{word}: FAILED: {e}", flush=True)
            continue
        print(f"{NAMES[agent]} {versions[agent]}: {what}: {figures}", flush=True)
        if os.environ.get("AGENTS_TESTED"):
            keep(os.environ["AGENTS_TESTED"], agent, versions[agent], what, figures)
    print(f"failed: {', '.join(failed)}" if failed else "passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
