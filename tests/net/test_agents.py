#!/usr/bin/env python3
"""The real agents through gate and vault, without a VM: which of the host's logins goes to which service, and by which way.

AGENT_VM_AGENTS names a folder with their programs in bin; tests/image/agents_test.py takes them out of its image. Each agent finds
what a guest would: placeholders in its files and variables, and the session's certificate. Its services are the test's own; they
see the host's tokens, which must be in no answer."""
import base64
import hashlib
import json
import os
import pathlib
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import gatetest
import test_chain
import uplib as u
import vaulttest as w
from gatetest import Gate, Proxy, bits, config, placeholder
from test_chain import fields_of

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
import models  # noqa: E402

CHATGPT = ("codex-a", "codex-r", "codex-id", "opencode-a", "opencode-r", "opencode-id")
CLAUDE = ("claude-a", "claude-r")
COPILOT = "api.githubcopilot.com api.individual.githubcopilot.com api.business.githubcopilot.com api.enterprise.githubcopilot.com api.github.com"
# By what a kind begins with: the hosts that are looked into while it is lent.
BOUND = {"claude": "api.anthropic.com mcp-proxy.anthropic.com platform.claude.com console.anthropic.com", "anthropic": "api.anthropic.com",
         "codex": "chatgpt.com auth.openai.com", "openai": "api.openai.com", "copilot": COPILOT, "zai": "api.z.ai", "zhipu": "open.bigmodel.cn",
         "moonshot": "api.moonshot.ai"}
ACCOUNT = {"https://api.openai.com/auth": {"chatgpt_account_id": u.ACCOUNT, "chatgpt_user_id": "user-agent-vm", "chatgpt_plan_type": "pro"}}
CODEX = """approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false
[features]
daemon_auto_start = false
"""
# OpenCode's name of a service and its model, our kind, and where it asks.
KEYS = [("zai", "glm-4.6", "zai", "api.z.ai", "/api/paas/v4/chat/completions"),
        ("zai-coding-plan", "glm-5.3", "zai-cp", "api.z.ai", "/api/coding/paas/v4/chat/completions"),
        ("zhipuai", "glm-4.6", "zhipu", "open.bigmodel.cn", "/api/paas/v4/chat/completions"),
        ("moonshotai", "kimi-k2.6", "moonshot", "api.moonshot.ai", "/v1/chat/completions")]


def jwt(kind, **claims):
    """As the guest's files have it."""
    payload = json.dumps({"iss": "agent-vm", "exp": int(time.time()) + 86400, **claims}).encode()
    return ".".join((gatetest.JWT_H, base64.urlsafe_b64encode(payload).rstrip(b"=").decode(),
                     base64.urlsafe_b64encode(gatetest.letters(kind, 24).encode()).decode()))


