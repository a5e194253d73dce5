#!/usr/bin/env python3
"""gate and vault together, the test as guest and wire, with real TLS servers behind them: which credential goes out with which
request when they share connections, and the real git-lfs. acme/app is listed for writing, acme/lib for reading, acme/secret is
private and not listed, octo/pub public and not listed."""
import base64
import concurrent.futures
import hashlib
import http.server
import json
import os
import pathlib
import random
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import unittest

import h2.config
import h2.connection
import h2.events

import test_gate
import uplib as u
import vaulttest as w
import xch
from gatetest import Client, Gate, Proxy, bits, config, placeholder
from uplib import ok

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "vm"))
import ghapi  # noqa: E402

REPOS = ["acme/app=write", "acme/lib=read"]
PRIVATE = ("acme/app", "acme/lib", "acme/secret")
SEED = int(os.environ.get("CHAIN_SEED", "7"))
LFS = os.environ.get("AGENT_VM_TEST_LFS") or pathlib.Path(__file__).resolve().parents[2] / "deps/git-lfs/usr/bin"


class Case(unittest.TestCase):
    KINDS = ("gh",)

    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir="/var/tmp")
        self.addCleanup(folder.cleanup)
        self.top = pathlib.Path(folder.name)
        self.certs = u.Certificates(self.top)
        self.resolver = w.Resolver(w.RESOLVER, lambda name, qtype: (0, [w.addr_rr(name, w.PUBLIC)] if qtype == 1 else [], [], []))
        self.addCleanup(self.resolver.close)
        w.resolvers(w.RESOLVER)
        self.host = u.Host(self.certs)
        self.addCleanup(self.host.close)
        self.token = self.host.c.gh
        self.vault = self.host.vault(lent=self.KINDS, env={"gh": self.token} if "gh" in self.KINDS else {"anthropic-key": self.host.c.anthropic_key})
        self.addCleanup(self.vault.close)
        self.gate = Gate(cfg=config(lent=bits(*self.KINDS), repos=REPOS), vault=self.vault.gate)
        self.addCleanup(self.gate.close)
        self.opening = threading.Lock()

    def serve(self, answer, kind=u.Upstream, alpn=None):
        context = self.certs.leaf("all", ",".join("DNS:" + h for h in xch.HOSTS))
        if alpn:
            context.set_alpn_protocols([alpn])
        self.up = kind(context, answer=answer)
        self.addCleanup(self.up.close)

    def stream(self, name=None):
        """A connection of the guest to port 443 of whatever has the public address."""
        with self.opening:
            o = self.vault.tcp(w.PUBLIC, 443)
        self.assertEqual(o.outcome, w.INSPECT)
        return o.sock

    def tls(self, host, alpn=("http/1.1",)):
        c = self.gate.trust(alpn).wrap_socket(self.stream(), server_hostname=host)
        c.settimeout(60)
        self.addCleanup(c.close)
        return c


def fields_of(got):
    return {n.decode().lower(): v.decode() for n, v in got.fields}


