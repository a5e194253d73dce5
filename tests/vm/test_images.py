"""Images around a session: setup's proof, a launch that pulls, what a session holds while its image changes, the note about
an update. The images are small ones of this host's own bash, as OCI layouts."""
import base64
import hashlib
import http.server
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "image"))
os.environ.setdefault("AGENT_VM", "agent-vm")
from pulllib import Image, layer  # noqa: E402
from vmtest import BOOT_S, Case, alive, children, comm, wait_for  # noqa: E402

MADE_HERE = os.environ.get("AGENT_VM_IMAGE_TAG", "localhost/agent-vm:base")
PROGRAMS = "bash sh cat env true sleep timeout ls".split()


def host_files():
    files = dict.fromkeys(["etc", "usr", "usr/bin", "usr/lib", "tmp", "root", "bin"])
    files["etc/agent-vm-image-version"] = b"1\n"
    for name in PROGRAMS:
        path = pathlib.Path("/bin", name)
        files["usr/bin/" + name] = path.read_bytes()
        text = subprocess.run(["ldd", path], stdout=subprocess.PIPE, text=True, check=True).stdout
        for lib in re.findall(r"(/\S+)", text):
            files[lib.lstrip("/")] = pathlib.Path(lib).read_bytes()
    return files


BASE = layer(host_files())


def image(tag, **agents):
    """With /etc/tag, and stand-ins for agents: name = shell line."""
    programs = {f"usr/bin/{name}": f"#!/usr/bin/bash\n{line}\n".encode() for name, line in agents.items()}
    return Image(BASE, layer({"etc/tag": tag.encode() + b"\n", **programs}))


def jks(certificates):
    """A trust store of Java, format JKS."""
    def text(s):
        return struct.pack(">H", len(s)) + s
    out = struct.pack(">III", 0xfeedfeed, 2, len(certificates))
    for alias, der in certificates.items():
        out += struct.pack(">I", 2) + text(alias) + struct.pack(">Q", 7) + text(b"X.509") + struct.pack(">I", len(der)) + der
    return out + hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + out).digest()


def jks_read(store):
    """{alias: certificate}"""
    out, at = {}, 12
    for _ in range(struct.unpack(">III", store[:12])[2]):
        n = struct.unpack(">H", store[at + 4:at + 6])[0]
        alias = store[at + 6:at + 6 + n]
        at += 6 + n + 8 + 7 + 4
        size = struct.unpack(">I", store[at - 4:at])[0]
        out[alias] = store[at:at + size]
        at += size
    if hashlib.sha1("changeit".encode("utf-16-be") + b"Mighty Aphrodite" + store[:at]).digest() != store[at:]:
        raise ValueError("the digest is not that of the store")
    return out


def pem(der):
    return b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(der) + b"-----END CERTIFICATE-----\n"


def older_image():
    """What an image made for the older program has where (image page 1.3), with stand-ins for the programs."""
    def says(line):
        return f"#!/usr/bin/bash\necho {line}\n".encode()

    return Image(BASE, layer({
        "root/.local/share/claude/versions/2.1.300": says("2.1.300 of the older image"),
        "root/.local/bin/claude": "/root/.local/share/claude/versions/2.1.300",
        "root/.opencode/bin/opencode": says("1.2.3 of the older image"),
        "root/.codex/packages/standalone/releases/0.99.0/bin/codex": says("codex-cli 0.99.0 of the older image"),
        "root/.codex/packages/standalone/current": "releases/0.99.0",
        "root/.local/bin/codex": "/root/.codex/packages/standalone/current/bin/codex",
        "usr/local/lib/node_modules/@github/copilot/index.js": says("0.0.400 of the older image"),
        "usr/local/bin/copilot": "../lib/node_modules/@github/copilot/index.js",
        **{f"root/{name}": b"of the image\n" for name in (
            ".claude/settings.json", ".claude.json", ".local/share/opencode/auth.json", ".config/opencode/opencode.json",
            ".copilot/config.json", ".gitconfig", ".config/gh/hosts.yml", ".bash_history")},
        "opt/agent-vm/seed-claude-plugins.sh": b"#!/usr/bin/bash\necho noise; echo $HOME > /root/seeded; exit 1\n",
        "usr/local/bin/agent-vm-chrome-mcp": says("chrome"),
        "etc/docker/daemon.json": b'{"storage-driver": "fuse-overlayfs"}\n',
    }), env=("DEBIAN_FRONTEND=noninteractive", "HOME=/nowhere", "PATH=/nowhere", "LANG=C.UTF-8"))


