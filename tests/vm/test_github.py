"""The user's login at GitHub in a guest that never has it: git against a real git HTTP backend behind TLS on the host's loopback,
and a stand-in of the API. acme/app is the project's remote, acme/lib its submodule; acme/secret is private and not listed, octo/pub
public and not listed."""
import base64
import json
import os
import pathlib
import re
import signal
import subprocess
import time

import ghapi
from upstream import Upstream, certificates
from vmtest import BOOT_S, SLOW, Case

TOKEN = "gho_CANARY5b1d8c3f7a9e2460"
NAMES = ["github.com", "api.github.com", "uploads.github.com", "api.githubcopilot.com"]
BASIC = "Basic " + base64.b64encode(f"x-access-token:{TOKEN}".encode()).decode()
PRIVATE = ("acme/app", "acme/lib", "acme/secret")


class GitHub(Upstream):
    """@seen: (host, method, target, authorization) of each request."""

    def __init__(self, folder, repos):
        self.repos, self.token = repos, TOKEN
        super().__init__(folder)

    def read(self, f):
        line = f.readline().decode("latin-1").split()
        if len(line) != 3:
            return None
        fields = {}
        while (text := f.readline().strip()):
            name, _, value = text.decode("latin-1").partition(":")
            fields[name.lower()] = value.strip()
        if fields.get("transfer-encoding") == "chunked":
            body = b""
            while (n := int(f.readline(), 16)):
                body += f.read(n)
                f.readline()
            f.readline()
        else:
            body = f.read(int(fields.get("content-length", 0)))
        return line[0], line[1], fields, body

    def git(self, method, target, fields, body):
        slug = "/".join(target.partition("?")[0].strip("/").split("/")[:2]).removesuffix(".git")
        may = fields.get("authorization") == BASIC
        if (slug in PRIVATE or "receive-pack" in target) and not may:
            return 401, {"WWW-Authenticate": 'Basic realm="GitHub"'}, b"who are you?"
        return ghapi.git(self.repos, method, target, fields, body, may)

    def api(self, method, target, fields, body):
        js = {"Content-Type": "application/json; charset=utf-8"}
        may = fields.get("authorization") == f"Bearer {self.token}"
        if "authorization" in fields and not may:
            return 401, js, b'{"message":"Bad credentials"}'
        if target == "/graphql" and may:
            repo = lambda n, name: {"id": f"R_{n}", "databaseId": n, "nameWithOwner": name, "owner": {"__typename": "Organization"}}
            return 200, js, json.dumps({"data": {"r0": repo(1, "acme/app"), "r1": repo(2, "acme/lib"),
                                                 "repository": {"id": "R_1", "name": "app"}}}).encode()
        if "secret" in target and not may:
            return 404, js, b'{"message":"Not Found"}'
        return 200, js, json.dumps({"path": target, "temp_clone_token": TOKEN[::-1]}).encode()

    def client(self, c):
        try:
            with self.context.wrap_socket(c, server_side=True) as s, s.makefile("rb") as f:
                while (r := self.read(f)):
                    host = getattr(s, "sni_name", None)
                    self.seen.append((host, r[0], r[1], r[2].get("authorization")))
                    status, fields, body = (self.git if host == "github.com" else self.api)(*r)
                    fields = {**fields, "Content-Length": len(body)}
                    s.sendall((f"HTTP/1.1 {status} X\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n").encode() +
                              (b"" if r[0] == "HEAD" else body))
        except OSError:
            pass


def git(*words, cwd=None):
    env = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    return subprocess.run(["git", "-c", "user.name=me", "-c", "user.email=me@example", *map(str, words)], cwd=cwd, check=True, env=env,
                          capture_output=True, text=True).stdout