class Mixed(Case):
    """Requests for all sorts of repositories behind each other and beside each other: each with its own rights, and its own answer."""

    def setUp(self):
        super().setUp()
        self.seen, self.rng = {}, random.Random(SEED)
        self.serve(self.answer)

    def answer(self, conn, got):
        fields = fields_of(got)
        if fields.get("user-agent") == "agent-vm":
            _, text = ghapi.answer("POST", "/graphql", True, got.body, True)
            return ok(text, "200 OK", "Content-Type: application/json")
        number = re.search(rb"n(\d+)", got.target + got.body)[1].decode()
        self.seen.setdefault(number, []).append((fields.get("authorization"), conn))
        return ok(json.dumps({"n": number}).encode(), "200 OK", "Content-Type: application/json")

    def request(self, host, n):
        """(bytes, whether it goes out, and with what) of a request with the number @n."""
        bearer, basic = f"Bearer {self.token}", "Basic " + base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        api = [("GET", "/repos/acme/app/contents/n@", bearer), ("GET", "/repos/acme/lib/contents/n@", bearer),
               ("GET", "/repos/acme/secret/contents/n@", None), ("GET", "/repos/octo/pub/contents/n@", None), ("GET", "/users/n@", None),
               ("POST", "/repos/acme/app/issues", bearer), ("POST", "/repos/acme/lib/issues", False),
               ("POST", "/repos/acme/secret/issues", False), ("DELETE", "/repos/acme/app", False)]
        git = [("GET", "/acme/app/info/refs?service=git-upload-pack&n@", basic), ("GET", "/acme/app/info/refs?service=git-receive-pack&n@", basic),
               ("GET", "/acme/secret/info/refs?service=git-upload-pack&n@", None), ("GET", "/octo/pub/raw/main/n@", None),
               ("GET", "/acme/lib/info/refs?service=git-receive-pack&n@", False), ("GET", "/acme/secret/info/refs?service=git-receive-pack&n@", False)]
        method, target, creds = self.rng.choice(api if host == "api.github.com" else git)
        ours = placeholder("gh")
        auth = self.rng.choice([f"token {ours}", f"Bearer {ours}"] if host == "api.github.com" else
                               ["Basic " + base64.b64encode(f"x:{ours}".encode()).decode()])
        auth = self.rng.choice([auth, auth, None])
        body = json.dumps({"title": f"n{n}"}) if method == "POST" else ""
        text = f"{method} {target.replace('@', str(n))} HTTP/1.1\r\nHost: {host}\r\n" + (f"Authorization: {auth}\r\n" if auth else "")
        text += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        # What is listed has the login also without the placeholder: git asks without it first.
        return (text + "\r\n" + body).encode(), creds is not False, creds

    def check(self, host, first, count, how):
        c = Client(self.tls(host))
        made = [self.request(host, n) for n in range(first, first + count)]
        if how == "pipelined":  # in one piece, then in pieces that end anywhere
            data = b"".join(m for m, _, _ in made)
            cuts = [0, *sorted(self.rng.sample(range(1, len(data)), 5)), len(data)] if first % 2 else [0, len(data)]
            for a, b in zip(cuts, cuts[1:]):  # the answers have room in the sockets; one TLS connection is no thing for two threads
                c.sock.sendall(data[a:b])
            answers = [c.response() for _ in made]
        else:
            answers = []
            for m, _, _ in made:
                c.sock.sendall(m)
                answers.append(c.response())
        for n, (m, passes, creds), r in zip(range(first, first + count), made, answers):
            with self.subTest(request=m[:60], how=how, n=n):
                seen = [a for a, _ in self.seen.get(str(n), [])]
                if passes:
                    self.assertEqual((r.status, json.loads(r.body), seen), (200, {"n": str(n)}, [creds]))
                else:
                    self.assertEqual((r.status, seen), (403, []), r)

    def test_one_after_the_other_on_a_kept_connection(self):
        for i, host in enumerate(("api.github.com", "github.com")):
            self.check(host, 1000 * i, 60, "kept")
        self.apart()

    def test_pipelined(self):
        for i, host in enumerate(("api.github.com", "github.com") * 2):
            self.check(host, 1001 * i, 30, "pipelined")
        self.apart()

    def test_many_connections_at_once(self):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            jobs = [pool.submit(self.check, ("api.github.com", "github.com")[i % 2], 1000 * i, 20, ("kept", "pipelined")[i // 4])
                    for i in range(8)]
        for j in jobs:
            j.result()
        self.apart()

    def test_the_guest_may_offer_what_it_likes(self):
        for host in ("api.github.com", "github.com", "uploads.github.com"):
            self.assertEqual(self.tls(host, ("h2", "http/1.1")).selected_alpn_protocol(), "http/1.1")

    def apart(self):
        """What goes out without credentials shares no connection with what has one."""
        with_, without = set(), set()
        for each in self.seen.values():
            for creds, conn in each:
                (with_ if creds else without).add(conn)
        self.assertTrue(with_ and without)
        self.assertFalse(with_ & without)


class Server2(u.Upstream):
    """A service that speaks HTTP/2: @answer(fields, the connection) gives the body."""

    def serve(self, raw):
        raw.settimeout(60)
        try:
            c = self.context.wrap_socket(raw, server_side=True)
            self.conns.append(c)
            k = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))
            k.initiate_connection()
            c.sendall(k.data_to_send())
            heads = {}
            while data := c.recv(65536):
                for e in k.receive_data(data):
                    if isinstance(e, h2.events.RequestReceived):
                        heads[e.stream_id] = dict(e.headers)
                    elif isinstance(e, h2.events.StreamEnded):
                        body = self.answer(heads[e.stream_id], c)
                        k.send_headers(e.stream_id, [(":status", "200"), ("content-length", str(len(body)))])
                        k.send_data(e.stream_id, body, end_stream=True)
                c.sendall(k.data_to_send())
            c.close()
        except OSError:
            raw.close()


