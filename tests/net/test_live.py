#!/usr/bin/env python3
"""gate and vault together, each the real process with its sandbox on, between guests and services that read and write in bursts,
stop, and go on: by seed. Each request ends whole and equal within a limit that only a standstill reaches. tests/live has the same
for each alone, with a clock that stands, and is the place for many cases; here is what lies between the two.

    tests/net/run BUILD test_live.py

LIVE_CASES connections (60) from LIVE_SEED (1) on, LIVE_AT_ONCE (6) at a time."""
import concurrent.futures
import os
import random
import select
import socket
import ssl
import time
import unittest

import h2.config
import h2.connection
import h2.events
import h2.settings

import test_chain
import uplib as u
import vaulttest as w
from gatetest import placeholder

FIRST, CASES, AT_ONCE = (int(os.environ.get("LIVE_" + n, d)) for n, d in (("SEED", 1), ("CASES", 60), ("AT_ONCE", 6)))
LIMIT = 120  # seconds in which a connection of a few MB is through, however busy the machine is
HOST = "api.anthropic.com"
BLOCK = random.Random(0).randbytes(1 << 21)


def some_length(rng):
    unit, most = rng.choice([(1, 3), (1, 5000), (16384, 40), (65536, 10), (262144, 3)])
    return max(0, unit * rng.randint(0 if unit == 1 else 1, most) + (rng.randint(-1, 1) if unit > 1 else 0))


class Asked:
    """A request and its answer, the same for both ends: what a seed and a number make of them."""

    def __init__(self, seed, n):
        rng = random.Random(seed * 100 + n)
        self.path = f"/v1/messages?{seed}.{n}"
        self.up_chunked, self.down_chunked, self.once = (rng.random() < 0.5 for _ in range(3))
        at = rng.randrange(1 << 19)
        self.up, self.down = (BLOCK[a:a + some_length(rng)] for a in (at, at + 77))
        # What tells its length is over with its last byte, and an answer that is over before its request ends it.
        self.once = self.once and self.down_chunked

    @classmethod
    def by_path(cls, path):
        return cls(*map(int, path.split("?")[1].split(".")))


def chunk(data):
    return b"%x\r\n" % len(data) + data + b"\r\n"


class Talk:
    """One end of a connection in one thread: bursts and stops by @rng until they are used up; then as fast as it goes."""

    def __init__(self, sock, rng):
        self.sock, self.rng, self.out = sock, rng, bytearray()
        self.stops, self.until = rng.randint(0, 8), [0, 0]
        sock.setblocking(False)

    def stop(self, way):
        """Does it stand still in this direction now?"""
        if self.stops > 0 and self.rng.random() < 0.05:
            self.stops -= 1
            self.until[way] = time.monotonic() + self.rng.random() * 0.05
        return time.monotonic() < self.until[way]

    def run(self, limit):
        """Until over(). False: the other side ended first."""
        end = time.monotonic() + limit
        while not self.over():
            if time.monotonic() > end:
                raise TimeoutError("it stands still: " + self.tell())
            moved = want_out = False
            if not self.stop(0):
                try:
                    data = self.sock.recv(self.rng.choice([300, 5000, 70000]))
                    if not data:
                        return False
                    self.consume(data)
                    moved = True
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    pass
            if len(self.out) < 100000:
                self.produce()
            if self.out and not self.stop(1):
                try:
                    # What had no room has to be offered again, with no less behind it.
                    n = self.sock.send(memoryview(self.out)[:65536])
                    del self.out[:n]
                    moved = True
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                    want_out = True
            if not moved:
                select.select([self.sock], [self.sock] if want_out else [], [], 0.01)
        return True


class Http1(Talk):
    """Both ends read a head and a body by length or in chunks; got() is told of the body."""

    def __init__(self, sock, rng):
        super().__init__(sock, rng)
        self.buf, self.state, self.left = bytearray(), "head", 0

    def consume(self, data):
        self.buf += data
        while self.step():
            pass

    def line(self):
        at = self.buf.find(b"\r\n")
        if at < 0:
            return None
        out = bytes(self.buf[:at])
        del self.buf[:at + 2]
        return out

    def ended(self):
        self.state = "head"
        self.whole()

    def step(self):
        if self.state == "head":
            at = self.buf.find(b"\r\n\r\n")
            if at < 0:
                return False
            lines = bytes(self.buf[:at]).decode("latin-1").split("\r\n")
            del self.buf[:at + 4]
            fields = {n.lower(): v for n, v in (l.split(": ", 1) for l in lines[1:])}
            self.head(lines[0], fields)
            self.left = int(fields.get("content-length", 0))
            self.state = "size" if "transfer-encoding" in fields else "body"
        elif self.state == "size":
            line = self.line()
            if line is None:
                return False
            self.left = int(line, 16)
            self.state = "chunk" if self.left else "last"
        elif self.state in ("crlf", "last"):
            line = self.line()
            if line is None:
                return False
            assert line == b""
            if self.state == "last":
                self.ended()
            else:
                self.state = "size"
        elif self.left == 0 and self.state == "body":
            self.ended()
        else:
            part = bytes(self.buf[:self.left])
            if not part:
                return False
            del self.buf[:len(part)]
            self.left -= len(part)
            self.got(part)
            if self.left == 0 and self.state == "chunk":
                self.state = "crlf"
        return True

    def put(self, body, chunked, at, last):
        """The next piece of @body; how far it is out then."""
        part = body[at:at + self.rng.choice([100, 16384, 65536])]
        if part:
            self.out += chunk(part) if chunked else part
        if at + len(part) == len(body) and last and chunked:
            self.out += b"0\r\n\r\n"
        return at + len(part)


