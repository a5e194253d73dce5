"""`agent-vm build` whole, in seconds: the real launcher and agent-vm-image, a registry of npm packages on loopback that can be
told to do everything wrong, and a stand-in for mmdebstrap and its mirror. usage: build_test.py BUILD [CLASS]"""
import base64
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import random
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import unittest
import urllib.parse

AGENT_VM = str(pathlib.Path(sys.argv.pop(1)).resolve() / "agent-vm")
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # agent-vm started by nohup(1) ends by none
TOP = pathlib.Path(__file__).resolve().parent.parent.parent
LOCK = json.loads((TOP / "images/agents.lock").read_text())
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
DATE = "Sat, 14 Nov 2026 09:41:07 UTC"
NPM_EPOCH = 499162500

MMDEBSTRAP = """#!/usr/bin/python3
import io, os, signal, subprocess, sys, tarfile, time
if os.path.exists({do!r}):  # what a package's script would do
    subprocess.run(["sh", {do!r}], stdout=open({do!r} + ".out", "w"), stderr=subprocess.STDOUT)
if os.path.exists({hang!r}):  # leave a tree behind
    if open({hang!r}).read() == "deaf":
        for deaf in signal.SIGTERM, signal.SIGHUP:  # which the kernel sends to a stopped one whose parent goes
            signal.signal(deaf, signal.SIG_IGN)
    os.makedirs(os.environ["TMPDIR"] + "/mmdebstrap.x/root/etc")
    os.mkfifo(os.environ["TMPDIR"] + "/mmdebstrap.x/root/fifo")
    os.symlink({hang!r}, os.environ["TMPDIR"] + "/mmdebstrap.x/root/etc/link")
    os.chmod(os.environ["TMPDIR"] + "/mmdebstrap.x/root", 0o700)
    with open(os.environ["TMPDIR"] + "/pid.new", "w") as f:
        f.write(str(os.getpid()))
    os.rename(os.environ["TMPDIR"] + "/pid.new", os.environ["TMPDIR"] + "/pid")
    time.sleep(1000)
if os.path.exists({fail!r}):
    print("E: the mirror has gone", file=sys.stderr)
    sys.exit(1)
open({runs!r}, "a").write(os.environ["SOURCE_DATE_EPOCH"] + "\\n" + "\\n".join(sys.argv) + "\\n")
print("I: downloading packages with apt...", file=sys.stderr)
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.PAX_FORMAT) as t:
    def add(name, data=b"", mode=0o644, kind=tarfile.REGTYPE):
        i = tarfile.TarInfo(name)
        i.size, i.mode, i.type, i.mtime = len(data), mode, kind, int(os.environ["SOURCE_DATE_EPOCH"])
        t.addfile(i, io.BytesIO(data))
    for d in ("etc", "usr", "usr/bin", "usr/local", "usr/local/bin", "usr/local/lib"):
        add(d, mode=0o755, kind=tarfile.DIRTYPE)
    add("usr/bin/bash", b"#!/bin/sh\\n", 0o755)
    add("etc/agent-vm-image-version", b"1\\n")
print("I: success", file=sys.stderr)
"""


