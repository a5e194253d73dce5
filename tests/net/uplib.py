"""Upstream services, logins of a host, and gate's side of exchanges, for tests of the vault's upstream half.

Services are real TLS servers in the world of vaulttest, below a CA of the test's own. They record every byte that reached them
and, unless told otherwise, give method, target, all fields and the body back in fields and body.
"""
import array
import base64
import json
import os
import shutil
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time

import vaulttest as w
import xch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../image"))
from certs import Certificates  # noqa: E402

(LENT, OPENED, SOURCE, ENV, CONNECT_TO, TRUST) = range(11, 17)
NAME, ADDR, FD, PORT, PROV, KIND, TO_PORT, PROGRAM, GUARD, BITS = 32, 33, 39, 41, 45, 46, 47, 48, 49, 34
ANTHROPIC, OPENAI, OPENCODE = range(3)
PROVS = "anthropic openai opencode copilot github".split()
CLASSES = "default connectors files cloud never foreign".split()
ACCOUNT = "3f6d2c1a-90b4-4e57-8a1d-5c7e2b9f0a64"


def b64(data):
    return base64.urlsafe_b64encode(data if isinstance(data, bytes) else json.dumps(data).encode()).rstrip(b"=").decode()


def jwt(canary, exp, **claims):
    return ".".join((b64({"alg": "RS256"}), b64({"exp": exp, **claims}), b64(canary.encode())))


class Canaries:
    """Secrets of a host, none of them real; what must never be seen of each."""

    def __init__(self, n=0):
        now = int(time.time())
        self.anthropic = f"CANARY-anthropic-access-{n}-7f3a9c2e5b81d604-QwErTy"
        self.anthropic_refresh = f"CANARY-anthropic-refresh-{n}-19be77aa0c4d2f58-ZxCvB"
        self.anthropic_key = f"CANARY-anthropic-key-{n}-52c8e0d19f7ab346-PlOkMi"
        self.openai = jwt(f"CANARY-openai-access-{n}-0123456789", now + 86400,
                          **{"https://api.openai.com/auth": {"chatgpt_account_id": ACCOUNT}})
        self.openai_id = jwt(f"CANARY-openai-id-{n}-fedcba98", now + 86400, email="ann@real.example")
        self.openai_refresh = f"CANARY-openai-refresh-{n}-c41d7e90ab3625f8-WsXeD"
        self.openai_key = f"CANARY-openai-key-{n}-8e27b5f0c9134da6-QaZwSx"
        self.kimi = f"CANARY-kimi-key-{n}-11e8a1c735f09b46-RfVtGb"
        self.gh = f"CANARY-gh-token-{n}-6a90d3f1b7c24e58-LkJhGf"
        self.all = [v for v in vars(self).values()]

    def needles(self):
        out = []
        for s in self.all:
            part = s.rsplit(".", 1)[-1] if s.count(".") == 2 else s
            out += [part.encode(), base64.b64encode(part.encode())[:-4], part[:20].encode() if part == s else part.encode()]
        return out

    def claude(self, left=7200, **over):
        oauth = {"accessToken": self.anthropic, "refreshToken": self.anthropic_refresh,
                 "expiresAt": int((time.time() + left) * 1000), "scopes": ["user:inference", "user:profile"],
                 "subscriptionType": "max", **over}
        return json.dumps({"claudeAiOauth": oauth, "mcpOAuth": {"x": {"accessToken": "CANARY-mcp-not-ours-000000000000"}}})

    def codex(self, mode="chatgpt"):
        if mode == "apikey":
            return json.dumps({"auth_mode": mode, "OPENAI_API_KEY": self.openai_key})
        return json.dumps({"auth_mode": mode, "OPENAI_API_KEY": None, "last_refresh": "2026-11-01T00:00:00Z",
                           "tokens": {"id_token": self.openai_id, "access_token": self.openai,
                                      "refresh_token": self.openai_refresh, "account_id": ACCOUNT}})

    def opencode(self):
        return json.dumps({"kimi-for-coding": {"type": "api", "key": self.kimi}})


