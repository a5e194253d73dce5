#!/usr/bin/env python3
"""The real gh (Debian's) through the real agent-vm-gate, against an API of the tests: what it sends for a listed repository goes out
with the login, for another one it is refused, or goes out without, and gh shows why. acme/app is listed, acme/secret is not."""
import json
import os
import pathlib
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import unittest

from gatetest import Gate, config, placeholder

OWN = pathlib.Path(__file__).resolve().parents[2] / "deps/gh/usr/bin/gh"
GH = str(OWN) if OWN.exists() else shutil.which("gh") or "gh"
OWNER = {"__typename": "Organization", "id": "O_1", "login": "acme"}
ISSUE = {"__typename": "Issue", "id": "I_1", "number": 1, "title": "broken", "url": "https://github.com/acme/app/issues/1", "state": "OPEN",
         "author": {"login": "me"}, "comments": {"totalCount": 0, "nodes": []}, "labels": {"nodes": [], "totalCount": 0},
         "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
PULL = {**ISSUE, "__typename": "PullRequest", "id": "PR_1", "title": "mend", "url": "https://github.com/acme/app/pull/1", "headRefName": "fix",
        "baseRefName": "main", "isDraft": False, "mergeable": "MERGEABLE", "mergeStateStatus": "CLEAN", "headRepositoryOwner": OWNER,
        "headRepository": {"id": "R_1", "name": "app"}, "isCrossRepository": False, "reviews": {"nodes": []}, "reviewRequests": {"nodes": []},
        "statusCheckRollup": {"nodes": [{"commit": {"statusCheckRollup": {"contexts": {"nodes": [
            {"__typename": "CheckRun", "name": "build", "status": "COMPLETED", "conclusion": "SUCCESS"}]}}}}]}}
REPO = {"id": "R_1", "databaseId": 1, "name": "app", "nameWithOwner": "acme/app", "owner": OWNER, "parent": None, "hasIssuesEnabled": True,
        "viewerPermission": "WRITE", "visibility": "PRIVATE", "defaultBranchRef": {"name": "main"}, "mergeCommitAllowed": True,
        "issue": ISSUE, "pullRequest": PULL, "issues": {"totalCount": 1, "nodes": [ISSUE]}, "pullRequests": {"totalCount": 1, "nodes": [PULL]}}
DATA = {"repository": REPO, "repo_000": REPO, "viewer": {"login": "me"}, "node": PULL,
        "createIssue": {"issue": ISSUE}, "createPullRequest": {"pullRequest": PULL}, "mergePullRequest": {"clientMutationId": ""},
        "addComment": {"commentEdge": {"node": {"url": "https://github.com/acme/app/issues/1#issuecomment-1"}}}}
REST = {"/repos/acme/app/actions/runs": {"total_count": 0, "workflow_runs": []}, "/repos/acme/app/actions/workflows": {"workflows": []},
        "/repos/acme/app/releases": {"id": 5, "html_url": "https://github.com/acme/app/releases/tag/v1", "url": "https://api.github.com/repos/acme/app/releases/5",
                                     "upload_url": "https://uploads.github.com/repos/acme/app/releases/5/assets{?name,label}"}}

MUTATIONS = ("createIssue", "createPullRequest", "mergePullRequest", "addComment")

# What is asked of gh for @R, and what it prints for the listed one; the fault that it shows for the other.
COMMANDS = [
    ("pr list -R @R", "mend"), ("pr view 1 -R @R", "mend"), ("pr view 1 -R @R --json number,title,statusCheckRollup,reviews,headRepository", "mend"),
    ("pr checks 1 -R @R", "build"), ("pr comment 1 -R @R -b hello", "issuecomment"), ("pr merge 1 -R @R --merge", ""),
    ("pr create -R @R -t t -b b -H fix -B main", "/pull/1"), ("issue list -R @R", "broken"), ("issue view 1 -R @R", "broken"),
    ("issue create -R @R -t t -b b", "/issues/1"), ("issue comment 1 -R @R -b hello", "issuecomment"),
    ("run list -R @R", ""), ("release create v1 -R @R -t v1 -n notes FILE", "/releases/tag/v1"), ("repo view @R", ""), ("api repos/@R", "path"),
]


class World:
    def __init__(self):
        self.requests = []

    @staticmethod
    def answer(query):
        if "__type(" in query:  # what this GitHub has
            return {alias: {"fields": []} for alias in re.findall(r"(\w+): ?__type", query)}
        if "PullRequestForBranch" in query:
            return {"repository": {**REPO, "pullRequests": {"nodes": []}}}
        return {k: v for k, v in DATA.items() if (k in MUTATIONS) == query.lstrip().startswith("mutation") and (k not in MUTATIONS or k in query)}

    def __call__(self, x):
        r, body = x.request, x.read_body()
        js = [("content-type", "application/json; charset=utf-8")]
        ask = r.get("user-agent") == [b"agent-vm"]
        if not ask:
            self.requests.append((r.method, r.path, r.creds, body))
        if r.path == "/graphql":
            query = json.loads(body)["query"]
            nodes = [{"__typename": "PullRequest", "repository": {"databaseId": 1}} for _ in range(query.count('_1"'))]
            x.answer(200, js, json.dumps({"data": {"r0": REPO, "nodes": nodes} if ask else self.answer(query)}).encode())
        elif r.method == "HEAD":
            x.answer(404, js)
        elif not r.creds:
            x.answer(404, js, b'{"message":"Not Found"}')
        elif r.method == "GET" or r.path == "/repos/acme/app/releases":
            x.answer(201 if r.method == "POST" else 200, js, json.dumps(REST.get(r.path, {"path": r.path})).encode())
        else:
            x.answer(201, js, json.dumps(REST["/repos/acme/app/releases"]).encode())


class Proxy:
    """CONNECT, to gate in place of the service: gh finds it by HTTPS_PROXY."""

    def __init__(self, gate):
        self.gate, self.lock = gate, threading.Lock()
        self.s = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            while not (head := c.recv(4096, socket.MSG_PEEK)).endswith(b"\r\n\r\n") and head:
                pass
            c.recv(len(head))
            c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with self.lock:
                _, g = self.gate.stream()
            g.settimeout(None)
            threading.Thread(target=self.both, args=(c, g), daemon=True).start()

    def both(self, c, g):
        with c, g:
            back = threading.Thread(target=self.relay, args=(g, c), daemon=True)
            back.start()
            self.relay(c, g)
            back.join()

    @staticmethod
    def relay(a, b):
        try:
            while (data := a.recv(65536)):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Gh(unittest.TestCase):
    def setUp(self):
        self.world = World()
        self.g = Gate(cfg=config(repos=["acme/app=write"]))
        self.addCleanup(self.g.close)
        self.g.serve(self.world)
        self.proxy = Proxy(self.g)
        self.addCleanup(self.proxy.s.close)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        (self.top / "ca.pem").write_text(ssl.DER_cert_to_PEM_cert(self.g.ca_der))
        (self.top / "file").write_text("an asset")
        self.env = {"HOME": str(self.top), "XDG_CACHE_HOME": str(self.top / "cache"), "TMPDIR": str(self.top),
                    "PATH": os.environ["PATH"], "SSL_CERT_FILE": str(self.top / "ca.pem"), "GH_PROMPT_DISABLED": "1",
                    "HTTPS_PROXY": "http://127.0.0.1:%d" % self.proxy.s.getsockname()[1], "GH_NO_UPDATE_NOTIFIER": "1", "GH_TOKEN": placeholder("gh")}

    def gh(self, command, repo):
        words = [w.replace("@R", repo).replace("FILE", str(self.top / "file")) for w in command.split()]
        p = subprocess.run([GH, *words], env=self.env, cwd=self.top, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
        return p.returncode, p.stdout + p.stderr

    def test_a_listed_repository(self):
        for command, shows in COMMANDS:
            with self.subTest(command):
                code, text = self.gh(command, "acme/app")
                self.assertNotIn("sandbox", text)
                self.assertEqual(code, 0, text)
                self.assertIn(shows, text)
        self.assertTrue(self.world.requests and all(creds == [("gh", "bearer")] for *_, creds, _ in self.world.requests), self.world.requests)
        self.assertIn(("POST", "/repos/acme/app/releases/5/assets"), [r[:2] for r in self.world.requests])

    def test_another_one(self):
        for command, _ in COMMANDS:
            with self.subTest(command):
                code, text = self.gh(command, "acme/secret")
                self.assertNotEqual(code, 0, text)
                self.assertIn("--repo acme/secret", text)
        self.assertFalse([r for r in self.world.requests if b"__type(" not in r[3] and (r[2] or r[0] not in ("GET", "HEAD"))], self.world.requests)


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    unittest.main()
