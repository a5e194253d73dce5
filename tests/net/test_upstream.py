#!/usr/bin/env python3
"""What the vault sends to the services and what it lets back (credentials page 4, 6, 8, 10, 11), with real TLS servers, its
sandbox on, and the test as wire, gate and launcher."""
import array
import base64
import contextlib
import errno
import fcntl
import gzip
import itertools
import json
import os
import re
import resource
import select
import signal
import socket
import ssl
import struct
import subprocess
import tempfile
import termios
import threading
import time
import unittest
import unittest.mock
import urllib.parse

import uplib as u
import vaulttest as w
import xch
from uplib import Exchange, Host, Stop, Upstream, mirror, ok

SAN = "san" in os.environ["AGENT_VM_BUILD"]
CLAUDE = [("claude-a", "bearer")]
CODEX = [("codex-a", "bearer")]
MESSAGES = ("api.anthropic.com", "POST", "/v1/messages")


def open_read(path):
    with open(path) as f:
        return f.read()


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.certs = u.Certificates(cls.folder.name)
        cls.good = cls.certs.leaf("good", ",".join("DNS:" + h for h in xch.HOSTS))

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        w.resolvers(w.RESOLVER)
        self.zone = {}
        self.r = w.Resolver(w.RESOLVER, self.answer)
        self.addCleanup(self.r.close)
        self.host = Host(self.certs)
        self.addCleanup(self.host.close)
        self.vaults = []

    def answer(self, name, qtype):
        addrs = self.zone.get(name, [w.PUBLIC] if name in xch.HOSTS else [])
        want = [w.addr_rr(name, a) for a in addrs if (qtype == 28) == (":" in a) and qtype in (1, 28)]
        return 0 if addrs else 3, want, [], []

    def vault(self, **kw):
        v = self.host.vault(**kw)
        self.addCleanup(v.close)
        self.vaults.append(v)
        return v

    def upstream(self, answer=mirror, context=None, **kw):
        up = Upstream(context or self.good, answer=answer, **kw)
        self.addCleanup(up.close)
        return up

    def tearDown(self):
        """No secret in any log or record, whatever the test did."""
        for v in self.vaults:
            with open(v.audit_path, "rb") as f:
                said = v.log().encode() + f.read()
            for n in self.host.c.needles():
                self.assertNotIn(n, said)
            self.assertNotIn("Sanitizer", v.log())
            self.assertNotIn("runtime error", v.log())

    def records(self, v, n=1, kind="request"):
        """Lines of the audit, when there are @n of @kind, or after a long while."""
        for _ in range(1500):
            lines = v.audit()
            if len([l for l in lines if l["k"] == kind]) >= n:
                break
            time.sleep(0.02)
        return lines

    def clean(self, a, body):
        for n in self.host.c.needles():
            self.assertNotIn(n, body)
            for _, value in a.fields:
                self.assertNotIn(n, value)

    def rss(self, v):
        with open(f"/proc/{v.pid}/statm") as f:
            return int(f.read().split()[1]) * 4096

    def until(self, true):
        for _ in range(1500):
            if true():
                return
            time.sleep(0.02)
        self.fail("did not happen")

    def soon(self, seconds, what):
        """Within them, with one of a few new vaults: this may be a busy machine."""
        times = []
        for _ in range(4):
            v = self.vault()
            t = time.monotonic()
            what(v)
            times.append(time.monotonic() - t)
            if times[-1] < seconds:
                return v
        self.fail(times)

    def refused(self, x, code, status):
        a, body, _ = x.all()
        self.assertEqual((a.code, a.status, body), (code, status, b""))