def write(path, text):
    """As the agents do it: a new file, renamed into place."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.chmod(path + ".new", 0o600)
    os.rename(path + ".new", path)


class Got:
    """A request that reached a service."""

    def __init__(self, head, body, conn):
        self.head, self.body, self.conn = head, body, conn
        lines = head.split(b"\r\n")
        self.method, self.target, self.version = lines[0].split(b" ")
        self.fields = [tuple(l.split(b": ", 1)) for l in lines[1:] if l]

    def get(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower().encode()]


class Conn:
    """The service's end of a connection."""

    def __init__(self, sock, up, number):
        self.sock, self.up, self.number, self.buf, self.raw = sock, up, number, b"", b""

    def more(self):
        data = self.sock.recv(65536)
        self.raw += data
        self.up.bytes += data
        self.buf += data
        return data

    def until(self, end):
        while end not in self.buf:
            if not self.more():
                return None
        at = self.buf.index(end) + len(end)
        out, self.buf = self.buf[:at], self.buf[at:]
        return out

    def exact(self, n):
        while len(self.buf) < n:
            if not self.more():
                return None
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def request(self):
        head = self.until(b"\r\n\r\n")
        if head is None:
            return None
        got = Got(head[:-4], b"", self.number)
        if got.get("transfer-encoding"):
            while True:
                n = int(self.until(b"\r\n"), 16)
                piece = self.exact(n + 2)[:-2]
                got.body += piece
                if n == 0:
                    break
        elif got.get("content-length"):
            got.body = self.exact(int(got.get("content-length")[0]))
        return None if got.body is None else got

    def send(self, data):
        self.sock.sendall(data)

    def end(self):
        """close_notify, and then the end."""
        try:
            self.sock.unwrap()
        except OSError:
            pass


def ok(body=b"ok", status="200 OK", *fields):
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n" % (status.encode(), len(body),
                                                           b"".join(f.encode() + b"\r\n" for f in fields)) + body


def mirror(conn, got):
    """All of the request back, in a field each and in the body."""
    body = got.head + b"\r\n\r\n" + got.body
    fields = b"".join(b"X-Echo-%d: %s\r\n" % (i, v) for i, (_, v) in enumerate(got.fields))
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%s\r\n" % (len(body), fields) + body)


class Upstream(w.Listener):
    def __init__(self, context, addr=w.PUBLIC, port=443, answer=mirror, ns=None):
        """@answer(conn, got): bytes to be sent, or None when it sent them; raises Stop to end the connection."""
        self.context, self.answer = context, answer
        self.requests, self.conns, self.bytes, self.failed = [], [], b"", []
        super().__init__(addr, port, ns=ns, serve=self.serve)

    def serve(self, raw):
        raw.settimeout(600)
        try:
            sock = self.context.wrap_socket(raw, server_side=True) if self.context else raw
        except OSError as e:
            self.failed.append(e)
            return
        conn = Conn(sock, self, len(self.conns))
        self.conns.append(conn)
        try:
            while got := conn.request():
                self.requests.append(got)
                said = self.answer(conn, got)
                if said is not None:
                    conn.send(said)
        except (OSError, Stop):
            pass
        sock.close()


class Stop(Exception):
    pass