class Registry:
    """Serves one OCI layout as NAME:TAG, whatever is asked for."""

    def __init__(self, folder):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.answer(True)

            def do_HEAD(self):
                self.answer(False)

            def answer(self, body):
                registry.asked.append((self.command, self.path))
                index = json.loads((registry.folder / "index.json").read_text())
                name = self.path.rpartition("/")[2]
                digest = name if name.startswith("sha256:") else index["manifests"][0]["digest"]
                data = (registry.folder / "blobs/sha256" / digest.partition(":")[2]).read_bytes()
                self.send_response(200)
                self.send_header("Content-Type", index["manifests"][0]["mediaType"] if "/manifests/" in self.path else
                                 "application/octet-stream")
                self.send_header("Docker-Content-Digest", digest)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if body:
                    self.wfile.write(data)

            def log_message(self, *args):
                pass

        registry = self
        self.folder, self.asked = pathlib.Path(folder), []
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.ref = f"127.0.0.1:{self.server.server_port}/t/small:latest"

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Images(Case):
    def setUp(self):
        super().setUp()
        self.state = self.top / "state"
        self.folder = self.top / "layout"
        self.ref = f"oci:{self.folder}:x"
        self.put(image("one", claude="echo 2.1.330 stand-in"))

    def put(self, img):
        if self.folder.exists():
            subprocess.run(["rm", "-r", self.folder], check=True)
        self.folder.mkdir()
        img.write(self.folder)
        return img

    def vm(self, *words, env=None, **kw):
        return super().vm(*words, env={"AGENT_VM_STATE_DIR": self.state, "AGENT_VM_IMAGE_TAG": self.ref, **(env or {})}, **kw)

    def session(self, *options, **kw):
        return super().session(*options, env={"AGENT_VM_STATE_DIR": self.state, "AGENT_VM_IMAGE_TAG": self.ref}, **kw)

    def stored(self):
        return json.loads(self.vm("images", "--json", check=0).stdout)

    def disks(self):
        return {p.stem for p in (self.state / "images/disks").glob("*.ext4")}

    def test_setup_proves_that_the_image_boots_and_its_agents_start(self):
        p = self.vm("setup", check=0)
        lines = p.stdout.decode().splitlines()
        self.assertTrue(all(line.startswith("==> ") for line in lines), lines)
        self.assertRegex(lines[0], rf"^==> {self.ref} [0-9a-f]{{12}} \(new; 2 of 2 layers new, ")
        text = "\n".join(lines)
        self.assertRegex(text, r"==> boots     in \d+\.\d s, image API version 1\n")
        self.assertIn("==> claude    2.1.330 stand-in\n", text)
        for name in ("codex", "opencode", "copilot"):
            self.assertIn(f"==> {name:9} not in this image\n", text)
        self.assertEqual(lines[-1], "==> ready: agent-vm claude in a project's folder, or codex, opencode, copilot, shell")
        self.assertEqual(json.loads(self.vm("ps", "--json", check=0).stdout), [])

    def test_an_image_of_the_older_program_runs_unchanged(self):
        self.put(older_image())
        text = self.vm("setup", check=0).stdout.decode()
        for name, version in (("claude", "2.1.300"), ("codex", "codex-cli 0.99.0"), ("opencode", "1.2.3"), ("copilot", "0.0.400")):
            self.assertIn(f"==> {name:9} {version} of the older image\n", text)
        out = self.sh('echo $HOME $DEBIAN_FRONTEND; for a in claude codex opencode copilot; do $a; done; cd; '
                      'for f in .claude .local/share/opencode .config/opencode .copilot .gitconfig .config/gh .bash_history; do '
                      '[ -L $f ] || echo "$f is the image\'s"; done; '
                      'grep -ls "of the image" .claude/settings.json .claude.json .copilot/config.json .config/gh/hosts.yml; '
                      'cat seeded; [ -L .local/share ] || [ -L .codex ] || echo end')
        self.assertEqual(out.splitlines(), ["/root noninteractive", "2.1.300 of the older image",
                                            "codex-cli 0.99.0 of the older image", "1.2.3 of the older image",
                                            "0.0.400 of the older image", "/root", "end"])

    def test_java_believes_the_session(self):
        """Debian's store gets the certificate; without one that can be read a Java has a store of ours. A guest with neither has none."""
        bundle = pem(b"first of the image") + b"# words\n" + pem(b"second of the image")
        own = {"etc/ssl": None, "etc/ssl/certs": None, "etc/ssl/certs/ca-certificates.crt": bundle}
        store = jks({b"debian:a": b"of the image alone", b"debian:b": b"first of the image"})
        script = "cat /run/agent-vm/ca.pem; echo end; echo \"$JAVA_TOOL_OPTIONS\"; cat "
        for name, more, path, was in (
                ("added", {"etc/ssl/certs/java": None, "etc/ssl/certs/java/cacerts": store}, "/etc/ssl/certs/java/cacerts", 2),
                ("ours", {"etc/ssl/certs/java": None, "etc/ssl/certs/java/cacerts": b"0\x82 another form", "usr/bin/java": b"#!/bin/sh\n"},
                 "/run/agent-vm/java-cacerts", 2)):
            with self.subTest(name):
                self.put(Image(BASE, layer({"etc/tag": name.encode(), **own, **more})))
                self.vm("pull", check=0)
                p = self.vm("shell", "--", "-c", script + path, env={"ANTHROPIC_API_KEY": "sk-ant-api03-CANARY-0123456789"}, check=0)
                text, _, rest = p.stdout.partition(b"end\n")
                line, _, got = rest.partition(b"\n")
                ca = base64.b64decode(b"".join(text.split(b"\n")[1:-2]))
                self.assertEqual(line, b"" if name == "added" else b"-Djavax.net.ssl.trustStore=/run/agent-vm/java-cacerts")
                certificates = jks_read(got)
                self.assertEqual(list(certificates.values()).count(ca), 1)
                self.assertEqual(len(certificates), was + 1)
                self.assertIn(b"first of the image", certificates.values())
                self.assertNotIn(b"PRIVATE", p.stdout)

    def test_setup_says_which_agent_does_not_start(self):
        self.put(image("two", claude="echo 1", codex=r"printf 'b\033[1mroken\nmore\n'; exit 3", copilot="kill -9 $$"))
        p = self.vm("setup", check=1)
        text = p.stdout.decode()
        self.assertIn("==> claude    1\n", text)
        self.assertIn("==> codex     does not start: status 3, b\\x1b[1mroken\n", text)
        self.assertRegex(text, r"==> copilot   does not start: status 137")
        self.assertNotIn("ready", text)
        self.assertIn("not all of it works", p.stderr.decode())

    def test_setup_without_the_proof(self):
        text = self.vm("setup", "--no-verify", check=0).stdout.decode()
        self.assertIn("==> stored; not tried, as --no-verify asks\n", text)
        self.assertNotIn("boots", text)
        self.assertEqual([image["reference"] for image in self.stored()], [self.ref])

    def test_setup_proves_an_image_that_was_made_here(self):
        """Which no registry has: the one that the suite built."""
        p = Case.vm(self, "setup", "--image", MADE_HERE, check=0)
        text = p.stdout.decode()
        self.assertIn(f"==> {MADE_HERE}: stored on this machine; no registry is asked\n", text)
        self.assertRegex(text, r"==> boots     in \d+\.\d s, image API version 1\n")
        self.assertIn("==> ready: ", text)

    def test_setup_is_stopped_with_its_vm(self):
        self.put(image("two", claude="echo here; sleep 100"))
        p = subprocess.Popen([os.environ["AGENT_VM"], "setup"], cwd=self.project, stdin=subprocess.DEVNULL,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             env={**os.environ, "AGENT_VM_STATE_DIR": str(self.state), "AGENT_VM_IMAGE_TAG": self.ref})
        for line in p.stdout:
            if b"boots" in line:
                break
        p.terminate()
        p.communicate(timeout=60)
        self.assertEqual(p.returncode, -15)
        self.assertEqual(json.loads(self.vm("ps", "--json", check=0).stdout), [])

    def test_a_launch_pulls_what_is_missing_and_nothing_more(self):
        p = self.vm("shell", "--", "cat", "/etc/tag", check=0)
        self.assertEqual(p.stdout, b"one\n")
        self.assertRegex(p.stderr.decode(), rf"==> {self.ref} [0-9a-f]{{12}} \(new; 2 of 2 layers new")
        self.put(image("two"))
        p = self.vm("shell", "--quiet", "--", "cat", "/etc/tag", check=0)
        self.assertEqual((p.stdout, p.stderr), (b"one\n", b""))
        self.vm("pull", check=0)
        self.assertEqual(self.sh("read -r x </etc/tag; echo $x"), "two\n")

    def test_a_launch_without_an_image_and_without_a_registry(self):
        for words, text in (((), "cannot be reached"),):
            p = self.vm("shell", "--image", "127.0.0.1:1/x/y:z", *words, "--", "true", check=1)
            last = p.stderr.decode().splitlines()[-1]
            self.assertRegex(last, rf"^agent-vm: .*{text}.*agent-vm build")
            self.assertEqual(p.stdout, b"")
        p = self.vm("shell", "--image", "localhost/agent-vm:none", "--", "true", check=1)
        self.assertIn("agent-vm build --tag none", p.stderr.decode())

    def test_an_image_without_bash_is_refused_before_it_boots(self):
        files = host_files()
        del files["usr/bin/bash"]
        self.put(Image(layer(files)))
        self.vm("pull", check=0)
        p = self.vm("shell", "--", "true", check=1)
        self.assertIn("it has no bash in PATH", p.stderr.decode())

    def test_a_session_keeps_its_disk_while_the_image_changes_and_is_pruned(self):
        self.vm("pull", check=0)
        first = self.disks()
        with self.session():
            entry, = self.stored()
            self.assertEqual(entry["sessions"], 1)
            self.put(image("two"))
            self.vm("pull", check=0)
            self.vm("prune", "--older-than", "0d", check=0)
            self.assertEqual(len(self.disks()), 2)
            # read for the first time, so from the disk and not from memory
            self.assertEqual(self.vm("exec", "--", "cat", "/etc/tag", check=0).stdout, b"one\n")
            self.assertEqual(self.sh("read -r x </etc/tag; echo $x"), "two\n")
        wait_for(lambda: first <= {i for i in self.disks()} and b"disk" in self.vm("prune", "--dry-run").stdout, 20,
                 "the old disk is held for ever")
        self.vm("prune", check=0)
        self.assertEqual(self.disks() & first, set())
        self.assertEqual(len(self.disks()), 1)

    def test_an_update_is_noted_after_the_end_once_an_hour(self):
        registry = Registry(self.folder)
        self.addCleanup(registry.stop)
        self.ref = registry.ref
        self.vm("pull", check=0)
        old = self.stored()[0]["digest"][:12]
        note = re.compile(rf"agent-vm: note: image {self.ref}: a newer one is there \(([0-9a-f]{{12}}), this is {old}\); "
                          rf"get it with: agent-vm pull --image {self.ref}\n$")

        def launch(*options, asks=False):
            registry.asked.clear()
            go = self.project / "go"
            go.unlink(missing_ok=True)
            start = time.monotonic()
            with self.session(*options, script="echo up; until [ -e go ]; do sleep 0.1; done") as p:
                if asks:  # an answer that is late is none, so the session lasts until it is there
                    wait_for(lambda: registry.asked and not [k for k in children(p.pid) if comm(k) == "agent-vm-image" and alive(k)], 60,
                             "it does not ask")
                go.touch()
                out, err = p.communicate(timeout=BOOT_S)
            self.assertEqual((p.returncode, out), (0, b""))
            return note.search(err.decode()), len(registry.asked), time.monotonic() - start

        self.assertEqual(launch(asks=True)[:2], (None, 1))
        (self.state / "images/checks").rename(self.state / "images/checks.gone")
        self.put(image("two"))
        self.assertEqual(launch("--no-update-check")[:2], (None, 0))
        self.assertEqual(launch("--quiet")[:2], (None, 0))
        found, *_ = launch(asks=True)
        self.assertTrue(found)
        *none, took = launch()
        self.assertEqual(none, [None, 0])
        self.vm("pull", check=0)
        self.assertEqual(self.stored()[0]["digest"][:12], found[1])
        # a registry that does not answer delays nothing and says nothing
        (self.state / "images/checks").rename(self.state / "images/checks.gone2")
        registry.stop()
        began = time.monotonic()
        p = self.vm("shell", "--", "true", check=0)
        self.assertNotIn("note: image", p.stderr.decode())
        self.assertLess(time.monotonic() - began, 60 + 2 * took)


if __name__ == "__main__":
    unittest.main()