class Streams(Case):
    """GitHub's hosts speak HTTP/1.1 only, with the guest; where a host speaks HTTP/2, streams of one connection are told apart."""
    KINDS = ("claude-a", "anthropic-key")

    def test_streams_with_two_credentials_and_none(self):
        seen, on, rng = {}, {}, random.Random(SEED)

        def answer(fields, conn):
            n = re.search(r"n(\d+)", fields[":path"])[1]
            creds = (fields.get("authorization"), fields.get("x-api-key"))
            seen.setdefault(n, []).append(creds)
            on.setdefault(conn, set()).add(creds)
            return n.encode()
        self.serve(answer, Server2, "h2")
        c = test_gate.H2(self)
        self.addCleanup(c.sock.close)
        made = {}
        for i in range(90):
            which = rng.choice(["login", "key", "none"])
            fields = {"login": [("authorization", "Bearer " + placeholder("claude-a"))], "key": [("x-api-key", placeholder("anthropic-key"))],
                      "none": []}[which]
            made[c.send(2 * i + 1, path=f"/v1/models/n{i}", fields=fields)] = (i, which)
            if rng.random() < 0.3:  # some are waited for, so that they overlap in all ways
                sid = rng.choice(list(made))
                self.check(c, sid, *made.pop(sid), seen)
        for sid, (i, which) in made.items():
            self.check(c, sid, i, which, seen)
        self.assertEqual(({len(creds) for creds in on.values()}, len(set.union(*on.values()))), ({1}, 3))

    def check(self, c, sid, i, which, seen):
        status, _, body, _ = c.answer(sid)
        want = {"login": (f"Bearer {self.host.c.anthropic}", None), "key": (None, self.host.c.anthropic_key), "none": (None, None)}[which]
        self.assertEqual((status, body, seen.get(str(i))), (200, b"%d" % i, [want]), (i, which))


class Storage(http.server.BaseHTTPRequestHandler):
    """Where the objects lie, with a key of its own. The server has @objects and @seen."""

    def do_GET(self):
        self.server.seen.append((self.command, dict(self.headers)))
        data = self.server.objects.get(self.path[1:])
        self.reply(200 if data is not None else 404, data or b"")

    def do_PUT(self):
        self.server.seen.append((self.command, dict(self.headers)))
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if hashlib.sha256(data).hexdigest() == self.path[1:]:
            self.server.objects[self.path[1:]] = data
        self.reply(200, b"")

    def reply(self, status, data):
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