class Requests(Case):
    def test_credential_in_its_slot(self):
        up, v = self.upstream(), self.vault()
        a, body, _ = Exchange(v, *MESSAGES, body=b'{"model":"x"}', creds=CLAUDE, pairs=[("User-Agent", "claude")]).all()
        self.assertEqual((a.code, a.status), ("none", 200), v.log())
        got, = up.requests
        self.assertEqual(got.get("authorization"), [b"Bearer " + self.host.c.anthropic.encode()])
        self.assertEqual((got.method, got.target, got.body), (b"POST", b"/v1/messages", b'{"model":"x"}'))
        self.assertEqual(got.get("host"), [b"api.anthropic.com"])
        self.clean(a, body)
        self.assertIn(b"x" * len(self.host.c.anthropic), body)
        line, = [l for l in self.records(v) if l["k"] == "request"]
        self.assertEqual([line[k] for k in ("host", "method", "path", "cred", "verdict", "status", "up")],
                         ["api.anthropic.com", "POST", "/v1/messages", "claude-a", "forward", 200, 13])
        self.assertEqual(line["down"], len(body))
        self.assertTrue([l for l in self.records(v, 1, "echo") if l["k"] == "echo" and l["form"] == "raw"])

    def test_each_kind_gets_its_own(self):
        up, v, c = self.upstream(), self.vault(), self.host.c
        for host, method, path, creds, want in (
                ("api.anthropic.com", "POST", "/v1/messages", [("anthropic-key", "key")], {"x-api-key": c.anthropic_key}),
                ("api.anthropic.com", "POST", "/v1/messages", CLAUDE + [("anthropic-key", "key")],
                 {"authorization": "Bearer " + c.anthropic, "x-api-key": c.anthropic_key}),
                ("chatgpt.com", "POST", "/backend-api/codex/responses", CODEX, {"authorization": "Bearer " + c.openai}),
                ("chatgpt.com", "POST", "/backend-api/codex/responses", [("opencode-a", "bearer")],
                 {"authorization": "Bearer " + c.openai}),
                ("api.openai.com", "GET", "/v1/models", [("openai-key", "bearer")], {"authorization": "Bearer " + c.openai_key}),
                ("api.kimi.com", "POST", "/coding/v1/x", [("kimi", "key")], {"x-api-key": c.kimi}),
                ("api.kimi.com", "POST", "/coding/v1/x", [("kimi", "bearer")], {"authorization": "Bearer " + c.kimi})):
            a, body, _ = Exchange(v, host, method, path, creds=creds).all()
            self.assertEqual(a.status, 200, (host, creds, v.log()))
            got = up.requests.pop()
            self.assertEqual({n: got.get(n)[0].decode() for n in want}, want)
            self.assertEqual([n for n in ("authorization", "x-api-key") if got.get(n)], sorted(want))
            self.clean(a, body)

    def test_login_in_api_key_mode(self):
        u.write(self.host.codex_file, self.host.c.codex("apikey"))
        up, v = self.upstream(), self.vault(env={})
        a, _, _ = Exchange(v, "api.openai.com", "POST", "/v1/responses", creds=[("codex-key", "bearer")]).all()
        self.assertEqual(a.status, 200)
        self.assertEqual(up.requests[0].get("authorization"), [b"Bearer " + self.host.c.openai_key.encode()])
        # The login that is not there is not the key.
        self.refused(Exchange(v, "chatgpt.com", "POST", "/backend-api/codex/responses", creds=CODEX), "credential-unavailable", 503)

    def test_account_is_the_hosts(self):
        """attack-37: vault writes it, and only where it was asked for; the guest's value never goes out."""
        up, v = self.upstream(), self.vault()
        target = ("chatgpt.com", "POST", "/backend-api/codex/responses")
        Exchange(v, *target, creds=CODEX, flags=xch.ACCOUNT).all()
        self.assertEqual(up.requests.pop().get("chatgpt-account-id"), [u.ACCOUNT.encode()])
        Exchange(v, *target, creds=CODEX).all()
        self.assertEqual(up.requests.pop().get("chatgpt-account-id"), [])
        self.refused(Exchange(v, *target, creds=CODEX, pairs=[("ChatGPT-Account-Id", "other")]), "framing", 403)
        self.assertEqual(up.requests, [])

    def test_anonymous_and_foreign(self):
        up, v = self.upstream(), self.vault(opened=[("anthropic", "foreign")])
        a, body, _ = Exchange(v, "api.anthropic.com", "GET", "/unnamed", pairs=[("Accept-Encoding", "gzip")]).all()
        self.assertEqual(a.status, 200)
        self.assertNotIn(b"uthorization", up.bytes)
        Exchange(v, "api.anthropic.com", "GET", "/x", pairs=[("Authorization", "Bearer other")], flags=xch.FOREIGN).all()
        self.assertEqual(up.requests[-1].get("authorization"), [b"Bearer other"])
        self.refused(Exchange(v, "api.anthropic.com", "GET", "/x", pairs=[("Authorization", "Bearer other")]), "framing", 403)
        self.refused(Exchange(v, "api.openai.com", "GET", "/x", pairs=[("Authorization", "Bearer other")], flags=xch.FOREIGN),
                     "foreign-cred", 403)
        self.assertEqual(len(up.requests), 2)

    def test_bodies_both_ways(self):
        data = os.urandom(3 << 20)
        up, v = self.upstream(lambda c, got: ok(got.body)), self.vault()
        for length in (None, False):
            x = Exchange(v, *MESSAGES, body=data, creds=CLAUDE, hold=True, length=length)
            t = threading.Thread(target=lambda: (x.send(data), x.end()))
            t.start()
            a, body, _ = x.all()
            t.join()
            self.assertTrue(body == data and up.requests[-1].body == data)
            self.assertEqual((a.body, a.body_len), (xch.BODY_LENGTH, len(data)))
            self.assertEqual(len(up.requests[-1].get("content-length")), length is None)

    def test_nothing_is_kept_when_the_reader_is_slow(self):
        """Memory stays within the windows while 64 MiB wait on either side."""
        def big(c, got):
            c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 << 20))
            for _ in range(64):
                c.send(b"a" * (1 << 20))
        up = self.upstream(big)
        with unittest.mock.patch.dict(os.environ):
            os.environ.pop("MALLOC_PERTURB_", None)  # it makes every page resident
            v = self.vault()
        Exchange(v, *MESSAGES, creds=CLAUDE, body=b"x").close()
        x = Exchange(v, *MESSAGES, creds=CLAUDE)
        x.answer()
        time.sleep(1.5)
        v.settled_fds()  # it has taken what it takes
        before = self.rss(v)
        self.assertEqual(len(x.frames.body()), 64 << 20)
        if not SAN:  # which keeps what was freed
            self.assertLess(before, 16 << 20)
            self.assertLess(self.rss(v), before + (2 << 20))

    @unittest.skipIf(SAN, "the sanitizer's library wants to be the first")
    def test_reader_that_takes_all_at_the_wrong_moment(self):
        """When vault has stopped reading from the service and is about to look once more whether gate takes something."""
        def big(c, got):
            c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 << 20))
            for _ in range(8):
                c.send(b"a" * (1 << 20))
        up = self.upstream(big)
        slow = {"LD_PRELOAD": os.path.join(os.environ["AGENT_VM_BUILD"], "tests/net/libslowepoll.so")}
        with unittest.mock.patch.dict(os.environ, slow):
            v = self.vault()
        x = Exchange(v, *MESSAGES, creds=CLAUDE, body=b"x")
        x.sock.setblocking(False)
        got, end = 0, time.monotonic() + 300
        while got < 8 << 20 and time.monotonic() < end:
            time.sleep(0.02)
            with contextlib.suppress(BlockingIOError):
                while n := len(x.sock.recv(1 << 20)):
                    got += n
        self.assertGreater(got, 8 << 20)

    def test_head_204_304(self):
        said = {b"/v1/models": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", b"/a": b"HTTP/1.1 204 No Content\r\n\r\n",
                b"/b": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: x\r\n\r\n"}
        up, v = self.upstream(lambda c, got: said[got.target]), self.vault()
        a, body, _ = Exchange(v, "api.anthropic.com", "HEAD", "/v1/models", creds=CLAUDE).all()
        self.assertEqual((a.body, a.get("content-length"), body), (xch.BODY_NONE, [b"9"], b""))
        for path, status in (("/a", 204), ("/b", 304)):
            a, body, _ = Exchange(v, "api.anthropic.com", "GET", path).all()
            self.assertEqual((a.status, a.body, body), (status, xch.BODY_NONE, b""))
        self.assertEqual(len(up.conns), 2)

    def test_events_are_passed_on_at_once(self):
        go, over = threading.Event(), []

        def events(c, got):
            c.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            for i in itertools.count():
                go.wait(20)
                go.clear()
                if over:
                    break
                e = b"event: e%d\ndata: {}\n\n" % i
                c.sent = time.monotonic()
                c.send(b"%x\r\n%s\r\n" % (len(e), e))
            c.send(b"0\r\n\r\n")
        up, v = self.upstream(events), self.vault()
        x = Exchange(v, *MESSAGES, body=b"{}", creds=CLAUDE)
        self.assertEqual(x.answer().body, xch.BODY_STREAM)
        times = []
        for i in range(200):
            go.set()
            self.assertEqual(x.frames.next(), (xch.DATA, b"event: e%d\ndata: {}\n\n" % i))
            times.append(time.monotonic() - up.conns[0].sent)
            if i >= 19 and sorted(times)[len(times) // 4] < 0.05:  # a quarter, of more where the machine is busy
                break
        else:
            self.fail(times)
        over.append(True)
        go.set()
        self.assertEqual(x.frames.next()[0], xch.END)

    def test_many_at_once(self):
        bar = threading.Barrier(20)

        def together(c, got):
            bar.wait(30)
            return ok(got.target)
        up, v = self.upstream(together), self.vault()
        xs = [Exchange(v, "api.anthropic.com", "GET", f"/v1/models/m{i}", creds=CLAUDE, slot=i) for i in range(20)]
        self.assertEqual([x.all()[1] for x in xs], [b"/v1/models/m%d" % i for i in range(20)])
        self.assertEqual(len(up.conns), 20)

    def test_answer_before_the_body_has_ended(self):
        def early(c, got):
            raise Stop

        class Early(Upstream):
            def serve(self, raw):
                c = self.context.wrap_socket(raw, server_side=True)
                c.recv(4096)
                c.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
                time.sleep(60)
        up = Early(self.good)
        self.addCleanup(up.close)
        v = self.vault()
        x = Exchange(v, *MESSAGES, body=b"x", length=1 << 30, creds=CLAUDE, hold=True)
        x.send(b"y" * 100000)
        self.assertEqual((x.answer().status, x.frames.body()), (413, b"big"))
        x.send(b"y" * 100000)  # dropped
        x.close()

    def test_upgrade_is_a_relay(self):
        """attack-2: after 101 bytes are bytes; half-closes pass."""
        ph = b"\x81\x84abcd Bearer avm-claude-a-xwz7dmkfk925e6k9cukv26bcr8\r\nHTTP/1.1 200 OK\r\n\r\n"

        def ws(c, got):
            c.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                   b"Sec-WebSocket-Accept: x\r\n\r\nfirst")
            while data := c.sock.recv(65536):
                c.raw += data
                c.send(b"got:" + data)
            c.send(b"last")
            c.end()
            raise Stop
        up, v = self.upstream(ws), self.vault()
        x = Exchange(v, "chatgpt.com", "GET", "/backend-api/codex/responses", creds=CODEX, flags=xch.UPGRADE,
                     pairs=[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Version", "13")])
        a = x.answer()
        self.assertEqual((a.status, a.get("sec-websocket-accept"), a.get("upgrade")), (101, [b"x"], []))
        self.assertEqual(x.frames.next(), (xch.DATA, b"first"))
        x.send(ph)
        self.assertEqual(x.frames.next(), (xch.DATA, b"got:" + ph))
        x.end()
        self.assertEqual(x.frames.body(), b"last")
        self.assertIn(ph, up.conns[0].raw)
        got, = up.requests
        self.assertEqual((got.get("upgrade"), got.get("connection")), ([b"websocket"], [b"Upgrade"]))
        x.close()

    def rotated(self, n):
        old, self.host.c = self.host.c, u.Canaries(n)
        self.host.c.all += old.all
        u.write(self.host.codex_file, self.host.c.codex())

    def test_open_upgrades_need_no_search(self):
        """However often the login changed since they began."""
        def ws(c, got):
            c.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-You: " +
                   got.get("authorization")[0] + b"\r\n\r\nfirst")
            c.sock.recv(1)
            raise Stop
        up, v = self.upstream(ws), self.vault()
        xs = []
        for i in range(60):
            self.rotated(100 + i)
            x = Exchange(v, "chatgpt.com", "GET", "/backend-api/codex/responses", creds=CODEX, flags=xch.UPGRADE, slot=i)
            self.assertEqual(x.answer().status, 101, (i, v.log()))
            self.clean(x.a, b"")
            xs.append(x)
        for x in xs:
            self.assertEqual(x.frames.next(), (xch.DATA, b"first"))
            x.close()
        self.assertEqual(len([l for l in self.records(v, 60, "echo") if l["k"] == "echo"]), 60)

    def long_answers(self, v, count, write):
        """@count answers that do not end, each begun after write(i). The first refused, or None."""
        xs = []
        for i in range(count):
            write(i)
            xs.append(Exchange(v, "chatgpt.com", "POST", "/backend-api/codex/responses", body=b"x", creds=CODEX, slot=i))
            self.addCleanup(xs[-1].close)
            if xs[-1].answer().status != 200:
                return xs[-1]

    def endless(self, c, got):
        c.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        c.sock.recv(1)
        raise Stop

    def test_same_login_written_again_needs_no_new_search(self):
        up, v = self.upstream(self.endless), self.vault()
        self.assertIsNone(self.long_answers(v, 60, lambda i: u.write(self.host.codex_file, self.host.c.codex())))

    def test_log_says_nothing_when_it_cannot_be_searched(self):
        """The arena is full: neither an answer nor a line goes on that would not be looked through."""
        up, v = self.upstream(self.endless), self.vault()
        x = self.long_answers(v, 100, lambda i: self.rotated(200 + i))
        self.assertEqual((x.a.status, x.a.code), (503, "credential-unavailable"))
        u.write(self.host.claude_file, self.host.c.claude(200))
        xch.send(v.gate, xch.RENEW, 1, 9, bytes([xch.KINDS.index("claude-r")]) + bytes(7))
        for act in (0, 1):
            self.assertEqual(v.heard()[:3], bytes([xch.CTL_RENEW, 0, act]))
            said = b"said %s and %s" % (self.host.c.openai.encode(), self.host.c.anthropic.encode())
            v.control.send(struct.pack("<BBBBiq2048s", xch.CTL_RENEWED, 0, act, 0, 0, -1, said if act else b""))
        self.until(lambda: re.search(r"info x{200,}\n", v.log()))
        self.assertIn("no locked memory", v.log())

    def test_upgrade_that_is_not_taken(self):
        up, v = self.upstream(lambda c, got: ok(b"no", "404 Not Found")), self.vault()
        for _ in range(2):
            x = Exchange(v, "chatgpt.com", "GET", "/backend-api/codex/responses", creds=CODEX, flags=xch.UPGRADE)
            x.answer()
            self.assertEqual((x.a.status, x.frames.body()), (404, b"no"))
            x.end()
        self.assertEqual(len(up.conns), 1)


class Connections(Case):
    def test_kept_and_apart(self):
        """attack-38: a connection that carried a credential carries no other request than those with the same."""
        up, v = self.upstream(lambda c, got: ok()), self.vault(opened=[("anthropic", "foreign")])

        def ask(creds=(), path="/v1/models", **kw):
            self.assertEqual(Exchange(v, "api.anthropic.com", "GET", path, creds=creds, **kw).all()[0].status, 200)
            return up.requests[-1].conn
        self.assertEqual([ask(CLAUDE), ask(CLAUDE)], [0, 0])
        self.assertEqual([ask(), ask(), ask(CLAUDE)], [1, 1, 0])
        self.assertEqual([ask([("anthropic-key", "key")]), ask(CLAUDE + [("anthropic-key", "key")]), ask(CLAUDE)], [2, 3, 0])
        self.assertEqual(ask(flags=xch.FOREIGN, pairs=[("X-Api-Key", "other")]), 4)
        self.assertEqual(ask(), 1)

    def test_keepalive(self):
        """60 s: what lies between must not forget a connection on which nothing is said."""
        up, v = self.upstream(lambda c, got: ok()), self.vault()
        begin = time.monotonic()
        Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()
        found = []
        # Timer 2 is that of keepalive; when it is due, in ticks.
        timers = lambda: [l.split()[5].split(":") for l in open_read(f"/proc/{v.pid}/net/tcp").splitlines()[1:]
                          if l.split()[2].endswith(":01BB") and l.split()[3] == "01"]
        self.until(lambda: len(seen := timers()) == 1 and seen[0][0] == "02" and found.append(seen[0][1]) is None)
        left = int(found[0], 16) / os.sysconf("SC_CLK_TCK")
        self.assertTrue(55 < left + time.monotonic() - begin and left <= 60, (left, begin))

    def test_token_rotates_between_two_requests(self):
        up, v = self.upstream(), self.vault()
        Exchange(v, *MESSAGES, body=b"1", creds=CLAUDE).all()
        old, self.host.c = self.host.c, u.Canaries(1)
        u.write(self.host.claude_file, self.host.c.claude())
        a, body, _ = Exchange(v, *MESSAGES, body=old.anthropic.encode() + self.host.c.anthropic.encode(), creds=CLAUDE).all()
        self.assertEqual([r.get("authorization")[0].decode() for r in up.requests],
                         ["Bearer " + old.anthropic, "Bearer " + self.host.c.anthropic])
        self.assertEqual([r.conn for r in up.requests], [0, 1])
        # Both generations are searched for.
        self.clean(a, body)
        for n in old.needles():
            self.assertNotIn(n, body)
        self.host.c.all += old.all

    def test_rotation_on_the_same_file(self):
        """Written in place: another mtime and size."""
        up, v = self.upstream(), self.vault()
        Exchange(v, *MESSAGES, body=b"1", creds=CLAUDE).all()
        self.host.c = u.Canaries(22)
        with open(self.host.claude_file, "w") as f:
            f.write(self.host.c.claude())
        Exchange(v, *MESSAGES, body=b"1", creds=CLAUDE).all()
        self.assertEqual(up.requests[-1].get("authorization"), [b"Bearer " + self.host.c.anthropic.encode()])

    def test_closed_by_the_service_meanwhile(self):
        """A request on a kept connection that the service just closed goes out once more; one of which a byte was answered
        does not."""
        def once(c, got):
            if len(up.requests) == 1:
                return ok(b"1")
            if len(up.requests) == 2:
                raise Stop
            return ok(b"3")
        up, v = self.upstream(once), self.vault()
        self.assertEqual(Exchange(v, "api.anthropic.com", "GET", "/v1/models", creds=CLAUDE).all()[1], b"1")
        self.assertEqual(Exchange(v, "api.anthropic.com", "GET", "/v1/models", creds=CLAUDE).all()[1], b"3")
        self.assertEqual([r.conn for r in up.requests], [0, 0, 1])

    def test_answer_that_was_not_asked_for_is_nobodys(self):
        """In a TLS record of its own, but in the packet that the answer before it comes in."""
        said = threading.Event()

        def answer(c, got):
            c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
            c.send(ok(b"asked"))
            if len(up.requests) == 1:
                c.send(ok(b"not asked"))
            c.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
            said.set()
        up, v = self.upstream(answer), self.vault()
        for i in range(2):
            self.assertEqual(Exchange(v, "api.anthropic.com", "GET", "/v1/models", creds=CLAUDE).all()[1], b"asked")
            self.assertTrue(said.wait(60))  # the kernel waits no longer than 200 ms for the end of that packet
        self.assertEqual([r.conn for r in up.requests], [0, 1])

    def test_no_second_try_after_the_first_byte_or_with_a_body(self):
        def twice(c, got):
            if len(up.requests) % 2:
                return ok(b"1")
            if got.method == b"GET":
                c.send(b"HTTP/1.1 2")
            raise Stop
        up, v = self.upstream(twice), self.vault()
        for kw in (dict(method="GET", path="/v1/models"), dict(method="POST", path="/v1/messages", body=b"x")):
            n = len(up.requests)
            self.assertEqual(Exchange(v, "api.anthropic.com", creds=CLAUDE, **kw).all()[1], b"1")
            self.refused(Exchange(v, "api.anthropic.com", creds=CLAUDE, **kw), "upstream", 502)
            self.assertEqual(len(up.requests), n + 2)

    def test_redirect_is_not_followed(self):
        """attack-9"""
        evil = self.upstream(addr=w.PUBLIC2)
        self.zone["evil.example"] = [w.PUBLIC2]
        up = self.upstream(lambda c, got: ok(b"", "302 Found", "Location: https://evil.example/steal"))
        a, _, _ = Exchange(self.vault(), *MESSAGES, body=b"x", creds=CLAUDE).all()
        self.assertEqual((a.status, a.get("location")), (302, [b"https://evil.example/steal"]))
        time.sleep(0.3)
        self.assertEqual((len(evil.conns), len(evil.failed)), (0, 0))

    def test_addresses_are_raced(self):
        self.zone["api.anthropic.com"] = ["2001:db8::5", w.DEAD, w.PUBLIC]
        self.zone["api.openai.com"] = [w.PUBLIC6, w.PUBLIC]
        up, six = self.upstream(lambda c, got: ok()), self.upstream(lambda c, got: ok(b"6"), addr=w.PUBLIC6)
        self.soon(10, lambda v: self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[1], b"ok"))
        # IPv6, unless its answer or its connection is late, as on a busy machine; at the second time the names are known.
        for _ in range(5):
            v = self.vault()
            said = [Exchange(v, "api.openai.com", "GET", "/v1/models", creds=creds).all()[1] for creds in ([("openai-key", "bearer")], ())]
            if b"6" in said:
                break
        self.assertIn(b"6", said)

    def test_address_that_comes_late(self):
        """IPv6 leads nowhere, and the answer with IPv4 comes when it is being tried already, or has failed."""
        def late(name, qtype):
            if qtype == 1:
                time.sleep(0.5)
            return self.answer(name, qtype)
        self.r.zone = late
        self.zone.update({"api.anthropic.com": ["2001:db8::5", w.PUBLIC], "api.openai.com": ["fd12::5", w.PUBLIC]})
        up = self.upstream(lambda c, got: ok())
        for host, creds in (("api.openai.com", [("openai-key", "bearer")]), ("api.anthropic.com", CLAUDE)):
            self.soon(12, lambda v: self.assertEqual(Exchange(v, host, "GET", "/v1/models", creds=creds).all()[0].status, 200, v.log()))

    def test_many_of_one_family_leave_room_for_the_other(self):
        self.zone["api.anthropic.com"] = ["2001:db8::%x" % i for i in range(0x10, 0x24)] + [w.PUBLIC]
        def late(name, qtype):
            if qtype == 1:
                time.sleep(0.02)
            return self.answer(name, qtype)
        self.r.zone = late
        up, v = self.upstream(lambda c, got: ok()), self.vault()
        self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 200, v.log())

    def test_addresses_are_judged(self):
        """attack-8: the vault's own look-up, and each address by the rules; nothing inside is connected to."""
        inside = [self.upstream(addr=a) for a in (w.LAN, w.METADATA, w.LINK_LOCAL, "fd12::5", "100.64.0.1")]
        host = self.upstream(addr=w.HOST, ns=w.V)
        v = self.vault()
        for addr in (w.LAN, w.METADATA, w.LINK_LOCAL, "fd12::5", w.HOST, "127.0.0.1", "::1", "100.64.0.1", "0.0.0.0"):
            self.zone["api.anthropic.com"] = [addr]
            w.resolvers(w.RESOLVER, "127.0.0.1" if addr != w.LAN else w.RESOLVER2)  # the cache is dropped when it changes
            time.sleep(1.1)
            self.refused(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE), "upstream", 502)
        self.assertEqual([len(up.conns) + len(up.failed) for up in inside + [host]], [0] * 6)
        self.assertIn("may not reach", v.log())
        v = self.vault(flags=w.ALLOW_LAN)
        self.zone["api.anthropic.com"] = [w.LAN]
        self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 200)

    def test_no_network(self):
        up = self.upstream()
        self.refused(Exchange(self.vault(flags=w.NO_NETWORK), *MESSAGES, body=b"x", creds=CLAUDE), "upstream", 502)
        self.assertEqual(len(up.conns), 0)

    def test_refused_and_dead(self):
        v = self.soon(10, lambda v: self.refused(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE), "upstream", 502))
        self.zone["api.openai.com"] = [w.DEAD]
        t = time.monotonic()
        self.refused(Exchange(v, "api.openai.com", "GET", "/v1/models", creds=[("openai-key", "bearer")]), "upstream", 502)
        self.assertTrue(15 < time.monotonic() - t < 40)

    def test_silent_in_the_handshake(self):
        quiet = w.Listener(w.PUBLIC, 443, serve=lambda c: time.sleep(60))
        self.addCleanup(quiet.close)
        t = time.monotonic()
        self.refused(Exchange(self.vault(), *MESSAGES, body=b"x", creds=CLAUDE), "upstream", 502)
        self.assertTrue(8 < time.monotonic() - t < 30)

    def test_connect_to(self):
        """AGENT_VM_CONNECT_TO: that name there, on loopback too; the name in the certificate stays."""
        up = self.upstream(addr="127.0.0.1", port=0, ns=w.V)
        wrong = self.upstream(addr="127.0.0.1", port=0, ns=w.V, context=self.certs.leaf("wrong", "DNS:localhost,IP:127.0.0.1"))
        v = self.vault(connect_to=[("api.anthropic.com", 443, "127.0.0.1", up.port), ("chatgpt.com", 443, "127.0.0.1", wrong.port)])
        self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 200)
        self.refused(Exchange(v, "chatgpt.com", "POST", "/backend-api/codex/responses", body=b"x", creds=CODEX), "upstream", 502)
        self.assertEqual((len(wrong.conns), wrong.bytes), (0, b""))
        # The guest gets an address for it without a resolver, and what it opens there is inspected.
        addr, = v.dns("api.anthropic.com").addrs
        self.assertTrue(addr.startswith("198.19."), addr)
        self.assertEqual(v.tcp(addr, 443).outcome, w.INSPECT)
        self.assertNotIn("api.anthropic.com", [name for name, _ in self.r.asked])

    def test_by_proxy(self):
        asked = []

        def proxy(c):
            head = b""
            while b"\r\n\r\n" not in head:
                head += c.recv(4096)
            asked.append(head)
            c.sendall(b"HTTP/1.1 200 ok\r\n\r\n")
            with w.S:
                s = socket.create_connection((w.PUBLIC, 443))

            def pump(a, b):
                try:
                    while data := a.recv(65536):
                        b.sendall(data)
                    b.shutdown(socket.SHUT_WR)
                except OSError:
                    pass
            threading.Thread(target=pump, args=(s, c), daemon=True).start()
            pump(c, s)
        p = w.Listener(w.PROXY, 3128, serve=proxy)
        self.addCleanup(p.close)
        self.upstream()
        record = w.rec(8, w.rec(33, w.packed(w.PROXY)) + w.rec(41, 3128) + w.rec(42, "http://proxy:3128") + w.rec(43, "u:p"))
        v = self.vault(records=record)
        self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 200, v.log())
        self.assertIn(b"CONNECT api.anthropic.com:443 HTTP/1.1\r\n", asked[0])
        self.assertIn(b"Proxy-Authorization: Basic dTpw\r\n", asked[0])
        self.assertNotIn("api.anthropic.com", [name for name, _ in self.r.asked])


    def test_a_proxy_that_refuses_or_is_dead(self):
        """502, one line with the cause, and nothing goes around it."""
        def no(c):
            while b"\r\n\r\n" not in c.recv(4096):
                pass
            c.sendall(b"HTTP/1.1 407 no\r\n\r\n")
            c.close()
        direct = w.Listener(w.PUBLIC, 443)
        self.addCleanup(direct.close)
        record = w.rec(8, w.rec(33, w.packed(w.PROXY)) + w.rec(41, 3128) + w.rec(42, "http://proxy:3128"))
        for serve, said in ((no, "it answered 407 to CONNECT"), (None, "Connection refused")):
            p = w.Listener(w.PROXY, 3128, serve=serve) if serve else None
            v = self.vault(records=record)
            for _ in range(2):
                self.refused(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE), "upstream", 502)
            self.assertEqual(v.log().count(f"proxy http://proxy:3128: {said}"), 1, v.log())
            if p:
                self.assertGreaterEqual(p.seen, 2)
                p.close()
        self.assertEqual(direct.seen, 0)


