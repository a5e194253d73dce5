"""The gate alone, behind its socket pairs: Python plays launcher, wire, vault and guest."""
import base64
import fcntl
import hashlib
import os
import select
import signal
import socket
import ssl
import struct
import tempfile
import threading
import time

import xch

SEED = bytes(range(32))
JWT_H = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
JWTS = ("codex-a", "codex-id", "opencode-a", "opencode-id")
ALL = (1 << len(xch.KINDS)) - 1
PROVS = "anthropic openai opencode copilot github".split()
CLASSES = "default connectors files cloud never foreign".split()


def letters(kind, n):
    sum_ = hashlib.sha256(b"agent-vm placeholder 1\0\0" + SEED + kind.encode()).digest()
    return "".join(ALPHABET[b & 31] for b in sum_[:n])


def placeholder(kind):
    """As gate draws it from SEED; of a JWT with a payload of our own."""
    if kind in JWTS:
        payload = base64.urlsafe_b64encode(b'{"iss":"agent-vm","exp":1800086400}').rstrip(b"=").decode()
        return ".".join((JWT_H, payload, base64.urlsafe_b64encode(letters(kind, 24).encode()).decode()))
    return {"copilot": "gho_avm_"}.get(kind, f"avm-{kind}-") + letters(kind, 26)


def bits(*kinds):
    return sum(1 << xch.KINDS.index(k) for k in kinds)


def rec(key, value):
    if isinstance(value, int):
        value = struct.pack("<Q", value)
    return struct.pack("<HI", key, len(value)) + (value if isinstance(value, bytes) else value.encode())


def config(lent=ALL, api=(), session="test", repos=(), switches=None, push_refs=None):
    """@api: "PROVIDER=CLASS"; @repos: "OWNER/NAME=LEVEL", on the GitHub list."""
    cfg = rec(1, SEED) + rec(2, lent) + rec(4, session)
    opened = {}
    for text in api:
        prov, cls = text.split("=")
        opened[prov] = opened.get(prov, 0) | 1 << CLASSES.index(cls)
    for prov, mask in opened.items():
        cfg += rec(3, rec(5, PROVS.index(prov)) + rec(6, mask))
    github = b"".join(rec(8, text) for text in repos)
    github += b"" if switches is None else rec(9, switches)
    github += b"" if push_refs is None else rec(10, push_refs)
    return cfg + (rec(7, github) if github else b"")


class Exchange:
    """A request at the vault."""

    def __init__(self, data, fd):
        self.request = xch.Request(data)
        self.sock = socket.socket(fileno=fd)
        self.frames = xch.Frames(self.sock)
        self.body = None

    def read_body(self):
        self.body = self.frames.body()
        return self.body

    def answer(self, status=200, pairs=(), body=b"", stream=False, trailers=(), end=True, code="none"):
        kind = xch.BODY_STREAM if stream else xch.BODY_LENGTH if body is not None else xch.BODY_NONE
        out = xch.frame(xch.ANSWER, xch.answer(status, pairs, kind, 0 if stream or body is None else len(body), code,
                                               self.request.slot, self.request.gen))
        out += xch.data_frames(body or b"")
        out += xch.frame(xch.TRAILERS, xch.fields(trailers)) if trailers else b""
        self.sock.sendall(out + (xch.frame(xch.END) if end else b""))

    def close(self):
        self.sock.close()


