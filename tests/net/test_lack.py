#!/usr/bin/env python3
"""A kernel that has no memory, no buffer and no descriptor now and then (lack.c), for wire, gate and vault in turn and for all of them:
what a program in the guest does meanwhile comes to its end in time, with every byte right or with an error; no process ends, and
when the lack is over everything works and nothing is left. SEED=N another schedule, LACK_ROUNDS=N more of it, LACK_ONLY="wire gate" in these
processes alone."""
import collections
import concurrent.futures
import contextlib
import errno
import mmap
import hashlib
import json
import os
import re
import socket
import ssl
import struct
import tempfile
import threading
import time
import unittest
import unittest.mock

import pair
import test_chain
import vaulttest as w
from gatetest import Client, placeholder
from vaulttest import Listener, Resolver, addr_rr

CALLS = "socket pair accept connect send recv given watch open".split()
ROLES = "wire", "gate", "vault"
ROUNDS, SEED = int(os.environ.get("LACK_ROUNDS", "1")), int(os.environ.get("SEED", "7"))
ONLY = os.environ.get("LACK_ONLY", "")
RATE = {"wire": 25, "gate": 50, "vault": 25}  # of a thousand calls that send or receive, four times as often for the others
REQUESTS_RATE = {"gate": 10, "vault": 10}
# What must have been met: a call that nobody makes any more shows here.
MEETS = {"wire": {"send", "recv", "given", "watch"}, "gate": {"send", "given", "watch"},
         "vault": {"socket", "pair", "accept", "connect", "send", "watch"}}


class Lack:
    """Of one role."""

    def __init__(self, folder, role):
        with open(os.path.join(folder, f"agent-vm-{role}"), "w+b") as f:
            f.truncate(4 * (4 + len(CALLS)))
            self.m = mmap.mmap(f.fileno(), 0)

    def set(self, per_mille, seed=1, which=CALLS):
        self.m[:16] = struct.pack("<IIII", 0, seed, sum(1 << CALLS.index(c) for c in which), 0)
        self.m[:4] = struct.pack("<I", per_mille)

    def met(self):
        return collections.Counter(dict(zip(CALLS, struct.unpack(f"<{len(CALLS)}I", self.m[16:]))))


class Case(unittest.TestCase):
    patience = 30  # seconds for what may be lost where something is lacking

    def lacking(self, *roles):
        """The programs that run from now on are those with lack.c in them: {role: its Lack}."""
        folder = tempfile.TemporaryDirectory()
        env = {"LACK": folder.name, **{r.upper(): os.path.join(os.environ["AGENT_VM_BUILD"], f"tests/net/{r}-lack") for r in roles}}
        patch = unittest.mock.patch.dict(os.environ, env)
        patch.start()
        self.addCleanup(patch.stop)
        self.addCleanup(folder.cleanup)
        return {r: Lack(folder.name, r) for r in roles}

    def phase(self, roles, seed, work, rate=RATE, which=CALLS):
        """work() while @roles lack something: (what it gives, what each has met)."""
        self.patience = 1
        for k, r in enumerate(roles):
            self.lack[r].set(rate[r], seed * 2654435761 + k + 1 & 0xFFFFFFFF, which)
        try:
            return work(), {r: self.lack[r].met() for r in roles}
        finally:
            self.patience = 30
            for r in roles:
                self.lack[r].set(0)

    def mixed(self, got, met):
        """Some came through and some did not, or this shows nothing."""
        self.assertGreater(sum(n for k, n in got.items() if k[1] == "good"), 20, (got, met))
        self.assertGreater(sum(n for k, n in got.items() if k[1] == "lost"), 0, (got, met))

    def all_good(self, got, *more):
        self.assertEqual(sum(n for k, n in got.items() if k[1] == "lost"), 0, (got, *more))

    def fds(self):
        return {r: len(os.listdir(f"/proc/{p}/fd")) for r, p in self.pids.items()}

    def nothing_left(self, before):
        end = time.monotonic() + 30
        while True:
            now = self.fds()
            if all(now[r] <= before[r] for r in now):
                return
            self.assertLess(time.monotonic(), end, (before, now))
            time.sleep(0.2)

    def roles(self, *roles):
        return [ONLY.split()] if ONLY else [*((r,) for r in roles), roles]