class Costs(Case):
    def cpu(self, v):
        with open(f"/proc/{v.pid}/stat") as f:
            return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13])) / os.sysconf("SC_CLK_TCK")

    def test_waiting_costs_nothing(self):
        """A kept connection, one that is being made, an answer that does not come, a reader that does not read, a renewal."""
        def slow(c, got):
            if got.target == b"/v1/models":
                return ok()
            if got.target == b"/v1/models/big":
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (8 << 20))
                c.send(bytes(8 << 20))
            time.sleep(60)
        self.zone["chatgpt.com"] = [w.DEAD]
        up, v = self.upstream(slow), self.vault()
        ask = lambda path: Exchange(v, "api.anthropic.com", "GET", path, creds=CLAUDE)
        self.assertEqual(ask("/v1/models").all()[0].status, 200)
        xs = [ask("/v1/models/none"), ask("/v1/models/big"),
              Exchange(v, "chatgpt.com", "POST", "/backend-api/codex/responses", body=b"x", creds=CODEX)]
        u.write(self.host.claude_file, self.host.c.claude(100))
        xch.send(v.gate, xch.RENEW, 1, 9, bytes([xch.KINDS.index("claude-r")]) + bytes(7))
        self.assertTrue(v.heard())
        for _ in range(10):  # at first it has something to do
            before = self.cpu(v)
            time.sleep(2)
            if (used := self.cpu(v) - before) < 0.2:
                break
        self.assertLess(used, 0.2)
        for x in xs:
            x.close()

    def test_nothing_is_left_behind(self):
        """Whatever became of requests: descriptors and memory are as before."""
        def answer(c, got):
            if got.target == b"/v1/models/cut":
                c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
                raise Stop
            if got.target == b"/v1/models/junk":
                c.send(b"junk\r\n\r\n")
                raise Stop
            return ok()
        up, v = self.upstream(answer), self.vault()

        def round():
            for path in ("/v1/models", "/v1/models/cut", "/v1/models/junk", "/v1/organizations/x", "/v1/models/gone"):
                x = Exchange(v, "api.anthropic.com", "GET", path, creds=CLAUDE)
                if path == "/v1/models/gone":
                    x.close()
                    continue
                try:
                    x.all()
                except (EOFError, ConnectionError):
                    pass
                x.close()
            u.write(self.host.claude_file, self.host.c.claude())
        for _ in range(20):
            round()
        fds, rss = v.settled_fds(), self.rss(v)
        for _ in range(100):
            round()
        self.until(lambda: v.fds() <= fds + 1)
        if not SAN:
            self.assertLess(self.rss(v) - rss, 1 << 20)


