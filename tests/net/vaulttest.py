"""The vault alone, behind its socket pairs, in a world made of network namespaces.

V, where the vault runs: veth to S, 10.99.0.1/30, 185.12.64.9/24 (a public on-link network), 2a0e:b107:1::1/64, and a route
that makes 45.9.9.0/24 local although no interface lists it. S, the world: everything else is an address of its loopback, so
that public servers, a LAN, metadata services and resolvers are real sockets. Default routes of V lead to S.
"""
import array
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000

PUBLIC, PUBLIC2, PUBLIC6 = "45.0.0.10", "45.0.0.11", "2a0e:b107::10"
RESOLVER, RESOLVER2, DEAD = "45.0.0.53", "45.0.0.54", "45.0.1.1"
LAN, METADATA, LINK_LOCAL = "192.168.1.20", "169.254.169.254", "169.254.7.7"
HOST, ON_LINK_HOST, HOST6, ROUTED_HOST = "10.99.0.1", "185.12.64.9", "2a0e:b107:1::1", "45.9.9.9"
PROXY = "192.168.1.99"
S4 = [PUBLIC, PUBLIC2, RESOLVER, RESOLVER2, LAN, METADATA, LINK_LOCAL, PROXY, "1.1.1.1", "8.8.8.8", "10.20.0.5", "172.20.1.1",
      "100.64.0.1", "100.100.100.200", "168.63.129.16", "198.18.0.77", "203.0.113.7", "240.1.2.3", "140.82.112.3", "45.0.0.12"]
S6 = [PUBLIC6, "fd12::5", "fd00:ec2::254", "2001:db8::1", "2606:4700::1", "fe80::77"]

OPEN_TCP, OPEN_UDP, OPEN_ECHO, DNS_ASK, CANCEL, ENDED = 0x10, 0x12, 0x14, 0x16, 0x18, 0x1A
INBOUND, INBOUND_DONE, UDP_IN, UDP_OUT, CONFIG, CONFIGURED, CLOSE, FAMILY = 0x20, 0x21, 0x22, 0x24, 0x26, 0x27, 0x28, 0x2A
CONNECTED, INSPECT, REFUSED, FAILED, TAKEN = range(5)
STEPS = ("no-network gateway never host metadata link-local github-ssh quic flag allow-host allow-lan port private reserved "
         "public rebind foreign-name").split()
NO_NETWORK, ALLOW_LAN, ALLOW_HOST = 1, 2, 4
QTYPES = {"A": 1, "CNAME": 5, "SOA": 6, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "HTTPS": 65, "ANY": 255, "AXFR": 252}


