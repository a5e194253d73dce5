"""Messages between gate and vault as Python sees them: proto/{netmsg,httpmsg,exchange}.h. What plays one end of them in a test
builds and reads them with this, so a change of the C side shows here."""
import array
import base64
import re
import select
import socket
import struct
import threading
import time

PEEK, DIAL, DIALLED, RENEW, RENEWED, NOTE, INSPECTED = 0x40, 0x42, 0x43, 0x44, 0x45, 0x46, 0x48
HOLD, HELD, HANDOVER, RESET = 0x50, 0x51, 0x52, 0x54
REQUEST, ANSWER_MSG = 0x60, 0x61
CTL_READY, CTL_ERROR, CTL_PROBED, CTL_CA, CTL_RENEW, CTL_RENEWED = range(1, 7)
CONNECTED, INSPECT, REFUSED, FAILED, TAKEN = range(5)

NO_CRED = 0xFF
BODY_NONE, BODY_LENGTH, BODY_STREAM = range(3)
HAS_QUERY, UPGRADE, ACCOUNT, FOREIGN, H2 = 1, 2, 4, 8, 16
DATA, END, ANSWER, TRAILERS = 1, 2, 3, 4
DATA_MAX, WINDOW = 64 << 10, 256 << 10

KINDS = ("claude-a claude-r anthropic-oat anthropic-at anthropic-key codex-a codex-r codex-id codex-key opencode-a opencode-r "
         "opencode-id openai-key gh copilot zai zai-cp zhipu zhipu-cp kimi moonshot moonshot-cn").split()
HOSTS = ("api.anthropic.com mcp-proxy.anthropic.com platform.claude.com console.anthropic.com chatgpt.com api.openai.com "
         "auth.openai.com api.z.ai open.bigmodel.cn api.kimi.com api.moonshot.ai api.moonshot.cn api.githubcopilot.com "
         "api.individual.githubcopilot.com api.business.githubcopilot.com api.enterprise.githubcopilot.com api.github.com "
         "uploads.github.com github.com codeload.github.com raw.githubusercontent.com media.githubusercontent.com "
         "gist.github.com gist.githubusercontent.com").split()
METHODS = "GET HEAD POST PUT PATCH DELETE OPTIONS".split()
SLOTS = "bearer token basic key".split()
CODES = ("none framing version method path host limit cred-twice slot wrong-host stale foreign-cred path-denied upgrade "
         "login-inside credential-unavailable refresh-pending encoding upstream upstream-framing offlist-write class-admin class-never "
         "gql-parse gql-field gql-root gql-id gql-mutation search-scope head-scope mcp-tool self-test").split()
LACKS = "none login file key soon expired unknown rejected pending limit".split()


def check_tables(root):
    """The lists above against the C side."""
    def strings(path, name):
        with open(f"{root}/src/{path}") as f:
            text = f.read()
        return re.findall(r'"([^"]*)"', re.search(name + r"\[.*?\] = \{(.*?)\n\};", text, re.S)[1])
    assert strings("proto/placeholder.c", "ph_kind_str") == KINDS, "kinds"
    assert strings("proto/httpmsg.c", "refusal_code_str")[1:] == CODES[1:], "codes"
    assert strings("agents/providers.c", "prov_method_str") == METHODS, "methods"
    assert [s for s in strings("agents/providers.c", "prov_hosts") if "." in s] == HOSTS, "hosts"


def head(kind, length, slot, gen):
    return struct.pack("<HHIII", 1, kind, length, slot, gen)


def msg(kind, slot, gen, body=b""):
    return head(kind, 16 + len(body), slot, gen) + body


def send(sock, kind, slot, gen, body=b"", fds=()):
    raw_send(sock, msg(kind, slot, gen, body), fds)


def raw_send(sock, data, fds=()):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])


