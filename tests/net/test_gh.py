#!/usr/bin/env python3
"""The real gh (Debian's) through the real agent-vm-gate, against an API of the tests: what it sends for a listed repository goes out
with the login, for another one it is refused, or goes out without, and gh shows why. acme/app is listed, acme/secret is not."""
import os
import pathlib
import ssl
import subprocess
import sys
import tempfile
import unittest

from gatetest import Gate, Proxy, config, placeholder

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
import ghapi  # noqa: E402


class World:
    def __init__(self):
        self.requests = []

    def __call__(self, x):
        r, body = x.request, x.read_body()
        asks = r.get("user-agent") == [b"agent-vm"]
        if not asks:
            self.requests.append((r.method, r.path, r.creds, body))
        status, text = ghapi.answer(r.method, r.path, bool(r.creds), body, asks)
        x.answer(status, [("content-type", "application/json; charset=utf-8")], text)


class Gh(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.g = Gate(cfg=config(repos=["acme/app=write"]))
        self.addCleanup(self.g.close)
        self.g.serve(self.world)
        self.proxy = Proxy(lambda _: self.g.stream()[1])
        self.addCleanup(self.proxy.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        (self.top / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(self.g.ca_der))
        (self.top / "file").write_text("an asset")
        self.env = {"HOME": str(self.top), "XDG_CACHE_HOME": str(self.top / "cache"), "TMPDIR": str(self.top),
                    "PATH": os.environ["PATH"], "SSL_CERT_FILE": str(self.top / "ca.pem"), "GH_PROMPT_DISABLED": "1",
                    "HTTPS_PROXY": self.proxy.url, "GH_NO_UPDATE_NOTIFIER": "1", "GH_TOKEN": placeholder("gh")}

    def gh(self, command, repo):
        words = [w.replace("@R", repo).replace("FILE", str(self.top / "file")) for w in command.split()]
        p = subprocess.run([ghapi.GH, *words], env=self.env, cwd=self.top, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        return p.returncode, p.stdout + p.stderr

    def test_a_listed_repository(self):
        for command, shows in ghapi.COMMANDS:
            with self.subTest(command):
                code, text = self.gh(command, "acme/app")
                self.assertNotIn("sandbox", text)
                self.assertEqual(code, 0, text)
                self.assertIn(shows, text)
        self.assertTrue(self.world.requests and all(creds == [("gh", "bearer")] for *_, creds, _ in self.world.requests), self.world.requests)
        self.assertIn(("POST", "/repos/acme/app/releases/5/assets"), [r[:2] for r in self.world.requests])

    def test_another_one(self):
        for command, _ in ghapi.COMMANDS:
            with self.subTest(command):
                code, text = self.gh(command, "acme/secret")
                self.assertNotEqual(code, 0, text)
                self.assertIn("--repo acme/secret", text)
        self.assertFalse([r for r in self.world.requests if b"__type(" not in r[3] and (r[2] or r[0] not in ("GET", "HEAD"))], self.world.requests)


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    unittest.main()