class Programs(Case):
    """The real git, git-lfs and gh: what they run in, and GitHub behind it."""

    def setUp(self):
        super().setUp()
        self.storage = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Storage)
        self.storage.objects, self.storage.seen = {}, []
        threading.Thread(target=self.storage.serve_forever, daemon=True).start()
        self.addCleanup(self.storage.server_close)
        self.addCleanup(self.storage.shutdown)
        self.requests, self.locks = [], {}
        self.basic = "Basic " + base64.b64encode(f"x-access-token:{self.token}".encode()).decode()
        self.serve(self.answer)
        self.proxy = Proxy(self.stream)
        self.addCleanup(self.proxy.close)
        self.repos = self.top / "repos"
        home = self.top / "home"
        home.mkdir()
        (home / ".gitconfig").write_text(
            "[user]\n\tname = a\n\temail = a@b\n[init]\n\tdefaultBranch = main\n[safe]\n\tdirectory = *\n"
            f'[credential]\n\thelper = "!f() {{ echo username=x-access-token; echo password={placeholder("gh")}; }}; f"\n'
            "[lfs]\n\tconcurrenttransfers = 2\n[lfs \"transfer\"]\n\tmaxretries = 1\n")
        ca = self.top / "guest.pem"
        ca.write_text(ssl.DER_cert_to_PEM_cert(self.gate.ca_der))
        self.env = {"HOME": str(home), "PATH": f"{LFS}:{os.environ['PATH']}", "HTTPS_PROXY": self.proxy.url, "GIT_SSL_CAINFO": str(ca),
                    "SSL_CERT_FILE": str(ca), "GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_NOSYSTEM": "1",
                    "GH_TOKEN": placeholder("gh"), "GH_PROMPT_DISABLED": "1", "GH_NO_UPDATE_NOTIFIER": "1"}
        self.git("lfs", "install", "--skip-repo")

    def git(self, *words, program="git", cwd=None, check=True, env=()):
        p = subprocess.run([program, *map(str, words)], cwd=cwd or self.top, env={**self.env, **dict(env)}, capture_output=True, text=True,
                           timeout=300, stdin=subprocess.DEVNULL)
        text = p.stdout + p.stderr
        self.assertNotIn(self.token, text)
        if check:
            self.assertEqual(p.returncode, 0, (words, text, self.requests))
        return text if check else (p.returncode, text)

    def made(self, name, data=None):
        """A bare repository on the service; with @data one that has it as an object of LFS at big.bin."""
        bare, work = self.repos / f"{name}.git", self.top / name.replace("/", "-")
        self.git("init", "-q", "--bare", bare)
        self.git("config", "http.receivepack", "true", cwd=bare)
        self.git("init", "-q", work)
        if data is not None:
            self.storage.objects[hashlib.sha256(data).hexdigest()] = data
            self.with_object(work, data)
            self.git("push", "-q", bare, "HEAD:main", cwd=work, env={"GIT_LFS_SKIP_PUSH": "1"})
        self.git("remote", "add", "origin", f"https://github.com/{name}.git", cwd=work)
        return work

    def with_object(self, work, data):
        self.git("lfs", "track", "*.bin", cwd=work)
        (work / "big.bin").write_bytes(data)
        self.git("add", ".", cwd=work)
        self.git("commit", "-q", "-m", "big", cwd=work)

    # --- github.com ---

    def answer(self, conn, got):
        fields, target = fields_of(got), got.target.decode()
        path = target.partition("?")[0]
        slug = "/".join(path.strip("/").split("/")[:2]).removesuffix(".git")
        auth = fields.get("authorization")
        if fields["host"] != "github.com":
            asks = fields.get("user-agent") == "agent-vm"
            if not asks:
                self.requests.append((got.method.decode(), target, auth))
            status, text = ghapi.answer(got.method.decode(), path, auth == f"Bearer {self.token}", got.body, asks)
            return ok(text, f"{status} X", "Content-Type: application/json; charset=utf-8")
        self.requests.append((got.method.decode(), target, auth))
        writes = "receive-pack" in target or "/info/lfs/locks" in path or b'"operation":"upload"' in got.body.replace(b" ", b"")
        if auth not in (None, self.basic):
            return ok(b"foreign", "500 X")
        if auth is None and (slug in PRIVATE or writes):
            return ok(b'{"message":"who are you?"}', "401 X", 'WWW-Authenticate: Basic realm="GitHub"', "Content-Type: application/json")
        if "/info/lfs/" in path:
            status, reply = self.lfs(got.method.decode(), path.partition("/info/lfs/")[2], json.loads(got.body) if got.body else {}, auth)
            return ok(json.dumps(reply).encode(), f"{status} X", "Content-Type: application/vnd.git-lfs+json")
        status, more, body = ghapi.git(self.repos, got.method.decode(), target, fields, got.body, auth is not None)
        return ok(body, f"{status} X", *(f"{k}: {v}" for k, v in more.items()))

    def lfs(self, method, what, asked, auth):
        """The batch API with basic transfers, and locks."""
        store = "http://127.0.0.1:%d/" % self.storage.server_address[1]
        if what == "objects/batch":
            def one(o):
                up = asked["operation"] == "upload"
                if not up and o["oid"] not in self.storage.objects:
                    return {**o, "error": {"code": 404, "message": "not there"}}
                action = {"href": store + o["oid"], "header": {"X-Signed": "yes"}}
                return {**o, "authenticated": True, "actions": {} if up and o["oid"] in self.storage.objects else
                        {asked["operation"]: action}}
            return 200, {"transfer": "basic", "objects": [one(o) for o in asked["objects"]]}
        if what == "locks" and method == "GET":
            return 200, {"locks": list(self.locks.values())}
        if what == "locks":
            lock = {"id": str(len(self.locks) + 1), "path": asked["path"], "locked_at": "2026-01-01T00:00:00Z", "owner": {"name": "me"}}
            self.locks[lock["id"]] = lock
            return 201, {"lock": lock}
        if what == "locks/verify":
            return 200, {"ours": list(self.locks.values()), "theirs": []}
        return 200, {"lock": self.locks.pop(what.split("/")[1])}

    def tearDown(self):
        for headers in self.storage.seen:
            self.assertNotIn("Authorization", headers[1])

    def auths(self, part):
        return {a for _, t, a in self.requests if part in t}