class Inbox:
    """Reads messages of a SOCK_SEQPACKET; those that nobody asked for yet wait. For several threads at once."""

    def __init__(self, sock):
        self.sock, self.queue, self.lock = sock, [], threading.Lock()

    def pump(self, timeout=0.0):
        """Takes what is there; False: nothing came in time, or another thread took it."""
        select.select([self.sock], [], [], max(0, timeout))
        with self.lock:
            if not select.select([self.sock], [], [], 0)[0]:
                return False
            data, anc, flags, _ = self.sock.recvmsg(200000, 64)
            if not data:
                raise EOFError("the other side closed")
            fds = [fd for _, _, d in anc for fd in array.array("i", d)]
            version, kind, n, slot, gen = struct.unpack("<HHIII", data[:16])
            assert (version, n) == (1, len(data)) and not flags & socket.MSG_CTRUNC and len(fds) < 2
            self.queue.append((kind, slot, gen, data, fds[0] if fds else None))
            return True

    def take(self, *kinds, slot=None):
        """All of these that wait."""
        with self.lock:
            out = [m for m in self.queue if m[0] in kinds and slot in (None, m[1])]
            self.queue[:] = [m for m in self.queue if m not in out]
            return out

    def get(self, *kinds, slot=None, timeout=20.0):
        """(kind, slot, generation, whole message, descriptor or None)"""
        end = time.monotonic() + timeout
        while True:
            with self.lock:
                for i, m in enumerate(self.queue):
                    if m[0] in kinds and slot in (None, m[1]):
                        return self.queue.pop(i)
            if not self.pump(end - time.monotonic()) and time.monotonic() >= end:
                raise TimeoutError(f"none of {[hex(k) for k in kinds]}; waiting: {[hex(m[0]) for m in self.queue]}")

    def none(self, *kinds, wait=0.2):
        """Nothing of these kinds is there, or comes."""
        end = time.monotonic() + wait
        while time.monotonic() < end:
            self.pump(end - time.monotonic())
        return not [m for m in self.queue if m[0] in kinds]


def net_peek(slot, gen, port=443, tied=0, named=0):
    return msg(PEEK, slot, gen, struct.pack("<HBB4x", port, tied, named))


def net_dial(slot, gen, name=""):
    return msg(DIAL, slot, gen, struct.pack("256s", name.encode()))


def net_dialled(slot, gen, outcome, error=0):
    return msg(DIALLED, slot, gen, struct.pack("<II", outcome, error))


def net_held(slot, gen, n):
    return msg(HELD, slot, gen, struct.pack("<Q", n))


def net_renewed(slot, gen, lack="none", expires_in=0, exp=0, scope="", account_id="", plan="", fedramp=0):
    return msg(RENEWED, slot, gen, struct.pack("<qqIB3x72s48s1024s", expires_in, exp, LACKS.index(lack), fedramp, account_id.encode(),
                                               plan.encode(), scope.encode()))


class Note:
    def __init__(self, data):
        assert len(data) == 168
        self.up, self.down, self.ms, self.status, host, method, code, kind = struct.unpack("<QQIHBBBB", data[16:42])
        self.host, self.method = HOSTS[host], (METHODS + [None])[method]
        self.code, self.kind = CODES[code], None if kind == NO_CRED else KINDS[kind]
        path, _, rest = data[48:].partition(b"\0")
        assert not data[42:48].strip(b"\0") and not rest.strip(b"\0"), data
        self.path = path.decode("ascii")

    def __repr__(self):
        return f"Note({vars(self)})"


def fields(pairs):
    b = lambda s: s if isinstance(s, bytes) else s.encode("latin-1")
    return b"".join(struct.pack("<HI", len(b(n)), len(b(v))) + b(n) + b(v) for n, v in pairs)


def parse_fields(data):
    out, at = [], 0
    while at < len(data):
        n, v = struct.unpack_from("<HI", data, at)
        at += 6
        out.append((data[at:at + n], data[at + n:at + n + v]))
        at += n + v
    assert at == len(data)
    return out


def request(host, method="GET", path="/", query=None, pairs=(), body=BODY_NONE, body_len=0, flags=0, creds=(), slot=1, gen=1):
    """@creds: (kind, slot) by name, two at most. For who plays gate."""
    kinds = [KINDS.index(k) for k, _ in creds] + [NO_CRED] * (2 - len(creds))
    slots = [SLOTS.index(s) for _, s in creds] + [NO_CRED] * (2 - len(creds))
    flags |= HAS_QUERY if query is not None else 0
    path, query = path.encode("latin-1"), (query or "").encode("latin-1")
    host = HOSTS.index(host) if isinstance(host, str) else host
    rest = struct.pack("<QIIHBBBB4B6x", body_len, len(path), len(query), len(pairs), host, METHODS.index(method), body, flags,
                       *kinds, *slots) + path + query + fields(pairs)
    return head(REQUEST, 16 + len(rest), slot, gen) + rest