class Agents(test_chain.Case):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.top, self.opening = pathlib.Path(folder.name), threading.Lock()
        self.certs = u.Certificates(self.top)
        resolver = w.Resolver(w.RESOLVER, lambda name, qtype: (0, [w.addr_rr(name, w.PUBLIC)] if qtype == 1 else [], [], []))
        self.addCleanup(resolver.close)
        w.resolvers(w.RESOLVER)
        self.host = u.Host(self.certs)
        self.addCleanup(self.host.close)
        self.keys = {name: f"CANARY-{name}-0123456789abcdef" for name, *_ in KEYS}
        u.write(self.host.opencode_file, json.dumps({name: {"type": "api", "key": key} for name, key in self.keys.items()}))
        self.copilot = "gho_CANARY0123456789abcdefghijklmnop"
        self.upgrade, self.api, self.refuse = 101, None, 0
        self.asked = []  # (host, method, path, credential) of each request
        self.frames = 0  # messages that came by WebSocket

    def lend(self, *kinds):
        secrets = {"anthropic-key": self.host.c.anthropic_key, "openai-key": self.host.c.openai_key, "copilot": self.copilot}
        bound = sorted({host for k in kinds for begin, hosts in BOUND.items() if k.startswith(begin) for host in hosts.split()})
        self.vault = self.host.vault(lent=kinds, env={k: v for k, v in secrets.items() if k in kinds}, inspected=bound)
        self.addCleanup(self.vault.close)
        self.gate = Gate(cfg=config(lent=bits(*kinds)), vault=self.vault.gate)
        self.addCleanup(self.gate.close)
        self.serve(self.answer)
        proxy = Proxy(lambda name: self.tunnel())
        self.addCleanup(proxy.close)
        self.home, self.work, ca = self.top / "home", self.top / "work", self.top / "guest.pem"
        self.home.mkdir()
        self.work.mkdir()
        ca.write_text(ssl.DER_cert_to_PEM_cert(self.gate.ca_der))
        self.env = {"HOME": str(self.home), "PATH": f"{os.environ['AGENT_VM_AGENTS']}/bin:/usr/bin:/bin", "SSL_CERT_FILE": str(ca),
                    "NODE_EXTRA_CA_CERTS": str(ca), "HTTPS_PROXY": proxy.url, "https_proxy": proxy.url, "NO_PROXY": "127.0.0.1,localhost",
                    "IS_SANDBOX": "1", "DISABLE_AUTOUPDATER": "1", "COPILOT_AUTO_UPDATE": "false", "OPENCODE_DISABLE_AUTOUPDATE": "1",
                    "OPENCODE_DISABLE_MODELS_FETCH": "1", "CODEX_HOME": str(self.home / ".codex")}

    def tunnel(self):
        """To port 443 of whatever has the public address; what is not looked into ends at a certificate that nobody believes."""
        with self.opening:
            return self.vault.tcp(w.PUBLIC, 443).sock

    # --- the services ---

    def answer(self, conn, got):
        fields, path = fields_of(got), got.target.decode().partition("?")[0]
        self.asked.append((fields["host"], got.method.decode(), path, fields.get("x-api-key") or fields.get("authorization")))

        def reply(what, status="200 OK"):
            return u.ok(json.dumps(what).encode(), status, "Content-Type: application/json")
        if fields.get("upgrade") == "websocket":
            return self.websocket(conn, fields) if self.upgrade == 101 else reply({}, f"{self.upgrade} X")
        if path.endswith("/accounts/check"):
            return reply(models.accounts(u.ACCOUNT))
        if path == "/copilot_internal/user":
            user = models.COPILOT_USER
            return reply({**user, "endpoints": {**user["endpoints"], "api": f"https://{self.api}"}})
        if path == "/models":
            return reply({"object": "list", "data": [models.copilot_model(m) for m in ("claude-sonnet-4.5", "gpt-5-mini", "gpt-4.1")]})
        if got.method != b"POST" or not path.endswith(("/messages", "/responses", "/completions")):
            return reply({"type": "error", "error": {"type": "not_found_error", "message": "nothing here"}}, "404 X")
        if self.refuse > 0:
            self.refuse -= 1
            return reply({"type": "error", "error": {"type": "authentication_error", "message": "OAuth token has expired"}}, "401 X")
        make = models.messages if path.endswith("/messages") else models.responses if path.endswith("/responses") else models.completions
        text = "".join((f"event: {e['type']}\n" if "type" in e else "") + f"data: {json.dumps({**e, 'sequence_number': n})}\n\n"
                       for n, e in enumerate(make("m", None)))
        return u.ok((text + "data: [DONE]\n\n" * path.endswith("/completions")).encode(), "200 OK", "Content-Type: text/event-stream")

    def websocket(self, conn, fields):
        key = (fields["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: " +
                  base64.b64encode(hashlib.sha1(key).digest()) + b"\r\n\r\n")
        while head := conn.exact(2):
            n = head[1] & 127
            n = struct.unpack(">H" if n == 126 else ">Q", conn.exact(2 if n == 126 else 8))[0] if n > 125 else n
            if not conn.exact(4 + n) or head[0] & 15 != 1:
                break
            self.frames += 1
            for number, event in enumerate(models.responses("m", None)):
                data = json.dumps({**event, "sequence_number": number}).encode()
                conn.send(b"\x81" + (bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))) + data)
        raise u.Stop

    # --- the agents ---

    def file(self, name, content):
        (self.home / name).parent.mkdir(parents=True, exist_ok=True)
        (self.home / name).write_text(content if isinstance(content, str) else json.dumps(content))

    def prompt(self, *words, **env):
        """Answers, and nothing of a secret came back; what was asked for with a credential, by (host, path)."""
        p = subprocess.run(words, cwd=self.work, env={**self.env, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
        self.assertEqual((p.returncode, models.HI in p.stdout), (0, True), (p.stdout, p.stderr, self.asked))
        seen = p.stdout + p.stderr + "".join(f.read_text(errors="replace") for f in self.home.rglob("*") if f.is_file() and f.stat().st_size < 1 << 24)
        for secret in (*(n.decode() for n in self.host.c.needles()), *self.keys.values(), self.copilot):
            self.assertTrue(secret not in seen, secret)
        out = {}
        for host, _, path, credential in self.asked:
            self.assertNotRegex(credential or "", "avm[-_]")
            out.setdefault((host, path), set()).add(credential)
        return out

    def codex(self, chatgpt):
        tokens = {"id_token": jwt("codex-id", email="agent@agent-vm.invalid", **ACCOUNT), "access_token": jwt("codex-a"),
                  "refresh_token": placeholder("codex-r"), "account_id": u.ACCOUNT}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.file(".codex/auth.json", {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": now} if chatgpt else
                  {"auth_mode": "apikey", "OPENAI_API_KEY": placeholder("openai-key")})
        self.file(".codex/config.toml", CODEX)
        return self.prompt("codex", "exec", "--skip-git-repo-check", "say hi")

    def test_codex_by_websocket(self):
        self.lend(*CHATGPT)
        asked = self.codex(True)
        self.assertEqual(asked["chatgpt.com", "/backend-api/codex/responses"], {f"Bearer {self.host.c.openai}"})
        self.assertNotIn(("chatgpt.com", "/backend-api/ps/mcp"), asked)
        self.assertNotIn("POST", [m for _, m, path, _ in self.asked if path.endswith("/responses")])
        self.assertGreater(self.frames, 0)

    def test_codex_without_websocket(self):
        self.lend(*CHATGPT)
        for self.upgrade in (426, 404):
            with self.subTest(status=self.upgrade):
                self.asked.clear()
                self.codex(True)
                self.assertIn(("chatgpt.com", "POST", "/backend-api/codex/responses", f"Bearer {self.host.c.openai}"), self.asked)

    def test_codex_with_a_key(self):
        self.lend("openai-key")
        self.assertEqual(self.codex(False)["api.openai.com", "/v1/responses"], {f"Bearer {self.host.c.openai_key}"})

    def claude(self, **env):
        return self.prompt("claude", "--dangerously-skip-permissions", "-p", "say hi", **env)["api.anthropic.com", "/v1/messages"]

    def test_claude(self):
        self.lend(*CLAUDE)
        self.file(".claude/.credentials.json", {"claudeAiOauth": {
            "accessToken": placeholder("claude-a"), "refreshToken": placeholder("claude-r"), "expiresAt": int(time.time() + 80000) * 1000,
            "scopes": ["user:inference", "user:profile"], "subscriptionType": "max"}})
        for self.refuse in (0, 1):  # 401 in mid-session: it asks anew
            with self.subTest(refused=self.refuse):
                self.assertEqual(self.claude(), {f"Bearer {self.host.c.anthropic}"})
                self.assertEqual(self.refuse, 0)

    def test_claude_with_a_key(self):
        self.lend("anthropic-key")
        self.assertEqual(self.claude(ANTHROPIC_API_KEY=placeholder("anthropic-key")), {self.host.c.anthropic_key})

    def opencode(self, model, auth, **env):
        self.file(".local/share/opencode/auth.json", auth)
        return self.prompt("opencode", "run", "-m", model, "say hi", **env)

    def test_opencode_with_chatgpt(self):
        self.lend(*CHATGPT)
        asked = self.opencode("openai/gpt-5.5", {"openai": {
            "type": "oauth", "access": jwt("opencode-a", chatgpt_account_id=u.ACCOUNT), "refresh": placeholder("opencode-r"),
            "expires": int(time.time() + 80000) * 1000, "accountId": u.ACCOUNT}})
        self.assertEqual(asked, {("chatgpt.com", "/backend-api/codex/responses"): {f"Bearer {self.host.c.openai}"}})

    def test_opencode_with_anthropics_key(self):
        self.lend("anthropic-key")
        asked = self.opencode("anthropic/claude-sonnet-4-5", {}, ANTHROPIC_API_KEY=placeholder("anthropic-key"))
        self.assertEqual(asked, {("api.anthropic.com", "/v1/messages"): {self.host.c.anthropic_key}})

    def test_opencode_with_keys_of_its_own(self):
        self.lend(*(kind for _, _, kind, _, _ in KEYS))
        auth = {name: {"type": "api", "key": placeholder(kind)} for name, _, kind, _, _ in KEYS}
        for name, model, _, host, path in KEYS:
            with self.subTest(name=name):
                self.asked.clear()
                self.assertEqual(self.opencode(f"{name}/{model}", auth), {(host, path): {f"Bearer {self.keys[name]}"}})

    def copilots(self, api):
        """Its own file keeps where it asks, so each has a home of its own."""
        self.api = api
        self.lend("copilot")
        asked = self.prompt("copilot", "--allow-all", "-s", "-p", "say hi", COPILOT_GITHUB_TOKEN=placeholder("copilot"))
        for at in ((api, "/models"), (api, "/chat/completions"), ("api.github.com", "/copilot_internal/user")):
            self.assertEqual(asked.get(at), {f"Bearer {self.copilot}"}, at)
        self.assertEqual(asked.get(("api.github.com", "/repos/github/copilot-cli/releases"), {None}), {None})

    def test_copilot(self):
        self.copilots("api.githubcopilot.com")

    def test_copilot_of_a_business(self):
        self.copilots("api.business.githubcopilot.com")


if __name__ == "__main__":
    w.make_world()
    unittest.main(verbosity=2)