class World(Case):
    """@upstream: what stands in for GitHub."""
    upstream = GitHub

    def setUp(self):
        super().setUp()
        self.home, self.repos = self.top / "home", self.top / "repos"
        self.home.mkdir()
        certificates(self.top, NAMES)
        work = self.top / "work"
        git("init", "-q", "-b", "main", work)
        (work / "README").write_text("hello\n")
        git("add", ".", cwd=work)
        git("commit", "-q", "-m", "first", cwd=work)
        for name in (*PRIVATE, "octo/pub"):
            git("clone", "-q", "--bare", work, self.repos / f"{name}.git")
            git("config", "http.receivepack", "true", cwd=self.repos / f"{name}.git")
        git("init", "-q", self.project)
        git("remote", "add", "origin", "git@github.com:acme/app.git", cwd=self.project)
        (self.project / ".gitmodules").write_text('[submodule "lib"]\n\tpath = lib\n\turl = ../lib.git\n')
        self.github = self.upstream(self.top, self.repos)
        self.addCleanup(self.github.close)
        self.env = {"HOME": self.home, "SSL_CERT_FILE": self.top / "ca.pem", "AGENT_VM_IMAGE_TAG": os.environ["AGENT_VM_IMAGE_TAG"],
                    "AGENT_VM_CONNECT_TO": ",".join(f"{n}:443:127.0.0.1:{self.github.port}" for n in NAMES)}

    def run_(self, script, *options, env=None, boots=4):
        p = self.vm("shell", *options, "--", "-c", script, env={**self.env, **(env or {})}, check=0, timeout=boots * BOOT_S)
        self.stderr = p.stderr.decode()
        self.assertNotIn(TOKEN.encode(), p.stdout + p.stderr)
        return p.stdout.decode()

    def main(self, name):
        return git("log", "--format=%s", "main", cwd=self.repos / f"{name}.git").split("\n")[0]