class Request:
    """A REQUEST as gate wrote it."""

    def __init__(self, data):
        kind, n, self.slot, self.gen = struct.unpack("<HIII", data[2:16])
        assert kind == REQUEST and n == len(data)
        (self.body_len, path_len, query_len, n_fields, host, method, self.body, self.flags, *creds) = struct.unpack(
            "<QIIHBBBB4B6x", data[16:48])
        self.host, self.method = HOSTS[host], METHODS[method]
        self.creds = [(KINDS[k], SLOTS[s]) for k, s in zip(creds[:2], creds[2:]) if k != NO_CRED]
        rest = data[48:]
        self.path = rest[:path_len].decode("latin-1")
        self.query = rest[path_len:path_len + query_len].decode("latin-1") if self.flags & HAS_QUERY else None
        self.fields = parse_fields(rest[path_len + query_len:])
        assert len(self.fields) == n_fields

    def __repr__(self):
        return f"Request({vars(self)})"

    def get(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower().encode()]

    def http1(self, secrets=(), account=None):
        """The head as vault would write it: for tests that look at what reaches upstream."""
        target = self.path + ("" if self.query is None else "?" + self.query)
        out = f"{self.method} {target} HTTP/1.1\r\nHost: {self.host}\r\n".encode("latin-1")
        out += b"".join(n + b": " + v + b"\r\n" for n, v in self.fields)
        for (kind, slot), secret in zip(self.creds, secrets):
            out += {"bearer": "Authorization: Bearer %s\r\n", "token": "Authorization: token %s\r\n",
                    "basic": "Authorization: Basic %s\r\n", "key": "x-api-key: %s\r\n"}[slot].encode() % (
                        base64.b64encode(b"x-access-token:" + secret.encode()) if slot == "basic" else secret.encode())
        if self.flags & ACCOUNT and account:
            out += b"ChatGPT-Account-Id: " + account.encode() + b"\r\n"
        if self.flags & UPGRADE:
            out += b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
        if self.body == BODY_LENGTH:
            out += b"Content-Length: %d\r\n" % self.body_len
        elif self.body == BODY_STREAM:
            out += b"Transfer-Encoding: chunked\r\n"
        return out + b"\r\n"


def answer(status=200, pairs=(), body=BODY_STREAM, body_len=0, code="none", slot=1, gen=1):
    rest = struct.pack("<QHHBB2x", body_len, len(pairs), status, body, CODES.index(code)) + fields(pairs)
    return head(ANSWER_MSG, 16 + len(rest), slot, gen) + rest


class Answer:
    """An ANSWER as vault wrote it."""

    def __init__(self, data):
        kind, n, self.slot, self.gen = struct.unpack("<HIII", data[2:16])
        assert kind == ANSWER_MSG and n == len(data)
        self.body_len, n_fields, self.status, self.body, code = struct.unpack("<QHHBB2x", data[16:32])
        self.code, self.fields = CODES[code], parse_fields(data[32:])
        assert len(self.fields) == n_fields

    def __repr__(self):
        return f"Answer({vars(self)})"

    def get(self, name):
        return [v for n, v in self.fields if n.lower() == name.lower().encode()]


def frame(kind, data=b""):
    return struct.pack("<IB3x", len(data), kind) + data


def data_frames(data):
    return b"".join(frame(DATA, data[i:i + DATA_MAX]) for i in range(0, len(data), DATA_MAX))


class Frames:
    """Reads the frames of one end of an exchange."""

    def __init__(self, sock, timeout=20.0):
        self.sock, self.got = sock, b""
        sock.settimeout(timeout)

    def exact(self, n):
        while len(self.got) < n:
            more = self.sock.recv(1 << 20)
            if not more:
                raise EOFError(f"cut with {len(self.got)} of {n} bytes")
            self.got += more
        out, self.got = self.got[:n], self.got[n:]
        return out

    def next(self):
        n, kind, zero = struct.unpack("<IB3s", self.exact(8))
        assert zero == b"\0\0\0" and kind in (DATA, END, ANSWER, TRAILERS)
        return kind, self.exact(n)

    def body(self):
        """DATA to END, joined; a cut raises EOFError."""
        out = []
        while True:
            kind, data = self.next()
            if kind == END:
                return b"".join(out)
            assert kind == DATA and 1 <= len(data) <= DATA_MAX
            out.append(data)