class Records(Case):
    def starve(self, context, streams, n, head, piece, tail=None, **kw):
        """@streams answers of @n records with a byte each, all there at once, so that vault finds more whenever it looks; over another
        connection one request after the other."""
        first, ready = threading.Event(), threading.Event()

        def asked(got):
            """How many ask for them."""
            kinds, at = [], 24
            while got.startswith(b"PRI") and len(got) >= at + 9:
                kinds.append(got[at + 3])
                at += 9 + int.from_bytes(got[at:at + 3], "big")
            return kinds.count(1) or got.count(b"models?")

        class Prepared(Upstream):
            def serve(self, raw):
                there, out = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls, got = self.context.wrap_bio(there, out, server_side=True), b""
                raw.settimeout(60)
                with raw:
                    while (got.startswith(b"PRI") or not got.endswith(b"\r\n\r\n")) and asked(got) < streams:
                        try:
                            got += tls.read(65536)
                        except ssl.SSLWantReadError:
                            raw.sendall(out.read())
                            there.write(raw.recv(65536))
                        if asked(got):
                            first.set()
                    if not asked(got):
                        tls.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
                    for i in range(streams if asked(got) else 0):
                        tls.write(head(i))
                        for _ in range(n):
                            tls.write(piece(i))
                        if tail:
                            tls.write(tail(i))
                    data = out.read()
                    if asked(got):
                        ready.set()
                    raw.sendall(data)
                    while raw.recv(65536) and asked(got):
                        pass
        up = Prepared(context)
        self.addCleanup(up.close)
        v, took, over = self.vault(), [], threading.Event()

        def others():
            slot = streams
            while not over.is_set():
                slot += 1
                began = time.monotonic()
                Exchange(v, "api.anthropic.com", "GET", "/v1/models", creds=CLAUDE, slot=slot).all()
                took.append(time.monotonic() - began)
        xs = []
        for i in range(streams):  # on one connection
            xs.append(Exchange(v, "api.anthropic.com", "GET", "/v1/models", query="a", creds=CLAUDE, slot=1 + i, **kw))
            self.assertTrue(first.wait(20))
        self.assertTrue(ready.wait(120))
        began = time.monotonic()
        threads = [threading.Thread(target=others), *(threading.Thread(target=x.all) for x in xs[1:])]
        for t in threads:
            t.start()
        self.assertEqual(len(xs[0].all()[1]), n)
        for t in threads[1:]:
            t.join()
        whole = time.monotonic() - began
        over.set()
        threads[0].join()
        print(f"row {streams * n} records took {whole:.2f} s; meanwhile a request took {max(took):.3f} s at most, of {len(took)}", flush=True)
        self.assertGreater(whole, 0.3)
        self.assertLess(max(took), whole / 4)

    def test_records_of_a_byte_leave_time_for_others(self):
        n = 200_000 if SAN else 1_000_000
        self.starve(self.good, 1, n, lambda i: b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % n, lambda i: b"a")

    def test_frames_of_a_byte_leave_time_for_others(self):
        """As many as the windows have room for."""
        both = self.certs.leaf("both", "DNS:api.anthropic.com")
        both.set_alpn_protocols(["h2", "http/1.1"])
        self.starve(both, 8, 128 << 10, lambda i: (b"" if i else frame2(4, 0, 0) + frame2(4, 1, 0)) + headers2(1 + 2 * i, (":status", "200")),
                    lambda i: frame2(0, 0, 1 + 2 * i, b"a"), lambda i: frame2(0, 1, 1 + 2 * i), flags=xch.H2)

    def test_messages_without_end_before_the_hello(self):
        """OpenSSL skips HelloRequests for as long as more bytes are there."""
        sent = [0]

        def serve(raw):
            raw.settimeout(60)
            raw.recv(4096)
            with raw, contextlib.suppress(OSError):
                while sent[0] < 1 << 30:
                    raw.sendall((b"\x16\x03\x03\x40\0" + bytes(16384)) * 16)
                    sent[0] += 16 * 16389
        flood = w.Listener(w.PUBLIC, 443, serve=serve)
        self.addCleanup(flood.close)
        v = self.vault()
        self.refused(Exchange(v, *MESSAGES, creds=CLAUDE, body=b"{}"), "upstream", 502)
        self.assertLess(sent[0], 32 << 20)  # what lies in buffers

    def test_key_updates_without_end_end_the_connection(self):
        v = self.vault()
        with w.S:
            p = subprocess.Popen(["openssl", "s_server", "-accept", w.PUBLIC + ":443", "-tls1_3", "-cert", self.certs.dir / "good.pem",
                                  "-key", self.certs.dir / "good.key"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                 stderr=subprocess.DEVNULL, bufsize=0)
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        said = b""
        while b"ACCEPT" not in said:
            said += os.read(p.stdout.fileno(), 4096)
        x = Exchange(v, *MESSAGES, creds=CLAUDE, body=b"{}")
        while b"{}" not in said:
            said += os.read(p.stdout.fileno(), 4096)
        threading.Thread(target=p.stdout.read, daemon=True).start()
        for _ in range(100):  # each read by itself: s_server takes what it reads at once for one command
            with contextlib.suppress(BrokenPipeError):
                p.stdin.write(b"k\n")
            time.sleep(0.02)
        x.sock.settimeout(20)
        self.refused(x, "upstream", 502)
        p.stdin.close()


class Certificates(Case):
    def bad(self, context, why, v=None, records=0):
        up = self.upstream(context=context)
        v = v or self.vault()
        self.refused(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE), "upstream", 502)
        self.assertEqual((up.requests, up.bytes), ([], b""))
        self.assertRegex(v.log(), why)
        up.close()

    def test_bad_ones(self):
        names = "DNS:api.anthropic.com"
        self.bad(self.certs.leaf("other", "DNS:evil.example"), "(?i)hostname mismatch")
        self.bad(self.certs.leaf("ip", "IP:" + w.PUBLIC), "(?i)hostname mismatch")
        self.bad(self.certs.leaf("part", "DNS:a*.anthropic.com"), "(?i)hostname mismatch")
        self.bad(self.certs.leaf("old", names, expired=True), "expired")
        self.bad(self.certs.leaf("self", names, selfsigned=True), "self-signed")
        with tempfile.TemporaryDirectory() as d:
            self.bad(u.Certificates(d).leaf("stranger", names), "issuer certificate")

    def test_old_protocols(self):
        self.good.minimum_version = ssl.TLSVersion.TLSv1
        self.good.maximum_version = ssl.TLSVersion.TLSv1_1
        self.good.set_ciphers("ALL:@SECLEVEL=0")
        try:
            self.bad(self.good, "protocol")
        finally:
            type(self).good = self.certs.leaf("good", ",".join("DNS:" + h for h in xch.HOSTS))

    def test_tls_1_2_and_1_3(self):
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.certs.leaf("v", "DNS:api.anthropic.com")
            context.minimum_version = context.maximum_version = version
            up = self.upstream(context=context)
            self.assertEqual(Exchange(self.vault(), *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 200)
            up.close()

    def test_without_trust_nothing(self):
        self.bad(self.good, "no certificates to trust", v=self.vault(trust=b"none here\n"))

    def test_what_is_offered(self):
        """SNI, and http/1.1 alone when the request came over it."""
        seen = []
        context = self.certs.leaf("alpn", "DNS:api.anthropic.com")
        context.set_alpn_protocols(["h2", "http/1.1"])
        context.sni_callback = lambda s, name, c: seen.append(name)
        up = self.upstream(context=context)
        self.assertEqual(Exchange(self.vault(), *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 200)
        self.assertEqual((seen, up.conns[0].sock.selected_alpn_protocol()), (["api.anthropic.com"], "http/1.1"))


class Logins(Case):
    def ask(self, v, **kw):
        return Exchange(v, "api.anthropic.com", "GET", "/v1/models", creds=CLAUDE, **kw)

    def test_file_that_vanishes_and_comes_back(self):
        """attack-23: 503, and nothing goes out; the session goes on."""
        up, v = self.upstream(lambda c, got: ok()), self.vault()
        self.assertEqual(self.ask(v).all()[0].status, 200)
        os.unlink(self.host.claude_file)
        n = len(up.bytes)
        self.refused(self.ask(v), "credential-unavailable", 503)
        self.assertEqual(len(up.bytes), n)
        # Others are not touched.
        self.assertEqual(Exchange(v, "api.openai.com", "GET", "/v1/models", creds=[("openai-key", "bearer")]).all()[0].status, 200)
        u.write(self.host.claude_file, self.host.c.claude())
        self.assertEqual(self.ask(v).all()[0].status, 200)
        self.assertRegex(v.log(), "signed out(.|\n)*can be used again")

    def test_signed_out(self):
        up, v = self.upstream(lambda c, got: ok()), self.vault()
        u.write(self.host.claude_file, self.host.c.claude(accessToken=""))
        self.refused(self.ask(v), "credential-unavailable", 503)
        self.assertEqual(up.bytes, b"")

    def test_unparsable_for_a_while(self):
        up = self.upstream(lambda c, got: ok())
        for _ in range(4):
            u.write(self.host.claude_file, self.host.c.claude())
            v = self.vault()
            self.assertEqual(self.ask(v).all()[0].status, 200)
            with open(self.host.claude_file, "w") as f:
                f.write(self.host.c.claude()[:60])
            t = time.monotonic()
            status = self.ask(v).all()[0].status
            if (took := time.monotonic() - t) < 4:
                break
        self.assertEqual(status, 200)  # the last good one
        self.assertLess(took, 4)
        time.sleep(5.6)
        n = len(up.requests)
        self.refused(self.ask(v), "credential-unavailable", 503)
        self.assertEqual(len(up.requests), n)
        u.write(self.host.claude_file, self.host.c.claude())
        self.assertEqual(self.ask(v).all()[0].status, 200)

    def test_caught_in_the_middle_of_a_write(self):
        up = self.upstream(lambda c, got: ok())
        whole = self.host.c.claude()
        for _ in range(20):
            v = self.vault()
            with open(self.host.claude_file, "w") as f:
                f.write(whole[:80])
                f.flush()
                t = time.monotonic()
                x = self.ask(v)
                time.sleep(0.01)
                f.write(whole[80:])
                f.flush()
                took = time.monotonic() - t
                status = x.all()[0].status
                if took < 0.05:
                    break  # else it may have looked for the last time, after 60 ms
        self.assertEqual(status, 200)

    def test_files_that_are_not_taken(self):
        up, v = self.upstream(lambda c, got: ok()), self.vault()
        os.unlink(self.host.claude_file)
        os.mkfifo(self.host.claude_file)
        self.refused(self.ask(v), "credential-unavailable", 503)
        os.unlink(self.host.claude_file)
        os.mkdir(self.host.claude_file)
        self.refused(self.ask(v), "credential-unavailable", 503)
        os.rmdir(self.host.claude_file)
        with open(self.host.claude_file, "w") as f:
            f.write(self.host.c.claude() + " " * (1 << 20))
        self.refused(self.ask(v), "credential-unavailable", 503)
        self.assertRegex(v.log(), "no regular file(.|\n)*larger than 1 MiB")
        self.assertEqual(up.bytes, b"")

    def test_what_may_become_of_each_file_meanwhile(self):
        """Each login file that is gone, empty, half written, everybody's, a link, another account's: 503 and nothing goes out, or what it
        holds now does; the launcher is told once; when it is back the next request works."""
        h, c = self.host, self.host.c
        copilot = '{"copilotTokens":{"https://github.com:me":"%s"}}'
        c.gho = "gho_CANARY" + "d" * 30
        other = u.Canaries(1)
        other.gho = "gho_CANARY" + "e" * 30
        c.all += [c.gho, *other.all, other.gho]
        files = [  # where, its text for an account, the secret in it, a request with it, what the launcher is told
            (h.claude_file, lambda c: c.claude(), lambda c: c.anthropic, "api.anthropic.com", "/v1/models", "claude-a", "claude-a"),
            (h.codex_file, lambda c: c.codex(), lambda c: c.openai, "chatgpt.com", "/backend-api/codex/models", "codex-a", "codex-a"),
            (h.opencode_file, lambda c: c.opencode(), lambda c: c.kimi, "api.kimi.com", "/coding/v1/models", "kimi", "zai"),
            (h.copilot_file, lambda c: copilot % c.gho, lambda c: c.gho, "api.githubcopilot.com", "/models", "copilot", "copilot")]
        up = self.upstream(lambda c, got: ok(got.get("authorization")[0]))

        def rewrite(path, text):
            with open(path, "w") as f:
                f.write(text)

        def link(path, text):
            os.rename(path, path + ".real")
            os.symlink(os.path.basename(path) + ".real", path)

        def foreign(path, text):
            try:
                os.chmod(path, 0o644)  # so that it could be read
                os.chown(path, 4711, 4711)
            except OSError:  # who may not, or a user namespace without that user
                os.unlink(path)
        states = [  # what is done to it, whose secret goes out then, 0: nobody's; whether it takes 5 s
            ("gone", lambda path, text: os.unlink(path), 0, False),
            ("half or empty", lambda path, text: rewrite(path, text(c)[:40 if path in (h.codex_file, h.copilot_file) else 0]), 0, True),
            ("everybody's", lambda path, text: os.chmod(path, 0o602), 0, False),
            ("foreign", foreign, 0, False),
            ("unreadable", lambda path, text: os.chmod(path, 0), 0, False),  # root has no capabilities in there
            ("link to nothing", lambda path, text: (os.unlink(path), os.symlink("/nowhere", path)), 0, False),
            ("link", link, 1, False),
            ("another account's", lambda path, text: u.write(path, text(other)), 2, False)]
        for name, do, whose, slow in states:
            with self.subTest(name):
                for path, text, *_ in files:
                    u.write(path, text(c))
                v = self.vault(env={}, sources=(0, 1, 2, 3), program=0)

                def ask(to, path, kind):
                    n = len(up.requests)
                    a, body, _ = Exchange(v, to, "GET", path, creds=[(kind, "bearer")]).all()
                    self.clean(a, body)
                    return a.status, a.code, [r.get("authorization")[0].decode()[len("Bearer "):] for r in up.requests[n:]]
                for path, text, secret, to, target, kind, _ in files:
                    self.assertEqual(ask(to, target, kind), (200, "none", [secret(c)]), v.log())
                    do(path, text)
                if slow:
                    for _, _, secret, to, target, kind, _ in files:
                        self.assertEqual(ask(to, target, kind), (200, "none", [secret(c)]), v.log())
                    time.sleep(5.6)
                for path, text, secret, to, target, kind, told in files:
                    with self.subTest(kind):
                        for _ in range(2):
                            self.assertEqual(ask(to, target, kind), (200, "none", [secret((c, other)[whose - 1])]) if whose
                                             else (503, "credential-unavailable", []), v.log())
                        if not whose:
                            self.assertEqual(v.heard(), bytes((10, xch.KINDS.index(told))))
                        if os.path.lexists(path + ".real"):
                            os.unlink(path + ".real")
                        u.write(path, text(c))
                        self.assertEqual(ask(to, target, kind), (200, "none", [secret(c)]), v.log())
                self.assertEqual(v.heard(0.1), b"")
                self.assertNotIn("CANARY", v.log())

    def test_users_own_link_is_followed_but_not_into_what_guests_write(self):
        up = self.upstream(lambda c, got: ok())
        dots, project = os.path.join(self.host.dir, "dots"), os.path.join(self.host.dir, "project")
        for d in (dots, project, project + "/sub"):
            os.mkdir(d)
        for place, status in ((dots, 200), (project, 503), (project + "/sub", 503)):
            os.rename(self.host.claude_file, place + "/c.json")
            os.symlink(place + "/c.json", self.host.claude_file)
            v = self.vault(guards=[project])
            n = len(up.bytes)
            self.assertEqual(self.ask(v).all()[0].status, status, v.log())
            if status == 503:
                self.assertEqual(len(up.bytes), n)
                self.assertIn("lies in the project", v.log())
                v = self.vault()  # without the guard it is read: the test would see a hole
                self.assertEqual(self.ask(v).all()[0].status, 200, v.log())
            os.rename(place + "/c.json", self.host.claude_file)

    def test_secret_of_the_environment_that_comes_late(self):
        up, pipes = self.upstream(lambda c, got: ok()), {}
        v = self.vault(env={"openai-key": None}, pipes=pipes)
        x = Exchange(v, "api.openai.com", "GET", "/v1/models", creds=[("openai-key", "bearer")])
        time.sleep(0.3)
        self.assertEqual(up.requests, [])
        os.write(pipes["openai-key"], self.host.c.openai_key.encode() + b"\n")
        os.close(pipes["openai-key"])
        self.assertEqual(x.all()[0].status, 200)
        self.assertEqual(up.requests[0].get("authorization"), [b"Bearer " + self.host.c.openai_key.encode()])
        pipes = {}
        v = self.vault(env={"openai-key": None}, pipes=pipes)
        os.write(pipes["openai-key"], b"two words\n")
        os.close(pipes["openai-key"])
        self.refused(Exchange(v, "api.openai.com", "GET", "/v1/models", creds=[("openai-key", "bearer")]), "credential-unavailable",
                     503)

    GH = ("api.github.com", "GET", "/repos/acme/app"), [("gh", "bearer")]
    COPILOT = ("api.githubcopilot.com", "GET", "/models"), [("copilot", "bearer")]

    def test_ghs_answer_is_githubs_and_copilots(self):
        """One pipe for both; a kind of token that Copilot's service does not take is GitHub's alone, and nothing is nobody's."""
        up = self.upstream(lambda c, got: ok())
        for token, gh, copilot in (("gho_CANARY-0123456789", 200, 200), ("ghp_CANARY-0123456789", 200, 503), ("", 503, 503)):
            with self.subTest(token):
                pipes = {}
                v = self.vault(env={"gh": None}, shared=("copilot",), pipes=pipes)
                waits = [Exchange(v, *target, creds=creds) for target, creds in (self.GH, self.COPILOT)]
                time.sleep(0.2)
                n = len(up.requests)
                os.write(pipes["gh"], token.encode() + b"\n")
                os.close(pipes["gh"])
                self.assertEqual([x.all()[0].status for x in waits], [gh, copilot], v.log())
                self.assertEqual([r.get("authorization") for r in up.requests[n:]],
                                 [[b"Bearer " + token.encode()]] * [gh, copilot].count(200))
                for kind, status in (("gh", gh), ("copilot", copilot)):
                    if status == 503:
                        self.assertEqual(v.heard(), bytes((10, xch.KINDS.index(kind))))
                self.assertEqual(v.heard(1 if gh == 200 else 20), b"" if gh == 200 else Gh.AGAIN)
                self.assertNotIn("CANARY", v.log())

    def test_copilots_file_is_looked_at_each_time(self):
        up = self.upstream(lambda c, got: ok(got.get("authorization")[0]))
        target, creds = self.COPILOT
        file = '// of its program\n{"copilotTokens":{"https://github.com:me":"%s"}}'
        u.write(self.host.copilot_file, file % "gho_CANARY-0123456789")
        v = self.vault(env={}, sources=(3,))
        for token, status in (("gho_CANARY-0123456789", 200), ("gho_CANARY-9876543210", 200), ("ghp_CANARY-0123456789", 503),
                              ("gho_CANARY-0123456789", 200)):
            u.write(self.host.copilot_file, file % token)
            n = len(up.requests)
            answer, body, *_ = Exchange(v, *target, creds=creds).all()
            self.assertEqual(answer.status, status, v.log())
            self.assertEqual([r.get("authorization") for r in up.requests[n:]], [[b"Bearer " + token.encode()]] * (status == 200))
            self.assertNotIn(token.encode(), body)
        os.unlink(self.host.copilot_file)
        self.assertEqual(Exchange(v, *target, creds=creds).all()[0].status, 503)
        self.assertNotIn("CANARY", v.log())

    def arena_alone(self, v):
        """The secret is in locked memory that is left out of dumps, and in no other."""
        with open(f"/proc/{v.pid}/smaps") as f:
            maps = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", f.read())
        arena = [m for m in maps if {"lo", "dd", "wf"} <= set(m.partition("VmFlags:")[2].split())]
        self.assertEqual(len(arena), 1)
        with open(f"/proc/{v.pid}/mem", "rb") as f:
            for m in maps:
                if " rw" not in m.partition("\n")[0]:
                    continue
                lo, hi = (int(x, 16) for x in m.split()[0].split("-"))
                f.seek(lo)
                self.assertEqual(self.host.c.anthropic.encode() in f.read(hi - lo), m in arena, m.partition("\n")[0])

    def test_memory_that_cannot_be_locked(self):
        """No login is lent, and the rest goes on. Root locks whatever the limit says."""
        def locks():
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (8192, 8192))
        may = subprocess.run(["sh", "-c", "ulimit -l 8 && python3 -c 'import ctypes, mmap; m = mmap.mmap(-1, 1 << 20); "
                              "exit(ctypes.CDLL(None).mlock(ctypes.byref(ctypes.c_char.from_buffer(m)), 1 << 20) == 0)'"])
        if may.returncode:
            self.skipTest("this user may lock all memory")
        up, v = self.upstream(lambda c, got: ok()), self.vault(before=locks)
        self.assertIn("cannot be locked", v.log())
        self.refused(self.ask(v), "credential-unavailable", 503)
        self.refused(Exchange(v, "api.openai.com", "GET", "/v1/models", creds=[("openai-key", "bearer")]), "credential-unavailable", 503)
        self.assertEqual(up.bytes, b"")
        self.assertEqual(Exchange(v, "api.anthropic.com", "GET", "/x").all()[0].status, 200)

    def test_process_is_closed(self):
        """No core, no look into its memory by the same user; secrets are locked and kept out of dumps."""
        up, v = self.upstream(lambda c, got: ok()), self.vault()
        self.ask(v).all()
        with open(f"/proc/{v.pid}/limits") as f:
            self.assertRegex(f.read(), r"Max core file size +([01]) +\1 ")
        # Whoever has its user and no more sees nothing; of another process he does.
        bare = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        other = subprocess.Popen(bare + ["sleep", "60"])
        self.addCleanup(other.wait)
        self.addCleanup(other.kill)
        self.until(lambda: open_read(f"/proc/{other.pid}/comm") == "sleep\n")
        for name in ("environ", "maps", "mem"):
            look = bare + ["sh", "-c", "exec 3</proc/$1/$2", "sh"]
            self.assertEqual(subprocess.run(look + [str(other.pid), name]).returncode, 0)
            self.assertNotEqual(subprocess.run(look + [str(v.pid), name], stderr=subprocess.DEVNULL).returncode, 0, name)
        if not SAN:
            self.arena_alone(v)
        if SAN:  # which has a handler of its own
            return
        if os.geteuid() == 0 and open_read("/proc/sys/kernel/core_pattern") == "core\n":
            with tempfile.TemporaryDirectory() as d:  # another process would leave one
                self.assertTrue(self.dumps(subprocess.Popen(["sleep", "60"], cwd=d).pid, signal.SIGSEGV))
        for sig in (signal.SIGSEGV, signal.SIGABRT):
            self.assertFalse(self.dumps(v.pid, sig), sig)
            v.pid = 0
            v = self.vault()

    def dumps(self, pid, sig):
        """Whether a child leaves a core when it is killed, also where the limit was raised from outside."""
        with contextlib.suppress(PermissionError):
            resource.prlimit(pid, resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        os.kill(pid, sig)
        return os.WCOREDUMP(os.waitpid(pid, 0)[1])


class Gh(Case):
    """The token of gh, which the launcher asks for again when GitHub refuses it."""
    FIRST, SECOND, THIRD = (f"gho_CANARY{n}" + c * 26 for n, c in (("first", "A"), ("second", "B"), ("third", "C")))
    AGAIN = bytes([9, xch.KINDS.index("gh")])

    def setUp(self):
        super().setUp()
        self.host.c.all += [self.FIRST, self.SECOND, self.THIRD]
        self.good_tokens, self.was = [self.FIRST], []

        def answer(c, got):
            sent = got.get("authorization")[0].decode().split()[-1]
            # It gives back all tokens that it has ever seen.
            self.was.append(sent)
            return ok(" ".join(self.was).encode(), "200 OK" if sent in self.good_tokens else "401 Unauthorized")
        self.up = self.upstream(answer)

    GITHUB = ("api.github.com", "GET", "/repos/acme/app"), [("gh", "bearer")]
    COPILOT = ("api.githubcopilot.com", "GET", "/models"), [("copilot", "bearer")]

    def ask(self, v, want, what=GITHUB):
        x = Exchange(v, *what[0], creds=what[1])
        a, body, _ = x.all()
        x.close()
        self.assertEqual(a.status, want, v.log())
        self.clean(a, body)
        return body

    def says(self, v, *pieces, end=True, kind="gh"):
        """What the launcher sends when gh was asked again."""
        r, w_ = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        os.set_blocking(w_, True)
        v.control.sendmsg([bytes([9, xch.KINDS.index(kind)])], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [r]))])
        os.close(r)
        for piece in pieces:
            os.write(w_, piece)
        if end:
            os.close(w_)
        return w_

    def test_a_refused_token_is_replaced_and_never_comes_back(self):
        v = self.vault(env={"gh": self.FIRST})
        self.ask(v, 200)
        self.assertEqual(v.heard(0.2), b"")
        self.good_tokens = [self.SECOND]
        n = len(self.up.requests)
        self.ask(v, 401)  # the guest hears it; we do not try again by ourselves
        self.assertEqual(len(self.up.requests), n + 1)
        self.assertEqual(v.heard(), self.AGAIN)
        for _ in range(20):
            self.ask(v, 401)
        self.assertEqual(v.heard(0.2), b"")  # no more than once a minute
        self.says(v, self.SECOND.encode() + b"\n")
        self.until(lambda: "gh gave another token" in v.log())
        body = self.ask(v, 200)
        self.assertEqual(body.count(b"x" * len(self.FIRST)), len(self.was))  # what clean() looked for was there
        self.assertEqual(self.was[-1], self.SECOND)
        self.assertEqual(v.heard(0.2), b"")
        # The connection that carried the old one was not used again.
        self.assertEqual(len(self.up.conns), 2)

    def test_what_is_no_token_changes_nothing(self):
        v = self.vault(env={"gh": self.FIRST})
        self.ask(v, 200)
        for said in ((b"\0\0",), (b"gho_CANARYfirst\ngho_CANARYsecond\n",), (self.SECOND.encode(), b"\n\0"), (b"a b",),
                     (b"x" * 20000,), (b"gho_\x1b[2J",)):
            with self.subTest(said[0][:20]):
                n = v.log().count("what there was stays")
                self.says(v, *said)
                self.until(lambda: v.log().count("what there was stays") == n + 1)
                self.ask(v, 200)
        self.says(v, self.FIRST.encode())
        self.until(lambda: "gh has no other token" in v.log())
        self.ask(v, 200)

    NONE = bytes([10, xch.KINDS.index("gh")])

    def test_a_host_that_signs_out_of_gh_and_in_again(self):
        """gh auth logout does not end the token at GitHub: we do not send it any more, nor let it come back."""
        for said in (b"\0",), (b"",), (b"\n",):
            with self.subTest(said):
                v = self.vault(env={"gh": self.FIRST})
                self.good_tokens, self.was = [self.FIRST, self.SECOND], []
                self.ask(v, 200)
                n = len(self.up.bytes)
                self.says(v, *said)
                self.assertEqual(v.heard(), self.NONE)
                self.ask(v, 503)
                self.assertEqual(v.heard(), self.AGAIN)
                self.ask(v, 503)
                self.assertEqual(len(self.up.bytes), n)
                self.assertEqual(v.heard(0.2), b"")  # neither said nor asked for at each request
                self.says(v, b"\0\0")
                self.ask(v, 503)
                for _ in range(2):  # the same account, then another one
                    self.says(v, (self.FIRST if said == (b"",) else self.SECOND).encode() + b"\n")
                    self.until(lambda: "login gh: can be used again" in v.log())
                    body = self.ask(v, 200)  # the first one, which the service gives back, is still known
                    self.assertEqual(body.count(b"x" * len(self.FIRST)), len(self.was))
                self.assertEqual(v.log().count("login gh: can be used again"), 1)
                self.assertEqual(v.log().count("gh gave no token"), 1)
                self.says(v, b"\0")
                self.assertEqual(v.heard(), self.NONE)  # told again

    def test_a_token_that_did_not_come_is_asked_for_when_it_is_needed(self):
        """gh that was too slow at launch, or whose keyring was locked."""
        pipes = {}
        v = self.vault(env={"gh": None}, pipes=pipes)
        os.write(pipes["gh"], b"\0\0")
        os.close(pipes["gh"])
        self.assertEqual(v.heard(), self.NONE)
        self.ask(v, 503)
        self.assertEqual(v.heard(), self.AGAIN)
        self.ask(v, 503)
        self.assertEqual(v.heard(0.2), b"")  # no more than once a minute
        end = self.says(v, end=False)
        x = Exchange(v, *self.GITHUB[0], creds=self.GITHUB[1])
        time.sleep(0.2)
        os.write(end, self.FIRST.encode())
        os.close(end)
        self.assertEqual(x.all()[0].status, 200)  # it waited

    def test_a_token_that_github_refuses_and_gh_still_has_is_told(self):
        v = self.vault(env={"gh": self.FIRST})
        self.good_tokens = []
        self.ask(v, 401)
        self.assertEqual(v.heard(), self.AGAIN)
        self.says(v, self.FIRST.encode())
        self.assertEqual(v.heard(), self.NONE)
        self.ask(v, 401)  # GitHub's own answer
        self.assertIn("GitHub refuses the token that gh has", v.log())

    def not_read(self, end):
        gone = select.poll()
        gone.register(end, 0)
        self.assertTrue(gone.poll(40000))
        with self.assertRaises(BrokenPipeError):
            os.write(end, b"\n")
        os.close(end)

    def test_one_that_does_not_come_is_not_waited_for(self):
        v = self.vault(env={"gh": self.FIRST})
        end = self.says(v, self.SECOND.encode(), end=False)
        self.ask(v, 200)  # at once, with the old one
        self.assertEqual(self.was[-1], self.FIRST)
        self.says(v, self.THIRD.encode())  # a new question ends the old one
        self.until(lambda: "gh gave another token" in v.log())
        self.not_read(end)
        self.good_tokens = [self.THIRD]
        self.ask(v, 200)
        end = self.says(v, self.SECOND.encode(), end=False)
        self.not_read(end)  # after 15 s
        self.until(lambda: "what there was stays" in v.log())
        self.assertEqual(v.log().count("what there was stays"), 1)
        self.ask(v, 200)

    def test_copilots_is_replaced_with_githubs_where_it_is_one(self):
        v = self.vault(env={"gh": self.FIRST}, shared=("copilot",))
        self.ask(v, 200, self.COPILOT)
        self.good_tokens = [self.SECOND]
        self.ask(v, 401, self.COPILOT)
        self.assertEqual(v.heard(), self.AGAIN)
        self.says(v, self.SECOND.encode())
        self.until(lambda: "gh gave another token" in v.log())
        for what in self.COPILOT, self.GITHUB:
            self.ask(v, 200, what)
            self.assertEqual(self.was[-1], self.SECOND)
        self.says(v, b"ghp_" + self.THIRD.encode())  # none that Copilot's service takes
        self.until(lambda: v.log().count("gh gave another token") == 2)
        self.assertEqual(v.heard(), bytes([10, xch.KINDS.index("copilot")]))
        self.ask(v, 503, self.COPILOT)
        self.says(v, kind="copilot")  # which has no pipe of its own
        self.assertEqual(v.wait(), 1)

    def test_copilots_alone(self):
        v = self.vault(env={"copilot": self.FIRST})
        self.ask(v, 200, self.COPILOT)
        self.good_tokens = [self.SECOND]
        self.ask(v, 401, self.COPILOT)
        self.assertEqual(v.heard(), bytes([9, xch.KINDS.index("copilot")]))
        self.says(v, self.SECOND.encode(), kind="copilot")
        self.until(lambda: "gh gave another token" in v.log())
        self.ask(v, 200, self.COPILOT)

    def test_where_nothing_is_lent_there_is_none(self):
        v = self.vault(lent=("claude-a",))
        self.says(v)
        self.assertEqual(v.wait(), 1)
        self.assertIn("the launcher is not understood", v.log())


