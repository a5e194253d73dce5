"""Logins of the host in a guest that never has them: real clients in a booted VM, and a service that gives everything back."""
import base64
import json
import os
import pathlib
import re
import subprocess
import urllib.parse

from upstream import Upstream, certificates
from vmtest import STATE, Case, environment

ACCESS = "sk-ant-oat01-CANARY-7f3a9c2e5b81d604-QwErTy"
REFRESH = "sk-ant-ort01-CANARY-19be77aa0c4d2f58-ZxCvB"
KEY = "sk-CANARY-openai-52c8e0d19f7ab346-PlOkMi"
NAMES = ["api.anthropic.com", "platform.claude.com", "console.anthropic.com", "mcp-proxy.anthropic.com", "api.openai.com",
         "chatgpt.com", "auth.openai.com", "unbound.test"]


def forms(secret):
    """How a secret may be written."""
    raw = secret.encode()
    out = [raw, urllib.parse.quote(secret, safe="").encode(), "".join(f"%{b:02x}" for b in raw).encode()]
    for shift in range(3):  # what of the base64 the secret alone determines
        text = base64.b64encode(b"\0" * shift + raw)
        out.append(text[(shift * 8 + 5) // 6 + 1:-4])
    return out


class Credentials(Case):
    def setUp(self):
        super().setUp()
        self.home = self.top / "home"
        self.home.mkdir()
        certificates(self.top, NAMES)
        self.upstream = Upstream(self.top)
        self.addCleanup(self.upstream.close)
        self.env = {"HOME": self.home, "SSL_CERT_FILE": self.top / "ca.pem",
                    "AGENT_VM_CONNECT_TO": ",".join(f"{n}:443:127.0.0.1:{self.upstream.port}" for n in NAMES),
                    "AGENT_VM_IMAGE_TAG": os.environ["AGENT_VM_IMAGE_TAG"]}

    def login(self, name=".claude/.credentials.json", **more):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"claudeAiOauth": {"accessToken": ACCESS, "refreshToken": REFRESH, "expiresAt": 4000000000000,
                                                      "scopes": ["user:inference"], "subscriptionType": "max", "secret": "CANARY"},
                                    "mcpOAuth": {"x": "CANARY"}, **more}))
        path.chmod(0o600)

    def run_(self, script, *options, env=None, check=0):
        p = self.vm("shell", *options, "--", "-c", script, env={**self.env, **(env or {})}, check=check)
        self.stderr = p.stderr.decode()
        return p.stdout.decode()

    def test_curl_gets_the_token_swapped(self):
        self.login()
        out = self.run_(r"""
            ph=$(sed 's/.*"accessToken":"\([^"]*\)".*/\1/' ~/.claude/.credentials.json); echo "$ph"
            curl -sS -w '\n%{http_code}\n' -H "Authorization: Bearer $ph" https://api.anthropic.com/v1/models
            curl -sS -o /dev/null -w '%{http_code}\n' -H "x-api-key: $ph" https://api.anthropic.com/v1/models
            curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $ph" https://api.anthropic.com/v1/organizations/x
            curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer foreign" https://api.anthropic.com/v1/models
            curl -sS -w '\n%{http_code}\n' https://api.anthropic.com/v1/anything
        """).split("\n")
        self.assertRegex(out[0], r"^avm-claude-a-[a-z2-9]{26}$")
        self.assertIn("x" * len(ACCESS), out[1])
        self.assertEqual(out[2:6], ["200", "403", "403", "403"])
        self.assertEqual(out[7], "200")
        self.assertEqual(len(self.upstream.seen), 2, self.upstream.seen)
        sni, head, _ = self.upstream.seen[0]
        self.assertEqual(sni, "api.anthropic.com")
        self.assertIn(f"authorization: bearer {ACCESS}".lower(), head.lower())
        self.assertNotIn("avm-", head)
        self.assertNotIn("authorization", self.upstream.seen[1][1].lower())
        self.assertIn("    login     claude: subscription; the guest has placeholders\n", self.stderr)
        self.assertIn("    testing   api.anthropic.com:443 -> 127.0.0.1:", self.stderr)