class Network(Case):
    TCP, UDP, ASIDE = 80, 123, 443
    PLAIN, INSPECTED = "www.example.org", "api.anthropic.com"

    @classmethod
    def setUpClass(cls):
        if not os.access("/dev/net/tun", os.W_OK):
            raise unittest.SkipTest("/dev/net/tun is not open to this user")

    def setUp(self):
        build, self.lack = os.environ["AGENT_VM_BUILD"], self.lacking(*ROLES)
        for a, port, udp in ((w.PUBLIC, self.TCP, 0), (w.PUBLIC6, self.TCP, 0), (w.PUBLIC, self.ASIDE, 0), (w.PUBLIC, self.UDP, 1)):
            self.addCleanup(Listener(a, port, udp=bool(udp)).close)
        r = Resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, w.PUBLIC)] if t == 1 else [], [], []))
        self.addCleanup(r.close)
        w.resolvers(w.RESOLVER)
        self.port = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.addCleanup(self.port.close)
        self.pair = pair.Pair(build, real_gate=True, inspected=[self.INSPECTED], publish=[(self.port, 3000)])
        self.addCleanup(self.pair.close)
        self.addCleanup(Listener("192.0.0.2", 3000, ns=pair.G).close)
        self.pids = {"wire": self.pair.wire, "gate": self.pair.real_gate.pid, "vault": self.pair.vault.pid}
        out, ctx = ssl.MemoryBIO(), ssl.create_default_context()
        with self.assertRaises(ssl.SSLWantReadError):
            ctx.wrap_bio(ssl.MemoryBIO(), out, server_hostname=self.PLAIN).do_handshake()
        self.hello = out.read()
        # A flow of UDP lives for minutes: so few ports, which all are open from now on.
        self.udp_ports = [(self.guest_socket(w.PUBLIC, socket.SOCK_DGRAM), threading.Lock()) for _ in range(4)]
        for s, _ in self.udp_ports:
            s.connect((w.PUBLIC, self.UDP))

    def guest_socket(self, addr, kind=socket.SOCK_STREAM, proto=0):
        with pair.G:
            s = socket.socket(w.family(addr), kind, proto)
        s.settimeout(60)
        self.addCleanup(s.close)
        return s

    def echo(self, s, head=b"", n=200_000, lost=None):
        """Every byte there and back, or an error; an end in the middle is no error. One before the first byte is, where the kernel
        closed the descriptor that @lost was to get."""
        sent, failed = head + os.urandom(n), []

        def send():
            try:
                s.sendall(sent)
                s.shutdown(socket.SHUT_WR)
            except OSError as e:
                failed.append(e)  # a reset is told once, to one of the two
        t = threading.Thread(target=send)
        t.start()
        got = b""
        try:
            while data := s.recv(65536):
                got += data
        finally:
            s.close()
            t.join()
        if failed:
            raise failed[0]
        if got == b"" and lost and lost.met()["given"]:
            raise OSError(errno.EMFILE, "its descriptor was lost on its way")
        if got != b"hello" + sent:
            self.fail(f"{len(got)} of {len(sent) + 5} bytes and a clean end, or other bytes")

    def tcp(self, i):
        s = self.guest_socket(addr := (w.PUBLIC, w.PUBLIC6)[i % 2])
        s.connect((addr, self.TCP))
        self.echo(s)

    def aside(self, i):
        s = self.guest_socket(w.PUBLIC)
        s.connect((w.PUBLIC, self.ASIDE))
        self.echo(s, self.hello, 30_000)

    def published(self, i):
        s = socket.create_connection(self.port.getsockname(), 60)
        self.echo(s, lost=self.lack["wire"])

    def udp(self, i):
        (s, lock), data = self.udp_ports[i // 6 % len(self.udp_ports)], os.urandom(20 + i % 1000)
        with lock:
            s.settimeout(self.patience)
            s.send(data)
            while (got := s.recv(2000)) != data:  # a late one of before
                self.assertLessEqual(len(got), 1020)

    def dns(self, i):
        for _ in range(4):  # as a resolver of the guest does
            s = self.guest_socket("192.0.0.1", socket.SOCK_DGRAM)
            s.settimeout(5)
            s.connect(("192.0.0.1", 53))
            s.send(struct.pack("!6H", i & 0xFFFF, 0x100, 1, 0, 0, 0) + w.wire_name(f"n{i}.d{i % 5}.example") + struct.pack("!HH", 1, 1))
            try:
                a = w.Answer(s.recv(4096))
            except TimeoutError:
                continue
            finally:
                s.close()
            self.assertEqual((a.id, a.rcode in (0, 2)), (i & 0xFFFF, True))
            self.assertIn(a.addrs, ([w.PUBLIC], []) if a.rcode == 0 else ([],))
            if a.rcode or not a.addrs:
                raise OSError(errno.EAGAIN, "SERVFAIL")
            return
        raise AssertionError("a name without any answer")

    def ping(self, i):
        s = self.guest_socket(w.PUBLIC, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
        s.settimeout(self.patience)
        s.connect((w.PUBLIC, 0))
        s.send(struct.pack("!BBHHH", 8, 0, 0, 0, 7) + b"ping")
        self.assertEqual(s.recv(100)[8:], b"ping")

    LOSSY = "udp", "ping"  # may be lost, as on any network

    def one(self, what, i):
        try:
            getattr(self, what)(i)
            return what, "good"
        except TimeoutError:
            self.assertIn(what, self.LOSSY, "stands still")
        except AssertionError as e:
            raise AssertionError(f"{what}: {e}")
        except (OSError, EOFError) as e:
            return what, "lost", str(e)
        return what, "lost", "in silence"

    def many(self, n, start):
        kinds = "tcp aside published udp dns ping".split()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            return collections.Counter(pool.map(lambda i: self.one(kinds[i % len(kinds)], i), range(start, start + n)))

    def alive(self):
        self.assertIsNone(self.pair.wire_ended(0), self.pair.log())
        self.assertTrue(self.pair.real_gate.alive(), self.pair.real_gate.log())
        self.assertEqual(os.waitpid(self.pair.vault.pid, os.WNOHANG)[0], 0, self.pair.vault.log())

    def test_streams_datagrams_and_names(self):
        for i in range(len(self.udp_ports)):
            self.udp(6 * i)
        before, at = self.fds(), 1000
        self.all_good(self.many(24, 0), self.pair.log())
        for seed in range(SEED, SEED + ROUNDS):
            for roles in self.roles(*ROLES):
                with self.subTest(roles=roles, seed=seed):
                    got, met = self.phase(roles, seed, lambda: self.many(120, at))
                    at += 120
                    self.alive()
                    self.mixed(got, met)
        for r in ONLY.split() or ROLES:
            at = self.each_met(r, at)
        time.sleep(6)  # vault's "no" to a datagram holds for two seconds, and there is room for 32 pings
        self.all_good(self.many(48, at), self.pair.log())
        self.nothing_left(before)
        self.alive()

    def each_met(self, role, at):
        """A call that is made a few times only may have been spared by chance: it alone fails now, until it has been met."""
        for call in sorted(MEETS[role]):
            end = at + 20 * 24
            while not self.lack[role].met()[call]:
                self.assertLess(at, end, (role, "nobody makes this call", call))
                self.phase([role], at, lambda: self.many(24, at), {role: 100}, [call])
                at += 24
                self.alive()
        return at


class Requests(test_chain.Case, Case):
    """Through gate, vault and TLS at both ends."""
    KINDS = ("gh",)

    def setUp(self):
        self.lack = self.lacking("gate", "vault")
        super().setUp()
        self.pids = {"gate": self.gate.pid, "vault": self.vault.pid}
        self.serve(self.answer)

    def stream(self, name=None):
        with self.opening:
            o = self.vault.tcp(w.PUBLIC, 443)
            if o.outcome != w.INSPECT:
                raise OSError(o.error, "not opened")
            self.slots.append(o.slot)
        return o.sock

    @staticmethod
    def body(n, size=100_000):
        return hashlib.sha256(b"%d" % n).digest() * (size // 32)

    def answer(self, conn, got):
        if test_chain.fields_of(got).get("user-agent") == "agent-vm":
            _, text = test_chain.ghapi.answer("POST", "/graphql", True, got.body, True)
            return test_chain.ok(text, "200 OK", "Content-Type: application/json")
        n = int(re.search(rb"n(\d+)", got.body or got.target)[1])
        if got.body and json.loads(got.body)["body"] != self.body(n, 30_000).hex():
            return test_chain.ok(b'"other bytes"')
        return test_chain.ok(b'"' + self.body(n).hex().encode() + b'"', "200 OK", "Content-Type: application/json")

    def one(self, first):
        """Four requests on a connection; the answer is whole and the right one, or it is no answer."""
        out, sock = [], None
        for n in range(first, first + 4):
            try:
                if not sock:
                    sock = self.gate.trust().wrap_socket(self.stream(), server_hostname="api.github.com", suppress_ragged_eofs=False)
                    sock.settimeout(60)
                    c = Client(sock)
                body = json.dumps({"title": f"n{n}", "body": self.body(n, 30_000).hex()}) if n % 2 else ""
                sock.sendall((("POST /repos/acme/app/issues" if body else f"GET /repos/acme/app/contents/n{n}") +
                              f" HTTP/1.1\r\nHost: api.github.com\r\nAuthorization: Bearer {placeholder('gh')}\r\n" +
                              f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
                r = c.response()
                if r.status == 200:
                    self.assertTrue(json.loads(r.body) == self.body(n).hex(), "other bytes")
                    out.append(("request", "good"))
                else:
                    self.assertIn(r.status, (502, 503), r)
                    out.append(("request", "lost", r.status))
            except TimeoutError as e:
                raise AssertionError(f"stands still: {self.gate.log()} {self.vault.log()}") from e
            except (OSError, EOFError) as e:
                out.append(("request", "lost", str(e)))
                if sock:
                    sock.close()
                sock = None
        if sock:
            sock.close()
        return out

    def many(self, n, start):
        self.slots = []
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            got = collections.Counter(x for out in pool.map(self.one, range(start, start + n, 4)) for x in out)
        for s in self.slots:
            self.vault.ended(s)
        return got

    def idle(self):
        """The connections that vault keeps are ended by the server."""
        for c in self.up.conns:
            with contextlib.suppress(OSError):
                c.sock.shutdown(socket.SHUT_RDWR)  # its thread closes it

    def test_requests(self):
        self.all_good(self.many(16, 0), self.gate.log(), self.vault.log())
        self.idle()
        time.sleep(1)
        before, at = self.fds(), 1000
        for seed in range(SEED, SEED + ROUNDS):
            for roles in self.roles("gate", "vault"):
                with self.subTest(roles=roles, seed=seed):
                    got, met = self.phase(roles, seed, lambda: self.many(160, at), REQUESTS_RATE)
                    at += 160
                    self.mixed(got, met)
                    self.assertTrue(self.gate.alive(), self.gate.log())
                    self.assertEqual(os.waitpid(self.vault.pid, os.WNOHANG)[0], 0, self.vault.log())
        time.sleep(2)
        self.all_good(self.many(16, at), self.gate.log(), self.vault.log())
        self.idle()
        self.nothing_left(before)
        self.assertNotIn("no TLS handshake within", self.vault.log())  # that is what a socket which nobody watches looks like


class Judged(Case):
    """What cannot be judged is not opened: the kernel does not say which addresses are this host's."""

    def test_this_host_stays_closed(self):
        for port, what in enumerate(("recv", "socket"), 8088):
            with self.subTest(what):
                self.closed(port, what)

    def closed(self, port, what):
        lack = self.lacking("vault")["vault"]
        here = [Listener(a, port, ns=w.V) for a in (w.ON_LINK_HOST, w.HOST6, w.ROUTED_HOST)]
        v = w.Vault()
        for l in here:
            self.addCleanup(l.close)
        self.addCleanup(v.close)
        for l in here:  # it can be reached, but for the vault
            with socket.create_connection((l.addr, l.port), 20) as s:
                self.assertEqual(s.recv(9), b"hello")
            self.assertEqual((v.tcp(l.addr, l.port).outcome, l.seen), (w.REFUSED, 1))
        lack.set(1000, which=[what])
        w.sh("ip addr add 185.12.64.77/24 dev v0; ip addr del 185.12.64.77/24 dev v0")  # so that all is read again
        end = time.monotonic() + 20  # until it has heard of it
        while what == "recv" and v.tcp(here[0].addr, port).outcome == w.REFUSED and time.monotonic() < end:
            time.sleep(0.02)
        for l in here:
            o = v.tcp(l.addr, l.port)
            self.assertEqual((o.outcome, l.seen), (w.FAILED if what == "recv" else w.REFUSED, 1), (l.addr, v.log()))
        lack.set(0)
        public = Listener(w.PUBLIC6, port)
        self.addCleanup(public.close)
        for l in here:
            self.assertEqual((v.tcp(l.addr, l.port).outcome, l.seen), (w.REFUSED, 1))
        end = time.monotonic() + 30  # and a family that could not be looked at is not lost
        while (o := v.tcp(w.PUBLIC6, port)).outcome != w.CONNECTED:
            self.assertLess(time.monotonic(), end, (o.outcome, o.error))
            time.sleep(0.1)
        o.close()


if __name__ == "__main__":
    w.make_world()
    pair.make_guest_namespace()
    unittest.main(verbosity=2)