def tarball(files, fmt=tarfile.USTAR_FORMAT):
    """An npm package; a value is bytes, or (bytes, mode), or a TarInfo."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=fmt) as t:
        for name, what in files:
            if isinstance(what, tarfile.TarInfo):
                what.name = name
                t.addfile(what)
                continue
            data, mode = what if isinstance(what, tuple) else (what, 0o644)
            i = tarfile.TarInfo(name)
            i.size, i.mode, i.mtime = len(data), mode, NPM_EPOCH
            t.addfile(i, io.BytesIO(data))
    return gzip.compress(raw.getvalue(), 1, mtime=0)


def executable(name, content, size=None):
    """One of Node's with an asset, in which the asset's name stands elsewhere, too."""
    def place(n, data):
        return struct.pack("<Q", len(name)) + name + struct.pack("<Q", n) + data
    return (b"\x7fELF" + random.Random(7).randbytes(300000) + name + place(1 << 40, b"\x1f\x8b") + place(9, b"no tarball") +
            place(len(content) if size is None else size, content) + b"behind it")


def integrity(data):
    return "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()


class Registry(http.server.ThreadingHTTPServer):
    """npm packages at /npm, Release files at /debian and /debian-security."""
    daemon_threads = True

    def __init__(self):
        self.packages, self.asked, self.date = {}, [], DATE
        self.cut, self.over = None, threading.Event()  # of a tarball, send so many bytes and stand still until it is over
        self.lie = {}  # name -> members that replace those of its metadata
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name, version, data, **more):
        self.packages[name, version] = (data, more)
        self.packages[name, "latest"] = self.packages[name, version]
        more["version"] = version

    def metadata(self, name, version):
        data, more = self.packages[name, version]
        return {"name": name, "version": more["version"], "optionalDependencies": more.get("optional", {}),
                "dist": {"tarball": f"{self.url}/npm/{name}/-/{more['version']}.tgz", "integrity": integrity(data)},
                **self.lie.get(name, {})}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.do_GET()

    def answer(self, code, data, kind="application/json"):
        start, total = 0, len(data)
        span = self.headers.get("Range")
        if span and code == 200:
            start = int(span.removeprefix("bytes=").rstrip("-"))
            code = 206
        self.send_response(code)
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.server.cut
        with contextlib.suppress(OSError):
            if kind == "application/octet-stream" and cut is not None and start < cut < total:
                self.wfile.write(data[start:cut])
                self.server.over.wait()
                start = cut
            self.wfile.write(data[start:])

    def do_GET(self):
        path = urllib.parse.urlparse(self.path).path
        self.server.asked.append((self.command, path, self.headers.get("Range"), self.headers.get("Authorization")))
        if path.endswith("/InRelease"):
            return self.answer(200, f"Origin: Debian\nSuite: {path}\nDate: {self.server.date}\n".encode(), "text/plain")
        if "/-/" in path:
            name, version = path.removeprefix("/npm/").removesuffix(".tgz").split("/-/")
            return self.answer(200, self.server.packages[name, version][0], "application/octet-stream")
        name, _, version = path.removeprefix("/npm/").rpartition("/")
        if "/" in name or (urllib.parse.unquote(name), version) not in self.server.packages:
            return self.answer(404, b"{}")
        return self.answer(200, json.dumps(self.server.metadata(urllib.parse.unquote(name), version)).encode())


def program(name):
    return next(p for p in LOCK["programs"] if p["program"] == name)


class Base(unittest.TestCase):
    def setUp(self):
        self.tmp = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="build-test-")))
        # mmdebstrap's ids are others than ours, for root too: they must reach the stand-in and what it writes.
        self.tmp.chmod(0o755)
        self.state, self.trees = self.tmp / "state", self.tmp / "trees"
        self.state.mkdir(mode=0o700)
        self.trees.mkdir(mode=0o755)
        self.registry = Registry()
        self.addCleanup(self.registry.server_close)
        self.addCleanup(self.registry.shutdown)
        self.addCleanup(self.registry.over.set)
        self.runs, self.broken = self.tmp / "runs", self.tmp / "fail"
        self.do, self.hang = self.tmp / "do", self.tmp / "hang"
        for out in self.runs, self.tmp / "do.out":
            out.touch()
            out.chmod(0o666)
        tools = self.tmp / "bin"
        tools.mkdir()
        (tools / "mmdebstrap").write_text(MMDEBSTRAP.format(runs=str(self.runs), fail=str(self.broken), do=str(self.do),
                                                               hang=str(self.hang)))
        (tools / "apt-get").write_text(f"#!/bin/sh\necho {self.registry.url}/debian x\necho {self.registry.url}/debian-security x\n")
        for tool in tools.iterdir():
            tool.chmod(0o755)
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AGENT_VM_") and not k.lower().endswith("_proxy")}
        self.env.update(AGENT_VM_STATE_DIR=str(self.state), PATH=f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin", HOME=str(self.tmp), TMPDIR=str(self.trees),
                        npm_config_registry=self.registry.url + "/npm/")
        self.env.pop("SOURCE_DATE_EPOCH", None)
        self.publish()

    def publish(self, **content):
        """Every program in a version of its own; content: program -> files of its platform package."""
        for p in LOCK["programs"]:
            name, platform = p["program"], p["platforms"][ARCH]
            files = content.get(name) or self.files(name)
            package, version = platform["package"], platform["version"]
            umbrella = tarball([("package/package.json", b"{}")])
            dependency = platform.get("dependency")
            if not dependency:
                self.registry.add(package, version, tarball(files))
                continue
            self.registry.add(package, version, tarball(files))
            plain = version.split("-")[0]
            value = version if dependency == package else f"npm:{package}@{version}"
            self.registry.add(p["umbrella"], plain, umbrella, optional={dependency: value})

    @staticmethod
    def files(name):
        vendor = "package/vendor/" + {"amd64": "x86_64", "arm64": "aarch64"}[ARCH] + "-unknown-linux-musl"
        return {
            "codex": [(f"{vendor}/codex-resources/voice/lib/libvoice.so", b"voice"), (f"{vendor}/bin/codex", (b"codex", 0o4755)),
                      (f"{vendor}/codex-path/rg", (b"rg", 0o755)), (f"{vendor}/codex-package.json", b"{}"),
                      ("package/README.md", b"read")],
            "claude": [("package/claude", (random.Random(1).randbytes(3 << 20), 0o755)), ("package/package.json", b"{}")],
            "opencode": [("package/package.json", b"{}"), ("package/bin/opencode", (b"opencode", 0o755))],
            "copilot": [("package/copilot", (executable(b"copilot.tgz", tarball([
                ("package/app.js", b"app"), ("package/prebuilds/linux/runtime", (b"\x7fELF", 0o755)), ("other/file", b"x")])), 0o755))],
            "chrome-devtools-mcp": [("package/build/src/bin/chrome-devtools-mcp.js", b"// js"), ("package/LICENSE", b"l")],
        }[name]

    def build(self, *words, code=0, **env):
        run = subprocess.run([AGENT_VM, "build", "--json", *words], env={**self.env, **env}, capture_output=True, text=True,
                             timeout=300)
        self.assertEqual(run.returncode, code, run.stderr)
        self.err = run.stderr
        events = [json.loads(line) for line in run.stdout.splitlines()]
        return events[-1] if events else None

    def refused(self, *words, says, **env):
        last = self.build(*words, code=1, **env)
        self.assertEqual(last["event"], "error")
        self.assertRegex(last["reason"], says)
        self.assertIn("; ", last["reason"], "says what to do")
        self.assertEqual(list((self.state / "images/refs").iterdir()), [], "an image was stored")
        self.assertEqual(list((self.state / "images/tmp").iterdir()), [], "something half-made was left")
        return last["reason"]

    def tarballs(self):
        return [path for method, path, *_ in self.registry.asked if method == "GET" and "/-/" in path]

    def layout(self, *words):
        """Build and take the image apart: (config, [(names of a layer's entries, its members)])"""
        out = self.tmp / f"out{random.randrange(1 << 30)}"
        self.build(*words, "--output", f"oci:{out}")
        blob = lambda d: (out / "blobs/sha256" / d.removeprefix("sha256:")).read_bytes()
        index = json.loads((out / "index.json").read_text())
        manifest = json.loads(blob(index["manifests"][0]["digest"]))
        config = json.loads(blob(manifest["config"]["digest"]))
        layers = []
        for d, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True):
            data = blob(d["digest"])
            self.assertEqual(hashlib.sha256(data).hexdigest(), d["digest"].removeprefix("sha256:"))
            raw = subprocess.run(["zstd", "-dc"], input=data, stdout=subprocess.PIPE, check=True).stdout
            self.assertEqual("sha256:" + hashlib.sha256(raw).hexdigest(), diff_id)
            with tarfile.open(fileobj=io.BytesIO(raw)) as t:
                layers.append({m.name: (m, t.extractfile(m).read() if m.isreg() else None) for m in t})
        return config, layers


class Image(Base):
    def test_layers_hold_what_is_wanted_in_one_form(self):
        config, layers = self.layout("--minimal", "--latest")
        self.assertEqual([h["created_by"].split(": ")[1].split()[0] for h in config["history"]],
                         ["Debian", "codex", "claude", "opencode"])
        base, codex, claude, opencode = layers
        self.assertIn("etc/agent-vm-image-version", base)
        self.assertEqual(list(codex), sorted(codex), "sorted by name")
        self.assertEqual(set(codex), {"usr/local/bin/codex", "usr/local/lib/codex", "usr/local/lib/codex/bin",
                                      "usr/local/lib/codex/bin/codex", "usr/local/lib/codex/codex-package.json",
                                      "usr/local/lib/codex/codex-path", "usr/local/lib/codex/codex-path/rg"})
        self.assertEqual(codex["usr/local/bin/codex"][0].linkname, "../lib/codex/bin/codex")
        self.assertEqual(codex["usr/local/lib/codex/bin/codex"][0].mode, 0o755, "no setuid")
        self.assertEqual(codex["usr/local/lib/codex/codex-package.json"][0].mode, 0o644)
        self.assertEqual(list(claude), ["usr/local/bin/claude"])
        self.assertEqual(claude["usr/local/bin/claude"][1], dict(self.files("claude"))["package/claude"][0])
        self.assertEqual(list(opencode), ["usr/local/bin/opencode"])
        for layer in layers[1:]:
            for m, _ in layer.values():
                self.assertEqual((m.uid, m.gid, m.uname, m.gname, m.mtime, m.pax_headers), (0, 0, "", "", NPM_EPOCH, {}))

    def test_sets_have_their_programs(self):
        for words, names in ((["--base"], []), ([], ["codex", "claude", "opencode", "copilot"]),
                             (["--full"], ["codex", "claude", "opencode", "copilot", "chrome-devtools-mcp"])):
            with self.subTest(words=words):
                config, layers = self.layout(*words, "--latest")
                self.assertEqual([h["created_by"].split(": ")[1].split()[0] for h in config["history"]], ["Debian", *names])
        self.assertIn("usr/local/lib/chrome-devtools-mcp/build/src/bin/chrome-devtools-mcp.js", layers[-1])
        words = self.runs.read_text()
        self.assertIn("chromium", words)
        self.assertIn("END_OF_FILE", words)

    def test_what_a_program_carries_inside_is_unpacked(self):
        _, layers = self.layout("--latest")
        version = program("copilot")["platforms"][ARCH]["version"]
        folder = f"root/.cache/copilot/pkg/linux-{ {'amd64': 'x64', 'arm64': 'arm64'}[ARCH] }/{version}"
        copilot = {n: (m.mode, data) for n, (m, data) in layers[4].items()}
        self.assertEqual(copilot.pop("usr/local/bin/copilot"), (0o755, self.files("copilot")[0][1][0]))
        self.assertEqual(copilot, {folder: (0o755, None), f"{folder}/.extraction-complete": (0o644, b""), f"{folder}/app.js": (0o644, b"app"),
                                   f"{folder}/prebuilds": (0o755, None), f"{folder}/prebuilds/linux": (0o755, None),
                                   f"{folder}/prebuilds/linux/runtime": (0o755, b"\x7fELF")})

    def test_the_step_that_runs_is_shown(self):
        tool = self.tmp / "bin/mmdebstrap"
        tool.rename(self.tmp / "bin/real")
        steps = "updating", "extracting"
        tool.write_text(f"#!/bin/sh\nsay() {{ echo \"I: $1...\" >&2; }}\nshown() {{ until [ -e {self.tmp}/shown-$1 ]; do sleep 0.05; done; }}\n"
                        "say updating; shown updating; say downloading; say extracting; shown extracting; "
                        f"exec {self.tmp}/bin/real \"$@\"\n")
        tool.chmod(0o755)
        terminal, end = os.openpty()
        run = subprocess.Popen([AGENT_VM, "build", "--base"], env={**self.env, "TERM": "xterm"}, stdin=end, stdout=end, stderr=end)
        os.close(end)
        self.addCleanup(run.kill)
        shown = b""
        with contextlib.suppress(OSError):
            while select.select([terminal], [], [], 60)[0] and (piece := os.read(terminal, 65536)):
                shown += piece
                for step in steps:
                    if f"{step}...".encode() in shown:
                        (self.tmp / f"shown-{step}").touch()
        os.close(terminal)
        for step in steps:
            self.assertIn(f"{step}...".encode(), shown)
        self.assertEqual(run.wait(60), 0, shown)

    def test_time_is_that_of_the_newest_release(self):
        self.build("--base")
        self.assertEqual(self.runs.read_text().splitlines()[0], "1794649267")
        self.assertEqual(sorted(p for _, p, *_ in self.registry.asked if p.endswith("InRelease")),
                         ["/debian-security/dists/trixie-security/InRelease", "/debian/dists/trixie-updates/InRelease",
                          "/debian/dists/trixie/InRelease"])

    def test_apt_in_the_image_has_debians_own_mirror(self):
        self.build("--base")
        words = self.runs.read_text()
        self.assertIn(f"deb {self.registry.url}/debian trixie main", words.splitlines(), "the build has the host's")
        hook = re.search(r"^--customize-hook=(set -eu;.*)$", words, re.M)[1]
        tree = self.tmp / "tree"
        for name in "etc/apt/sources.list.d", "var/log", "var/lib/dpkg", "var/lib/apt/lists", "var/cache/debconf":
            (tree / name).mkdir(parents=True)
        apt = tree / "etc/apt"
        (apt / "sources.list").write_text(f"deb {self.registry.url}/debian trixie main\n")
        (apt / "sources.list.d/0000main.sources").write_text(f"URIs: {self.registry.url}/debian\n")
        subprocess.run(["sh", "-c", hook, "sh", tree], check=True)
        self.assertEqual(list((apt / "sources.list.d").iterdir()), [])
        lines = (apt / "sources.list").read_text().splitlines()
        self.assertEqual([re.sub(r" \[.*?\]", "", line) for line in lines],
                         ["deb http://deb.debian.org/debian trixie main", "deb http://deb.debian.org/debian trixie-updates main",
                          "deb http://deb.debian.org/debian-security trixie-security main"])
        self.assertEqual((apt / "sources.list").stat().st_mode & 0o777, 0o644)

    def test_equal_input_gives_one_disk(self):
        first = self.build("--minimal", "--latest")
        other = self.tmp / "other"
        other.mkdir(mode=0o700)
        again = self.build("--minimal", "--latest", AGENT_VM_STATE_DIR=str(other), TZ="Asia/Tokyo")
        self.assertEqual((first["digest"], first["new"], again["new"]), (again["digest"], 4, 4))
        disks = [root / "images/disks" / f"{first['digest']}.ext4" for root in (self.state, other)]
        sums = []
        for disk in disks:  # what has content; the rest is a hole
            with disk.open("rb") as f:
                sums.append(hashlib.sha256(f.read(64 << 20)).hexdigest())
        self.assertEqual(*sums)

    def test_registry_line_of_npmrc(self):
        (self.tmp / ".npmrc").write_text(f"//x/:_authToken=secret\nregistry = {self.registry.url}/npm/\n")
        self.env.pop("npm_config_registry")
        self.build("--minimal", "--latest")
        self.assertTrue(self.tarballs())
        self.assertEqual({auth for *_, auth in self.registry.asked}, {None}, "a login was sent")

    def test_output_is_not_written_over(self):
        out = self.tmp / "there"
        out.mkdir()
        (out / "mine").write_text("mine")
        self.build("--base", "--output", f"oci:{out}", code=1)
        self.assertIn("is there already", self.err)
        self.assertEqual([p.name for p in out.iterdir()], ["mine"])
        self.assertEqual([p.name for p in self.tmp.iterdir() if p.name.endswith(".new")], [])

    def test_wrong_words(self):
        self.build("--base", "--full", code=2)
        self.build("--output", "dir", code=2)


class Dockerfile(Base):
    """There is no Docker here: what its steps do is run without it, and its text compared."""

    def test_programs_have_the_same_paths_modes_and_content(self):
        lock = json.loads(json.dumps(LOCK))
        for p in lock["programs"]:
            pin = p["platforms"][ARCH]
            pin["integrity"] = integrity(self.registry.packages[pin["package"], pin["version"]][0])
        (self.tmp / "lock").write_text(json.dumps(lock))
        text = (TOP / "images/Dockerfile").read_text()
        steps = re.findall(r"^RUN case \$SET in ([a-z |]+)\) ;; \*\) \S+/install-program \S+/agents.lock (\S+) / ;; esac$", text, re.M)
        for kind in ("base", "minimal", "default", "full"):
            root = self.tmp / kind
            root.mkdir()
            order = [name for without, name in steps if kind not in without.split(" | ")]
            for name in order:
                subprocess.run([TOP / "images/install-program", self.tmp / "lock", name, root], env=self.env, check=True)
            config, layers = self.layout("--latest", *([] if kind == "default" else ["--" + kind]))
            self.assertEqual([h["created_by"].split(": ")[1].split()[0] for h in config["history"][1:]], order)
            ours = {n: self.entry_of(m, data) for layer in layers[1:] for n, (m, data) in layer.items() if not m.isdir()}
            docker = {}
            for path in root.rglob("*"):
                if path.is_symlink():
                    docker[str(path.relative_to(root))] = os.readlink(path)
                elif path.is_file():
                    docker[str(path.relative_to(root))] = (bool(path.stat().st_mode & 0o111), path.read_bytes())
            self.assertEqual(docker, ours)

    @staticmethod
    def entry_of(m, data):
        return m.linkname if m.issym() else (bool(m.mode & 0o111), data)

    def test_wrong_content_is_refused(self):
        run = subprocess.run([TOP / "images/install-program", TOP / "images/agents.lock", "opencode", self.tmp], env=self.env,
                             capture_output=True, text=True)
        self.assertEqual(run.returncode, 1)
        self.assertRegex(run.stderr, "opencode.*pinned is sha512-")
        self.assertFalse((self.tmp / "usr").exists())

    def test_packages_are_the_same(self):
        text = (TOP / "images/Dockerfile").read_text().replace("\\\n", " ")
        sets = {name: words.split() for name, words in re.findall(r'\b(minimal|default|full)="([a-z0-9 .\t-]+)"', text)}
        expected = {"base": sets["minimal"], "minimal": sets["minimal"], "default": sets["minimal"] + sets["default"],
                    "full": sets["minimal"] + sets["default"] + sets["full"]}
        for kind, packages in expected.items():
            self.build("--latest", *([] if kind == "default" else ["--" + kind]), "--include", "make")
            # base and minimal have one base, so the second is not made again
            include = re.findall(r"^--include=(.*)$", self.runs.read_text(), re.M)[-1]
            self.assertEqual(include.split(","), packages + ["make"], kind)

    def test_browser_is_set_up_the_same(self):
        self.build("--full", "--latest")
        hooks = self.runs.read_text()
        text = (TOP / "images/Dockerfile").read_text()
        for line in ("chrome:x:9999:9999::/home/chrome:/bin/bash", "chrome:x:9999:", "chrome:!::", "chrome:*:19700:0:99999:7:::"):
            self.assertIn(f"echo '{line}' >>", hooks)
            self.assertIn(f"echo '{line}' >>", text)
        self.assertIn((TOP / "images/agent-vm-chrome-mcp").read_text(), hooks)
        for link in re.findall(r"ln -s (\S+) /(\S+?)[;\s]", text):
            self.assertIn("ln -s {} {}".format(*link), hooks)

    def test_lock_is_as_its_tool_writes_it(self):
        for p in LOCK["programs"]:
            self.assertEqual(set(p["platforms"]), {"amd64", "arm64"}, p["program"])
        subprocess.run([TOP / "tools/agents-lock", "--check"], check=True)


class Cache(Base):
    def test_second_build_loads_nothing(self):
        first = self.build("--minimal", "--latest")
        self.registry.asked.clear()
        again = self.build("--minimal", "--latest")
        self.assertEqual((again["digest"], again["new"], self.tarballs()), (first["digest"], 0, []))
        self.assertEqual(self.runs.read_text().count("mmdebstrap\n"), 1)
        self.assertEqual(list((self.state / "images/partial").iterdir()), [], "a tarball was kept beside its layer")

    def test_without_network_the_former_packages_do(self):
        first = self.build("--base")
        self.registry.shutdown()
        self.registry.server_close()
        with socket.socket() as s:  # nobody else gets the port
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(self.registry.server_address)
            again = self.build("--base")
        self.assertEqual(again["digest"], first["digest"])
        self.assertIn("its packages are those of the build before", self.err)

    def test_new_version_of_one_changes_one_layer(self):
        first = self.build("--minimal", "--latest")
        self.registry.asked.clear()
        self.publish(opencode=[("package/bin/opencode", (b"newer", 0o755))])
        again = self.build("--minimal", "--latest")
        self.assertNotEqual(again["digest"], first["digest"])
        self.assertEqual((again["was"], again["new"], len(self.tarballs())), (first["digest"], 1, 1))

    def test_newer_packages_change_the_base_only(self):
        self.build("--minimal", "--latest")
        self.registry.date = "Sun, 15 Nov 2026 09:41:07 UTC"
        self.assertEqual(self.build("--minimal", "--latest")["new"], 1)

    def test_sets_share_layers_and_prune_keeps_them(self):
        self.build("--minimal", "--latest")
        subprocess.run([AGENT_VM, "prune"], env=self.env, check=True, capture_output=True)
        self.registry.asked.clear()
        self.assertEqual(self.build("--latest")["new"], 2, "base and copilot")
        self.assertEqual(len(self.tarballs()), 1)

    def test_a_layer_that_was_damaged_is_made_again(self):
        first = self.build("--base")
        layer, = [p for p in (self.state / "images/blobs/sha256").iterdir() if p.read_bytes()[:4] == b"\x28\xb5\x2f\xfd"]
        data = layer.read_bytes()
        layer.chmod(0o600)
        layer.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        for disk in (self.state / "images/disks").iterdir():
            disk.unlink()
        p = subprocess.run([AGENT_VM, "build", "--base"], env=self.env, capture_output=True, text=True)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertIn("damaged on this disk, deleted; build again: it is made anew", p.stderr.splitlines()[-1])
        self.assertEqual(self.build("--base")["digest"], first["digest"])
        self.assertEqual(layer.read_bytes(), data)

    def test_damaged_record_is_none(self):
        first = self.build("--base")
        for record in (self.state / "images/made").iterdir():
            record.write_text('{"version": 1, "key": 3}')
        again = self.build("--base")
        self.assertEqual((again["new"], again["digest"]), (1, first["digest"]))


class Setup(Base):
    """What setup and a launch do with an image that was made here. No request may get further than a dead proxy."""
    PROXY = {"https_proxy": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}

    def run_it(self, *words, code=0, **env):
        (self.tmp / "project").mkdir(exist_ok=True)
        run = subprocess.run([AGENT_VM, *words], env={**self.env, **self.PROXY, **env}, cwd=self.tmp / "project", capture_output=True,
                             text=True, timeout=300, stdin=subprocess.DEVNULL)
        self.assertEqual(run.returncode, code, run.stdout + run.stderr)
        return run.stdout, run.stderr

    def stored(self, name, ref):
        out, _ = self.run_it("setup", "--no-verify", *name)
        self.assertIn(f"==> {ref}: stored on this machine; no registry is asked\n", out)
        self.assertIn("==> stored; not tried, as --no-verify asks\n", out)

    def test_an_image_made_here_is_not_asked_for(self):
        self.build("--base", "--tag", "x")
        self.stored(("--image", "localhost/agent-vm:x"), "localhost/agent-vm:x")
        self.env["AGENT_VM_IMAGE_TAG"] = "localhost/agent-vm:x"
        self.stored((), "localhost/agent-vm:x")
        _, err = self.run_it("setup", "--image", "localhost/agent-vm:none", code=2)
        self.assertIn("agent-vm build --tag none", err)

    def test_what_a_build_made_the_default_is_the_default(self):
        self.build("--base")
        self.stored((), "localhost/agent-vm:base")
        (self.state / "images/refs").rename(self.state / "images/former")
        out, _ = self.run_it("setup", "--no-verify", code=1)
        self.assertIn("agent-vm build", out)

    def test_an_image_from_standard_input(self):
        out = self.tmp / "out"
        self.build("--base", "--output", f"oci:{out}")
        tar = subprocess.run(["tar", "-cC", out, "."], stdout=subprocess.PIPE, check=True).stdout
        run = subprocess.run([AGENT_VM, "pull", "--image", "-"], env=self.env, input=tar, capture_output=True, check=True)
        name = run.stdout.decode().split()[0]
        self.assertRegex(name, "^stdin:")
        self.stored(("--image", name), name)
        _, err = self.run_it("setup", "--image", "stdin:none", code=2)
        self.assertIn("agent-vm pull --image -", err)

    def test_a_word_that_is_the_tag_of_a_build(self):
        self.build("--base", "--tag", "x")
        for words in (("shell", "--image", "x", "--", "true"), ("setup", "--image", "x")):
            with self.subTest(words=words):
                _, err = self.run_it(*words, code=1)
                self.assertIn("image x: not in the store; localhost/agent-vm:x is, which was made here; use that name, or "
                              "docker.io/library/x:latest for that of Docker Hub\n", err)
        _, err = self.run_it("shell", "--", "true", code=1, AGENT_VM_IMAGE_TAG="x")
        self.assertIn("localhost/agent-vm:x is", err)
        for other in "y", "docker.io/library/x", "x:latest":
            with self.subTest(other=other):
                self.assertIn("127.0.0.1:1: cannot be reached", self.run_it("setup", "--image", other, code=1)[0])

    def test_a_switch_that_is_neither_on_nor_off(self):
        for words in ("pull",), ("setup",), ("build", "--base"), ("shell", "--", "true"):
            with self.subTest(words=words):
                _, err = self.run_it(*words, code=2, AGENT_VM_INSECURE_REGISTRY="ture")
                self.assertIn("agent-vm: AGENT_VM_INSECURE_REGISTRY=ture: neither on nor off; set it to 1 or 0\n", err)
                self.assertEqual(list(self.state.iterdir()), [], "something was made")
        self.assertEqual(self.registry.asked, [])
        for value in "", "0", "No", "FALSE", "off", "1", "on", "Yes", "true":
            with self.subTest(value=value):
                self.build("--base", AGENT_VM_INSECURE_REGISTRY=value)


class Refused(Base):
    def test_plain_http_when_it_is_off(self):
        # An address that is not this machine's, whatever a proxy makes of it.
        for value, says in ((v, "plain HTTP is only allowed") for v in ("", "0", "false", "no", "off")):
            with self.subTest(value=value):
                self.refused("--minimal", "--latest", says=says, AGENT_VM_INSECURE_REGISTRY=value,
                             npm_config_registry="http://npm.invalid/")
        reason = self.refused("--minimal", "--latest", says=".", AGENT_VM_INSECURE_REGISTRY="Yes",
                              npm_config_registry="http://npm.invalid/")
        self.assertNotIn("plain HTTP", reason)

    def test_output_that_cannot_be_made_is_found_at_the_start(self):
        there, file, locked = self.tmp / "there", self.tmp / "file", self.tmp / "locked"
        there.mkdir()
        file.touch()
        (self.tmp / "dangling").symlink_to("nothing")
        for out, says in ((there, "is there already; name a folder that is not"), (f"{there}//", "is there already"),
                          (file, "is there already"), (self.tmp / "dangling", "is there already"), ("/", "is there already"),
                          (".", "is there already"),
                          (self.tmp / "none/out", f"cannot be made: {self.tmp}/none: No such file or directory; "),
                          (f"{file}/out", f"cannot be made: {file}: Not a directory; ")):
            with self.subTest(out=out):
                run = subprocess.run([AGENT_VM, "build", "--base", "--output", f"oci:{out}"], env=self.env, capture_output=True,
                                     text=True, timeout=300)
                self.assertEqual(run.returncode, 1, run.stderr)
                self.assertRegex(run.stderr, f"^agent-vm: --output: .*{says}")
                self.assertEqual((list(self.state.iterdir()), self.registry.asked), ([], []))
        self.build("--base")
        self.registry.asked.clear()
        self.build("--base", "--if-missing", "--output", f"oci:{there}")
        last = self.build("--base", "--if-missing", "--tag", "other", "--output", f"oci:{there}", code=1)
        self.assertIn("is there already", last["reason"])
        self.assertEqual(self.registry.asked, [])

    def test_another_content_than_is_pinned(self):
        self.refused("--minimal", says="@openai/codex@.*: the registry offers other content than is pinned")
        self.assertEqual(self.tarballs(), [])

    def test_content_that_is_not_its_hash(self):
        real = self.registry.metadata
        self.registry.metadata = lambda n, v: {**(m := real(n, v)), "dist": {**m["dist"], "integrity": integrity(b"else")}}
        self.refused("--minimal", "--latest", says="sha512:[0-9a-f]+: expected .* got")
        self.assertEqual(list((self.state / "images/partial").iterdir()), [])

    def test_answer_for_another_package(self):
        self.registry.lie["@openai/codex"] = {"name": "evil"}
        self.refused("--minimal", "--latest", says="answers with another package")

    def test_tarball_from_an_unprotected_place(self):
        # Seen to fail with each address taken: the other server was asked. 127.0.0.2 can be, 192.0.2.1 is nowhere.
        name = program("opencode")["platforms"][ARCH]["package"]
        other = http.server.ThreadingHTTPServer(("127.0.0.2", 0), Handler)
        other.asked = []
        threading.Thread(target=other.serve_forever, daemon=True).start()
        self.addCleanup(other.server_close)
        self.addCleanup(other.shutdown)
        port = self.registry.server_address[1]
        for url in ("http://192.0.2.1/x.tgz", f"http://127.0.0.2:{other.server_address[1]}/npm/x/-/1.tgz",
                    f"http://127.0.0.1:{port}@192.0.2.1/x.tgz", "ftp://192.0.2.1/x.tgz"):
            with self.subTest(url=url):
                self.registry.lie.clear()
                good = self.registry.metadata(name, "latest")["dist"]
                self.registry.lie[name] = {"dist": {**good, "tarball": url}}
                self.registry.asked.clear()
                self.refused("--minimal", "--latest", says="without a tarball's address that can be trusted")
                self.assertNotIn(name.rpartition("/")[2], " ".join(self.tarballs()))
                self.assertEqual(other.asked, [])

    def test_the_program_for_this_machine_is_not_named(self):
        self.registry.lie["opencode-ai"] = {"optionalDependencies": {}}
        self.refused("--minimal", "--latest", says="without the optional dependency")

    def test_no_such_package(self):
        self.registry.packages.clear()
        self.refused("--minimal", "--latest", says="@openai/codex@latest: answers 404")

    def test_no_registry(self):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))  # it does not listen, and nobody else can
            self.refused("--minimal", says="127.0.0.1", npm_config_registry=f"http://127.0.0.1:{s.getsockname()[1]}")

    def test_address_that_is_none(self):
        for url in ("ftp://x", "https://user@x", "https://x/${TOKEN}?", "x"):
            with self.subTest(url=url):
                last = self.build("--minimal", code=2, npm_config_registry=url)
                self.assertRegex(last["reason"], "npm registry")

    def hostile(self, files, says, fmt=tarfile.PAX_FORMAT, data=None):
        name = program("opencode")["platforms"][ARCH]["package"]
        self.publish()
        self.registry.add(name, program("opencode")["platforms"][ARCH]["version"], data or tarball(files, fmt))
        return self.refused("--minimal", "--latest", says=says)

    def test_hostile_tarballs(self):
        good = ("package/bin/opencode", (b"x", 0o755))
        link = tarfile.TarInfo()
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        hard = tarfile.TarInfo()
        hard.type, hard.linkname = tarfile.LNKTYPE, "package/bin/opencode"
        device = tarfile.TarInfo()
        device.type = tarfile.CHRTYPE
        for what, files, says in (
                ("absolute", [("/etc/passwd", b"x"), good], "/etc/passwd: an absolute name"),
                ("dotdot", [("package/../../x", b"x"), good], r"package/\.\./\.\./x: an absolute name, one with"),
                ("link", [("package/bin", link), good], "package/bin: not a plain file"),
                ("hard link", [good, ("package/y", hard)], "package/y: not a plain file"),
                ("device", [good, ("package/null", device)], "package/null: not a plain file"),
                ("long component", [("package/" + 300 * "a", b"x"), good], "too long"),
                ("other layout", [("package/opencode", b"x")], "package/bin/opencode: not in the package"),
        ):
            with self.subTest(what):
                self.assertIn("opencode", self.hostile(files, says))

    def test_hostile_tarballs_inside_a_program(self):
        link = tarfile.TarInfo()
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        good = ("package/app.js", b"x")
        for what, content, says in (
                ("none", b"copilot", "package/copilot!copilot.tgz: not in the package"),
                ("longer than the file", executable(b"copilot.tgz", tarball([good]), size=1 << 30), "not in the package"),
                ("cut", executable(b"copilot.tgz", tarball([good])[:-20]), "gzip stream is cut off"),
                ("no tar", executable(b"copilot.tgz", gzip.compress(b"x" * 2000)), "not a tarball"),
                ("dotdot", executable(b"copilot.tgz", tarball([good, ("package/../../x", b"x")])), r"package/\.\./\.\./x: an absolute name"),
                ("link", executable(b"copilot.tgz", tarball([good, ("package/x", link)])), "package/x: not a plain file"),
                ("other layout", executable(b"copilot.tgz", tarball([("x/app.js", b"x")])), "package/copilot!copilot.tgz/package/: not in")):
            with self.subTest(what):
                self.publish(copilot=[("package/copilot", (content, 0o755))])
                self.assertIn("copilot", self.refused("--latest", says=says))

    def test_broken_tarballs(self):
        whole = tarball([("package/bin/opencode", (b"x" * 5000, 0o755))])
        raw = gzip.decompress(whole)
        broken = bytearray(raw)
        broken[0] ^= 1
        for what, data, says in (
                ("cut gzip", whole[:-20], "opencode.*gzip stream is cut off"),
                ("cut tar", gzip.compress(raw[:3000]), "runs past the end"),
                ("checksum", gzip.compress(bytes(broken)), "not a tarball"),
                ("tail", gzip.compress(raw + b"x" * 512), "more after the tarball's end"),
                ("no tar", gzip.compress(b"x" * 2000), "not a tarball"),
        ):
            with self.subTest(what):
                self.hostile(None, says, data=data)

    def test_failing_mmdebstrap(self):
        self.broken.touch()
        self.refused("--base", says="mmdebstrap: the mirror has gone; all it said is in")