class Host:
    """The host's side of a launch: login files, environment, what is lent."""

    def __init__(self, certs):
        self.dir, self.certs, self.c = tempfile.mkdtemp(dir="/var/tmp"), certs, Canaries()
        self.claude, self.codex, self.opencode = (os.path.join(self.dir, n) for n in ("claude", "codex", "opencode"))
        for d in (self.claude, self.codex, self.opencode):
            os.mkdir(d, 0o700)
        self.claude_file, self.codex_file = self.claude + "/.credentials.json", self.codex + "/auth.json"
        self.opencode_file = self.opencode + "/auth.json"
        self.copilot_file = self.opencode + "/config.json"
        write(self.claude_file, self.c.claude())
        write(self.codex_file, self.c.codex())
        write(self.opencode_file, self.c.opencode())

    def close(self):
        shutil.rmtree(self.dir)

    def vault(self, lent=tuple(xch.KINDS), opened=(), env=None, connect_to=(), trust=None, guards=(), program=1, records=b"",
              sources=(ANTHROPIC, OPENAI, OPENCODE), inspected=(), pipes=None, shared=(), **kw):
        env = {"anthropic-key": self.c.anthropic_key, "openai-key": self.c.openai_key} if env is None else env
        extra, number = {}, 20
        recs = w.rec(LENT, sum(1 << xch.KINDS.index(k) for k in lent))
        recs += b"".join(w.rec(OPENED, w.rec(PROV, PROVS.index(p)) + w.rec(BITS, 1 << CLASSES.index(c))) for p, c in opened)
        for kind in sources:
            folder, name = os.path.split((self.claude_file, self.codex_file, self.opencode_file, self.copilot_file)[kind])
            extra[number] = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            recs += w.rec(SOURCE, w.rec(KIND, kind) + w.rec(FD, number) + w.rec(NAME, name) + w.rec(PROGRAM, program) +
                          b"".join(w.rec(GUARD, struct.pack("<QQ", os.stat(g).st_dev, os.stat(g).st_ino)) for g in guards))
            number += 1
        for kind, secret in env.items():
            extra[number], end = os.pipe()
            for k in (kind, *shared):  # others that the same pipe is for
                recs += w.rec(ENV, w.rec(KIND, xch.KINDS.index(k)) + w.rec(FD, number))
            number += 1
            if secret is None:
                pipes[kind] = end
                continue
            os.write(end, secret.encode())
            os.close(end)
        for name, port, addr, to_port in connect_to:
            recs += w.rec(CONNECT_TO, w.rec(NAME, name) + w.rec(PORT, port) + w.rec(ADDR, w.packed(addr)) + w.rec(TO_PORT, to_port))
        pem = (self.certs.dir / "ca.pem").read_bytes() if trust is None else trust
        extra[number] = os.memfd_create("trust")
        os.write(extra[number], pem)
        recs += w.rec(TRUST, w.rec(FD, number))
        inspected = [h for h in xch.HOSTS] if inspected == () else inspected
        v = w.Vault(kw.pop("flags", 0), recs + records, inspected=inspected, extra=extra, **kw)
        for fd in extra.values():
            os.close(fd)
        v.box = xch.Inbox(v.gate)
        return v


class Exchange:
    """What gate has of a request that it handed over."""

    def __init__(self, v, host, method="GET", path="/", body=None, creds=(), pairs=(), slot=1, raw=None, length=None, hold=False, **kw):
        """@body: bytes, sent with their length; @length False: as a stream. @hold: nothing of it is sent yet."""
        self.v = v
        pairs = list(pairs)
        if creds and not any(n.lower() == "accept-encoding" for n, _ in pairs):
            pairs.append(("Accept-Encoding", "identity"))
        kind = xch.BODY_NONE if body is None else xch.BODY_STREAM if length is False else xch.BODY_LENGTH
        self.sock, far = socket.socketpair()
        m = raw or xch.request(host, method, path, pairs=pairs, body=kind, creds=creds, slot=slot,
                               body_len=(len(body) if length is None else length) if kind == xch.BODY_LENGTH else 0, **kw)
        xch.raw_send(v.gate, m, [far.fileno()])
        far.close()
        self.frames = xch.Frames(self.sock, 60)
        if not hold:
            try:
                self.send(body or b"")
                if not kw.get("flags", 0) & xch.UPGRADE:
                    self.end()
            except ConnectionError:
                pass  # it was answered, or cut, before all was sent

    def send(self, data):
        self.sock.sendall(xch.data_frames(data))

    def end(self):
        self.sock.sendall(xch.frame(xch.END))

    def answer(self):
        kind, data = self.frames.next()
        assert kind == xch.ANSWER, kind
        self.a = xch.Answer(data)
        return self.a

    def all(self):
        """(answer, body, trailers); a cut raises EOFError."""
        self.answer()
        body, trailers = b"", []
        while True:
            kind, data = self.frames.next()
            if kind == xch.END:
                break
            if kind == xch.DATA:
                assert not trailers
                body += data
            else:
                trailers = xch.parse_fields(data)
        self.sock.close()
        return self.a, body, trailers

    def close(self):
        self.sock.close()