class Guest1(Http1):
    def __init__(self, sock, rng, asked):
        super().__init__(sock, rng)
        self.asked, self.pipelined = asked, rng.random() < 0.5
        self.tx = self.rx = self.at = 0
        self.body, self.said_head = bytearray(), False

    def tell(self):
        return f"HTTP/1.1, request {self.tx} at {self.at}, answer {self.rx} at {len(self.body)} of {[(len(a.up), len(a.down)) for a in self.asked]}"

    def over(self):
        return self.rx == len(self.asked)

    def produce(self):
        if self.tx == len(self.asked) or (self.tx > self.rx and not self.pipelined):
            return
        a = self.asked[self.tx]
        if not self.said_head:
            self.said_head = True
            self.out += (f"POST {a.path} HTTP/1.1\r\nHost: {HOST}\r\nx-api-key: {placeholder('anthropic-key')}\r\n" + (
                "Transfer-Encoding: chunked" if a.up_chunked else f"Content-Length: {len(a.up)}") + "\r\n\r\n").encode()
        else:
            self.at = self.put(a.up, a.up_chunked, self.at, True)
            if self.at == len(a.up):
                self.tx, self.at, self.said_head = self.tx + 1, 0, False

    def head(self, line, fields):
        assert line.startswith("HTTP/1.1 200"), line

    def got(self, part):
        self.body += part

    def whole(self):
        assert self.body == self.asked[self.rx].down, "another answer"
        self.rx, self.body = self.rx + 1, bytearray()


class Service1(Http1):
    def __init__(self, sock, rng):
        super().__init__(sock, rng)
        self.a, self.at, self.heard, self.said_head, self.body = None, 0, False, False, bytearray()

    def tell(self):
        return "a service"

    def over(self):
        return False

    def head(self, line, fields):
        assert self.a is None
        self.a, self.at, self.heard, self.said_head, self.body = Asked.by_path(line.split(" ")[1]), 0, False, False, bytearray()

    def got(self, part):
        self.body += part

    def whole(self):
        assert self.body == self.a.up, "another request"
        self.heard = True

    def produce(self):
        a = self.a
        if not a or not (self.heard or a.once):
            return
        if not self.said_head:
            self.said_head = True
            self.out += b"HTTP/1.1 200 OK\r\n" + (b"Transfer-Encoding: chunked" if a.down_chunked else b"Content-Length: %d" % len(a.down)) + b"\r\n\r\n"
        # With its head, for an answer of nothing is over with that.
        if self.at < len(a.down) or self.heard:
            self.at = self.put(a.down, a.down_chunked, self.at, self.heard)
            if self.at == len(a.down) and self.heard:
                self.a = None


class Http2(Talk):
    def __init__(self, sock, rng, client):
        super().__init__(sock, rng)
        self.k = h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding="latin-1"))
        self.k.initiate_connection()
        self.bodies, self.owed, self.at = {}, [], {}

    def ack(self):
        """Windows open at once, or somewhat later."""
        if self.stops and self.rng.random() < 0.5:
            return
        for n, sid in self.owed:
            self.k.acknowledge_received_data(n, sid)
        self.owed = []

    def put(self, sid, body, last):
        """False: it is over."""
        at = self.at.setdefault(sid, 0)
        n = min(self.k.local_flow_control_window(sid), self.k.max_outbound_frame_size, self.rng.choice([100, 16384, 65536]), len(body) - at)
        if at + n == len(body) and last:
            self.k.send_data(sid, body[at:at + n], end_stream=True)
            return False
        if n > 0:
            self.k.send_data(sid, body[at:at + n])
            self.at[sid] += n
        return True

    def consume(self, data):
        for e in self.k.receive_data(data):
            if isinstance(e, h2.events.DataReceived):
                self.bodies[e.stream_id] += e.data
                self.owed.append((e.flow_controlled_length, e.stream_id))
            elif isinstance(e, h2.events.StreamReset):
                raise AssertionError(f"reset: {e}")
            else:
                self.event(e)

    def produce(self):
        self.ack()
        self.speak()
        self.out += self.k.data_to_send()