@unittest.skipIf(os.geteuid() != 0, "an ordinary user's build has no more rights than the user")
class Rights(Base):
    def does(self, script):
        """What a script prints that runs where those of Debian's packages do."""
        self.do.write_text(script)
        self.do.chmod(0o644)
        self.build("--base", SOURCE_DATE_EPOCH=str(random.randrange(10**9)))
        return (self.tmp / "do.out").read_text()

    def test_root_of_the_host_is_not_what_scripts_run_as(self):
        self.assertEqual(self.does("id -u; tr -s ' ' </proc/self/uid_map; tr -s ' ' </proc/self/gid_map; stat -c %u:%g /root").split("\n"),
                         ["0", " 0 1879048192 65536", " 0 1879048192 65536", "65534:65534", ""])

    def test_files_of_root_are_out_of_reach(self):
        secret, mark = self.state / "secret", pathlib.Path("/etc/agent-vm-build-test")
        secret.write_text("token")
        secret.chmod(0o600)
        self.addCleanup(lambda: mark.unlink(missing_ok=True))
        out = self.does(f"cat {secret}; cat /etc/shadow; echo x >{mark}; echo x >>/etc/passwd; mknod $TMPDIR/n b 7 0")
        self.assertNotIn("token", out)
        self.assertFalse(mark.exists())
        self.assertEqual([bool(re.search("denied|not permitted", line)) for line in out.splitlines()], [True] * 5, out)

    def test_processes_and_settings_of_the_host_are_out_of_reach(self):
        out = self.does("kill -0 $(sed 's/.*) . //;s/ .*//' /proc/$PPID/stat) && echo reached; kill -0 1 && echo reached;"
                        "echo 1 >/proc/sys/kernel/sysrq && echo reached; mount -t tmpfs none /mnt && echo reached;"
                        "ip link add agentvm0 type dummy && echo reached; echo end")
        self.assertNotIn("reached", out)
        self.assertIn("end", out)

    def test_a_host_without_user_namespaces_is_refused(self):
        # In a namespace of ours the limit of namespaces is ours to set.
        run = subprocess.run(["unshare", "--user", "--map-root-user", "sh", "-c",
                              f'echo 0 >/proc/sys/user/max_user_namespaces; exec "{AGENT_VM}" build --base'], env=self.env,
                             capture_output=True, text=True, timeout=300)
        self.assertEqual(run.returncode, 1, run.stderr)
        self.assertRegex(run.stderr, "user namespaces: refused to root by this system .*; run agent-vm doctor")
        self.assertEqual(self.runs.read_text(), "")


