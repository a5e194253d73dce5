#!/usr/bin/env python3
"""wire and vault together, a kernel of its own as the guest: this host's TCP stack behind a TAP in a third namespace.

What each does alone is tested in their own tests; here it is seen that they understand each other.
"""
import fcntl
import hashlib
import os
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import unittest

import vaulttest as w
from vaulttest import Listener, Namespace, Resolver, Vault, addr_rr, rr

G = None


def make_guest_namespace():
    global G
    if w.LIBC.unshare(w.CLONE_NEWNET) != 0:
        raise OSError("unshare")
    G = Namespace(os.open("/proc/self/ns/net", os.O_RDONLY))
    Namespace.switch(w.V.fd)


class Both(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        build = os.environ["AGENT_VM_BUILD"]
        if not os.access("/dev/net/tun", os.W_OK):
            raise unittest.SkipTest("/dev/net/tun is not open to this user")
        cls.servers = [Listener(w.PUBLIC, 80), Listener(w.PUBLIC6, 80), Listener(w.PUBLIC, 123, udp=True)]
        cls.lan = Listener(w.LAN, 80)
        cls.resolver = Resolver(w.RESOLVER, cls.zone)
        w.resolvers(w.RESOLVER)
        cls.tcp_port, cls.udp_port = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        cls.udp_port.bind(("127.0.0.1", 0))
        cls.vault = Vault(ready=False, publish=[(cls.tcp_port, 3000), (cls.udp_port, 3001)])
        path = os.path.join(tempfile.mkdtemp(), "link")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(1)
        with G:
            w.sh("ip link set lo up; ip tuntap add dev tap0 mode tap")
            cls.adapter = subprocess.Popen([f"{build}/tests/net/adapter", "stream", path, "tap0"], stdout=subprocess.DEVNULL)
        link, _ = listening.accept()
        cls.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        cls.gate, gate = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        fds = {3: control.fileno(), 4: 2, 5: link.fileno(), 6: cls.vault.wire.fileno(), 7: gate.fileno()}
        cls.wire = os.fork()
        if cls.wire == 0:
            try:
                for k, fd in {k: fcntl.fcntl(v, fcntl.F_DUPFD, 200) for k, v in fds.items()}.items():
                    os.dup2(fd, k)
                os.closerange(8, 4096)
                os.execv(f"{build}/src/wire/agent-vm-wire", ["agent-vm-wire"])
            finally:
                os._exit(99)
        for s in (link, control, gate, cls.vault.wire):
            s.close()
        assert cls.control.recv(99)[0] == 1 and cls.vault.control.recv(99)[0] == 1
        with G:
            w.sh("ip link set tap0 address 02:61:76:01:02:03 mtu 65520 up; ip addr add 192.0.0.2/29 dev tap0")
            w.sh("ip addr add fd6b:91d4:3e07::2/64 dev tap0 nodad; ip route add default via 192.0.0.1")
            w.sh("ip -6 route add default via fd6b:91d4:3e07::1 dev tap0")

    @classmethod
    def tearDownClass(cls):
        cls.control.close()
        os.waitpid(cls.wire, 0)
        cls.vault.close()
        cls.adapter.kill()
        cls.adapter.wait()

    @staticmethod
    def zone(name, qtype):
        answers = {1: [addr_rr(name, "10.0.0.5" if name == "evil.example" else w.PUBLIC)],
                   16: [rr(name, 16, b"\xc8" + b"x" * 200) for _ in range(15)]}
        return 0, answers.get(qtype, []), [], []

    def guest(self, kind, addr, port):
        with G:
            s = socket.socket(w.family(addr), kind)
        self.addCleanup(s.close)
        s.settimeout(5)
        s.connect((addr, port))
        return s

    def dns(self, name, qtype=1, tcp=False):
        q = struct.pack("!6H", 77, 0x100, 1, 0, 0, 1) + w.wire_name(name) + struct.pack("!HH", qtype, 1)
        q += b"\0\0\x29\4\xd0\0\0\0\0\0\0"
        s = self.guest(socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM, "192.0.0.1", 53)
        s.send((struct.pack("!H", len(q)) if tcp else b"") + q)
        if not tcp:
            return w.Answer(s.recv(65535))
        n, = struct.unpack("!H", s.recv(2, socket.MSG_WAITALL))
        return w.Answer(s.recv(n, socket.MSG_WAITALL))

    def test_public_servers_are_reached(self):
        for addr in (w.PUBLIC, w.PUBLIC6):
            self.assertEqual(self.guest(socket.SOCK_STREAM, addr, 80).recv(16), b"hello")
        s = self.guest(socket.SOCK_DGRAM, w.PUBLIC, 123)
        s.send(b"time?")
        self.assertEqual(s.recv(16), b"time?")

    def test_what_is_refused_looks_refused_and_is_not_seen(self):
        for addr, port in ((w.LAN, 80), (w.METADATA, 80), (w.HOST, 80), ("192.0.0.1", 8080), (w.PUBLIC, 22), (w.PUBLIC, 4444)):
            t = time.monotonic()
            with self.subTest(addr, port=port), self.assertRaises(ConnectionRefusedError):
                self.guest(socket.SOCK_STREAM, addr, port)
            self.assertLess(time.monotonic() - t, 1)
        s = self.guest(socket.SOCK_DGRAM, w.LAN, 161)
        with self.assertRaises(ConnectionRefusedError):
            s.send(b"x")
            s.recv(16)
        self.assertEqual(self.lan.seen, 0)

    def test_names(self):
        self.assertEqual(self.dns("www.example.org").addrs, [w.PUBLIC])
        a = self.dns("evil.example")
        self.assertEqual((a.id, a.addrs, a.ede), (77, [], 15))
        self.assertTrue(self.dns("big.example", 16).tc)
        self.assertEqual(len(self.dns("big.example", 16, tcp=True).rrs), 15)
        self.assertEqual(self.dns("printer.local").rcode, 3)

    def test_published_ports(self):
        server, udp = Listener("192.0.0.2", 3000, ns=G), Listener("192.0.0.2", 3001, udp=True, ns=G)
        self.addCleanup(udp.close)
        with socket.create_connection(self.tcp_port.getsockname(), 5) as c:
            self.assertEqual(c.recv(16), b"hello")
        server.close()
        with self.assertRaises(ConnectionResetError):  # nobody listens in the guest any more
            with socket.create_connection(self.tcp_port.getsockname(), 5) as c:
                c.recv(16)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as c:
            c.settimeout(5)
            c.connect(self.udp_port.getsockname())
            c.send(b"datagram")
            self.assertEqual(c.recv(16), b"datagram")

    def test_100_mb_to_a_slow_client_and_back(self):
        size, seen = 100 << 20, {}
        block = bytes(range(256)) * 4096  # 1 MiB

        def guest():
            with G:
                s = socket.create_server(("192.0.0.2", 3000))
            ready.set()
            c, _ = s.accept()
            for _ in range(size // len(block)):
                c.sendall(block)
            c.shutdown(socket.SHUT_WR)
            h, n = hashlib.sha256(), 0
            while data := c.recv(1 << 20):
                h.update(data)
                n += len(data)
            seen["up"] = (n, h.hexdigest())
            c.close(), s.close()

        want = hashlib.sha256()
        for _ in range(size // len(block)):
            want.update(block)
        ready = threading.Event()
        t = threading.Thread(target=guest)
        t.start()
        ready.wait()
        with socket.create_connection(self.tcp_port.getsockname(), 60) as c:
            time.sleep(1)  # everything on the way is full by then
            h, n, start = hashlib.sha256(), 0, time.monotonic()
            while data := c.recv(256 << 10):
                h.update(data)
                n += len(data)
                time.sleep(max(0, start + n / 25e6 - time.monotonic()))  # 25 MB/s
            self.assertEqual((n, h.hexdigest()), (size, want.hexdigest()))
            for _ in range(size // len(block)):
                c.sendall(block)
            c.shutdown(socket.SHUT_WR)
            t.join(60)
        self.assertEqual(seen["up"], (size, want.hexdigest()))

    def test_ends_are_told(self):
        with self.guest(socket.SOCK_STREAM, w.PUBLIC, 80) as s:
            self.assertEqual(s.recv(16), b"hello")
        end = time.monotonic() + 5
        while time.monotonic() < end and not any(l["k"] == "tcp" and l["down"] == 5 for l in self.vault.audit()):
            time.sleep(0.05)
        self.assertTrue(any(l["k"] == "tcp" and (l["down"], l["end"]) == (5, "fin") for l in self.vault.audit()))

    def test_zz_wire_ends_with_the_vault(self):
        os.kill(self.vault.pid, signal.SIGKILL)
        self.vault.wait()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            pid, _ = os.waitpid(self.wire, os.WNOHANG)
            if pid:
                type(self).wire = os.spawnlp(os.P_NOWAIT, "true", "true")  # for tearDownClass to wait for
                return
            time.sleep(0.01)
        self.fail("wire lives on without the vault")


if __name__ == "__main__":
    w.make_world()
    make_guest_namespace()
    unittest.main(verbosity=2)