class Listed(World):

    def test_git_with_listed_and_unlisted_repositories(self):
        out = self.run_(r"""
            cd /tmp; export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
            git clone -q https://github.com/acme/app.git app; echo "clone $?"
            git clone -q git@github.com:acme/lib lib; echo "ssh form $?"
            git clone -q https://github.com/octo/pub pub; echo "public $?"
            git clone -q https://github.com/acme/secret.git secret </dev/null 2>secret.txt; echo "secret $?"
            cd app; head -c 3000000 /dev/urandom >big; git add big; git commit -q -m second
            git push -q origin HEAD:main; echo "push $?"
            git fetch -q origin; echo "fetch $?"
            git push origin HEAD:refs/pull/1/head >../ref.txt 2>&1; echo "other ref $?"
            git push https://github.com/acme/secret HEAD:main >../off.txt 2>&1; echo "off list $?"
            git push https://github.com/acme/lib HEAD:main >../lib.txt 2>&1; echo "read only $?"
            grep -ho 'refs/pull/1/head.*denied.*\|start with --repo acme/secret\|acme/lib is listed for reading only' ../*.txt
            grep -r "$(printf gho_CAN%s ARY)" / --include='*' -s -l --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev | head -3
        """, env={"GH_TOKEN": TOKEN})
        self.assertEqual([line for line in out.split("\n") if line[:1].islower() and line.split()[-1].isdigit()],
                         ["clone 0", "ssh form 0", "public 0", "secret 128", "push 0", "fetch 0", "other ref 1", "off list 128",
                          "read only 128"], (out, self.stderr))
        self.assertIn("start with --repo acme/secret", out)
        self.assertIn("refs/pull/1/head", out)
        self.assertNotIn("/", "".join(line for line in out.split("\n") if line.startswith("/")))
        self.assertEqual([self.main(n) for n in ("acme/app", "acme/lib", "acme/secret", "octo/pub")], ["second"] + ["first"] * 3)
        for host, method, target, authorization in self.github.seen:
            if (host, method, target) == ("api.github.com", "POST", "/graphql"):  # gate's own question about the list; git asks none
                continue
            listed = target.startswith(("/acme/app", "/acme/lib"))
            self.assertEqual(authorization, BASIC if listed else None, (host, method, target))
        self.assertIn("    github    write acme/app; read acme/lib (.gitmodules); all others without your rights\n", self.stderr)
        self.assertIn("github: GH_TOKEN", self.stderr)

    def gh(self, says):
        """A stand-in for gh, which is signed in; the PATH with it."""
        gh = self.top / "bin/gh"
        gh.parent.mkdir()
        gh.write_text(f'#!/bin/sh\n[ "$*" = "auth token --hostname github.com" ] && {{ {says}; }}\n')
        gh.chmod(0o755)
        hosts = self.home / ".config/gh/hosts.yml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text("github.com:\n    user: me\n")
        return {"PATH": f"{gh.parent}:{os.environ['PATH']}"}

    # As its program asks, for its own two hosts and for one of GitHub's.
    COPILOT = r"""
        ask() { curl -sS -o /tmp/body -w '%{http_code} ' -H "Authorization: Bearer $COPILOT_GITHUB_TOKEN" "$@"; head -c 400 /tmp/body; echo; }
        echo "$COPILOT_GITHUB_TOKEN" | cut -c1-8
        ask https://api.github.com/copilot_internal/user
        ask https://api.githubcopilot.com/models
    """

    def test_copilot_has_ghs_token_without_a_list(self):
        out = self.run_(self.COPILOT + r"""
            ls ~/.config/gh/hosts.yml 2>/dev/null | wc -l
            grep -r "$(printf gho_CAN%s ARY)" / -s -l --exclude-dir=proc --exclude-dir=sys --exclude-dir=dev | wc -l
        """, "--no-git", env=self.gh(f"sleep 3; echo {TOKEN}")).split("\n")
        self.assertEqual(out[0], "gho_avm_", (out, self.stderr))
        self.assertEqual([line[:3] for line in out[1:3]], ["200", "200"], (out, self.stderr))
        self.assertEqual(out[3:5], ["0", "0"], out)
        self.assertEqual(self.github.seen, [("api.github.com", "GET", "/copilot_internal/user", f"Bearer {TOKEN}"),
                                            ("api.githubcopilot.com", "GET", "/models", f"Bearer {TOKEN}")])
        self.assertIn("    login     copilot: gh; the guest has placeholders\n", self.stderr)
        self.assertIn("    github    none; all repositories without your rights\n", self.stderr)

    def test_copilot_and_github_share_ghs_answer(self):
        """A classic token is GitHub's alone: Copilot is told in its service's form, and the user in a line."""
        self.github.token = TOKEN.replace("gho_", "ghp_")
        out = self.run_(self.COPILOT + r"""
            ph=$(sed -n 's/.*oauth_token: *"*\([a-z0-9-]*\).*/\1/p' ~/.config/gh/hosts.yml | head -1)
            COPILOT_GITHUB_TOKEN=$ph ask https://api.github.com/repos/acme/secret -o /dev/null
            COPILOT_GITHUB_TOKEN=$ph ask https://api.github.com/repos/acme/app
        """, env=self.gh(f"echo {self.github.token}")).split("\n")
        self.assertEqual([line[:3] for line in out[1:3]], ["503", "503"], (out, self.stderr))
        self.assertIn("the host has no login that Copilot takes; run `gh auth login` on the host (login: copilot)", out[1])
        self.assertEqual(json.loads(out[2][4:])["error"]["code"], "credential-unavailable")
        self.assertEqual(out[4][:3], "200", (out, self.stderr))
        self.assertEqual([(h, t, a) for h, _, t, a in self.github.seen if t != "/graphql"],
                         [("api.github.com", "/repos/acme/secret", None), ("api.github.com", "/repos/acme/app", f"Bearer {self.github.token}")])
        self.assertIn("    login     github: gh, copilot: gh; the guest has placeholders\n", self.stderr)
        self.assertEqual(self.stderr.count("agent-vm: warning: gh gave no token that Copilot takes"), 1, self.stderr)
        self.assertNotIn("gh gave no token that GitHub takes", self.stderr)

    def test_signed_out_of_gh_meanwhile_and_in_again(self):
        token, hosts = self.top / "token", self.home / ".config/gh/hosts.yml"
        env = {**self.env, **self.gh(f"cat {token}")}
        token.write_text(TOKEN)
        ask = r"""ph=$(sed -n 's/.*oauth_token: *"*\([a-z0-9-]*\).*/\1/p' ~/.config/gh/hosts.yml | head -1)
            curl -sS -w ' %{http_code}' -H "Authorization: token $ph" https://api.github.com/repos/acme/app"""

        def until(status):
            end = time.monotonic() + 300 * SLOW
            while not (out := self.exec(ask)).endswith(status):
                self.assertLess(time.monotonic(), end, out)
            return out
        with self.session(env=env) as p:
            self.assertTrue(self.exec(ask).endswith(" 200"))
            token.unlink()
            hosts.write_text("{}\n")
            text = json.loads(until(" 503")[:-4])
            self.assertIn("the host has no GitHub login; run `gh auth login` on the host", text["message"])
            self.assertEqual(text["status"], "503")
            n = len(self.github.seen)
            self.assertTrue(self.exec(ask).endswith(" 503"))
            self.assertEqual(len(self.github.seen), n)
            token.write_text(TOKEN)
            hosts.write_text("github.com:\n    user: me\n")
            until(" 200")
            p.send_signal(signal.SIGTERM)
            said = p.stderr.read().decode()
        self.assertEqual(said.count("agent-vm: warning: gh gave no token that GitHub takes, so requests with it were refused; sign in with: gh auth login\n"), 1, said)
        self.assertIn(f"==> logins of this host that changed meanwhile, not by a renewal: {hosts} (changed)\n", said)
        self.assertNotIn(TOKEN, said)

    def test_the_api_with_the_login_of_gh(self):
        out = self.run_(r"""
            ph=$(sed -n 's/.*oauth_token: *"*\([a-z0-9-]*\).*/\1/p' ~/.config/gh/hosts.yml 2>/dev/null | head -1)
            echo "$ph" | cut -c1-7
            ask() { curl -sS -o /tmp/body -w '%{http_code} ' -H "Authorization: token $ph" "$@"; head -c 300 /tmp/body; echo; }
            ask https://api.github.com/repos/acme/app
            ask https://api.github.com/repos/acme/secret
            ask https://api.github.com/repos/acme/app/issues -d '{"title":"x"}'
            ask https://api.github.com/repos/acme/lib/issues -d '{"title":"x"}'
            ask https://api.github.com/graphql -H 'Content-Type: application/json' -d '{"query":"{repository(owner:\"acme\",name:\"app\"){id name}}"}'
            ask https://api.github.com/graphql -H 'Content-Type: application/json' -d '{"query":"{repository(owner:\"acme\",name:\"secret\"){id}}"}'
        """, env=self.gh(f"echo {TOKEN}")).split("\n")
        self.assertEqual(out[0], "avm-gh-", (out, self.stderr))
        self.assertEqual([line[:3] for line in out[1:7]], ["200", "404", "200", "403", "200", "403"], out)
        self.assertIn('"temp_clone_token": "' + "x" * len(TOKEN) + '"', out[1])
        self.assertIn("--repo acme/secret", out[2])
        self.assertIn('"R_1"', out[5])
        for host, method, target, authorization in self.github.seen:
            self.assertEqual(authorization, None if "secret" in target else f"Bearer {TOKEN}", (method, target))

    def why(self, *words, env=None):
        p = self.vm("why", "--json", *words, env={**self.env, "GH_TOKEN": TOKEN, **(env or {})})
        one, = json.loads(p.stdout)
        return one["decision"], one["credential"], one["opens"]

    def test_why_says_what_a_session_here_would_decide(self):
        push, pulls = "https://github.com/acme/{}.git/git-receive-pack", "https://api.github.com/repos/acme/{}/pulls/1"
        allowed = ("allow", "gh", None)
        self.assertEqual(self.why("-X", "POST", push.format("app")), allowed)
        self.assertEqual(self.why(push.format("lib"), "POST"), ("refuse", None, "--repo acme/lib=write"))
        self.assertEqual(self.why(push.format("secret"), "POST"), ("refuse", None, "--repo acme/secret"))
        self.assertEqual(self.why("--repo", "acme/secret", push.format("secret"), "POST"), allowed)
        self.assertEqual(self.why("--github", "push-refs=refs/heads/x/*", push.format("app"), "POST")[0], "refuse")
        self.assertEqual(self.why(pulls.format("lib")), allowed)
        self.assertEqual(self.why("-X", "PATCH", pulls.format("lib"))[0], "refuse")
        self.assertEqual(self.why("--no-git", "-X", "PATCH", pulls.format("app"))[:2], ("refuse", None))
        # A mount's remotes are on the list, and a read-only one's for reading.
        other = self.top / "other"
        git("init", "-q", other)
        git("remote", "add", "origin", "https://github.com/acme/secret.git", cwd=other)
        self.assertEqual(self.why("--mount", f"{other}", push.format("secret"), "POST"), allowed)
        self.assertEqual(self.why("--mount", f"{other}:ro", push.format("secret"), "POST"), ("refuse", None, "--repo acme/secret=write"))

    def test_gh_is_asked_again_when_its_token_is_refused(self):
        """gh has the good token from its second call on."""
        old, calls = "gho_CANARY0000000000000000", self.top / "calls"
        gh = self.top / "bin/gh"
        gh.parent.mkdir()
        gh.write_text(f'#!/bin/sh\n[ "$*" = "auth token --hostname github.com" ] || exit 1\necho x >>{calls}\n'
                      f'[ $(grep -c x {calls}) = 1 ] && echo {old} || echo {TOKEN}\n')
        gh.chmod(0o755)
        hosts = self.home / ".config/gh/hosts.yml"
        hosts.parent.mkdir(parents=True)
        hosts.write_text("github.com:\n    user: me\n")
        out = self.run_(r"""
            ph=$(sed -n 's/.*oauth_token: *"*\([a-z0-9-]*\).*/\1/p' ~/.config/gh/hosts.yml | head -1)
            ask() { curl -sS -o /tmp/body -w '%{http_code}\n' -H "Authorization: token $ph" https://api.github.com/repos/acme/app; }
            for i in $(seq 300); do [ "$(ask)" = 200 ] && break; sleep 0.2; done
            ask
        """, env={"PATH": f"{gh.parent}:{os.environ['PATH']}"}).split()
        self.assertEqual((out, calls.read_text()), (["200"], "x\nx\n"), self.stderr)
        sent = [authorization for *_, authorization in self.github.seen]  # the first may be gate's own question about the list
        self.assertEqual((sent[0], sent[-1]), (f"Bearer {old}", f"Bearer {TOKEN}"))
        self.assertEqual(sent, sorted(sent, key=lambda a: a.endswith(TOKEN)))  # never the old one again

    def test_without_a_list_or_without_git_nothing_is_lent(self):
        out = self.run_(r"""
            # Not inspected then: the guest sees the service's own certificate.
            git -c http.sslVerify=false clone -q https://github.com/octo/pub /tmp/pub </dev/null; echo "public $?"
            ls ~/.config/gh/hosts.yml 2>/dev/null | wc -l
        """, "--no-git", env={"GH_TOKEN": TOKEN})
        self.assertEqual(out.split("\n")[:2], ["public 0", "0"], self.stderr)
        self.assertEqual({a for *_, a in self.github.seen}, {None})
        self.assertIn("    github    none; all repositories without your rights\n", self.stderr)