class Stopped(Base):
    def hanging(self, how=""):
        """A build whose mmdebstrap has made its tree and waits."""
        self.hang.write_text(how)
        run = subprocess.Popen([AGENT_VM, "build", "--base"], env=self.env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        end = time.monotonic() + 60
        while not list(self.trees.glob("agent-vm-build-*/pid")):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        return run

    def test_the_tree_goes_with_a_build_that_is_stopped(self):
        for how, sig in (("", signal.SIGINT), ("", signal.SIGTERM), ("deaf", signal.SIGHUP)):
            with self.subTest(how=how, signal=sig):
                run = self.hanging(how)
                run.send_signal(sig)
                self.assertIn(run.wait(timeout=60), (-sig, 128 + sig))
                self.assertEqual(list(self.trees.iterdir()), [])
        self.assertTrue(self.hang.exists(), "a link was followed")

    def test_the_tree_of_a_killed_build_goes_with_the_next_one(self):
        run = self.hanging("deaf")
        first = list(self.trees.iterdir())
        self.hang.unlink()
        self.build("--base", "--include", "tree")
        self.assertEqual(list(self.trees.iterdir()), first, "of a build that lives")
        run.kill()
        run.wait()
        self.build("--base", "--include", "other-tree")
        self.assertEqual(list(self.trees.iterdir()), first, "of an mmdebstrap that lives")
        os.kill(int((first[0] / "pid").read_text()), signal.SIGKILL)
        others = [self.trees / "agent-vm-build-file", self.trees / "mmdebstrap.other"]
        others[0].touch()
        others[1].mkdir()
        end = time.monotonic() + 60
        while any(self.trees.glob("agent-vm-build-*/mmdebstrap.x")):
            self.assertLess(time.monotonic(), end)
            self.build("--base", SOURCE_DATE_EPOCH=str(random.randrange(10**9)))
        self.assertEqual(sorted(self.trees.iterdir()), sorted(others))

    def test_ctrl_c_then_the_download_goes_on(self):
        self.registry.cut = 1 << 20
        run = subprocess.Popen([AGENT_VM, "build", "--minimal", "--latest"], env=self.env, stderr=subprocess.PIPE,
                               stdout=subprocess.PIPE)
        partial, end = self.state / "images/partial", time.monotonic() + 60

        def arrived():
            with contextlib.suppress(FileNotFoundError):  # one that is whole has another name
                return any(p.stat().st_size == 1 << 20 for p in partial.iterdir())
            return False
        while not arrived():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=25)  # a server that stands still is given up after 30 s
        self.assertIn(run.returncode, (-signal.SIGINT, 130), err)
        self.assertEqual(list((self.state / "images/tmp").iterdir()), [])
        self.registry.cut = None
        self.registry.asked.clear()
        self.build("--minimal", "--latest")
        ranges = [r for _, p, r, _ in self.registry.asked if "/-/" in p and r]
        self.assertEqual(ranges, [f"bytes={1 << 20}-"])

    def test_kill_9_leaves_nothing_that_stays(self):
        for seconds in (0.05, 0.15, 0.3, 0.6, 1.0):
            run = subprocess.Popen([AGENT_VM, "build", "--minimal", "--latest"], env=self.env, stderr=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL)
            time.sleep(seconds)
            run.kill()
            run.wait()
        self.build("--minimal", "--latest")
        end = time.monotonic() + 60  # the halves of a killed one end by themselves
        while True:
            subprocess.run([AGENT_VM, "prune"], env=self.env, check=True, capture_output=True)
            if not (left := list((self.state / "images/tmp").iterdir())) or time.monotonic() > end:
                break
            time.sleep(0.2)
        self.assertEqual(left, [])
        for blob in (self.state / "images/blobs/sha256").iterdir():
            self.assertEqual(hashlib.sha256(blob.read_bytes()).hexdigest(), blob.name)


if __name__ == "__main__":
    unittest.main()