class Namespace(threading.local):
    """To be in by `with`, each thread for itself."""

    def __init__(self, fd):
        self.fd = fd

    def __enter__(self):
        self.before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.switch(self.fd)

    def __exit__(self, *_):
        self.switch(self.before)
        os.close(self.before)

    @staticmethod
    def switch(fd):
        if LIBC.setns(fd, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")


def sh(cmd):
    subprocess.run(cmd, shell=True, check=True, stdout=subprocess.DEVNULL)


V = S = None
RESOLV_CONF = None


def make_world():
    global V, S, RESOLV_CONF
    if "NET_OWN_NAMESPACE" not in os.environ:
        sys.exit("this would change the network of the machine; start it with tests/net/run")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    V = Namespace(os.open("/proc/self/ns/net", os.O_RDONLY))
    if LIBC.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    S = Namespace(os.open("/proc/self/ns/net", os.O_RDONLY))
    child = subprocess.Popen(["sleep", "infinity"])  # a process for `ip link set netns`
    Namespace.switch(V.fd)
    sh(f"ip link set lo up; ip link add v0 type veth peer name s0 netns {child.pid}")
    sh("sysctl -qw net.ipv4.ping_group_range='0 0' net.ipv6.conf.v0.accept_dad=0 || true")
    sh("ip addr add 10.99.0.1/30 dev v0; ip addr add 185.12.64.9/24 dev v0; ip addr add 2a0e:b107:1::1/64 dev v0 nodad")
    sh("ip link set v0 up; ip route add local 45.9.9.0/24 dev lo")
    with S:
        sh("sysctl -qw net.ipv4.icmp_ratelimit=0 net.ipv6.icmp.ratelimit=0 || true")
        sh("ip link set lo up; ip addr add 10.99.0.2/30 dev s0; ip addr add 185.12.64.20/24 dev s0")
        sh("ip addr add 2a0e:b107:1::2/64 dev s0 nodad; ip link set s0 up")
        for a in S4:
            sh(f"ip addr add {a}/32 dev lo")
        for a in S6:
            sh(f"ip addr add {a}/128 dev lo nodad")
        sh("ip route add default via 10.99.0.1; ip -6 route add default via 2a0e:b107:1::1")
        sh(f"ip route add blackhole {DEAD}/32")
    sh("ip route add default via 10.99.0.2; ip -6 route add default via 2a0e:b107:1::2")
    child.kill()
    child.wait()
    f = tempfile.NamedTemporaryFile("w", delete=False)
    RESOLV_CONF = f.name
    os.chmod(RESOLV_CONF, 0o644)
    sh(f"mount --bind {RESOLV_CONF} {os.path.realpath('/etc/resolv.conf')}")
    resolvers(RESOLVER)


def resolvers(*servers):
    with open(RESOLV_CONF, "w") as f:
        f.write("".join(f"nameserver {s}\n" for s in servers))


def family(a):
    return socket.AF_INET6 if ":" in a else socket.AF_INET


class Listener:
    """TCP or UDP at an address of @ns, counting what comes. TCP says hello; both send back what they get."""

    def __init__(self, addr, port, udp=False, ns=None, serve=None):
        self.seen, self.udp, self.serve = 0, udp, serve
        with ns or S:
            self.s = socket.socket(family(addr), socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if ":" in addr:
                self.s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self.s.setsockopt(socket.SOL_IP, 15, 1)  # IP_FREEBIND: broadcast and not yet there
            self.s.bind((addr, port))
            if not udp:
                self.s.listen(1024)
        self.addr, self.port = addr, self.s.getsockname()[1]
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        try:
            while True:
                if self.udp:
                    data, peer = self.s.recvfrom(65535)
                    if not data:
                        return
                    self.seen += 1
                    self.s.sendto(data, peer)
                else:
                    c, _ = self.s.accept()
                    self.seen += 1
                    threading.Thread(target=self.serve or self.echo, args=(c,), daemon=True).start()
        except OSError:
            pass

    def echo(self, c):
        try:
            with c:
                c.sendall(b"hello")
                while data := c.recv(65536):
                    c.sendall(data)
        except ConnectionError:
            pass

    def close(self):
        try:
            self.s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.thread.join(60)
        self.s.close()


def wire_name(text):
    return b"".join(bytes([len(l)]) + l.encode() for l in text.split(".") if l) + b"\0"


def read_name(m, at):
    labels, end = [], None
    while m[at]:
        if m[at] & 0xC0:
            end = end or at + 2
            at = (m[at] & 0x3F) << 8 | m[at + 1]
            continue
        labels.append(m[at + 1:at + 1 + m[at]].decode("latin1"))
        at += 1 + m[at]
    return ".".join(labels), end or at + 1


def rr(name, qtype, data, ttl=300):
    return wire_name(name) + struct.pack("!HHIH", QTYPES.get(qtype, qtype), 1, ttl, len(data)) + data


def addr_rr(name, a, ttl=300):
    return rr(name, "AAAA" if ":" in a else "A", socket.inet_pton(family(a), a), ttl)


class Answer:
    def __init__(self, m):
        self.raw = m
        self.id, self.flags, qd, an, ns, ar = struct.unpack("!6H", m[:12])
        self.rcode, self.tc, self.ad = self.flags & 15, bool(self.flags & 0x200), bool(self.flags & 0x20)
        at, self.rrs, self.opt, self.ede = 12, [], None, None
        for _ in range(qd):
            self.qname, at = read_name(m, at)
            at += 4
        for i in range(an + ns + ar):
            name, at = read_name(m, at)
            t, c, ttl, n = struct.unpack("!HHIH", m[at:at + 10])
            data, at = m[at + 10:at + 10 + n], at + 10 + n
            if t == 41:
                self.opt = data
                if len(data) >= 6 and data[:2] == b"\0\x0f":
                    self.ede = struct.unpack("!H", data[4:6])[0]
            else:
                self.rrs.append((0 if i < an else 1 if i < an + ns else 2, name, t, ttl, data))
        assert at == len(m), "bytes behind the answer"

    @property
    def addrs(self):
        return sorted(socket.inet_ntop(socket.AF_INET if t == 1 else socket.AF_INET6, d)
                      for _, _, t, _, d in self.rrs if t in (1, 28))


class Resolver:
    """A DNS server. zone(name, qtype) gives (rcode, answers, authority, additional), None: silence, or bytes: as they are,
    behind the question's ID."""

    def __init__(self, addr, zone, delay=0):
        self.zone, self.asked, self.delay, self.tcp_asked = zone, [], delay, 0
        with S:
            self.u = socket.socket(family(addr), socket.SOCK_DGRAM)
            self.u.bind((addr, 53))
            self.t = socket.socket(family(addr), socket.SOCK_STREAM)
            self.t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.t.bind((addr, 53))
            self.t.listen(8)
        self.threads = [threading.Thread(target=f, daemon=True) for f in (self.udp, self.tcp)]
        for t in self.threads:
            t.start()

    def answer(self, q, tcp):
        name, at = read_name(q, 12)
        qtype = struct.unpack("!H", q[at:at + 2])[0]
        self.asked.append((name, qtype))
        said = self.zone(name, qtype)
        if said is None:
            return None
        if isinstance(said, bytes):
            return q[:2] + said
        rcode, an, ns, ar = said
        body = q[12:at + 4] + b"".join(an + ns + ar)
        m = q[:2] + struct.pack("!5H", 0x8180 | 0x20 | rcode, 1, len(an), len(ns), len(ar)) + body
        return m if tcp or len(m) <= 1232 else q[:2] + struct.pack("!5H", 0x8380, 1, 0, 0, 0) + q[12:at + 4]

    def udp(self):
        try:
            while True:
                q, peer = self.u.recvfrom(4096)
                if len(q) < 12:
                    return self.u.close()
                m = self.answer(q, False)
                if m is not None:
                    time.sleep(self.delay)
                    self.u.sendto(m, peer)
        except OSError:
            pass

    def tcp(self):
        try:
            while True:
                c, _ = self.t.accept()
                with c:
                    self.tcp_asked += 1
                    n = struct.unpack("!H", c.recv(2, socket.MSG_WAITALL))[0]
                    m = self.answer(c.recv(n, socket.MSG_WAITALL), True)
                    if m is not None:
                        c.sendall(struct.pack("!H", len(m)) + m)
        except (OSError, struct.error):
            pass

    def close(self):
        for s in (self.u, self.t):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        for t in self.threads:
            t.join(60)  # the port is free only when nobody waits at it any more
        self.u.close(), self.t.close()


def rec(key, value):
    if isinstance(value, int):
        value = struct.pack("<Q", value)
    elif isinstance(value, str):
        value = value.encode()
    return struct.pack("<HI", key, len(value)) + value


def packed(a):
    return (b"\4" if family(a) == socket.AF_INET else b"\6") + socket.inet_pton(family(a), a)


def rule(dest, lo=0, hi=None, tcp=1, udp=1):
    """ADDRESS, ADDRESS/BITS, or a name."""
    body = b""
    if dest[0].isdigit() or ":" in dest:
        a, _, bits = dest.partition("/")
        body += rec(33, packed(a)) + rec(34, int(bits or (128 if ":" in a else 32)))
    else:
        body += rec(32, dest)
    return rec(4, body + rec(35, lo) + rec(36, hi or lo) + rec(37, tcp) + rec(38, udp))


def net_addr(a):
    b = socket.inet_pton(family(a), a)
    return bytes([6 if ":" in a else 4, 0, 0, 0]) + b + bytes(16 - len(b))


class Vault:
    def __init__(self, flags=0, records=b"", publish=(), inspected=(), ready=True, extra=None, before=None, audit=None):
        """@extra: more descriptors by number, which the records name; @before: called in its process before it begins; @audit:
        another file for its lines."""
        self.dir = tempfile.mkdtemp()
        paths = [os.path.join(self.dir, n) for n in (audit or "audit.jsonl", "audit.jsonl.1", "vault.log")]
        audit, old, log = (os.open(p, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600) for p in paths)
        self.audit_path, self.log_path = paths[0], paths[2]
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.wire, wire = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.gate, gate = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        cfg = rec(1, flags) + rec(2, bytes([2, 0x61, 0x76, 1, 2, 3])) + rec(9, rec(39, 8) + rec(40, 9)) + records
        cfg += b"".join(rec(5, n) for n in inspected)
        fds = {3: control.fileno(), 4: log, 5: wire.fileno(), 6: gate.fileno(), 8: audit, 9: old, **(extra or {})}
        for i, (s, port) in enumerate(publish):
            fds[10 + i] = s.fileno()
            listen = "%s:%d" % s.getsockname()[:2]
            cfg += rec(7, rec(39, 10 + i) + rec(41, port) + rec(38, int(s.type == socket.SOCK_DGRAM)) + rec(42, listen))
        fds[7] = os.memfd_create("config", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
        os.write(fds[7], cfg)
        fcntl.fcntl(fds[7], 1033, 0xE)  # F_ADD_SEALS: shrink, grow, write
        self.pid = os.fork()
        if self.pid == 0:
            try:
                high = {k: fcntl.fcntl(v, fcntl.F_DUPFD, 200) for k, v in fds.items()}
                null = os.open("/dev/null", os.O_RDWR)
                for k in (0,):
                    os.dup2(null, k)
                for k in (1, 2):
                    os.dup2(log, k)
                for k, v in high.items():
                    os.dup2(v, k)
                os.closerange(max(fds) + 1, 4096)
                if before:
                    before()
                program = os.environ.get("VAULT") or os.path.join(os.environ["AGENT_VM_BUILD"], "src/vault/agent-vm-vault")
                os.execv(program, ["agent-vm-vault"])
            finally:
                os._exit(99)
        for s in (control, wire, gate):
            s.close()
        for fd in (audit, old, log, fds[7]):
            os.close(fd)
        self.next, self.queue = 1, []
        if ready:
            m = self.recv(CONFIG)
            self.config = m[1]
            self.send(CONFIGURED, 0, 0)
            said = self.control.recv(4096)
            assert said[0] == 1, self.log()
            self.families, self.digest = said[1:].decode().rsplit(" ", 1)

    def close(self):
        self.control.close()
        if self.pid:
            self.wait()
        for s in (self.wire, self.gate):
            s.close()

    def wait(self, timeout=60):
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("the vault does not end; " + self.log())

    def heard(self, timeout=20, echoes=False):
        """What the launcher is told next, b"" for nothing; of what came back only when that is asked."""
        end = time.monotonic() + timeout
        while select.select([self.control], [], [], max(end - time.monotonic(), 0))[0]:
            data = self.control.recv(4096)
            if data[:1] != b"\x08" or echoes:
                return data
        return b""

    def log(self):
        with open(self.log_path) as f:
            return f.read()

    def audit(self):
        """The lines so far; the counts of repeats come when it has ended."""
        if not os.path.isfile(self.audit_path):
            return []
        with open(self.audit_path) as f:
            return [json.loads(l) for l in f if not self.pid or l.endswith("\n")]  # what it writes just now may be there in part

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def waits(self):
        """It is not about to do something."""
        with open(f"/proc/{self.pid}/stat") as f:
            return f.read().rpartition(")")[2].split()[0] == "S"

    def settled_fds(self):
        """Of a vault that has nothing to do: some descriptors are open for its start only."""
        n, same, end = -1, 0, time.monotonic() + 60
        while same < 10 and time.monotonic() < end:
            k = self.fds()
            n, same = k, same + 1 if n == k and self.waits() else 0
            time.sleep(0.03)
        return n

    def listen(self, port, s=None, text=None, fds=None):
        """As the launcher does: publish one more port."""
        text = "%s:%d" % s.getsockname()[:2] if text is None else text
        msg = struct.pack("<H64s", port, text.encode())
        fds = [s.fileno()] if fds is None else fds
        self.control.sendmsg([msg], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

    def raw(self, msg, fds=()):
        self.wire.sendmsg([msg], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])

    def send(self, kind, slot, gen, body=b""):
        self.raw(struct.pack("<HHIII", 1, kind, 16 + len(body), slot, gen) + body)

    def recv(self, kind, slot=None, timeout=40.0):
        """(slot, body, fd) of the next message of that kind; others wait."""
        end = time.monotonic() + timeout
        while True:
            for i, m in enumerate(self.queue):
                if m[0] == kind and slot in (None, m[1]):
                    del self.queue[i]
                    return m[1], m[3], m[4]
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.wire], [], [], left)[0]:
                raise TimeoutError(f"no message {kind:#x}; {self.log()}")
            data, anc, flags, _ = self.wire.recvmsg(70000, 64)
            if not data:
                raise EOFError(self.log())
            fd = array.array("i", anc[0][2])[0] if anc else None
            version, k, n, s, g = struct.unpack("<HHIII", data[:16])
            assert (version, n) == (1, len(data)) and not flags & socket.MSG_CTRUNC
            self.queue.append((k, s, g, data[16:], fd))

    def ask(self, kind, dst, port=0, slot=None):
        slot = slot or self.next
        self.next = slot + 1
        self.send(kind, slot, 7, net_addr(dst) + struct.pack("<HH", port, 40000))
        return slot

    def opened(self, kind, slot, timeout=40.0):
        _, body, fd = self.recv(kind + 1, slot, timeout)
        outcome, error, step, hold = struct.unpack("<4I", body)
        return Opened(slot, outcome, error, STEPS[step], hold, fd)

    def open(self, kind, dst, port=0, timeout=40.0):
        return self.opened(kind, self.ask(kind, dst, port), timeout)

    def tcp(self, dst, port, timeout=40.0):
        return self.open(OPEN_TCP, dst, port, timeout)

    def udp(self, dst, port):
        return self.open(OPEN_UDP, dst, port)

    def ended(self, slot, up=1, down=2, ms=3, how=0):
        self.send(ENDED, slot, 7, struct.pack("<QQII", up, down, ms, how))

    def dns_send(self, name, qtype="A", size=4096, tcp=0, edns=1, do=0, ad=0, cd=0):
        n = name if isinstance(name, bytes) else wire_name(name)
        slot, self.next = self.next, self.next + 1
        self.send(DNS_ASK, slot, 7, struct.pack("<HH6B", QTYPES.get(qtype, qtype), size, 1, cd, ad, do, tcp, len(n)) +
                  n + bytes(255 - len(n)) + bytes([edns, 0, 0]))
        return slot

    def dns_answer(self, slot, timeout=40.0):
        _, body, _ = self.recv(DNS_ASK + 1, slot, timeout)
        n, = struct.unpack("<I", body[:4])
        assert n == len(body) - 4
        return Answer(body[4:])

    def dns(self, name, qtype="A", timeout=40.0, dead=False, **kw):
        """Again if the vault has given up after 4 s: its resolver is a thread of ours, and may be as late as that. @dead: it is meant
        to be."""
        for _ in range(5):
            begin = time.monotonic()
            a = self.dns_answer(self.dns_send(name, qtype, **kw), timeout)
            if dead or a.rcode != 2 or time.monotonic() - begin < 3.5:
                break
            time.sleep(2.1)  # as long as it is remembered
        return a


class Opened:
    def __init__(self, slot, outcome, error, step, hold, fd):
        self.slot, self.outcome, self.error, self.step, self.hold = slot, outcome, error, step, hold
        self.sock = socket.socket(fileno=fd) if fd is not None else None
        if self.sock:
            self.sock.setblocking(True)
            self.sock.settimeout(20)

    def close(self):
        if self.sock:
            self.sock.close()