class GhApi(GitHub):
    """@documents: what GraphQL was asked for, other than by the sandbox itself."""

    def __init__(self, folder, repos):
        self.documents = []
        super().__init__(folder, repos)

    def api(self, method, target, fields, body):
        asks = fields.get("user-agent") == "agent-vm"
        if target == "/graphql" and not asks:
            self.documents.append(body)
        status, text = ghapi.answer(method, target.partition("?")[0], fields.get("authorization") == f"Bearer {TOKEN}", body, asks)
        return status, {"Content-Type": "application/json; charset=utf-8"}, text


class Gh(World):
    """The real gh of Debian in the guest, and its git."""
    upstream = GhApi

    def setUp(self):
        super().setUp()
        branch = self.top / "work"
        git("checkout", "-q", "-b", "fix", cwd=branch)
        git("commit", "-q", "--allow-empty", "-m", "mended", cwd=branch)
        git("push", "-q", self.repos / "acme/app.git", "fix", cwd=branch)

    def test_gh_with_listed_and_unlisted_repositories(self):
        # Each takes about ten seconds under emulation; tests/net/test_gh.py and test_chain.py have all of them without a VM.
        some = [*ghapi.WITH_GIT, *(c for c, _ in ghapi.COMMANDS if os.environ.get("AGENT_VM_TEST_GH_ALL") or
                                   c.startswith(("pr create", "release create", "api")))]
        asked = [(repo, words) for repo in ("acme/app", "acme/secret") for words in some]
        # Ten seconds for a handshake are Go's own limit, which a busy host under emulation does not always keep.
        script = r"""
            try() {
                n=$1; shift
                for i in 1 2 3 4 5 6 7 8; do
                    out=$(timeout 900 gh "$@" </dev/null 2>&1); code=$?
                    case $out in *"TLS handshake timeout"*) ;; *) break ;; esac
                done
                printf '== %s\n%s\n-- %s %s\n' "$n" "$out" "$n" "$code"
            }
            cd /tmp; echo an asset >file
        """ + "\n"
        for i, (repo, words) in enumerate([*asked, ("octo/pub", ghapi.WITH_GIT[0])]):
            words = words.replace("@R", repo).replace("@N", repo.split("/")[1]).replace("FILE", "/tmp/file")
            script += f"try {i} {words}\n"
            script += "cd /tmp/there-app\n" if i == 0 else ""
        out = self.run_(script + r"""
            git -C /tmp/there-app log -1 --format='on %D: %s'; ls /tmp/there-app/there-secret /tmp/there-app/there-pub
            grep -r "$(printf gho_CAN%s ARY)" /root /home /tmp /run /etc /agent-vm-state -s -l | sed 's/^/token in /'
        """, "--mount", f"{pathlib.Path(ghapi.GH).parent}:/opt/gh:ro", "--env", "PATH=/opt/gh:/usr/local/bin:/usr/bin:/bin", env={"GH_TOKEN": TOKEN}, boots=20)
        ends = {int(i): (text, int(code)) for i, text, code in re.findall(r"^== (\d+)\n(.*?)^-- \1 (\d+)$", out, re.S | re.M)}
        self.assertEqual(len(ends), len(asked) + 1, (out, self.stderr))
        shows = {**dict(ghapi.COMMANDS), **dict.fromkeys(ghapi.WITH_GIT, "")}
        for i, (repo, words) in enumerate(asked):
            with self.subTest(words, repo=repo):
                text, code = ends[i]
                if repo == "acme/app":
                    self.assertEqual(code, 0, text)
                    self.assertNotIn("sandbox", text)
                    self.assertIn(shows[words], text)
                else:
                    self.assertNotEqual(code, 0, text)
                    self.assertIn("--repo acme/secret", text)
        self.assertEqual(ends[len(asked)][1], 0, ends[len(asked)])
        self.assertIn(": mended\n", out)
        self.assertIn("README\n", out)
        self.assertNotIn("token in", out)
        # The service saw the login with what is listed, and of the rest only readers without one.
        for host, method, target, authorization in self.github.seen:
            other = "acme/secret" in target or "octo/pub" in target
            self.assertEqual(authorization, None if other else BASIC if host == "github.com" else f"Bearer {TOKEN}", (method, target))
            if other and not target.endswith("/git-upload-pack"):
                self.assertIn(method, ("GET", "HEAD"), target)
        self.assertFalse([d for d in self.github.documents if b"secret" in d])
        self.assertEqual({(h, m, t.partition("?")[0]) for h, m, t, _ in self.github.seen if h == "uploads.github.com"},
                         {("uploads.github.com", "POST", "/repos/acme/app/releases/5/assets")})
        self.assertTrue([t for h, m, t, a in self.github.seen if (h, m, t) == ("api.github.com", "GET", "/repos/acme/secret") and a is None])