class Gh(Programs):
    """What of gh needs git; test_gh.py has the rest."""

    def gh(self, words, repo, cwd=None):
        words = words.replace("@R", repo).replace("@N", repo.split("/")[1]).split()
        return self.git(*words, program=ghapi.GH, cwd=cwd, check=False)

    def test_clone_and_checkout(self):
        clone, checkout = ghapi.WITH_GIT
        for name in ("acme/app", "acme/secret", "octo/pub"):
            work = self.made(name)
            for branch in ("main", "fix"):
                self.git("commit", "-q", "--allow-empty", "-m", f"of {branch}", cwd=work)
                self.git("push", "-q", self.repos / f"{name}.git", f"HEAD:{branch}", cwd=work)
        self.assertEqual(self.gh(clone, "acme/app")[0], 0)
        there = self.top / "there-app"
        self.assertEqual(self.gh(checkout, "acme/app", there)[0], 0)
        self.assertEqual(self.git("log", "-1", "--format=%D: %s", cwd=there).strip().split(", ")[0], "HEAD -> fix")
        self.assertEqual(self.auths("/acme/app"), {self.basic})
        self.assertEqual(self.auths("/graphql"), {f"Bearer {self.token}"})
        for words in ghapi.WITH_GIT:
            code, text = self.gh(words, "acme/secret", there)
            self.assertNotEqual(code, 0)
            self.assertIn("--repo acme/secret", text)
        self.assertEqual(self.auths("acme/secret"), set())
        self.assertEqual(self.gh(clone, "octo/pub")[0], 0)
        self.assertEqual(self.git("log", "--format=%s", cwd=self.top / "there-pub"), "of main\n")
        self.assertEqual(self.auths("octo/pub"), {None})