class Gate(Case):
    """attack-35: a gate that was taken over."""

    def test_lies(self):
        up, v = self.upstream(), self.vault(lent=[k for k in xch.KINDS if k not in ("moonshot", "copilot", "gh")])
        c = CLAUDE
        plain = [("Accept-Encoding", "identity")]
        for why, code, args, kw in (
                ("a path that is not of the list", "path-denied", ("api.anthropic.com", "POST", "/v1/organizations/x"), dict(creds=c)),
                ("never", "path-denied", ("api.anthropic.com", "POST", "/api/oauth/claude_cli/create_api_key"), dict(creds=c)),
                ("a class that is off", "path-denied", ("api.anthropic.com", "GET", "/v1/mcp_servers"), dict(creds=c)),
                ("another method", "path-denied", ("api.anthropic.com", "DELETE", "/v1/messages"), dict(creds=c)),
                ("OPTIONS", "method", ("api.anthropic.com", "OPTIONS", "/v1/messages"), dict(creds=c)),
                ("another host", "wrong-host", ("api.openai.com", "POST", "/v1/responses"), dict(creds=c)),
                ("token endpoint", "wrong-host", ("platform.claude.com", "POST", "/v1/oauth/token"), dict(creds=c)),
                ("a host that is not lent", "host", ("api.moonshot.ai", "GET", "/v1/models"), dict()),
                ("GitHub", "host", ("api.github.com", "GET", "/user"), dict()),
                ("another slot", "slot", ("api.anthropic.com", "POST", "/v1/messages"), dict(creds=[("claude-a", "key")])),
                ("a refresh token", "wrong-host", ("api.anthropic.com", "POST", "/v1/messages"), dict(creds=[("claude-r", "bearer")])),
                ("not lent", "host", ("api.githubcopilot.com", "GET", "/models"), dict(creds=[("copilot", "bearer")])),
                ("two of one header", "cred-twice", ("api.anthropic.com", "POST", "/v1/messages"), dict(creds=c + c)),
                ("two elsewhere", "cred-twice", ("chatgpt.com", "POST", "/backend-api/codex/responses"), dict(creds=CODEX + CODEX)),
                ("authorization in the fields", "framing", ("api.anthropic.com", "POST", "/v1/messages"),
                 dict(creds=c, pairs=plain + [("Authorization", "Bearer x")])),
                ("host in the fields", "framing", ("api.anthropic.com", "POST", "/v1/messages"),
                 dict(creds=c, pairs=plain + [("Host", "evil.example")])),
                ("framing in the fields", "framing", ("api.anthropic.com", "POST", "/v1/messages"),
                 dict(creds=c, pairs=plain + [("Transfer-Encoding", "chunked")])),
                ("a range", "framing", ("api.anthropic.com", "POST", "/v1/messages"),
                 dict(creds=c, pairs=plain + [("Range", "bytes=0-9")])),
                ("a coding", "encoding", ("api.anthropic.com", "POST", "/v1/messages"),
                 dict(creds=c, pairs=[("Accept-Encoding", "gzip")])),
                ("no word of codings", "encoding", ("api.anthropic.com", "POST", "/v1/messages"),
                 dict(raw=xch.request("api.anthropic.com", "POST", "/v1/messages", creds=c))),
                ("an upgrade elsewhere", "upgrade", ("api.anthropic.com", "GET", "/v1/models"), dict(flags=xch.UPGRADE)),
                ("a foreign credential", "foreign-cred", ("api.anthropic.com", "GET", "/x"),
                 dict(flags=xch.FOREIGN, pairs=[("Authorization", "Bearer other")]))):
            with self.subTest(why):
                x = Exchange(v, *args, **kw)
                a = x.answer()
                self.assertEqual(a.code, code)
                self.assertEqual(x.frames.body(), b"")
                x.close()
        self.assertEqual((len(up.conns), up.bytes), (0, b""))
        self.assertIn("gate let a request pass", v.log())

    def test_messages_that_end_the_session(self):
        good = xch.request(*MESSAGES)
        other, far = socket.socketpair()
        dgram, far2 = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for why, m, fds in (
                ("no descriptor", good, []), ("short", good[:20], [other.fileno()]), ("longer", good + b"x", [other.fileno()]),
                ("another version", b"\2" + good[1:], [other.fileno()]), ("unknown type", xch.msg(0x7E, 1, 1), []),
                ("an answer", xch.msg(xch.DIALLED, 1, 1, bytes(8)), []), ("no stream", good, [dgram.fileno()]),
                ("unknown host", xch.request(24), [other.fileno()]),
                ("method", good[:35] + b"\x09" + good[36:], [other.fileno()]),
                ("a line in a value", xch.request(*MESSAGES, pairs=[("X", "a\r\nAuthorization: b")]), [other.fileno()]),
                ("a line in a path", xch.request("api.anthropic.com", "GET", "/x HTTP/1.1\r\nA: b"), [other.fileno()]),
                ("a path that climbs", xch.request("api.anthropic.com", "GET", "/v1/messages/../x"), [other.fileno()]),
                ("renewal of an access token", xch.msg(xch.RENEW, 1, 1, b"\0" + bytes(7)), []),
                ("dial of what is not there, with a descriptor", xch.net_dial(1, 1), [other.fileno()]),
                ("a note with a query", xch.msg(xch.NOTE, 1, 1, struct.pack("<QQIHBBBB6x120s", 0, 0, 0, 403, 0, 0, 8, 255,
                                                                            b"/v1?key=1")), [])):
            with self.subTest(why):
                v = self.vault()
                xch.raw_send(v.gate, m, fds)
                self.assertEqual(v.wait(), 1)
                self.assertIn("gate broke the rules", v.log())
        for s in (other, far, dgram, far2):
            s.close()

    def test_frames_that_cut_the_exchange(self):
        go = threading.Event()  # no answer before they are on their way
        up, v = self.upstream(lambda c, got: go.wait(60) and mirror(c, got)), self.vault()
        post = dict(creds=CLAUDE, hold=True)
        for why, kw, sent in (
                ("more than its length", dict(body=b"x" * 5), xch.data_frames(b"x" * 6)),
                ("less than its length", dict(body=b"x" * 5), xch.data_frames(b"x" * 4) + xch.frame(xch.END)),
                ("a body that was not announced", dict(), xch.data_frames(b"x")),
                ("an unknown frame", dict(body=b"x"), struct.pack("<IB3x", 0, 9)),
                ("an empty one", dict(body=b"x"), struct.pack("<IB3x", 0, 1)),
                ("a huge one", dict(body=b"x"), struct.pack("<IB3x", 1 << 30, 1) + b"x"),
                ("an answer", dict(body=b"x"), xch.frame(xch.ANSWER, bytes(32))),
                ("closed without an end", dict(body=b"x", length=False), None)):
            with self.subTest(why):
                n = len(up.requests)
                go.clear()
                x = Exchange(v, *MESSAGES, **kw, **post)
                if sent is None:
                    x.close()
                    go.set()
                else:
                    x.sock.sendall(sent)
                    go.set()
                    with self.assertRaises((EOFError, ConnectionError)):
                        x.all()
                time.sleep(0.1)
                # The service was cut as well, and never saw the end of a request.
                self.assertEqual([r.body for r in up.requests[n:]], [] if kw.get("body") else [b""] * len(up.requests[n:]))
        self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 200)

    def test_an_answer_that_ends_with_its_connection(self):
        """By TLS's own end: a FIN alone may be anybody's, and is a cut. What is framed is whole without either."""
        framed = {b"length": b"Content-Length: 6\r\n\r\nabcdef", b"cut": b"Content-Length: 9\r\n\r\nabcdef",
                  b"chunked": b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n0\r\n\r\n",
                  b"cutchunk": b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n"}

        def answer(c, got):
            how, kind = got.target[1:].split(b"-")
            c.send(b"HTTP/1.%d 200 OK\r\n" % (kind != b"old") + framed.get(kind, b"\r\nabcdef"))
            if how == b"notify":
                c.end()
            raise Stop
        self.upstream(answer)
        v = self.vault()
        for path in ("/notify-none", "/notify-old", "/notify-length", "/bare-length", "/notify-chunked", "/bare-chunked"):
            self.assertEqual(Exchange(v, "api.anthropic.com", "GET", path).all()[1], b"abcdef", path)
        for path in ("/bare-none", "/bare-old", "/notify-cut", "/bare-cut", "/notify-cutchunk", "/bare-cutchunk"):
            with self.assertRaises((EOFError, ConnectionError), msg=path):
                Exchange(v, "api.anthropic.com", "GET", path).all()

    def test_goes_away(self):
        """The guest hung up: the connection to the service ends, too."""
        gone = threading.Event()

        def wait(c, got):
            c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nab")
            if not c.sock.recv(1):
                gone.set()
            raise Stop
        up, v = self.upstream(wait), self.vault()
        x = Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE)
        x.answer()
        x.close()
        self.assertTrue(gone.wait(60))

    def test_more_than_may_be_in_flight(self):
        """Gate has 128 at once, and asks of its own; those that just ended still have a place here."""
        up, pipes = self.upstream(lambda c, got: ok()), {}
        v = self.vault(env={"openai-key": None}, pipes=pipes)
        ask = lambda slot: Exchange(v, "api.openai.com", "GET", "/v1/models", creds=[("openai-key", "bearer")], slot=slot)
        xs = [ask(i) for i in range(144)]  # they wait for their login, and for nothing that a busy machine is late with
        x = ask(144)
        with self.assertRaises((EOFError, ConnectionError)):
            x.all()
        os.write(pipes["openai-key"], self.host.c.openai_key.encode() + b"\n")
        os.close(pipes["openai-key"])
        # None is cut; of 144 handshakes at once some may take more than 10 s there.
        self.assertEqual({x.all()[0].status for x in xs} - {502}, {200})
        self.assertEqual(ask(0).all()[0].status, 200)

    def test_notes_become_records(self):
        v = self.vault()
        note = struct.pack("<QQIHBBBB6x120s", 7, 8, 9, 403, xch.HOSTS.index("chatgpt.com"), 2, xch.CODES.index("path-denied"),
                           xch.KINDS.index("codex-a"), b"/backend-api/wham/tasks")
        xch.raw_send(v.gate, xch.msg(xch.NOTE, 0, 0, note))
        line, = [l for l in self.records(v) if l["k"] == "request"]
        self.assertEqual([line[k] for k in ("host", "method", "path", "cred", "verdict", "code", "status", "up", "down", "ms")],
                         ["chatgpt.com", "POST", "/backend-api/wham/tasks", "codex-a", "refuse", "path-denied", 403, 7, 8, 9])

    def test_violations_are_told_once_a_host(self):
        v = self.vault()

        def note(host, code, kind="codex-a", n=1):
            m = struct.pack("<QQIHBBBB6x120s", 0, 0, 0, 403, xch.HOSTS.index(host), 2, xch.CODES.index(code),
                            xch.KINDS.index(kind) if kind else 0xff, b"/x")
            for _ in range(n):
                xch.raw_send(v.gate, xch.msg(xch.NOTE, 0, 0, m))

        note("chatgpt.com", "path", n=40)  # no violation
        note("chatgpt.com", "path-denied", None, 40)  # without a login
        note("chatgpt.com", "path-denied", n=19)
        note("api.openai.com", "wrong-host", n=19)
        self.records(v, 118)
        self.assertEqual(v.heard(2), b"")
        note("api.openai.com", "stale", n=41)
        note("chatgpt.com", "foreign-cred", None)
        for host in ("api.openai.com", "chatgpt.com"):
            self.assertEqual(v.heard(), bytes((7, xch.HOSTS.index(host))))
            self.assertIn(f"20 requests to {host} within a minute", v.log())
        # What vault itself refuses counts, too, and the session goes on.
        for _ in range(20):
            x = Exchange(v, "api.anthropic.com", "POST", "/v1/organizations/x", creds=CLAUDE)
            self.assertEqual(x.answer().code, "path-denied")
            x.close()
        self.assertEqual(v.heard(), bytes((7, xch.HOSTS.index("api.anthropic.com"))))
        self.assertEqual(v.heard(2), b"")

    def test_echoes_are_told_as_their_count_doubles_and_at_the_end(self):
        up, v = self.upstream(), self.vault()
        echo = lambda n, path=b"/v1/models": struct.pack("<BBHI120s", 8, xch.HOSTS.index("api.anthropic.com"), 0, n, path)
        for i in range(5):
            x = Exchange(v, "api.anthropic.com", "GET", "/v1/models", creds=CLAUDE)
            x.all()
            x.close()
            self.until(lambda: len([l for l in v.audit() if l["k"] == "echo"]) == i + 1)
        each = [l["n"] for l in v.audit() if l["k"] == "echo"]
        self.assertEqual(len(set(each)), 1, each)
        self.assertEqual([v.heard(20, True) for _ in range(3)], [echo(n * each[0]) for n in (1, 2, 4)])
        self.assertEqual(v.heard(0.3, True), b"")
        self.assertEqual(len(re.findall("answers held a login", v.log())), 3, v.log())
        v.wire.close()
        self.assertEqual(v.heard(20, True), echo(5 * each[0]))
        self.assertEqual(v.heard(20, True), b"")


VECTORS = os.environ.get("HTTP_VECTORS", os.path.join(os.path.dirname(os.path.abspath(__file__)), "../decide/http-vectors.json"))


def expand(text):
    return re.sub(r"\$PAD\((\d+)\)", lambda m: "a" * int(m[1]), text)


def vectors(kind):
    with open(VECTORS) as f, open(VECTORS.replace("vectors", "fixture")) as g:
        cases, fixture = json.load(f), json.load(g)
    return [c for c in cases if c["kind"] == kind], fixture