class Guest2(Http2):
    def __init__(self, sock, rng, asked):
        super().__init__(sock, rng, True)
        self.asked, self.done, self.sending, self.most = asked, 0, {}, rng.randint(1, len(asked))
        self.of = {}

    def tell(self):
        return f"HTTP/2, {self.done} of {len(self.asked)} done; sending {[(s, self.at.get(s), len(a.up)) for s, a in self.sending.items()]}, got " \
               f"{[(len(self.bodies[s]), len(a.down)) for s, a in self.of.items()]}"

    def over(self):
        return self.done == len(self.asked)

    def speak(self):
        if len(self.of) < len(self.asked) and len(self.of) - self.done < self.most:
            a, sid = self.asked[len(self.of)], self.k.get_next_available_stream_id()
            head = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", a.path), ("x-api-key", placeholder("anthropic-key"))]
            self.k.send_headers(sid, head + ([] if a.up_chunked else [("content-length", str(len(a.up)))]))
            self.sending[sid] = self.of[sid] = a
            self.bodies[sid] = bytearray()
        for sid, a in list(self.sending.items()):
            if not self.put(sid, a.up, True):
                del self.sending[sid]

    def event(self, e):
        if isinstance(e, h2.events.ResponseReceived):
            assert dict(e.headers)[":status"] == "200", e.headers
        elif isinstance(e, h2.events.StreamEnded):
            assert self.bodies[e.stream_id] == self.of[e.stream_id].down, "another answer"
            self.done += 1


class Service2(Http2):
    def __init__(self, sock, rng):
        super().__init__(sock, rng, False)
        self.asked, self.heard, self.said = {}, set(), set()

    def tell(self):
        return "a service"

    def over(self):
        return False

    def event(self, e):
        if isinstance(e, h2.events.RequestReceived):
            self.asked[e.stream_id] = Asked.by_path(dict(e.headers)[":path"])
            self.bodies[e.stream_id] = bytearray()
        elif isinstance(e, h2.events.StreamEnded):
            assert self.bodies[e.stream_id] == self.asked[e.stream_id].up, "another request"
            self.heard.add(e.stream_id)

    def speak(self):
        for sid, a in list(self.asked.items()):
            if not (sid in self.heard or a.once):
                continue
            if sid not in self.said:
                self.said.add(sid)
                self.k.send_headers(sid, [(":status", "200")] + ([] if a.down_chunked else [("content-length", str(len(a.down)))]))
            elif not self.put(sid, a.down, sid in self.heard):
                del self.asked[sid]


class Service(u.Upstream):
    def serve(self, raw):
        try:
            with self.context.wrap_socket(raw, server_side=True) as c:
                self.conns.append(c)
                kind = Service2 if c.selected_alpn_protocol() == "h2" else Service1
                try:
                    kind(c, random.Random(FIRST + len(self.conns))).run(3600)
                except AssertionError as e:
                    self.failed.append(e)
        except (OSError, ValueError):
            pass


class Live(test_chain.Case):
    KINDS = ("anthropic-key",)

    def one(self, seed):
        rng = random.Random(seed)
        asked = [Asked(seed, n) for n in range(rng.choice([1, 1, 2, 5]))]
        two = rng.random() < 0.5
        sock = self.stream()
        size = rng.choice([0, 0, 4000, 70000])
        if size:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
        with self.gate.trust(("h2",) if two else ("http/1.1",)).wrap_socket(sock, server_hostname=HOST) as c:
            guest = (Guest2 if two else Guest1)(c, rng, asked)
            try:
                return None if guest.run(LIMIT) else f"seed {seed}: the end came first: {guest.tell()}"
            except Exception as e:
                return f"seed {seed}: {e!r}: {guest.tell()}"

    def test_nothing_stands_still(self):
        for alpn in ("h2", "http/1.1"):
            with self.subTest(services=alpn):
                self.serve(None, Service, alpn)
                half = FIRST + CASES // 2
                with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
                    bad = [b for b in pool.map(self.one, range(*((FIRST, half) if alpn == "h2" else (half, FIRST + CASES)))) if b]
                self.assertEqual((bad, self.up.failed), ([], []), self.vault.log()[-2000:])
                # What is kept with the services that go now is closed with them.
                self.up.close()
                for c in self.up.conns:
                    c.close()


if __name__ == "__main__":
    w.make_world()
    unittest.main()