class Gate:
    def __init__(self, lent=ALL, api=(), cfg=None, ready=True, wire=None, vault=None):
        """@wire, @vault: gate's ends of the sockets of real ones, which are taken; what is not given this test plays."""
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wire, wire = (None, wire) if wire else socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.vault, vault = (None, vault) if vault else socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.from_wire, self.from_vault = xch.Inbox(self.wire), xch.Inbox(self.vault)
        self.dir = tempfile.mkdtemp()
        self.log_path = os.path.join(self.dir, "gate.log")
        log = os.open(self.log_path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        memory = os.memfd_create("config", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.write(memory, config(lent, api) if cfg is None else cfg)
        fcntl.fcntl(memory, 1033, 0xE)  # F_ADD_SEALS: shrink, grow, write
        fds = {3: control.fileno(), 4: log, 5: wire.fileno(), 6: vault.fileno(), 7: memory}
        self.started = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                high = {k: fcntl.fcntl(v, fcntl.F_DUPFD, 200) for k, v in fds.items()}
                os.dup2(os.open("/dev/null", os.O_RDWR), 0)
                for k in (1, 2):
                    os.dup2(log, k)
                for k, v in high.items():
                    os.dup2(v, k)
                os.closerange(8, 4096)
                program = os.environ.get("GATE") or os.path.join(os.environ["AGENT_VM_BUILD"], "src/gate/agent-vm-gate")
                os.execv(program, ["agent-vm-gate"])
            finally:
                os._exit(99)
        for s in (control, wire, vault):
            s.close()
        os.close(log)
        os.close(memory)
        self.next_flow = 100
        self.served = []
        self.lock = threading.Lock()
        self.thread = None
        self.stopping = False
        if ready:
            said = self.hear()
            assert said[0] == xch.CTL_CA, (said, self.log())
            self.ca_der = said[5:]  # behind the hash of its subject
            said = self.hear()
            assert said == bytes([xch.CTL_READY]), (said, self.log())
            self.ready_ms = (time.monotonic() - self.started) * 1000

    def hear(self, timeout=30):
        self.control.settimeout(timeout)
        return self.control.recv(4096)

    def log(self):
        with open(self.log_path) as f:
            return f.read()

    def wait(self, timeout=20):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        self.pid = 0
        raise AssertionError("the gate does not end; " + self.log())

    def alive(self):
        if self.pid and os.waitpid(self.pid, os.WNOHANG)[0]:
            self.pid = 0
        return bool(self.pid)

    def close(self):
        self.stopping = True
        if self.thread:
            self.thread.join(10)
        self.control.close()
        status = self.wait() if self.pid else 0
        for s in filter(None, (self.wire, self.vault)):
            s.close()
        assert "ERROR" not in self.log() and "Sanitizer" not in self.log(), self.log()
        assert status == 0, (status, self.log())

    # --- wire and guest ---

    def stream(self, port=443, tied=0, named=0):
        """A stream of the guest as vault hands it over: (flow, our end of the pair)."""
        ours, theirs = socket.socketpair()
        flow = (self.next_flow, 7)
        self.next_flow += 1
        xch.raw_send(self.vault, xch.net_peek(*flow, port, tied, named), [theirs.fileno()])
        theirs.close()
        ours.settimeout(float(os.environ.get("GT_TIMEOUT", 30)))
        return flow, ours

    def trust(self, alpn=()):
        ctx = ssl.create_default_context(cadata=self.ca_der)
        if alpn:
            ctx.set_alpn_protocols(list(alpn))
        return ctx

    def tls(self, host, alpn=("http/1.1",), ctx=None, port=443):
        flow, s = self.stream(port)
        c = (ctx or self.trust(alpn)).wrap_socket(s, server_hostname=host, suppress_ragged_eofs=True)
        c.flow = flow
        c.settimeout(30)
        return c

    # --- vault ---

    def exchange(self, timeout=20):
        m = self.from_vault.get(xch.REQUEST, timeout=timeout)
        return Exchange(m[3], m[4])

    def note(self, timeout=20):
        return xch.Note(self.from_vault.get(xch.NOTE, timeout=timeout)[3])

    def notes(self):
        while self.from_vault.pump(0):
            pass
        return [xch.Note(m[3]) for m in self.from_vault.take(xch.NOTE)]

    def serve(self, handler):
        """Answers each exchange in a thread of its own: handler(exchange). Nothing else can be dialled."""
        def one(x):
            try:
                handler(x)
            except (EOFError, OSError, BrokenPipeError):
                pass
            finally:
                x.close()

        def loop():
            while not self.stopping:
                try:
                    if not self.from_vault.pump(0.1):
                        continue
                except (EOFError, OSError):
                    return
                for m in self.from_vault.take(xch.DIAL):
                    xch.raw_send(self.vault, xch.net_dialled(m[1], m[2], xch.FAILED, 111))
                for m in self.from_vault.take(xch.REQUEST):
                    x = Exchange(m[3], m[4])
                    self.served.append(x)
                    threading.Thread(target=one, args=(x,), daemon=True).start()
        self.thread = threading.Thread(target=loop, daemon=True)
        self.thread.start()

    def rss_kib(self):
        """Resident, of that the private part, and the share; nothing in a sanitizer's build, whose allocator keeps what was freed."""
        if sanitized():
            return 0, 0, 0
        with open(f"/proc/{self.pid}/smaps_rollup") as f:
            lines = dict(l.split(":", 1) for l in f if ":" in l)
        kib = lambda k: int(lines[k].split()[0])
        return kib("Rss"), kib("Private_Clean") + kib("Private_Dirty"), kib("Pss")


def sanitized():
    with open(os.path.join(os.environ["AGENT_VM_BUILD"], "src/gate/agent-vm-gate"), "rb") as f:
        return b"__asan_init" in f.read()


class Response:
    def __init__(self, status, reason, fields, body, trailers=()):
        self.status, self.reason, self.fields, self.body, self.trailers = status, reason, fields, body, trailers

    def get(self, name):
        v = [v for n, v in self.fields if n.lower() == name.lower()]
        return v[0] if v else None

    def __repr__(self):
        return f"Response({vars(self)})"


class Client:
    """HTTP/1.1 over a socket, read exactly."""

    def __init__(self, sock):
        self.sock, self.got = sock, b""

    def fill(self):
        more = self.sock.recv(65536)
        if not more:
            raise EOFError("closed")
        self.got += more

    def line(self):
        while b"\r\n" not in self.got:
            self.fill()
        out, _, self.got = self.got.partition(b"\r\n")
        return out

    def exact(self, n):
        while len(self.got) < n:
            self.fill()
        out, self.got = self.got[:n], self.got[n:]
        return out

    def head(self):
        version, status, reason = self.line().split(b" ", 2)
        assert version == b"HTTP/1.1"
        return int(status), reason.decode(), self.field_lines()

    def field_lines(self):
        out = []
        while True:
            l = self.line()
            if not l:
                return out
            n, v = l.split(b":", 1)
            out.append((n.decode(), v.strip().decode("latin-1")))

    def response(self, is_head=False):
        status, reason, fields = self.head()
        r = Response(status, reason, fields, b"")
        if is_head or status in (204, 304) or status < 200:
            return r
        if (r.get("transfer-encoding") or "") == "chunked":
            while n := int(self.line(), 16):
                r.body += self.exact(n)
                assert self.exact(2) == b"\r\n"
            r.trailers = self.field_lines()
        else:
            r.body = self.exact(int(r.get("content-length")))
        return r

    def ended(self):
        """Nothing more comes, and the end."""
        assert not self.got, self.got
        try:
            return self.sock.recv(1) == b""
        except (ConnectionError, ssl.SSLError):
            return True


class Proxy:
    """CONNECT, for programs that find gate by HTTPS_PROXY: @connect(name) gives the stream of a guest."""

    def __init__(self, connect):
        self.connect, self.lock = connect, threading.Lock()
        self.s = socket.create_server(("127.0.0.1", 0))
        self.url = "http://127.0.0.1:%d" % self.s.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                c, _ = self.s.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(c,), daemon=True).start()

    def close(self):
        self.s.shutdown(socket.SHUT_RDWR)  # or who waits at it would go on at whatever gets its number next
        self.s.close()

    def serve(self, c):
        with c:
            while not (head := c.recv(4096, socket.MSG_PEEK)).endswith(b"\r\n\r\n"):
                if not head:
                    return
            c.recv(len(head))
            c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with self.lock:
                g = self.connect(head.split(b" ")[1].split(b":")[0].decode())
            g.settimeout(None)
            self.both(c, g)

    def both(self, c, g):
        with g:
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
            for s in (a, b):
                try:
                    s.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


def converse(s, pieces, seconds=30, half_close=True):
    """Sends the pieces, each its own record, ends our direction, and returns all that comes until the end. One thread, for a TLS
    object is not for two; what cannot be sent any more is left."""
    got, pieces, end, fd = b"", list(pieces), time.monotonic() + seconds, s.fileno()
    s.setblocking(False)
    while time.monotonic() < end:
        want_out = bool(pieces)
        try:
            more = s.recv(65536)
            if not more:
                return got
            got += more
            continue
        except (ssl.SSLWantReadError, BlockingIOError):
            pass
        except OSError:
            return got
        if pieces:
            try:
                n = s.send(pieces[0])
                pieces[0] = pieces[0][n:]
                if not pieces[0]:
                    pieces.pop(0)
                want_out = False
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError):
                pass
            except OSError:
                pieces = []
            if not pieces and half_close:
                try:
                    socket.socket.shutdown(s, socket.SHUT_WR)
                except OSError:
                    pass
            if not want_out:
                continue
        select.select([fd], [fd] if want_out else [], [], 0.5)
    raise TimeoutError(f"no end; so far {got[-300:]!r}")