class Answers(Case):
    def taken(self, conn):
        """The vault has read what it was sent."""
        if fcntl.ioctl(conn.sock, termios.TIOCOUTQ, bytes(4)) != bytes(4):
            return False
        addr, port = conn.sock.getpeername()
        name = "%08X:%04X" % (struct.unpack("=I", socket.inet_aton(addr))[0], port)
        line, = [l.split() for l in open_read("/proc/net/tcp").splitlines() if l.split()[1] == name]
        return line[4].endswith(":00000000")

    def test_vectors(self):
        cases, fixture = vectors("response")
        self.assertGreater(len(cases), 20)
        c = self.host.c
        c.anthropic, c.anthropic_refresh = fixture["secrets"]["anthropic-access"], fixture["secrets"]["anthropic-refresh"]
        c.openai, c.openai_id = fixture["secrets"]["openai-access"], fixture["secrets"]["openai-id"]
        u.write(self.host.claude_file, c.claude())
        u.write(self.host.codex_file, c.codex())
        said = {}

        def answer(conn, got):
            conn.send(said["bytes"])
            if said["end"] == "close":
                conn.end()
                raise Stop
            if said["end"] == "reset":
                self.until(lambda: self.taken(conn))  # with a reset the kernel throws away what nobody has read
                conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                raise Stop
        up, v = self.upstream(answer), self.vault()
        target = {"P01": (*MESSAGES, CLAUDE), "S41": ("chatgpt.com", "POST", "/backend-api/codex/responses", CODEX)}
        for case in cases:
            with self.subTest(case["id"] + " " + case.get("why", "")):
                want = case["expect"]
                said["bytes"] = (expand(case["input"]).encode("latin-1") if "input" in case else
                                 base64.b64decode(case["input_b64"]))
                said["end"] = case["context"].get("end", "")
                *args, creds = target[case["context"]["to"]]
                conns, echoes = len(up.conns), len([l for l in v.audit() if l["k"] == "echo"])
                x = Exchange(v, *args, body=b"{}", creds=creds)
                a = x.answer()
                out = b"".join(n + b": " + val + b"\r\n" for n, val in a.fields) + b"\r\n"
                cut = False
                if "within_ms" in case["context"]:
                    t = time.monotonic()
                    out += x.frames.next()[1]
                    self.assertLess(time.monotonic() - t, 5)  # not with the end, which does not come
                else:
                    try:
                        while (f := x.frames.next())[0] != xch.END:
                            out += f[1] if f[0] == xch.DATA else b"".join(n + b": " + val for n, val in xch.parse_fields(f[1]))
                    except (EOFError, ConnectionError):
                        cut = True
                x.close()
                self.assertEqual(a.code, want.get("code", "none"))
                self.assertEqual(a.status, want.get("status", a.status))
                self.assertEqual(cut, want.get("truncated", False))
                for s in want.get("out_contains", []):
                    self.assertIn(expand(s).encode("latin-1"), out)
                for s in want.get("out_contains_b64", []):
                    self.assertIn(base64.b64decode(s), out)
                for s in want.get("out_lacks", []):
                    self.assertNotIn(expand(s).encode("latin-1"), out)
                if want.get("record") == "echo":
                    self.assertGreater(len([l for l in self.records(v, echoes + 1, "echo") if l["k"] == "echo"]), echoes)
                if want.get("upstream_dropped") or want["verdict"] == "refuse":
                    said["bytes"], said["end"] = ok(), ""
                    self.assertEqual(Exchange(v, *args, body=b"{}", creds=creds).all()[1], b"ok")
                    self.assertGreater(up.requests[-1].conn, up.requests[-2].conn)

    def test_login_files(self):
        """What a launch could lend, the vault can use; what it could not is 503."""
        cases, fixture = vectors("hostfile")
        up = self.upstream(lambda c, got: ok())
        places = {"anthropic": self.host.claude_file, "openai": self.host.codex_file, "opencode-keys": self.host.opencode_file}
        for case in cases:
            with self.subTest(case["id"] + " " + case.get("why", "")):
                text, name = expand(case["input"]), case["context"]["provider"]
                u.write(places[name], text)
                v = self.vault(env={}, program=0)
                key = name == "openai" and '"apikey"' in text
                *target, creds = {"anthropic": (*MESSAGES, CLAUDE), "opencode-keys": ("api.kimi.com", "POST", "/coding/v1/x", [("kimi", "key")]),
                                  "openai": ("api.openai.com", "POST", "/v1/responses", [("codex-key", "bearer")]) if key else
                                  ("chatgpt.com", "POST", "/backend-api/codex/responses", CODEX)}[name]
                n = len(up.requests)
                a = Exchange(v, *target, body=b"x", creds=creds).all()[0]
                self.assertEqual(a.status, 200 if case["expect"]["verdict"] == "answer" else 503, v.log())
                self.assertEqual(len(up.requests), n + (a.status == 200))
                self.assertNotIn("CANARY", v.log())

    def test_heads_and_trailers_as_long_as_they_may_be(self):
        """Whatever stands behind the colons, a byte more is too much."""
        said = [None]
        self.upstream(lambda c, got: c.send(said[0]))
        v = self.vault()

        def lines(size, sep, n=100):
            each = size // n
            out = [b"x-%d%s" % (i, sep) for i in range(n)]
            out = [s + b"v" * (each - len(s) - 2) + b"\r\n" for s in out]
            return b"".join(out[:-1]) + out[-1][:-2] + b"v" * (size - sum(map(len, out))) + b"\r\n"
        for sep in (b": ", b":"):
            start, end = b"HTTP/1.1 200 \r\n", b"Transfer-Encoding: chunked\r\n\r\n"
            for more in (0, 1):
                said[0] = start + lines((64 << 10) - len(start + end) + more, sep) + end + b"2\r\nok\r\n0\r\n\r\n"
                a, body, _ = Exchange(v, *MESSAGES, creds=CLAUDE, body=b"{}").all()
                self.assertEqual((a.code, body), (("none", b"ok"), ("upstream-framing", b""))[more], (sep, more))
                said[0] = start + end + b"2\r\nok\r\n0\r\n" + lines((8 << 10) - 2 + more, sep) + b"\r\n"
                x = Exchange(v, *MESSAGES, creds=CLAUDE, body=b"{}")
                if more:
                    with self.assertRaises(EOFError):
                        x.all()
                else:
                    a, body, trailers = x.all()
                    self.assertEqual((body, len(trailers)), (b"ok", 100), sep)

    def test_every_cut(self):
        """M21: the echo is found wherever the service cuts what it sends."""
        secret = self.host.c.anthropic.encode()
        body = b'{"a":"' + secret + b'"}'

        def answer(conn, got):
            i = int(got.get("x-cut")[0])
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for piece in (body[:i], body[i:]):
                conn.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            conn.send(b"0\r\nX-Trailer: " + secret + b"\r\n\r\n")
        up, v = self.upstream(answer), self.vault()
        for i in range(1, len(body), 7):
            a, got, trailers = Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE, pairs=[("X-Cut", str(i))]).all()
            self.assertEqual((got, trailers), (b'{"a":"' + b"x" * len(secret) + b'"}', [(b"X-Trailer", b"x" * len(secret))]))

    def test_all_secrets_of_the_provider_are_searched_for(self):
        c = self.host.c
        up, v = self.upstream(), self.vault()
        body = "|".join((c.anthropic_refresh, c.anthropic_key, c.anthropic)).encode()
        a, got, _ = Exchange(v, *MESSAGES, body=body, creds=CLAUDE).all()
        self.clean(a, got)
        # Of a JWT the signature.
        body = "|".join((c.openai, c.openai_id, c.openai_refresh, c.openai_key)).encode()
        a, got, _ = Exchange(v, "chatgpt.com", "POST", "/backend-api/codex/responses", body=body, creds=CODEX).all()
        self.clean(a, got)

    def test_coded_although_identity_was_asked(self):
        """M20, attack-5"""
        up = self.upstream(lambda c, got: ok(gzip.compress(got.head), "200 OK", "Content-Encoding: gzip"))
        v = self.vault()
        self.refused(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE), "encoding", 502)
        a, body, _ = Exchange(v, "api.anthropic.com", "GET", "/x").all()  # without a secret it may be
        self.assertEqual((a.status, a.get("content-encoding")), (200, [b"gzip"]))


class H2Server(Upstream):
    """Frames of HTTP/2 as the test wants them: @answer(conn, stream, block) for each HEADERS."""

    def serve(self, raw):
        raw.settimeout(600)
        try:
            c = self.context.wrap_socket(raw, server_side=True)
        except OSError as e:
            self.failed.append(e)
            return
        conn = u.Conn(c, self, len(self.conns))
        self.conns.append(conn)
        conn.resets, conn.data, conn.lock = [], {}, threading.Lock()
        try:
            assert conn.exact(24) == b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            conn.send(frame2(4, 0, 0))
            while (h := conn.exact(9)) is not None:
                n, kind, flags, stream = int.from_bytes(h[:3], "big"), h[3], h[4], int.from_bytes(h[5:], "big")
                body = conn.exact(n)
                if kind == 4 and not flags & 1:
                    conn.send(frame2(4, 1, 0))
                elif kind == 3:
                    conn.resets.append((stream, int.from_bytes(body, "big")))
                elif kind == 0:
                    conn.data[stream] = conn.data.get(stream, b"") + body
                    self.data(conn, stream, n, flags & 1)
                elif kind == 1:
                    self.requests.append(body)
                    self.answer(conn, stream, body)
        except (OSError, Stop, TypeError):
            pass
        c.close()

    def data(self, conn, stream, n, end):
        """Each DATA makes room for as many bytes."""
        if n:
            conn.send(frame2(8, 0, 0, n.to_bytes(4, "big")))
            if not end:
                conn.send(frame2(8, 0, stream, n.to_bytes(4, "big")))


def frame2(kind, flags, stream, data=b""):
    return len(data).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + data


def block2(*fields):
    """HPACK: literals without indexing, not packed."""
    b = lambda s: (s if isinstance(s, bytes) else s.encode())
    num = lambda n: bytes([n]) if n < 127 else bytes([127]) + varint(n - 127)
    return b"".join(b"\0" + num(len(b(n))) + b(n) + num(len(b(v))) + b(v) for n, v in fields)


def varint(n):
    out = b""
    while n >= 128:
        out += bytes([n % 128 | 128])
        n //= 128
    return out + bytes([n])


def headers2(stream, *fields, end=False):
    return frame2(1, 4 | end, stream, block2(*fields))


def long2(stream, *fields):
    """The same of a list that is longer than a frame."""
    block = block2(*fields)
    at = range(0, len(block), 16384)
    return b"".join(frame2(9 if i else 1, 4 if i == at[-1] else 0, stream, block[i:i + 16384]) for i in at)


