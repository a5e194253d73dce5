"""Logins of the host in a guest that never has them: real clients in a booted VM, and a service that gives everything back."""
import base64
import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import unittest
import urllib.parse

from test_publish import free_ports
from upstream import Upstream, certificates
from vmtest import BOOT_S, SLOW, STATE, Case, children, comm, command, environment, program, wait_for

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


def memory(pid):
    """What lies in the memory that a process can write, as far as it is there; None when it cannot be read."""
    out, page = [], os.sysconf("SC_PAGESIZE")
    try:
        with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as mem, open(f"/proc/{pid}/pagemap", "rb", 0) as pages:
            for line in maps:
                where, rights, *_ = line.split()
                lo, hi = (int(n, 16) // page for n in where.split("-"))
                if "rw" not in rights:
                    continue
                pages.seek(lo * 8)
                there = pages.read((hi - lo) * 8)[7::8]  # the highest byte of each entry: 0x80 is "in memory"
                at = 0
                while at < len(there):
                    end = at
                    while end < len(there) and there[end] & 0x80 and end - at < 4096:
                        end += 1
                    if end > at:
                        mem.seek((lo + at) * page)
                        with contextlib.suppress(OSError):
                            out.append(mem.read((end - at) * page))
                    at = max(end, at + 1)
    except OSError:
        return None
    return b"".join(out)


# login WHICH: that token of Claude's login file
HELPERS = r"""
login() { grep -o "\"$1Token\": *\"[^\"]*\"" ~/.claude/.credentials.json | cut -d'"' -f4; }
"""


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

    def login(self, name=".claude/.credentials.json", left_s=10 ** 9, **more):
        path = self.home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"claudeAiOauth": {"accessToken": ACCESS, "refreshToken": REFRESH,
                                                      "expiresAt": int(time.time() + left_s) * 1000,
                                                      "scopes": ["user:inference"], "subscriptionType": "max", "secret": "CANARY"},
                                    "mcpOAuth": {"x": "CANARY"}, **more}))
        path.chmod(0o600)

    def exec(self, script, **kw):
        return super().exec(HELPERS + script, **kw)

    def run_(self, script, *options, env=None, check=0):
        p = self.vm("shell", *options, "--", "-c", HELPERS + script, env={**self.env, **(env or {})}, check=check, timeout=4 * BOOT_S)
        self.stderr = p.stderr.decode()
        return p.stdout.decode()

    def test_curl_gets_the_token_swapped(self):
        self.login()
        out = self.run_(r"""
            ph=$(login access); echo "$ph"
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
        # What the service gave back is told at the end.
        told = re.search(r"^==> answers held a login of this host, which was overwritten: api\.anthropic\.com/v1/models \(2 times\); "
                         r"agent-vm logs --role audit (\S+) ", self.stderr, re.M)
        self.assertTrue(told, self.stderr)
        records = json.loads(self.vm("logs", "--json", "--role", "audit", told[1]).stdout)
        self.assertEqual([(r["host"], r["path"], r["n"]) for r in records if r["k"] == "echo"], [("api.anthropic.com", "/v1/models", 2)])

    def test_a_login_tried_again_and_again_elsewhere_is_told_at_the_end(self):
        self.login()
        script = r"""
            curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $(login access)" \
                "https://api.anthropic.com/v1/organizations/[1-40]"
        """
        line = re.compile(r"^==> shell: 20 requests to api\.anthropic\.com within a minute had a credential .* agent-vm logs --denied (\S+) ", re.M)
        for options in ((), ("--quiet",)):
            with self.subTest(options=options):
                self.assertEqual(self.run_(script, *options).split(), ["403"] * 40)
                told = line.findall(self.stderr)
                self.assertEqual(len(told), 0 if options else 1, self.stderr)
                logs = self.vm("logs", *told).stdout.decode()
                self.assertEqual(len(re.findall("launcher.*20 requests to api.anthropic.com within a minute", logs)), 1, logs)
        self.assertEqual(self.upstream.seen, [])

    def http2(self, path, text):
        """A service that speaks HTTP/2 alone, with one file; its port, and the file that it tells its requests in."""
        (self.top / "h2" / path).parent.mkdir(parents=True)
        (self.top / "h2" / path).write_text(text)
        (port,) = free_ports(1)
        with open(self.top / "h2.log", "wb") as log:
            p = subprocess.Popen(["/usr/sbin/nghttpd", "-v", "-a", "127.0.0.1", "-d", self.top / "h2", str(port), self.top / "server.key",
                                  self.top / "server.crt"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)

        def listens():
            with socket.socket() as s:
                return p.poll() is not None or s.connect_ex(("127.0.0.1", port)) == 0
        wait_for(listens, 60, "nghttpd does not listen")
        self.assertIsNone(p.poll(), (self.top / "h2.log").read_text())
        return port, self.top / "h2.log"

    @unittest.skipUnless(pathlib.Path("/usr/bin/node").exists(), "no node here")
    def test_other_clients_trust_the_session_without_being_told(self):
        """Python and node (this machine's, by its own loader), git, and openssl with bytes of its own; curl and node by HTTP/2, two
        requests beside each other of which one is refused. What they used is nowhere in the VM's memory afterwards."""
        self.login()
        for program in ("python3", "node"):
            shutil.copy(f"/usr/bin/{program}", self.project)
        port, log = self.http2("v1/models", f"key {KEY} end")
        env = {**self.env, "OPENAI_API_KEY": KEY,
               "AGENT_VM_CONNECT_TO": self.env["AGENT_VM_CONNECT_TO"].replace(f"api.openai.com:443:127.0.0.1:{self.upstream.port}",
                                                                              f"api.openai.com:443:127.0.0.1:{port}")}
        mounts = [w for at in ("lib/python3.11", "lib/x86_64-linux-gnu", "share/nodejs") if pathlib.Path("/usr", at).exists()
                  for w in ("--mount", f"/usr/{at}:/{'usr' if at[0] == 's' else 'host'}/{at}:ro")]
        with self.session(*mounts, env=env) as p:
            out = self.exec(r"""
                openssl() { timeout 120 /usr/bin/openssl "$@"; }
                host() { timeout 240 /host/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path /host/lib/x86_64-linux-gnu "$@"; }
                export PH=$(login access)
                PYTHONHOME=/host host ./python3 -c '
import os, urllib.request
r = urllib.request.Request("https://api.anthropic.com/v1/messages", b"{}", {"Authorization": "Bearer " + os.environ["PH"]})
print("python", urllib.request.urlopen(r).status)'
                host ./node -e '
const r = require("https").request("https://api.anthropic.com/v1/messages",
  {method: "POST", headers: {authorization: "Bearer " + process.env.PH}}, a => { console.log("node", a.statusCode); process.exit(); });
r.end("{}");'
                git -c http.extraHeader="Authorization: Bearer $PH" ls-remote https://api.anthropic.com/v1/models 2>&1 | tail -n 1
                printf 'GET /v1/models HTTP/1.1\r\nHost: api.anthropic.com\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' "$PH" |
                    openssl s_client -quiet -verify_return_error -servername api.anthropic.com -connect api.anthropic.com:443 2>/dev/null |
                    head -n 1
                printf 'GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n' "$PH" |
                    openssl s_client -quiet -servername api.anthropic.com -connect api.anthropic.com:443 2>/dev/null | head -n 1
                env -i /usr/bin/openssl s_client -servername api.anthropic.com -connect api.anthropic.com:443 </dev/null 2>/dev/null |
                    grep 'Verify return code'
                curl -sS -H 'Content-Type: application/json' -d '{"grant_type":"refresh_token","refresh_token":"'$(login refresh)'"}' \
                    -o /dev/null -w 'renewed %{http_code}\n' https://platform.claude.com/v1/oauth/token
                curl -sS -Z --http2 --retry 5 --retry-all-errors -H "Authorization: Bearer $OPENAI_API_KEY" -w '%{http_code} %{http_version} %{url_effective}\n' \
                    -o /root/listed https://api.openai.com/v1/models -o /dev/null https://api.openai.com/v1/organization/users | sort
                cat /root/listed; echo
                host ./node -e '
const s = require("http2").connect("https://api.openai.com");
let left = 2;
for (const path of ["/v1/models", "/v1/organization/users"]) {
  const r = s.request({":path": path, authorization: "Bearer " + process.env.OPENAI_API_KEY});
  let status, code;
  r.on("response", h => { status = h[":status"]; code = h["x-sandbox-policy"]; });
  r.on("data", () => {});
  r.on("end", () => { console.log("h2", status, code, path); if (--left === 0) process.exit(); });
}' | sort
                echo "$PH"
            """).split("\n")
            self.assertEqual(out[:2], ["python 200", "node 200"], out)
            self.assertIn("403", out[2])  # git asks for a path that is not named: it was judged, so it was believed
            self.assertEqual(out[3].strip(), "HTTP/1.1 200")
            self.assertRegex(out[4], r"^HTTP/1.1 421 ")
            self.assertEqual(out[5].strip(), "Verify return code: 0 (ok)")  # by the hashed link, with no variable
            self.assertEqual(out[6:12], ["renewed 200", "200 2 https://api.openai.com/v1/models",
                                         "403 2 https://api.openai.com/v1/organization/users", f"key {'x' * len(KEY)} end",
                                         "h2 200 undefined /v1/models", "h2 403 path-denied /v1/organization/users"])
            for _, head, _ in self.upstream.seen:
                self.assertIn(ACCESS, head)
                self.assertNotIn("avm-", head)
            told = log.read_text()
            self.assertEqual(told.count(":path: /v1/models\n"), 2, told)
            self.assertEqual(told.count(f"authorization: Bearer {KEY}\n"), 2, told)
            self.assertNotIn("organization", told)
            self.assertNotIn("avm-", told)
            self.assertRegex(out[12], "^avm-claude-a-[a-z2-9]{26}$")
            self.search_vm(p.pid, out[12])

    def search_vm(self, launcher, placeholder):
        """The VM's memory, where the placeholder is, so that what is not found there would have been."""
        found = {}
        for pid in children(launcher):
            data = memory(pid)
            if data and placeholder.encode() in data:
                found[comm(pid)] = len(data)
                self.canaries(data, f"memory of {comm(pid)}")
        vm = [name for name in found if name.startswith("qemu") or name == "agent-vm-vmm"]
        self.assertTrue(vm, found)
        self.assertGreater(found[vm[0]], 64 << 20)

    def test_an_unbound_host_is_not_touched(self):
        self.login()
        (self.project / "ca.pem").write_bytes((self.top / "ca.pem").read_bytes())
        out = self.run_(r"""
            openssl s_client -servername unbound.test -connect unbound.test:443 </dev/null 2>/dev/null | grep '^issuer'
            openssl s_client -servername api.openai.com -connect api.openai.com:443 </dev/null 2>/dev/null | grep '^issuer'
            openssl s_client -servername api.anthropic.com -connect api.anthropic.com:443 </dev/null 2>/dev/null | grep '^issuer'
            curl -sS --cacert ca.pem -H 'Authorization: Bearer mine' -o /dev/null -w '%{http_code}\n' https://unbound.test/any
            """)
        self.assertIn("CA of the test", out.split("\n")[0])
        self.assertIn("CA of the test", out.split("\n")[1])  # no login of OpenAI's: its hosts are as without us
        self.assertIn("agent-vm", out.split("\n")[2])
        self.assertEqual(out.split("\n")[3], "200")
        self.assertEqual([h.split("\r\n")[0] for _, h, _ in self.upstream.seen], ["GET /any HTTP/1.1"])
        self.assertIn("bearer mine", self.upstream.seen[0][1].lower())

    def test_keys_of_the_environment_and_the_token_endpoint(self):
        self.login()
        # In the guest's environment: the placeholder. In ours, while the session runs: nothing of the key.
        with self.session(env={**self.env, "OPENAI_API_KEY": KEY, "ANTHROPIC_API_KEY": KEY + "2"}) as p:
            environ = pathlib.Path(f"/proc/{p.pid}/environ").read_bytes()
            self.assertIn(b"OPENAI_API_KEY=\0", environ)
            self.assertNotIn(b"CANARY", environ)
            out = self.exec(r"""
                echo "$OPENAI_API_KEY $ANTHROPIC_API_KEY"
                curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $OPENAI_API_KEY" https://api.openai.com/v1/models
                curl -sS -o /dev/null -w '%{http_code}\n' -H "x-api-key: $ANTHROPIC_API_KEY" https://api.anthropic.com/v1/models
                r=$(login refresh)
                curl -sS -H 'Content-Type: application/json' -d '{"grant_type":"refresh_token","refresh_token":"'$r'"}' \
                    https://platform.claude.com/v1/oauth/token; echo
                curl -sS -o /dev/null -w '%{http_code}\n' -H 'Content-Type: application/json' \
                    -d '{"grant_type":"authorization_code","code":"x"}' https://platform.claude.com/v1/oauth/token
                cat /agent-vm-state/codex/auth.json
            """).split("\n")
        self.assertRegex(out[0], r"^avm-openai-key-[a-z2-9]{26} avm-anthropic-key-[a-z2-9]{26}$")
        self.assertEqual(out[1:3], ["200", "200"])
        renewed = json.loads(out[3])
        self.assertRegex(renewed["access_token"], r"^avm-claude-a-")
        self.assertGreater(renewed["expires_in"], 10 ** 8)
        self.assertEqual(out[4], "400")
        self.assertEqual(json.loads("".join(out[5:])), {"auth_mode": "apikey", "OPENAI_API_KEY": out[0].split()[0]})
        heads = [h for _, h, _ in self.upstream.seen]
        self.assertEqual(len(heads), 2, heads)
        self.assertIn(f"Bearer {KEY}\r\n", heads[0] + "\r\n")
        self.assertRegex(heads[1], f"(?i)x-api-key: {KEY}2")

    def canaries(self, data, where):
        for secret in (ACCESS, REFRESH, KEY):
            for form in forms(secret):
                self.assertNotIn(form, data, where)

    def test_no_secret_is_anywhere_but_with_the_vault(self):
        """After requests that give the token back: the guest's files, environment and processes, the state, the logs, our own
        processes, and what of the VM's memory can be read."""
        self.login()
        with self.session(env={**self.env, "OPENAI_API_KEY": KEY}) as p:
            out = self.exec(r"""
                ph=$(login access)
                for i in 1 2 3; do
                    curl -sS -i -H "Authorization: Bearer $ph" https://api.anthropic.com/v1/models
                    curl -sS -i -H "Authorization: Bearer $OPENAI_API_KEY" https://api.openai.com/v1/models
                done > /root/answers
                grep -aoE 'HTTP/[12.]+ 200' /root/answers | wc -l
                grep -rlaE 'CANAR[Y]|Q0FOQVJ[Z]|NBTkFS[W]|DQU5BU[l]' /root /home /tmp /run /var /etc /agent-vm-state /dev/shm 2>/dev/null | grep -v "$PWD" | head
                for f in /proc/[0-9]*/environ /proc/[0-9]*/cmdline; do tr '\0' '\n' < $f; done 2>/dev/null | grep -a 'CANAR[Y]'
                dmesg 2>/dev/null | grep 'CANAR[Y]'
                true
            """)
            self.assertEqual(out, "6\n")
            self.assertEqual(len(self.upstream.seen), 6)
            name = next(s["name"] for s in json.loads(self.vm("ps", "--json", check=0).stdout) if s["pid"] == p.pid)
            searched = []
            for pid in [p.pid, *children(p.pid)]:
                data = memory(pid)
                if data is None:  # the vault's, or of a process that has just ended
                    self.assertNotEqual(pid, p.pid)
                    continue
                role = comm(pid)
                searched.append(role)
                self.assertNotEqual(role, "agent-vm-vault", "its memory can be read")
                self.canaries(data, f"memory of {role}")
                self.canaries(b"".join(pathlib.Path(f"/proc/{pid}/{f}").read_bytes() for f in ("environ", "cmdline")), role)
            self.assertIn("agent-vm", searched)
        folders = [pathlib.Path(STATE) / "run"] + [f for f in pathlib.Path(STATE).iterdir() if re.fullmatch("[0-9a-f]{12}", f.name)]
        n = 0
        for folder in folders:
            for f in folder.rglob("*"):
                if f.is_file() and not f.is_symlink():
                    n += 1
                    self.canaries(f.read_bytes(), f)
        self.assertGreater(n, 10)
        audit = (pathlib.Path(STATE) / "run/logs" / name / "audit.jsonl").read_text()
        self.assertIn('"api.anthropic.com"', audit)

    def test_a_log_out_and_a_new_token_count_at_once(self):
        self.login()
        ask = r"""ph=$(login access)
            curl -sS -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $ph" https://api.anthropic.com/v1/models"""
        with self.session(env=self.env):
            self.assertEqual(self.exec(ask), "200")
            path = self.home / ".claude/.credentials.json"
            path.write_text(path.read_text().replace(ACCESS, ACCESS + "-new"))
            self.assertEqual(self.exec(ask), "200")
            path.rename(path.with_name("away"))
            self.assertEqual(self.exec(ask), "503")
            path.with_name("away").rename(path)
            self.assertEqual(self.exec(ask), "200")
        self.assertEqual([h.split(ACCESS)[1].split("\r\n")[0] for _, h, _ in self.upstream.seen], ["", "-new", "-new"])

    def test_login_files_that_changed_meanwhile_are_named_at_the_end(self):
        self.login()
        (self.home / ".codex").mkdir()

        def meanwhile():
            while not (self.project / "ready").exists():
                time.sleep(0.1)
            self.login(left_s=10 ** 8)
            (self.home / ".codex/auth.json").write_text("{}")
            (self.project / "go").touch()
        other = threading.Thread(target=meanwhile, daemon=True)
        other.start()
        self.run_("touch ready; until [ -e go ]; do sleep 0.1; done")
        other.join()
        claude, codex = (re.escape(str(self.home / n)) for n in (".claude/.credentials.json", ".codex/auth.json"))
        self.assertRegex(self.stderr, rf"(?m)^==> logins of this host that changed meanwhile, not by a renewal: {claude} \(changed\), {codex} \(new\)$")
        self.assertNotIn(ACCESS, self.stderr)

    def test_sessions_of_a_project_share_their_placeholders_while_they_overlap(self):
        self.login()
        show = "cat ~/.claude/.credentials.json"
        with self.session(env=self.env):
            first = self.exec(show)
            self.assertEqual(self.run_(show), first)
            self.assertEqual(self.exec(show), first)
        self.assertNotEqual(self.run_(show), first)

    def test_the_hosts_own_program_renews(self):
        """A token that is nearly over: the guest asks, the program runs once, with nothing of ours around it."""
        self.login(left_s=100)
        bin_ = self.home / "bin"
        bin_.mkdir()
        (bin_ / "claude").write_text(f"""#!/bin/sh
env | sort > {self.top}/env; pwd > {self.top}/cwd; ls -A >> {self.top}/cwd; echo "$*" >> {self.top}/ran
sed 's/{ACCESS}/{ACCESS}-new/; s/"expiresAt": *[0-9]*/"expiresAt": 4000000000000/' {self.home}/.claude/.credentials.json > {self.top}/new
cat {self.top}/new > {self.home}/.claude/.credentials.json
""")
        (bin_ / "claude").chmod(0o755)
        runtime = self.top / "runtime"
        runtime.mkdir(mode=0o700)
        out = self.run_(r"""
            for i in 1 2; do curl -sS -H 'Content-Type: application/json' -d '{"grant_type":"refresh_token","refresh_token":"'$(login refresh)'"}' \
                https://platform.claude.com/v1/oauth/token; echo; done
            curl -sS -o /dev/null -w '%{http_code}\n' -H "Authorization: Bearer $(login access)" https://api.anthropic.com/v1/models
        """, env={"PATH": f"{bin_}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": runtime, "GIT_DIR": "/x", "ANTHROPIC_BASE_URL": "http://x",
                  "LD_PRELOAD_": "x"}).split("\n")
        for answer in out[:2]:
            self.assertGreater(json.loads(answer)["expires_in"], 10 ** 8)
        self.assertEqual(out[2], "200")
        self.assertEqual((self.top / "ran").read_text(), "auth status\n")
        env = dict(line.split("=", 1) for line in (self.top / "env").read_text().splitlines())
        self.assertLessEqual(set(env), {"HOME", "USER", "LOGNAME", "SHELL", "LANG", "PATH", "TERM", "XDG_RUNTIME_DIR", "PWD", "SSL_CERT_FILE",
                                        "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "OLDPWD", "SHLVL", "_", "LC_ALL"})
        cwd = (self.top / "cwd").read_text().split("\n")
        self.assertTrue(cwd[0].startswith(f"{runtime}/agent-vm/renew-"), cwd)
        self.assertEqual(cwd[1:], [""])
        self.assertNotIn("changed meanwhile", self.stderr)
        self.assertEqual([n.name for n in (runtime / "agent-vm").iterdir() if n.name.startswith("renew-")], [])
        self.assertIn(ACCESS + "-new", self.upstream.seen[-1][1])

    def test_no_core_handler_gets_a_core_of_a_hidden_process(self):
        """In the guest, for the pattern for cores is that of a whole kernel. The same with a process that is not hidden is seen to fail."""
        shutil.copy(program("core-in-vm"), self.project)
        self.assertEqual(self.run_("./core-in-vm"), "all hold\n", self.stderr)

    def test_this_hosts_own_authorities(self):
        """--trust-host-ca: what the administrator added here is believed in the guest; without it, it is not."""
        mine = self.top / "authorities"
        (mine / "company").mkdir(parents=True)
        (mine / "company/root.crt").write_bytes((self.top / "ca.pem").read_bytes())
        script = """curl -sS -o /dev/null -w '%{http_code}\\n' https://unbound.test/ 2>/dev/null
            echo "$NODE_EXTRA_CA_CERTS"; grep -c BEGIN "${NODE_EXTRA_CA_CERTS:-/dev/null}" """
        out = []
        for options in ([], ["--trust-host-ca"]):
            p = subprocess.run(["unshare", "-m" if os.geteuid() == 0 else "-Urm", "sh", "-c",
                                f"mount --bind {mine} /usr/local/share/ca-certificates && exec \"$@\"", "-",
                                *command(["shell", *options, "--", "-c", script])], cwd=self.project, env=environment(**self.env),
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=4 * BOOT_S)
            out.append(p.stdout.decode().split("\n"))
            self.assertIn("    login     none\n", p.stderr.decode())
        self.assertEqual(out[0][:2], ["000", ""])
        self.assertEqual(out[1][:3], ["200", "/run/agent-vm/extra-ca.pem", "1"])

    def test_without_a_gate_there_is_no_session(self):
        self.login()
        with self.session(env=self.env) as p:
            gate = next(c for c in children(p.pid) if comm(c) == "agent-vm-gate")
            pids = [p.pid, *children(p.pid)]
            os.kill(gate, signal.SIGKILL)
            self.assertEqual(p.wait(60 * SLOW), 1)
            self.assertIn("network process (gate) ended: signal 9", p.stderr.read().decode())
            self.nothing_left(pids)