class Lfs(Programs):
    def test_listed_for_writing(self):
        data, work = os.urandom(300000), self.made("acme/app")
        self.with_object(work, data)
        self.git("push", "-q", "origin", "HEAD:main", cwd=work)
        oid = hashlib.sha256(data).hexdigest()
        self.assertEqual(self.storage.objects, {oid: data})
        self.git("clone", "-q", "https://github.com/acme/app.git", "again")
        self.assertEqual((self.top / "again/big.bin").read_bytes(), data)
        self.git("lfs", "lock", "big.bin", cwd=work)
        self.assertEqual([l["path"] for l in self.locks.values()], ["big.bin"])
        self.assertIn("big.bin", self.git("lfs", "locks", cwd=work))
        self.git("lfs", "unlock", "big.bin", cwd=work)
        self.assertEqual(self.locks, {})
        asked = {(m, t.partition("/info/lfs/")[2]) for m, t, a in self.requests if "/info/lfs/" in t}
        self.assertLessEqual({("POST", "objects/batch"), ("POST", "locks"), ("POST", "locks/verify"), ("POST", "locks/1/unlock")}, asked)
        self.assertEqual(self.auths("/info/lfs/"), {self.basic})

    def test_listed_for_reading(self):
        data = os.urandom(100000)
        self.made("acme/lib", data)
        self.git("clone", "-q", "https://github.com/acme/lib.git", "copy")
        copy = self.top / "copy"
        self.assertEqual((copy / "big.bin").read_bytes(), data)
        self.assertEqual(self.auths("/acme/lib"), {self.basic})
        before = len(self.requests)
        self.change(copy)
        self.cannot_write(copy, "acme/lib", "acme/lib is listed for reading only")
        self.assertEqual([r for r in self.requests[before:] if r[0] == "POST" and "git-upload-pack" not in r[1]], [])
        self.assertEqual((set(self.storage.objects), self.locks), ({hashlib.sha256(data).hexdigest()}, {}))

    def change(self, work):
        (work / "big.bin").write_bytes(os.urandom(1000))
        self.git("commit", "-q", "-a", "-m", "other", cwd=work)

    def cannot_write(self, work, slug, why):
        # Before an upload git-lfs asks for locks, unless it is told not to.
        no_locks = ("-c", f"lfs.https://github.com/{slug}.git/info/lfs.locksverify=false")
        for words in (("lfs", "push", "origin", "main"), (*no_locks, "lfs", "push", "origin", "main"), ("push", "origin", "HEAD:main"),
                      ("lfs", "lock", "big.bin")):
            code, text = self.git(*words, cwd=work, check=False)
            self.assertNotEqual(code, 0, (words, text))
            self.assertIn(why, text, words)

    def test_not_listed(self):
        data, pub = os.urandom(1000), os.urandom(100000)
        work = self.made("acme/secret", data)
        self.made("octo/pub", pub)
        self.git("clone", "-q", "https://github.com/octo/pub.git", "pub")
        self.assertEqual((self.top / "pub/big.bin").read_bytes(), pub)
        before = dict(self.storage.objects)
        self.change(work)
        self.change(self.top / "pub")
        for at, slug in ((work, "acme/secret"), (self.top / "pub", "octo/pub")):
            self.cannot_write(at, slug, f"--repo {slug}")
        shutil.rmtree(work / ".git/lfs/objects")
        code, text = self.git("lfs", "pull", cwd=work, check=False)
        self.assertIn("--repo acme/secret", text)
        self.assertEqual(self.storage.objects, before)
        self.assertEqual({a for *_, a in self.requests}, {None})
        self.assertEqual(self.locks, {})


if __name__ == "__main__":
    w.make_world()
    unittest.main()