class Http2(Case):
    def setUp(self):
        super().setUp()
        self.h2 = self.certs.leaf("h2", "DNS:api.anthropic.com,DNS:chatgpt.com")
        self.h2.set_alpn_protocols(["h2"])

    def server(self, answer):
        up = H2Server(self.h2, answer=answer)
        self.addCleanup(up.close)
        return up

    def ask(self, v, **kw):
        kw = {"body": b"{}", "creds": CLAUDE, "flags": xch.H2, **kw}
        return Exchange(v, *MESSAGES, **kw)

    def nghttpd(self, d):
        """Gives out what lies in @d, and back what is posted."""
        with w.S, open(d + "/log", "wb") as log:
            p = subprocess.Popen(["nghttpd", "-v", "-a", w.PUBLIC, "-d", d, "--echo-upload", "443", self.certs.dir / "good.key",
                                  self.certs.dir / "good.pem"], stdout=log, stderr=log, env={"PATH": os.environ["PATH"]})
        self.addCleanup(p.wait)
        self.addCleanup(p.kill)
        self.until(lambda: self.listens(p) or p.poll() is not None)
        self.assertIsNone(p.poll(), open_read(d + "/log"))

    def test_real_service(self):
        """nghttpd, which gives back what is posted."""
        with tempfile.TemporaryDirectory() as d:
            self.nghttpd(d)
            v = self.vault()
            data = os.urandom(1 << 20)
            for body, length in ((b"small", None), (data, None), (data, False)):
                x = self.ask(v, body=body, length=length, hold=True)
                t = threading.Thread(target=lambda: (x.send(body), x.end()))
                t.start()
                a, got, _ = x.all()
                t.join()
                self.assertEqual((a.status, got == body), (200, True), v.log())
            self.until(lambda: open_read(d + "/log").count(":path: /v1/messages") == 3)
            said = open_read(d + "/log")
            self.assertIn(f"authorization: Bearer {self.host.c.anthropic}", said)
            self.assertEqual((said.count("[id=2]") > 0, said.count("[id=3]")), (True, 0))  # the first looked whether it listens
            # Its own words come back: found.
            a, got, _ = self.ask(v, body=self.host.c.anthropic.encode()).all()
            self.assertEqual(got, b"x" * len(self.host.c.anthropic))
            a, got, _ = Exchange(v, "api.anthropic.com", "GET", "/none", flags=xch.H2).all()
            self.assertEqual(a.status, 404)

    def listens(self, p):
        with w.S, socket.socket() as s:
            return s.connect_ex((w.PUBLIC, 443)) == 0

    def test_slow_reader_of_much(self):
        """What the service sent within its window fits while gate does not read; plain and searched."""
        data = os.urandom(3 << 20)
        with tempfile.TemporaryDirectory() as d:
            with open(d + "/big", "wb") as f:
                f.write(data)
            self.nghttpd(d)
            v = self.vault()
            for post in (False, True):
                x = self.ask(v, body=data) if post else Exchange(v, "api.anthropic.com", "GET", "/big", flags=xch.H2)
                self.assertEqual(x.answer().status, 200)
                time.sleep(1.5)
                self.assertTrue(x.frames.body() == data, v.log())
                x.close()

    def test_uploads_at_once(self):
        """Much is ready to go when the service opens its windows: all of it goes, without another word of the service."""
        size, opened = 150000, threading.Event()

        def answer(c, s, b):
            if s == 1:
                c.send(headers2(s, (":status", "200"), end=True))

        class Wide(H2Server):
            def data(self, conn, stream, n, end):
                if not opened.is_set() and sum(map(len, conn.data.values())) >= 65535:
                    opened.set()
                    time.sleep(0.5)  # the vault has taken what it takes
                    conn.send(frame2(4, 0, 0, struct.pack(">HI", 4, 1 << 20)) + frame2(8, 0, 0, struct.pack(">I", 1 << 24)))
                if end and stream > 1:
                    conn.send(headers2(stream, (":status", "200"), end=True))
        up = Wide(self.h2, answer=answer)
        self.addCleanup(up.close)
        v = self.vault()
        self.assertEqual(self.ask(v, body=None).all()[0].status, 200)
        xs = [self.ask(v, body=bytes([65 + i]) * size, hold=True, slot=i) for i in range(8)]
        threads = [threading.Thread(target=lambda x=x, i=i: (x.send(bytes([65 + i]) * size), x.end())) for i, x in enumerate(xs)]
        for t in threads:
            t.start()
        for x in xs:
            x.sock.settimeout(60)
            self.assertEqual(x.all()[0].status, 200)
        for t in threads:
            t.join()
        self.assertEqual(len(up.conns), 1)
        self.assertEqual([up.conns[0].data[3 + 2 * i] for i in range(8)], [bytes([65 + i]) * size for i in range(8)])

    def test_head_that_goes_out(self):
        class Later(H2Server):  # when it has the body: else the rest of that is reset
            def data(self, conn, stream, n, end):
                if end:
                    conn.send(headers2(stream, (":status", "204"), end=True))
        up = Later(self.h2, answer=lambda c, s, b: None)
        self.addCleanup(up.close)
        v = self.vault()
        self.assertEqual(self.ask(v).all()[0].status, 204)
        block, = up.requests
        self.assertIn(b"\x1f\x08", block)  # authorization: never indexed
        self.assertEqual(self.ask(v).all()[0].status, 204)
        self.assertIn(b"\x1f\x08", up.requests[1])
        self.assertEqual((len(up.conns), up.conns[0].data, up.conns[0].resets), (1, {1: b"{}", 3: b"{}"}, []))
        # nghttp2 knows authorization by itself; this one it would put into its table.
        for _ in range(2):
            self.assertEqual(self.ask(v, creds=[("anthropic-key", "key")]).all()[0].status, 204)
        self.assertEqual(up.requests[2][-24:], up.requests[3][-24:])
        self.assertEqual(up.conns[0].sock.selected_alpn_protocol(), "h2")

    def test_head_as_large_as_gate_admits(self):
        """nghttp2 sends no more than 64 KiB unless told otherwise."""
        up = self.server(lambda c, s, b: c.send(headers2(s, (":status", "204"), end=True)))
        v = self.vault()
        large = [("x-fill-%d" % i, "~" * 8150) for i in range(8)]
        for fields in ([], large, []):
            x = self.ask(v, pairs=fields)
            x.sock.settimeout(60)
            self.assertEqual(x.all()[0].status, 204)
        self.assertEqual(len(up.conns), 1)

    def test_upgrades_take_http1(self):
        context = self.certs.leaf("alpn", "DNS:chatgpt.com")
        context.set_alpn_protocols(["h2", "http/1.1"])
        up, v = self.upstream(lambda c, got: ok(b"no", "404 Not Found"), context=context), self.vault()
        x = Exchange(v, "chatgpt.com", "GET", "/backend-api/codex/responses", creds=CODEX, flags=xch.UPGRADE | xch.H2)
        self.assertEqual(x.answer().status, 404)
        self.assertEqual(up.conns[0].sock.selected_alpn_protocol(), "http/1.1")
        x.close()

    def test_service_that_speaks_http1_only(self):
        up = self.upstream()
        a, body, _ = self.ask(self.vault()).all()
        self.assertEqual((a.status, len(up.requests)), (200, 1))
        self.clean(a, body)

    def test_echo_in_fields_data_and_trailers(self):
        secret = self.host.c.anthropic

        def answer(c, s, b):
            c.send(headers2(s, (":status", "200"), ("x-you", "Bearer " + secret), ("content-type", "text/plain")))
            for i in range(0, len(secret), 5):
                c.send(frame2(0, 0, s, secret[i:i + 5].encode()))
            c.send(headers2(s, ("x-t", secret), end=True))
        a, body, trailers = self.ask(self.v(answer)).all()
        x = b"x" * len(secret)
        self.assertEqual((a.get("x-you"), body, trailers), ([b"Bearer " + x], x, [(b"x-t", x)]))

    def v(self, answer):
        self.up = self.server(answer)
        return self.vault()

    def test_many_on_one_connection(self):
        waits, lock = [], threading.Lock()

        def answer(c, s, b):
            with lock:
                waits.append(s)
                if len(waits) < 11:
                    if len(waits) == 1:
                        c.send(headers2(s, (":status", "200"), end=True))
                    return
                for s in reversed(waits[1:]):
                    c.send(headers2(s, (":status", "200"), ("content-length", "1")) + frame2(0, 1, s, b"z"))
        v = self.v(answer)
        self.ask(v).all()
        xs = [self.ask(v, slot=i) for i in range(10)]
        self.assertEqual([x.all()[1] for x in xs], [b"z"] * 10)
        self.assertEqual(len(self.up.conns), 1)

    def test_anonymous_has_another_connection(self):
        v = self.v(lambda c, s, b: c.send(headers2(s, (":status", "200"), end=True)))
        self.ask(v).all()
        self.ask(v, creds=()).all()
        self.ask(v).all()
        self.assertEqual(len(self.up.conns), 2)

    def test_rotation(self):
        v = self.v(lambda c, s, b: c.send(headers2(s, (":status", "200"), end=True)))
        self.ask(v).all()
        u.write(self.host.claude_file, self.host.c.claude(7000))
        self.ask(v).all()
        self.assertEqual(len(self.up.conns), 2)

    def test_what_is_no_answer(self):
        """M19, attack-38 over HTTP/2: 502, or cut once it began; the session goes on."""
        status, said = (":status", "200"), [None]
        v = self.v(lambda c, s, b: c.send(said[0](s)))
        for why, code, sent in (
                ("a status that is none", "upstream-framing", lambda s: headers2(s, (":status", "20"))),
                ("101", "upstream-framing", lambda s: headers2(s, (":status", "101"))),
                ("an interim answer that ends", "upstream-framing", lambda s: headers2(s, (":status", "103"), end=True)),
                ("nine of them", "upstream-framing", lambda s: headers2(s, (":status", "103")) * 9),
                ("upper case", "upstream-framing", lambda s: headers2(s, status, ("X-Upper", "a"))),
                ("connection", "upstream-framing", lambda s: headers2(s, status, ("connection", "close"))),
                ("transfer-encoding", "upstream-framing", lambda s: headers2(s, status, ("transfer-encoding", "chunked"))),
                ("a line in a value", "upstream-framing", lambda s: headers2(s, status, ("x", "a\r\nb: c"))),
                ("two lengths", "upstream-framing", lambda s: headers2(s, status, ("content-length", "1"), ("content-length", "1"))),
                ("a head that is too large", "upstream-framing", lambda s: headers2(s, status, *[(f"x{i}", "a" * 100) for i in range(129)])),
                ("one that gate would not take", "upstream-framing",
                 lambda s: long2(s, status, *[(f"x-{i:03}", "v" * (504 + (i == 0))) for i in range(128)])),
                ("coded", "encoding", lambda s: headers2(s, status, ("content-encoding", "gzip")) + frame2(0, 1, s, b"z")),
                ("reset", "upstream", lambda s: frame2(3, 0, s, (2).to_bytes(4, "big"))),
                ("data first", "upstream-framing", lambda s: frame2(0, 0, s, b"x")),
                ("fewer bytes than it says", "cut", lambda s: headers2(s, status, ("content-length", "5")) + frame2(0, 1, s, b"abc")),
                ("more bytes", "cut", lambda s: headers2(s, status, ("content-length", "1")) + frame2(0, 1, s, b"abc")),
                ("reset in the middle", "cut", lambda s: headers2(s, status) + frame2(0, 0, s, b"abc") + frame2(3, 0, s, bytes(4))),
                ("the connection breaks", "cut", lambda s: headers2(s, status) + frame2(0, 0, s, b"abc") + b"junk" * 9),
                ("pushed", "upstream-framing", lambda s: frame2(5, 4, s, (2).to_bytes(4, "big") + block2((":method", "GET")))),
                ("frames without a byte", "cut", lambda s: headers2(s, status) + frame2(0, 0, s) * 1500),
                ("padding alone", "cut", lambda s: headers2(s, status) + frame2(0, 8, s, b"\3\0\0\0") * 1500),
                ("pings without end", "upstream-framing", lambda s: frame2(6, 0, 0, bytes(8)) * 1500),
                ("ends of the connection without end", "upstream-framing", lambda s: frame2(7, 0, 0, b"\x7f\xff\xff\xff" + bytes(4)) * 1500),
                ("windows without end", "upstream-framing", lambda s: frame2(8, 0, 0, b"\0\0\0\1") * 1500),
                ("frames of no known kind", "upstream-framing", lambda s: frame2(0xbb, 0, 0, bytes(16384)) * 1100)):
            with self.subTest(why):
                said[0] = sent
                x = self.ask(v)
                a = x.answer()
                if code == "cut":
                    with self.assertRaises((EOFError, ConnectionError)):
                        x.frames.body()
                else:
                    self.assertEqual((a.code, x.frames.body()), (code, b""))
                x.close()
                said[0] = lambda s: headers2(s, status, end=True)
                self.assertEqual(self.ask(v).all()[0].status, 200)

    def test_heads_and_trailers_as_long_as_they_may_be(self):
        def answer(c, s, b):
            c.send(long2(s, (":status", "200"), *[(f"x-{i:03}", "v" * 504) for i in range(128)]) + frame2(0, 0, s, b"ok") +
                   headers2(s, *[(f"x-{i:03}", "v" * 55) for i in range(128)], end=True))
        a, body, trailers = self.ask(self.v(answer)).all()
        self.assertEqual((a.status, len(a.fields), body, len(trailers)), (200, 128, b"ok", 128))

    def test_goaway(self):
        def answer(c, s, b):
            c.send(headers2(s, (":status", "200"), end=True) + frame2(7, 0, 0, s.to_bytes(4, "big") + bytes(4)))
        v = self.v(answer)
        self.assertEqual([self.ask(v).all()[0].status for _ in range(3)], [200] * 3)
        self.assertEqual(len(self.up.conns), 3)

    def test_heads_of_a_stream_that_is_over_are_counted(self):
        def answer(c, s, b):
            c.send(headers2(s, (":status", "200"), end=s == 1))
            if s > 1:
                c.send(headers2(1, (":status", "200")) * 1500 + frame2(0, 1, s, b"z"))
        v = self.v(answer)
        self.assertEqual(self.ask(v).all()[0].status, 200)
        with self.assertRaises((EOFError, ConnectionError)):
            self.ask(v, slot=2).all()
        self.assertIn("floods", v.log())

    def test_an_upload_to_a_service_that_opens_its_windows_in_small_pieces(self):
        """As Go's servers do: for the stream and for the connection, each 4 KiB."""
        class Server(H2Server):
            def data(self, conn, stream, n, end):
                pieces = [min(4096, n - at).to_bytes(4, "big") for at in range(0, n, 4096)]
                conn.send(b"".join(frame2(8, 0, 0, k) + (b"" if end else frame2(8, 0, stream, k)) for k in pieces) +
                          (headers2(stream, (":status", "200"), end=True) if end else b""))
        up, v, body = Server(self.h2, answer=lambda c, s, b: None), self.vault(), bytes(6 << 20)
        self.addCleanup(up.close)
        x = self.ask(v, body=body, hold=True)
        t = threading.Thread(target=lambda: (x.send(body), x.end()), daemon=True)
        t.start()
        self.assertEqual(x.answer().status, 200, v.log())
        t.join()

    def test_what_still_comes_for_streams_that_were_left_ends_nothing(self):
        """No more than their windows have room for, in 1,310 records."""
        left = 5

        def answer(c, s, b):
            c.send(headers2(s, (":status", "200")))
            if s == 3 + 2 * left:
                for i in range(left):
                    for at in range(0, 128 << 10, 500):
                        c.send(frame2(0, 0, 3 + 2 * i, bytes(min(500, (128 << 10) - at))))
                c.send(frame2(0, 1, 1, b"z") + frame2(0, 1, s))
        v = self.v(answer)
        stays = self.ask(v)
        stays.answer()
        for i in range(left):
            x = self.ask(v, slot=2 + i)
            x.answer()
            x.close()
        self.until(lambda: len(self.up.conns[0].resets) == left)
        self.assertEqual(self.ask(v, slot=20).all()[0].status, 200, v.log())
        self.assertEqual(stays.frames.body(), b"z")

    def test_slow_reader_holds_up_its_own_stream_alone(self):
        def answer(c, s, b):
            if s > 1:
                c.send(headers2(s, (":status", "200"), ("content-length", "1")) + frame2(0, 1, s, b"z"))
                return
            c.send(headers2(s, (":status", "200")))
            for _ in range(32):  # what the window of a stream has room for, byte by byte
                c.send(frame2(0, 0, s, b"a") * 4096)
            c.full = True
        v = self.v(answer)
        x = self.ask(v)
        x.answer()
        self.until(lambda: getattr(self.up.conns[0], "full", False))
        self.assertEqual(self.ask(v, slot=2).all()[1], b"z")
        got = 0
        while got < 32 * 4096:
            kind, data = x.frames.next()
            got += len(data)
        x.close()
        self.until(lambda: (1, 8) in self.up.conns[0].resets)
        self.assertEqual(len(self.up.conns), 1)


class Renewals(Case):
    def launcher(self, v, timeout=20):
        data = v.heard(timeout)
        assert len(data) == 4 and data[0] == xch.CTL_RENEW, data
        return tuple(data[1:])

    def done(self, v, prov, act, result=0, age=-1, errors=b""):
        v.control.send(struct.pack("<BBBBiq2048s", xch.CTL_RENEWED, prov, act, 0, result, age, errors))

    def ask(self, v, kind="claude-r", slot=1):
        xch.send(v.gate, xch.RENEW, slot, 9, bytes([xch.KINDS.index(kind)]) + bytes(7))

    def renewed(self, v, slot=1, timeout=20):
        _, _, gen, data, _ = v.box.get(xch.RENEWED, slot=slot, timeout=timeout)
        in_, exp, lack, fed, acc, plan, scope = struct.unpack("<qqIB3x72s48s1024s", data[16:])
        text = lambda b: b.rstrip(b"\0").decode()
        return xch.LACKS[lack], in_, exp, text(acc), text(plan), text(scope)

    LOCK, RUN, UNLOCK = range(3)

    def file(self, kind, state, fixture):
        """The host's file as a vector has it; its clock is moved to ours."""
        c, now, shift = self.host.c, time.time(), time.time() - fixture["now"]
        if "file" in state:
            return state["file"]
        left = state.get("remaining_s", 86400)
        if kind == "claude-r":
            exp = state["expires_at_ms"] and state["expires_at_ms"] + shift * 1000 if "expires_at_ms" in state else (now + left) * 1000
            return c.claude(expiresAt=exp, scopes=state.get("scopes", ["user:inference", "user:profile"]))
        c.openai = "CANARY-opaque-token-000000000000" if state.get("opaque") else u.jwt("CANARY-openai-access-0123456789", int(now + left))
        return c.codex()

    def test_vectors(self):
        """Those that reach the vault; what gate answers by itself is its matter. The launcher is played as the vector says."""
        cases, fixture = vectors("refresh")
        ran = 0
        for case in cases:
            kinds = [k for k in ("claude-r", "codex-r", "opencode-r") if fixture["placeholders"][k].encode() in
                     urllib.parse.unquote_to_bytes(case["input"].split("\r\n\r\n", 1)[1])]
            want = case["expect"]
            if want.get("verdict") != "answer" or want["status"] not in (200, 503) or len(kinds) != 1:
                continue
            kind, ran = kinds[0], ran + 1
            state = case["context"].get("hosts", {}).get("anthropic" if kind == "claude-r" else "openai", {})
            place = self.host.claude_file if kind == "claude-r" else self.host.codex_file
            with self.subTest(case["id"] + " " + case.get("why", "")):
                written = time.time()
                u.write(place, self.file(kind, state, fixture))
                v = self.vault(program=int(state.get("program") != "missing"))
                if state.get("unparsable_s", 0) > 5:
                    time.sleep(0.1)
                t, runs, program = time.monotonic(), 0, state.get("program", "")
                self.ask(v, kind)
                while not v.box.pump(0.05) and time.monotonic() - t < 60:
                    if not (data := v.heard(0)):
                        continue
                    what, prov, act, _ = data
                    self.assertEqual(what, xch.CTL_RENEW)
                    held = state.get("lock", "")
                    if act == self.LOCK and held:
                        if "rotated" in held and time.monotonic() - t > 1:
                            u.write(place, self.file(kind, {"remaining_s": 28800.9}, fixture))
                        self.done(v, prov, act, -11)
                    elif act == self.LOCK:
                        self.done(v, prov, act, age=int(state.get("stamp_age_s", -0.001) * 1000))
                    elif act == self.RUN:
                        runs += 1
                        if program.startswith("rotates"):
                            u.write(place, self.file(kind, {"remaining_s": 28800.9}, fixture))
                        if program != "hangs":
                            self.done(v, prov, act, -1 if program == "fails" else 0)
                lack, left, *_, scope = self.renewed(v, timeout=1)
                self.assertEqual(lack == "none", want["status"] == 200, lack)
                self.assertEqual(runs, want.get("programs_run", runs))
                self.assertLess((time.monotonic() - t) * 1000, want.get("max_ms", 30000) + 15000)
                for s in want["answer_contains"]:
                    if m := re.fullmatch(r'"expires_in":(\d+)', s):
                        self.assertTrue(int(m[1]) - 2 <= left + time.time() - written and left <= int(m[1]), left)
                    if m := re.fullmatch(r'"scope":"(.*)"', s):
                        self.assertIn(scope, (m[1], ""))
        self.assertGreater(ran, 15)

    def test_fresh_at_once(self):
        begin = time.time()
        u.write(self.host.claude_file, self.host.c.claude())
        u.write(self.host.codex_file, u.Canaries().codex())
        v, written = self.vault(), time.time()
        self.ask(v)
        lack, left, exp, _, _, scope = self.renewed(v)
        self.assertEqual((lack, scope), ("none", "user:inference user:profile"))
        self.assertTrue(7198 <= left + time.time() - begin and left <= 7200)
        for kind in ("codex-r", "opencode-r"):
            self.ask(v, kind)
            lack, left, exp, account, _, _ = self.renewed(v)
            self.assertEqual((lack, account), ("none", u.ACCOUNT))
            self.assertTrue(86398 <= left + time.time() - begin and left <= 86400 and begin - 1 <= exp - 86400 <= written)
        self.assertEqual(v.heard(0.2), b"")

    def run_one(self, v, rotate=True, errors=b"", result=0):
        self.assertEqual(self.launcher(v)[:2], (0, self.LOCK))
        self.done(v, 0, self.LOCK)
        self.assertEqual(self.launcher(v), (0, self.RUN, 1))
        if rotate:
            self.rotate()
        self.done(v, 0, self.RUN, result, errors=errors)

    def rotate(self, left=28800):
        old, self.host.c = self.host.c, u.Canaries(7)
        self.host.c.all += old.all
        u.write(self.host.claude_file, self.host.c.claude(left))

    def test_storm_of_100(self):
        """One program; 8 wait, the rest is told to come again. attack-18"""
        u.write(self.host.claude_file, self.host.c.claude(200))
        v = self.vault()
        for i in range(100):
            self.ask(v, slot=i)
        self.assertEqual({self.renewed(v, i)[0] for i in range(8, 100)}, {"limit"})
        self.run_one(v)
        self.assertEqual(self.launcher(v)[:2], (0, self.UNLOCK))
        self.assertEqual({self.renewed(v, i)[0] for i in range(8)}, {"none"})
        self.assertEqual(v.heard(0.3), b"")
        line, = [l for l in self.records(v, 1, "renewal") if l["k"] == "renewal"]
        self.assertEqual((line["provider"], line["program"], line["how"]), ("anthropic", "claude-status", "ran"))

    def test_three_sessions_renew_a_login_once(self):
        """Three vaults with one login file, each with a launcher's real part: one lock, one program, three answers (page 14, no. 9)."""
        u.write(self.host.claude_file, self.host.c.claude(200))
        vaults = [self.vault() for _ in range(3)]
        program, ran = self.host.dir + "/program", self.host.dir + "/ran"
        old = self.host.c
        self.host.c = u.Canaries(7)
        self.host.c.all += old.all
        with open(self.host.dir + "/next", "w") as f:
            f.write(self.host.c.claude(28800))
        with open(program, "w") as f:
            f.write(f"#!/bin/sh\necho ran >> {ran}\nsleep 1\ncp {self.host.dir}/next {self.host.claude_file}.new\n"
                    f"mv {self.host.claude_file}.new {self.host.claude_file}\n")
        os.chmod(program, 0o755)
        launchers = []
        for v in vaults:
            p = subprocess.Popen(
                [os.path.join(os.environ["AGENT_VM_BUILD"], "tests/net/renewhost"), self.host.dir + "/root", self.host.claude_file, program],
                stdin=v.control, env={**os.environ, "XDG_RUNTIME_DIR": ""})
            launchers.append(p)
            self.addCleanup(p.wait)
            self.addCleanup(p.kill)
        for v in vaults:
            self.ask(v)
        for v in vaults:
            lack, left, *_ = self.renewed(v, timeout=40)
            self.assertEqual(lack, "none")
            self.assertTrue(28700 < left <= 28800, left)
        for v in vaults:
            for slot in (2, 3):
                self.ask(v, slot=slot)
                self.assertEqual(self.renewed(v, slot=slot)[0], "none")
        with open(ran) as f:
            self.assertEqual(f.read(), "ran\n")
        renewals = lambda: sum(l["k"] == "renewal" for v in vaults for l in v.audit())
        self.until(renewals)
        self.assertEqual(renewals(), 1)
        for v, p in zip(vaults, launchers):
            v.control.shutdown(socket.SHUT_RDWR)  # the launcher has it, too
            self.assertEqual(p.wait(60), 0)

    def test_program_that_does_not_help(self):
        u.write(self.host.claude_file, self.host.c.claude(200))
        v = self.vault()
        self.ask(v)
        self.run_one(v, rotate=False, errors=b"tried with " + self.host.c.anthropic.encode() + b"\x1b[2J\n", result=-110)
        self.assertEqual(self.launcher(v), (0, self.RUN, 2))  # the second one
        self.done(v, 0, self.RUN)
        self.assertEqual(self.launcher(v)[:2], (0, self.UNLOCK))
        self.assertEqual(self.renewed(v)[0], "soon")
        self.assertIn("it said: tried with xxxx", v.log())
        self.assertNotIn("\x1b", v.log())

    def said(self, v, errors):
        u.write(self.host.claude_file, self.host.c.claude(200))
        self.ask(v)
        self.run_one(v, errors=errors)
        self.assertEqual(self.renewed(v)[0], "none")

    def test_part_of_a_secret_in_what_the_program_said(self):
        """A secret where a line of the log ends, and the rest of one where the launcher cut what the program said."""
        token = self.host.c.anthropic.encode()
        v = self.vault()
        self.said(v, b"a" * 1950 + b" " + token + b" end")
        self.assertNotIn(token[:12].decode(), v.log())
        token, v = self.host.c.anthropic.encode(), self.vault()
        self.said(v, (token[5:] + b" the rest" + b" word" * 500)[:2047])
        self.assertNotIn(token[5:25].decode(), v.log())
        self.assertIn("it said:  the rest word word", v.log())
        # As long, without a word that is whole.
        token, v = self.host.c.anthropic.encode(), self.vault()
        self.said(v, (token[5:] + b"-" * 2048)[:2047])
        self.assertNotIn(token[5:25].decode(), v.log())

    def test_lock_of_another_session(self):
        u.write(self.host.claude_file, self.host.c.claude(200))
        v = self.vault()
        self.ask(v)
        for _ in range(3):
            self.assertEqual(self.launcher(v)[:2], (0, self.LOCK))
            self.done(v, 0, self.LOCK, -11)
        self.rotate()
        self.assertEqual(self.renewed(v)[0], "none")

    def test_damped_and_hanging(self):
        u.write(self.host.claude_file, self.host.c.claude(-5))
        v = self.vault()
        self.ask(v)
        self.assertEqual(self.launcher(v)[:2], (0, self.LOCK))
        self.done(v, 0, self.LOCK, age=12000)
        self.assertEqual(self.launcher(v)[:2], (0, self.UNLOCK))
        self.assertEqual(self.renewed(v)[0], "expired")
        v = self.vault()
        self.ask(v)
        self.assertEqual(self.launcher(v)[:2], (0, self.LOCK))
        self.done(v, 0, self.LOCK)
        self.assertEqual(self.launcher(v)[:2], (0, self.RUN))
        t = time.monotonic()
        self.assertEqual(self.renewed(v, timeout=40)[0], "pending")
        self.assertTrue(13 < time.monotonic() - t < 35)

    def test_states_of_the_file(self):
        for text, lack in ((None, "login"), ('{"claudeAiOauth":{"accessToken":""}}', "login"), ('{"claudeAiOauth":{"acc', "file"),
                           (self.host.c.claude(expiresAt=0), "unknown")):
            if text is None:
                os.unlink(self.host.claude_file)
            else:
                u.write(self.host.claude_file, text)
            v = self.vault(program=0)
            self.ask(v)
            self.assertEqual(self.renewed(v)[0], lack, text)
        u.write(self.host.codex_file, self.host.c.codex("apikey"))
        v = self.vault(program=0)
        self.ask(v, "codex-r")
        self.assertEqual(self.renewed(v)[0], "key")

    def test_request_with_a_token_that_is_over(self):
        """It waits for the renewal and goes out with the new one."""
        u.write(self.host.claude_file, self.host.c.claude(-5))
        up, v = self.upstream(lambda c, got: ok()), self.vault()
        xs = [Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE, slot=i) for i in range(3)]
        self.assertEqual(self.launcher(v)[:2], (0, self.LOCK))
        self.assertEqual(up.requests, [])
        self.done(v, 0, self.LOCK)
        self.assertEqual(self.launcher(v), (0, self.RUN, 1))
        self.rotate()
        self.done(v, 0, self.RUN)
        self.assertEqual([x.all()[0].status for x in xs], [200] * 3)
        self.assertEqual({r.get("authorization")[0].decode() for r in up.requests}, {"Bearer " + self.host.c.anthropic})

    def test_without_a_program_it_goes_out_as_it_is(self):
        u.write(self.host.claude_file, self.host.c.claude(-5))
        up, v = self.upstream(lambda c, got: ok(b"", "401 Unauthorized")), self.vault(program=0)
        self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 401)

    def test_rejected_by_the_service(self):
        """401: the next renewal is due although the token lives, and needs the program that renews at once."""
        up, v = self.upstream(lambda c, got: ok(b"", "401 Unauthorized")), self.vault()
        self.assertEqual(Exchange(v, *MESSAGES, body=b"x", creds=CLAUDE).all()[0].status, 401)
        self.ask(v)
        self.assertEqual(self.launcher(v)[:2], (0, self.LOCK))
        self.done(v, 0, self.LOCK)
        self.assertEqual(self.launcher(v), (0, self.RUN, 2))
        self.rotate()
        self.done(v, 0, self.RUN)
        self.assertEqual(self.renewed(v)[0], "none")

    def test_answers_of_a_launcher_that_were_not_asked_for(self):
        for m in (struct.pack("<BBBBiq2048s", 6, 0, 0, 0, 0, -1, b""), struct.pack("<BBBBiq2048s", 6, 9, 0, 0, 0, -1, b""), b"\6"):
            v = self.vault()
            v.control.send(m)
            self.assertEqual(v.wait(), 1)


class Inspected(Case):
    def flow(self, v, addr=w.PUBLIC, port=443, tied=0):
        o = v.tcp(addr, port)
        self.assertEqual((o.outcome, o.step), (w.INSPECT, "public"))
        _, slot, gen, data, fd = v.box.get(xch.PEEK, slot=o.slot)
        self.assertEqual((gen, struct.unpack("<HB", data[16:19])), (7, (port, tied)))
        return o, socket.socket(fileno=fd)

    def dialled(self, v, slot):
        _, _, gen, data, fd = v.box.get(xch.DIALLED, slot=slot)
        return (*struct.unpack("<II", data[16:]), socket.socket(fileno=fd) if fd is not None else None)

    def test_peek_and_step_aside(self):
        l = w.Listener(w.PUBLIC, 443)
        self.addCleanup(l.close)
        v = self.vault()
        o, far = self.flow(v)
        o.sock.sendall(b"ClientHello")
        self.assertEqual(far.recv(64), b"ClientHello")
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7))
        outcome, error, sock = self.dialled(v, o.slot)
        self.assertEqual((outcome, error), (w.CONNECTED, 0))
        sock.settimeout(20)
        self.assertEqual(sock.recv(16), b"hello")
        o.close()
        self.assertEqual(far.recv(1), b"")  # its end is seen
        v.ended(o.slot, up=11, down=5)
        line, = [x for x in self.records(v, 1, "tcp") if x["k"] == "tcp"]
        self.assertEqual((line["verdict"], line["port"], line["up"], line["down"]), ("inspect", 443, 11, 5))
        # Asked twice, and for what is not there any more.
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7))
        self.assertEqual(self.dialled(v, o.slot)[:2], (w.FAILED, errno.ECANCELED))
        o, far = self.flow(v)
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7))
        self.dialled(v, o.slot)
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7))
        self.assertEqual(v.wait(), 1)

    def test_all_ports_of_an_inspected_address(self):
        l = w.Listener(w.PUBLIC, 8443)
        self.addCleanup(l.close)
        v = self.vault(inspected=["api.anthropic.com"])
        self.assertEqual(v.tcp(w.PUBLIC, 8443).outcome, w.CONNECTED)
        self.assertEqual(v.udp(w.PUBLIC, 443).outcome, w.CONNECTED)
        self.assertEqual(v.dns("api.anthropic.com").addrs, [w.PUBLIC])
        for port in (8443, 80, 443):
            o, far = self.flow(v, port=port, tied=1)
        o, far = self.flow(v, w.DEAD)
        # attack-14: no QUIC
        q = v.udp(w.PUBLIC, 443)
        self.assertEqual((q.outcome, q.step), (w.REFUSED, "quic"))

    def test_a_name_that_is_not_the_address_own(self):
        """At an address of an inspected host: a name that this guest was given the address for, or none, and no other."""
        l = w.Listener(w.PUBLIC, 443)
        self.addCleanup(l.close)
        v = self.vault(inspected=["api.anthropic.com"])

        def dial(name, tied):
            o, far = self.flow(v, tied=tied)
            xch.raw_send(v.gate, xch.net_dial(o.slot, 7, name))
            outcome, _, sock = self.dialled(v, o.slot)
            self.assertEqual(outcome == w.CONNECTED, sock is not None)
            v.ended(o.slot)
            return outcome
        self.assertEqual(dial("front.example", 0), w.CONNECTED)  # nobody's address yet
        o, far = self.flow(v)
        self.assertEqual(v.dns("api.anthropic.com").addrs, [w.PUBLIC])
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7, "front.example"))  # it is at DIAL that it counts
        self.assertEqual(self.dialled(v, o.slot)[0], w.REFUSED)
        seen = 2  # connected ahead, both times
        self.until(lambda: l.seen == seen)
        for name in ("front.example", "anthropic.com", "api.anthropic.com.", "1.2.3.4"):
            self.assertEqual(dial(name, 1), w.REFUSED, name)
        self.assertEqual(l.seen, seen)
        self.assertEqual(dial("", 1), w.CONNECTED)  # gate passes only what its rules let pass without one
        self.assertEqual(dial("api.anthropic.com", 1), w.CONNECTED)
        foreign = lambda: [x for x in v.audit() if x.get("rule") == "foreign-name"]
        self.until(foreign)
        line = foreign()[0]
        self.assertEqual((line["dst"], line["port"], line.get("open")), (w.PUBLIC, 443, None))

    def test_the_form_of_a_dial(self):
        for body in (b"", b"a" * 256, b"a\0b".ljust(256, b"\0"), b"A.example".ljust(256, b"\0"), b"a b".ljust(256, b"\0"),
                     b"a\n".ljust(256, b"\0"), b"\xe4".ljust(256, b"\0"), b"\0" * 257):
            v = self.vault()
            xch.raw_send(v.gate, xch.msg(xch.DIAL, 1, 1, body))
            self.assertEqual(v.wait(), 1, body)

    def test_a_dial_is_judged_again(self):
        v = self.vault()
        o, far = self.flow(v, w.DEAD)
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7))
        self.assertFalse(v.box.pump(0.3))
        v.ended(o.slot)
        self.assertEqual(self.dialled(v, o.slot)[:2], (w.FAILED, errno.ECANCELED))
        o, far = self.flow(v, "45.77.0.9")
        w.sh("ip addr add 45.77.0.9/32 dev lo")  # became an address of this host
        self.addCleanup(w.sh, "ip addr del 45.77.0.9/32 dev lo")
        self.until(lambda: v.tcp("45.77.0.9", 80).outcome == w.REFUSED)
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7))
        self.assertEqual(self.dialled(v, o.slot)[0], w.REFUSED)

    def test_not_without_inspected_names(self):
        l = w.Listener(w.PUBLIC, 443)
        self.addCleanup(l.close)
        v = self.vault(inspected=[])
        self.assertEqual(v.tcp(w.PUBLIC, 443).outcome, w.CONNECTED)
        self.assertTrue(v.box.none(xch.PEEK))

    def test_gate_may_not_dial_other_flows(self):
        l = w.Listener(w.PUBLIC, 80)
        self.addCleanup(l.close)
        v = self.vault()
        o = v.tcp(w.PUBLIC, 80)
        self.assertEqual(o.outcome, w.CONNECTED)
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7))
        self.assertEqual(v.wait(), 1)

    def test_a_gate_that_does_not_read(self):
        """Its queue is bounded; what is beyond fails, the rest lives on."""
        v = self.vault(inspected=["api.anthropic.com"])
        self.assertEqual(v.dns("api.anthropic.com").addrs, [w.PUBLIC])  # so it is answered at once
        slots = [v.ask(w.OPEN_TCP, w.PUBLIC, 443) for _ in range(500)] + [v.ask(w.OPEN_TCP, w.PUBLIC, 443) for _ in range(300)]
        outcomes = [v.opened(w.OPEN_TCP, s) for s in slots]
        for o in outcomes:
            o.close()
        count = [o.outcome for o in outcomes].count(w.FAILED)
        self.assertTrue(0 < count < 300, count)
        self.assertEqual(v.udp(w.PUBLIC, 123).outcome, w.CONNECTED)


if __name__ == "__main__":
    w.make_world()
    unittest.main(verbosity=2, warnings="ignore")
