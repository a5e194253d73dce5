#!/usr/bin/env python3
"""What the vault opens and refuses, with real sockets at the other end of each refusal (network page 5, 7, 8, 9, 11, 14).

A refusal counts only if something listens there that would have seen the connection: each test first reaches its listener
without the vault, or with the option that opens it.
"""
import errno
import itertools
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
import unittest

import vaulttest as w
import xch
from vaulttest import (ALLOW_HOST, ALLOW_LAN, CONNECTED, FAILED, INSPECT, NO_NETWORK, REFUSED, TAKEN, Listener, Resolver, Vault, addr_rr,
                       rr, rule, wire_name)


class Case(unittest.TestCase):
    def setUp(self):
        w.resolvers("127.0.0.1")  # refuses at once; tests of names put theirs in its place

    def vault(self, *a, **kw):
        v = Vault(*a, **kw)
        self.addCleanup(v.close)
        return v

    def listener(self, *a, **kw):
        l = Listener(*a, **kw)
        self.addCleanup(l.close)
        return l

    def resolver(self, *a, **kw):
        r = Resolver(*a, **kw)
        self.addCleanup(r.close)
        return r

    def reachable(self, l):
        """Without the vault it can be reached: a hole in the vault would be seen."""
        before = l.seen
        with socket.socket(w.family(l.addr), socket.SOCK_DGRAM if l.udp else socket.SOCK_STREAM) as s:
            s.settimeout(20)
            s.connect((l.addr, l.port))
            if l.udp:
                s.send(b"x")
            s.recv(16)
        self.assertEqual(l.seen, before + 1)
        l.seen = 0

    def quick(self, limit, once, n=4, before=lambda: None):
        """A quarter of @n times, or of up to ten times as many: this may be a busy machine. @before each is not timed."""
        times = []
        for _ in range(10 * n):
            before()
            t = time.monotonic()
            once()
            times.append(time.monotonic() - t)
            if len(times) >= n and sorted(times)[len(times) // 4] < limit:
                return times
        self.fail(times)

    def wait(self, what, seconds=60):
        end = time.monotonic() + seconds
        while not what():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)

    def hello(self, o):
        self.assertEqual((o.outcome, o.step), (CONNECTED, o.step))
        self.assertEqual(o.sock.recv(16), b"hello")
        o.close()


class Opens(Case):
    def test_public_tcp_udp_and_echo(self):
        tcp, udp = self.listener(w.PUBLIC, 80), self.listener(w.PUBLIC, 123, udp=True)
        six = self.listener(w.PUBLIC6, 80)
        v = self.vault()
        for o in (v.tcp(w.PUBLIC, 80), v.tcp(w.PUBLIC6, 80)):
            self.assertEqual(o.step, "public")
            self.assertEqual(o.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), 1)
            self.assertEqual(o.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1)
            self.hello(o)
        o = v.udp(w.PUBLIC, 123)
        o.sock.send(b"time?")
        self.assertEqual(o.sock.recv(16), b"time?")
        o.close()
        self.assertEqual((tcp.seen, udp.seen, six.seen), (1, 1, 1))
        o = v.open(w.OPEN_ECHO, w.PUBLIC)
        self.assertEqual(o.outcome, CONNECTED)
        o.sock.send(b"\x08\0\0\0\0\0\0\1ping")
        self.assertEqual(o.sock.recv(64)[8:], b"ping")
        o.close()

    def test_443_is_connected_until_there_is_a_gate(self):
        l = self.listener(w.PUBLIC, 443)
        self.hello(self.vault().tcp(w.PUBLIC, 443))
        self.assertEqual(l.seen, 1)

    def test_refused_upstream_is_told_and_silence_is_not_an_answer(self):
        v = self.vault()

        def refused():
            o = v.tcp(w.PUBLIC, 4444)
            self.assertEqual((o.outcome, o.error), (FAILED, errno.ECONNREFUSED))
        self.quick(0.05, refused)
        slot = v.ask(w.OPEN_TCP, w.DEAD, 80)
        with self.assertRaises(TimeoutError):
            v.opened(w.OPEN_TCP, slot, 0.5)
        v.send(w.CANCEL, slot, 7)
        self.hello_after_cancel(v)

    def hello_after_cancel(self, v):
        l = self.listener(w.PUBLIC2, 80)
        self.hello(v.tcp(w.PUBLIC2, 80))
        self.assertEqual(l.seen, 1)

    def test_what_is_cancelled_leaves_no_descriptor(self):
        v = self.vault()
        before = v.settled_fds()
        slots = [v.ask(w.OPEN_TCP, w.DEAD, 80) for _ in range(300)]
        v.dns("gateway.agent-vm.internal")
        self.assertGreater(v.fds(), before + 250)
        for s in slots:
            v.send(w.CANCEL, s, 7)
        v.dns("gateway.agent-vm.internal")
        self.assertLessEqual(v.settled_fds(), before)

    def test_descriptors_under_way_are_bounded(self):
        """200 answers with a descriptor, none read: the kernel holds at most 64 of them, and none is lost."""
        l = self.listener(w.PUBLIC, 80)
        v = self.vault()
        slots = [v.ask(w.OPEN_TCP, w.PUBLIC, 80) for _ in range(200)]
        self.wait(lambda: l.seen == 200)  # so that none is merely late
        self.assertGreaterEqual(v.settled_fds(), 200 - 64)
        for s in slots:
            self.hello(v.opened(w.OPEN_TCP, s))
        self.assertEqual(l.seen, 200)

    def test_out_of_descriptors_costs_this_open_only(self):
        l = self.listener(w.PUBLIC, 80)
        v = self.vault()
        v.dns("gateway.agent-vm.internal")
        v.settled_fds()
        used = {int(n) for n in os.listdir(f"/proc/{v.pid}/fd")}
        n = min(set(range(1000)) - used)
        resource.prlimit(v.pid, resource.RLIMIT_NOFILE, (n, n))
        o = v.tcp(w.PUBLIC, 80)
        self.assertEqual((o.outcome, o.error), (FAILED, errno.EMFILE))
        self.assertIn("Too many open files", v.log())
        self.assertEqual(v.dns("gateway.agent-vm.internal").addrs, ["192.0.0.1"])
        self.assertEqual(l.seen, 0)


    def test_out_of_ports_costs_this_open_only(self):
        # A port at which no other test connects: what was closed there keeps one of the two for a minute.
        l, other = self.listener(w.PUBLIC, 8041), self.listener(w.PUBLIC2, 8041)
        with open("/proc/sys/net/ipv4/ip_local_port_range") as f:
            before = f.read().strip()
        w.sh("sysctl -qw net.ipv4.ip_local_port_range='41000 41001'")
        self.addCleanup(w.sh, f"sysctl -qw net.ipv4.ip_local_port_range='{before}'")
        v = self.vault()
        held = [v.tcp(w.PUBLIC, 8041) for _ in range(2)]
        o = v.tcp(w.PUBLIC, 8041)
        self.assertEqual([h.outcome for h in held] + [o.outcome, o.error], [CONNECTED, CONNECTED, FAILED, errno.EADDRNOTAVAIL])
        self.assertIn("refused for lack of something on this host: Cannot assign requested address", v.log())
        self.hello(v.tcp(w.PUBLIC2, 8041))
        for h in held:
            self.assertEqual(h.sock.recv(16), b"hello")  # so it was seen
        self.assertEqual((l.seen, other.seen), (2, 1))
        for h in held:
            h.close()


class Refusals(Case):
    REFUSED_V4 = [
        ("LAN", w.LAN, 80, "private"), ("10/8", "10.20.0.5", 80, "private"), ("172.16/12", "172.20.1.1", 80, "private"),
        ("carrier", "100.64.0.1", 80, "private"), ("on-link", "185.12.64.20", 80, "private"),
        ("metadata", w.METADATA, 80, "metadata"), ("metadata", "100.100.100.200", 80, "metadata"),
        ("metadata", "168.63.129.16", 80, "metadata"), ("link-local", w.LINK_LOCAL, 80, "link-local"),
        ("benchmark", "198.18.0.77", 80, "reserved"), ("test-net", "203.0.113.7", 80, "reserved"),
        ("class E", "240.1.2.3", 80, "reserved"), ("github ssh", "140.82.112.3", 22, "github-ssh"),
        ("ssh", w.PUBLIC, 22, "port"), ("mail", w.PUBLIC, 25, "port"), ("dns", w.PUBLIC, 53, "port"),
        ("dns over tls", w.PUBLIC, 853, "port"), ("git", w.PUBLIC, 9418, "port"),
        ("ULA", "fd12::5", 80, "private"), ("metadata", "fd00:ec2::254", 80, "metadata"), ("doc", "2001:db8::1", 80, "reserved"),
    ]

    def test_nothing_that_listens_sees_what_is_refused(self):
        v = self.vault()
        for what, addr, port, step in self.REFUSED_V4:
            for udp in (False, True):
                if udp and step in ("github-ssh",) or udp and port in (22, 25, 9418):
                    continue
                with self.subTest(what, addr=addr, port=port, udp=udp):
                    l = self.listener(addr, port, udp=udp)
                    self.reachable(l)
                    o = v.udp(addr, port) if udp else v.tcp(addr, port)
                    self.assertEqual((o.outcome, o.step, o.sock), (REFUSED, step, None))
                    self.assertEqual(o.hold > 0, udp)
                    time.sleep(0.01)
                    self.assertEqual(l.seen, 0)
                    self.quick(0.05, lambda: v.udp(addr, port) if udp else v.tcp(addr, port), 1)
                    l.close()

    def test_echo_is_judged_too(self):
        v = self.vault()
        for a, step in ((w.LAN, "private"), (w.METADATA, "metadata"), (w.HOST, "host"), ("192.0.0.1", "gateway")):
            o = v.open(w.OPEN_ECHO, a)
            self.assertEqual((o.outcome, o.step), (REFUSED, step))

    def test_the_host_by_every_name_of_it(self):
        """A listener on all addresses of the host: own addresses, the alias, loopback, and each way to write them."""
        l4, l6 = self.listener("0.0.0.0", 8080, ns=w.V), self.listener("::", 8080, ns=w.V)
        for a in (w.HOST, w.ON_LINK_HOST, w.ROUTED_HOST, w.HOST6, "127.0.0.1", "::1"):
            with self.subTest(direct=a), socket.create_connection((a, 8080), 20) as s:
                self.assertEqual(s.recv(5), b"hello")
        l4.seen = l6.seen = 0
        v = self.vault()
        never = ["127.0.0.1", "127.8.8.8", "0.0.0.0", "::", "::1", "::ffff:10.99.0.1", "::ffff:127.0.0.1", "::7f00:1",
                 "2002:a63:1::1", "64:ff9b::7f00:1", "fe80::1", "10.99.0.3", "185.12.64.255", "255.255.255.255", "224.0.0.1",
                 "ff02::1", "::ffff:0:a63:1"]
        host = [w.HOST, w.ON_LINK_HOST, w.ROUTED_HOST, w.HOST6, "64:ff9b::a63:1", "64:ff9b::2d09:909", "192.0.0.1",
                "fd6b:91d4:3e07::1"]
        for a, step in [(a, "never") for a in never] + [(a, "host") for a in host]:
            for kind in (w.OPEN_TCP, w.OPEN_UDP):
                with self.subTest(a, kind=kind):
                    o = v.open(kind, a, 8080)
                    self.assertEqual((o.outcome, o.step), (REFUSED, step))
        time.sleep(0.05)
        self.assertEqual((l4.seen, l6.seen), (0, 0))

    def test_an_address_that_the_host_gets_later_is_the_hosts(self):
        v = self.vault()
        w.sh("ip addr add 45.7.7.7/32 dev v0")
        self.addCleanup(w.sh, "ip addr del 45.7.7.7/32 dev v0")
        l = self.listener("45.7.7.7", 80, ns=w.V)
        self.reachable(l)
        o = v.tcp("45.7.7.7", 80)
        self.assertEqual((o.outcome, o.step, l.seen), (REFUSED, "host", 0))
        # Answers are judged by the interfaces alone.
        self.resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, "45.7.7.7")] if t == 1 else [], [], []))
        w.resolvers(w.RESOLVER)
        time.sleep(1.1)
        self.assertEqual(v.dns("me.example").addrs, [])

    def test_a_network_of_a_vpn_is_no_nat64_whatever_a_resolver_says(self):
        """A prefix that a resolver shows is one only where a gateway leads there; the well-known one also where this host translates."""
        def on_link(net, addr):
            w.sh(f"ip -6 route add {net} dev v0")
            self.addCleanup(w.sh, f"ip -6 route del {net} dev v0 2>/dev/null || true")
            with w.S:
                w.sh(f"ip addr add {addr}/128 dev s0 nodad")
            self.addCleanup(lambda: w.S.__enter__() or w.sh(f"ip addr del {addr}/128 dev s0") or w.S.__exit__())
        inside, known = "2a00:64:1::2d00:a", "64:ff9b::2d00:a"  # 45.0.0.10
        self.resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, "2a00:64:1::c000:aa")] if t == 28 else [], [], []))
        w.resolvers(w.RESOLVER)
        on_link("2a00:64:1::/48", inside), on_link("64:ff9b::/96", known)
        l, k = self.listener(inside, 80), self.listener(known, 80)
        self.reachable(l), self.reachable(k)
        v, lan = self.vault(), self.vault(ALLOW_LAN)
        for each in (v, lan):
            self.wait(lambda: "NAT64 prefix 2a00:64:1::/96" in each.log())
        for kind in (w.OPEN_TCP, w.OPEN_UDP):
            o = v.open(kind, inside, 80)
            self.assertEqual((o.outcome, o.step), (REFUSED, "private"))
        self.assertEqual(v.tcp("2a00:64:1::a9fe:a9fe", 80).step, "metadata")  # and what is inside counts as ever
        self.assertEqual(lan.tcp("2a00:64:1::a9fe:a9fe", 80).step, "metadata")
        self.assertEqual(l.seen, 0)
        self.hello(lan.tcp(inside, 80))
        self.hello(v.tcp(known, 80))
        w.sh("ip -6 route del 2a00:64:1::/48 dev v0")
        self.hello(v.tcp(inside, 80))  # by the gateway it is a NAT64
        self.assertEqual(v.tcp("2a00:64:1::c0a8:114", 80).step, "private")

    def test_no_network_refuses_all(self):
        l = self.listener(w.PUBLIC, 80)
        r = self.resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, w.PUBLIC)], [], []))
        self.reachable(l)
        v = self.vault(NO_NETWORK)
        self.assertEqual(v.config[-1], 1)
        for o in (v.tcp(w.PUBLIC, 80), v.udp(w.PUBLIC, 123), v.open(w.OPEN_ECHO, w.PUBLIC), v.tcp("192.0.0.1", 53)):
            self.assertEqual((o.outcome, o.step), (REFUSED, "no-network"))
        self.assertEqual(v.dns("www.example.org").rcode, 5)
        self.assertEqual((l.seen, r.asked), (0, []))

    def test_the_flag_opens_what_it_names_and_no_more(self):
        cases = [
            (ALLOW_LAN, b"", [(w.LAN, 80, "allow-lan"), ("185.12.64.20", 80, "allow-lan"), ("fd12::5", 80, "allow-lan")],
             [(w.METADATA, 80), (w.LINK_LOCAL, 80), (w.LAN, 22), ("198.18.0.77", 80)]),
            (0, rule(w.METADATA), [(w.METADATA, 80, "flag")], [("100.100.100.200", 80), (w.LAN, 80)]),
            (0, rule("192.168.0.0/16", 5432), [(w.LAN, 5432, "flag")], [(w.LAN, 80), ("10.20.0.5", 5432)]),
            (0, rule(w.PUBLIC, 22), [(w.PUBLIC, 22, "flag")], [(w.PUBLIC2, 22)]),
            (0, rule("0.0.0.0/0"), [(w.LAN, 80, "flag")], [(w.METADATA, 80), ("198.18.0.77", 80)]),
        ]
        for flags, records, opened, closed in cases:
            v = self.vault(flags, records)
            for addr, port, step in opened:
                with self.subTest(addr, port=port, opened=True):
                    l = self.listener(addr, port)
                    o = v.tcp(addr, port)
                    self.assertEqual(o.step, step)
                    self.hello(o)
                    self.assertEqual(l.seen, 1)
                    l.close()
            for addr, port in closed:
                with self.subTest(addr, port=port, opened=False):
                    l = self.listener(addr, port)
                    self.reachable(l)
                    self.assertEqual(v.tcp(addr, port).outcome, REFUSED)
                    self.assertEqual(l.seen, 0)
                    l.close()

    def test_allow_host_reaches_loopback_by_the_alias(self):
        l4 = self.listener("127.0.0.1", 3000, ns=w.V)
        l6 = self.listener("::1", 3001, ns=w.V)
        u = self.listener("127.0.0.1", 3002, udp=True, ns=w.V)
        own = self.listener(w.HOST, 3003, ns=w.V)
        v = self.vault(ALLOW_HOST)
        self.hello(v.tcp("192.0.0.1", 3000))
        self.hello(v.tcp("192.0.0.1", 3001))
        self.hello(v.tcp("fd6b:91d4:3e07::1", 3000))
        self.hello(v.tcp(w.HOST, 3003))
        o = v.udp("192.0.0.1", 3002)
        o.sock.send(b"x")
        self.assertEqual(o.sock.recv(4), b"x")
        o.close()
        self.assertEqual((l4.seen, l6.seen, u.seen, own.seen), (2, 1, 1, 1))
        self.assertEqual(v.tcp("127.0.0.1", 3000).step, "never")
        self.assertEqual(v.tcp(w.METADATA, 80).step, "metadata")

    def test_a_published_port_is_no_way_back_in(self):
        s = socket.create_server(("127.0.0.1", 0))
        port = s.getsockname()[1]
        v = self.vault(ALLOW_HOST, publish=[(s, 3000)])
        s.close()
        o = v.tcp("192.0.0.1", port)
        self.assertEqual((o.outcome, o.step), (REFUSED, "host"))
        with self.assertRaises(TimeoutError):
            v.recv(w.INBOUND, timeout=0.2)
        v.close()
        self.assertEqual([(l["rule"], l.get("open")) for l in v.audit()], [("host", None)])  # --allow-host is on already

    def test_what_opens_the_host(self):
        v = self.vault()
        for dst in ("192.0.0.1", "10.99.0.1", "64:ff9b::a63:1"):
            self.assertEqual(v.tcp(dst, 8080).step, "host")
        v.close()
        # In NAT64's form it is judged as the address inside, and so is an option.
        self.assertEqual([(l["dst"], l["open"]) for l in v.audit()],
                         [("192.0.0.1", "--allow-host"), ("10.99.0.1", "--allow-egress 10.99.0.1:8080"),
                          ("64:ff9b::a63:1", "--allow-egress 10.99.0.1:8080")])


class Names(Case):
    def zone(self, name, qtype):
        zones = {
            ("www.example.org", 1): [addr_rr("www.example.org", w.PUBLIC)],
            ("long.example", 1): [addr_rr("long.example", w.PUBLIC, 1000000)],
            ("split.example", 1): [addr_rr("split.example", "10.0.0.5"), addr_rr("split.example", "93.184.216.34")],
            ("local.example", 1): [addr_rr("local.example", "127.0.0.1")],
            ("lan.example", 1): [addr_rr("lan.example", w.LAN)],
            ("other.example", 1): [addr_rr("other.example", w.LAN)],
            ("alias.example", 1): [rr("alias.example", "CNAME", wire_name("www.example.org")),
                                   addr_rr("www.example.org", w.PUBLIC), addr_rr("stray.example", "9.9.9.9")],
            ("six.example", 28): [addr_rr("six.example", w.PUBLIC6), addr_rr("six.example", "fd00::5"),
                                  addr_rr("six.example", "::ffff:10.0.0.5"), addr_rr("six.example", w.HOST6)],
            ("big.example", 16): [rr("big.example", "TXT", b"\xc8" + bytes([65 + i]) * 200) for i in range(15)],
            ("srv.example", 33): [rr("srv.example", "SRV", struct.pack("!3H", 1, 2, 443) + wire_name("www.example.org"))],
            ("svc.example", 65): [rr("svc.example", "HTTPS", b"\0\1\0" + b"\0\1\0\3\2h2" + b"\0\4\0\10" + bytes([10, 0, 0, 5]) +
                                     bytes([45, 0, 0, 10]))],
            ("api.github.com", 1): [addr_rr("api.github.com", w.PUBLIC2)],
            ("api.github.com", 65): [rr("api.github.com", "HTTPS", b"\0\1\0" + b"\0\5\0\4echo")],
            ("odd.example", 4711): [rr("odd.example", 4711, b"\1\2\3")],
            ("fail.example", 1): None,
        }
        if (name, qtype) == ("fail.example", 1):
            return 2, [], [], []
        if (name, qtype) == ("ruled.example", 15):
            return (0, [rr(name, "MX", struct.pack("!H", 1) + wire_name("mail.ruled.example"))], [],
                    [addr_rr("mail.ruled.example", w.LAN), addr_rr("mail.ruled.example", w.PUBLIC)])
        if name == "evil.example":
            return bytes.fromhex("8180 0001 0001 0000 0000") + wire_name("evil.example") + b"\0\1\0\1" + b"\xc0\x1a\0\1\0\1"
        soa = rr("example", "SOA", wire_name("ns.example") + wire_name("root.example") + struct.pack("!5I", 1, 2, 3, 4, 60), 60)
        return (0, zones[name, qtype], [], []) if zones.get((name, qtype)) else (3 if name.startswith("no") else 0, [], [soa], [])

    def setUp(self):
        super().setUp()
        self.r = self.resolver(w.RESOLVER, self.zone)
        w.resolvers(w.RESOLVER)

    def test_types_and_sizes(self):
        v = self.vault()
        self.assertEqual(v.dns("www.example.org").addrs, [w.PUBLIC])
        self.assertEqual(v.dns("WWW.example.org".lower()).rcode, 0)
        a = v.dns("alias.example")
        self.assertEqual(a.addrs, [w.PUBLIC])  # what is not on the way from the question is left out
        self.assertEqual(len(a.rrs), 2)
        self.assertEqual(v.dns("nosuch.example").rcode, 3)
        self.assertEqual(v.dns("srv.example", "SRV").rrs[0][4][6:], wire_name("www.example.org"))
        self.assertEqual(v.dns("odd.example", 4711).rrs[0][4], b"\1\2\3")
        a = v.dns("big.example", "TXT", size=1232)
        self.assertTrue(a.tc)
        self.assertLess(len(a.raw), 1233)
        a = v.dns("big.example", "TXT", size=65535, tcp=1)
        self.assertEqual((a.tc, len(a.rrs)), (False, 15))
        self.assertEqual(self.r.tcp_asked, 1)
        a = v.dns("big.example", "TXT", size=512, edns=0)
        self.assertTrue(a.tc and a.opt is None and len(a.raw) <= 512)
        self.assertIsNotNone(v.dns("www.example.org", size=512).opt)
        self.assertIsNone(v.dns("www.example.org", size=4096, edns=0).opt)
        self.assertEqual(v.dns("www.example.org", "ANY").rrs[0][2], 13)
        self.assertEqual(v.dns("www.example.org", "AXFR").rcode, 5)

    def test_rebinding(self):
        v = self.vault()
        self.assertEqual(v.dns("split.example").addrs, ["93.184.216.34"])
        a = v.dns("local.example")
        self.assertEqual((a.rcode, a.addrs, a.ede), (0, [], 15))
        a = v.dns("lan.example")
        self.assertEqual((a.rcode, a.addrs, a.ede), (0, [], 15))
        self.assertIn("--allow-egress lan.example opens it", v.log())
        self.assertEqual(v.dns("six.example", "AAAA").addrs, [w.PUBLIC6])
        a = v.dns("svc.example", "HTTPS")
        self.assertIn(bytes([45, 0, 0, 10]), a.rrs[0][4])
        self.assertNotIn(bytes([10, 0, 0, 5]), a.rrs[0][4])
        v = self.vault(ALLOW_LAN)
        self.assertEqual(v.dns("split.example").addrs, ["10.0.0.5", "93.184.216.34"])
        self.assertEqual(v.dns("local.example").addrs, [])

    def test_a_rule_by_name_opens_that_name_only(self):
        l = self.listener(w.LAN, 5432)
        self.reachable(l)
        v = self.vault(0, rule("lan.example", 5432))
        self.assertEqual(v.tcp(w.LAN, 5432).step, "private")  # not before the name was answered
        self.assertEqual(v.dns("other.example").addrs, [])
        self.assertEqual(v.tcp(w.LAN, 5432).step, "private")
        self.assertEqual(l.seen, 0)
        self.assertEqual(v.dns("lan.example").addrs, [w.LAN])
        o = v.tcp(w.LAN, 5432)
        self.assertEqual(o.step, "flag")
        self.hello(o)
        self.assertEqual(v.tcp(w.LAN, 5433).step, "private")

    def test_a_rule_by_name_opens_nothing_by_another_names_record(self):
        """Glue and targets of MX and SRV: whoever answers for one name says nothing of another's addresses."""
        l, p = self.listener(w.LAN, 5432), self.listener(w.PUBLIC, 22)
        self.reachable(l)
        v = self.vault(0, rule("ruled.example", 5432) + rule("ruled.example", 22))
        a = v.dns("ruled.example", "MX")
        self.assertEqual([r[4] for r in a.rrs if r[2] == 1], [socket.inet_aton(w.PUBLIC)])
        self.assertEqual((v.tcp(w.LAN, 5432).step, v.tcp(w.PUBLIC, 22).step), ("private", "port"))
        self.assertEqual((l.seen, p.seen), (0, 0))

    def test_inspected_names(self):
        u = self.listener(w.PUBLIC2, 443, udp=True)
        self.reachable(u)
        v = self.vault(inspected=["api.github.com"])
        o = v.udp(w.PUBLIC2, 443)
        self.assertEqual(o.outcome, CONNECTED)
        o.close()
        self.assertEqual(v.dns("api.github.com").addrs, [w.PUBLIC2])
        self.assertEqual(v.udp(w.PUBLIC2, 443).step, "quic")
        self.assertEqual(v.tcp(w.PUBLIC2, 22).step, "github-ssh")
        a = v.dns("api.github.com", "HTTPS")
        self.assertEqual((a.rcode, a.rrs), (0, []))
        self.assertNotIn(("api.github.com", 65), self.r.asked)

    def test_names_that_stay_here(self):
        v = self.vault()
        self.assertEqual(v.dns("host.agent-vm.internal").addrs, ["192.0.0.1"])
        self.assertEqual(v.dns("host.agent-vm.internal", "AAAA").addrs, ["fd6b:91d4:3e07::1"])
        self.assertEqual(v.dns("x.localhost").addrs, ["127.0.0.1"])
        self.assertEqual(v.dns("1.0.0.192.in-addr.arpa", "PTR").rrs[0][4], wire_name("gateway.agent-vm.internal"))
        for name in ("printer.local", "x.onion", "intranet", "x.agent-vm.internal", "a.invalid", "use-application-dns.net",
                     "20.1.168.192.in-addr.arpa", "1.0.99.10.in-addr.arpa", "9.64.12.185.in-addr.arpa"):
            with self.subTest(name):
                self.assertEqual(v.dns(name, "PTR" if "arpa" in name else "A").rcode, 3)
        self.assertEqual(v.dns("_dns.resolver.arpa", 64).rcode, 0)
        self.assertEqual([n for n, _ in self.r.asked if n != "ipv4only.arpa"], [])

    def test_malformed_answers_are_no_answers(self):
        v = self.vault()
        a = v.dns("evil.example")
        self.assertEqual((a.rcode, a.addrs, a.ede), (2, [], 22))
        self.assertEqual(v.dns("fail.example").rcode, 2)

    def test_cached_joined_and_counted_down(self):
        for _ in range(5):
            self.r.asked.clear()
            v = self.vault()
            slots = [v.dns_send("www.example.org") for _ in range(20)]
            for s in slots:
                self.assertEqual(v.dns_answer(s).addrs, [w.PUBLIC])
            time.sleep(1.1)
            self.assertLess(v.dns("www.example.org").rrs[0][3], 300)
            self.assertLessEqual(v.dns("long.example").rrs[0][3], 3600)
            if (n := self.r.asked.count(("www.example.org", 1))) == 1:
                break  # a resolver that is slow is asked again
        self.assertEqual(n, 1)

    def test_too_many_names(self):
        v = self.vault()
        codes, start = [], time.monotonic()
        while 5 not in codes and len(codes) < 1900:  # 2,000 of one domain are refused for another reason
            slots = [v.dns_send(f"n{len(codes) + i}.tunnel.example") for i in range(50)]  # faster than 50 a second on any machine
            codes += [v.dns_answer(s).rcode for s in slots]
        may = 500 + 50 * (time.monotonic() - start)
        self.assertIn(5, codes)
        self.assertGreater(codes.index(5), 490)
        self.assertLess(len(set(self.r.asked)), may + 10)  # a resolver that is slow is asked again
        self.assertIn("dns-tunnel?", v.log())


class Resolvers(Case):
    GOOD = staticmethod(lambda n, t: (0, [addr_rr(n, w.PUBLIC)] if t == 1 else [], [], []))

    def fresh(self):
        self.v = self.vault()

    def test_first_dead(self):
        self.resolver(w.RESOLVER2, self.GOOD)
        w.resolvers(w.DEAD, w.RESOLVER2)
        names = (f"a{i}.example" for i in itertools.count())
        ask = lambda: self.assertEqual(self.v.dns(next(names)).addrs, [w.PUBLIC])
        self.quick(0.5, ask, 3, self.fresh)
        for _ in range(3):
            ask()
        self.assertIn("does not answer", self.v.log())
        self.quick(0.15, ask)  # the dead one goes last by then

    def test_all_dead(self):
        w.resolvers(w.DEAD, "45.0.1.2")
        with w.S:
            w.sh("ip route add blackhole 45.0.1.2/32 || true")
        v = self.vault()
        for i in range(8):  # a busy machine may be late at times
            t = time.monotonic()
            a = v.dns(f"www{i}.example.org", dead=True)
            self.assertEqual((a.rcode, a.ede), (2, 22))
            self.assertGreater(first := time.monotonic() - t, 3.5)
            t = time.monotonic()
            self.assertEqual(v.dns(f"www{i}.example.org", dead=True).rcode, 2)
            again = time.monotonic() - t  # the failure is kept for 2 s
            if first < 4.5 and again < 1:
                break
        else:
            self.fail((first, again))

    def test_servfail_and_refused_try_the_next(self):
        self.resolver(w.RESOLVER, lambda n, t: (2 if n.startswith("a") else 5, [], [], []))
        self.resolver(w.RESOLVER2, self.GOOD)
        w.resolvers(w.RESOLVER, w.RESOLVER2)
        for name in "a.example", "b.example":  # not after the head start of 300 ms
            self.quick(0.3, lambda: self.assertEqual(self.v.dns(name).addrs, [w.PUBLIC]), 1, self.fresh)

    def test_closed_port_costs_nothing(self):
        self.resolver(w.RESOLVER2, self.GOOD)
        w.resolvers(w.RESOLVER, w.RESOLVER2)  # nobody at port 53 of the first: ICMP
        self.quick(0.25, lambda: self.assertEqual(self.v.dns("a.example").addrs, [w.PUBLIC]), 1, self.fresh)

    def test_resolv_conf_is_read_again_and_the_cache_dropped(self):
        self.resolver(w.RESOLVER, self.GOOD)
        self.resolver(w.RESOLVER2, lambda n, t: (0, [addr_rr(n, w.PUBLIC2)] if t == 1 else [], [], []))
        w.resolvers(w.RESOLVER)
        v = self.vault()
        self.assertEqual(v.dns("www.example.org").addrs, [w.PUBLIC])
        w.resolvers(w.RESOLVER2)
        time.sleep(1.1)
        self.assertEqual(v.dns("www.example.org").addrs, [w.PUBLIC2])

    def test_what_a_former_resolver_says_of_nat64_is_not_heard(self):
        shows = lambda prefix: lambda n, t: (0, [addr_rr(n, prefix + "c000:aa")] if t == 28 else [], [], [])
        for _ in range(5):
            former = threading.Event()
            first = self.resolver(w.RESOLVER, lambda n, t: former.wait(30) and shows("2a00:64:1::")(n, t))
            second = self.resolver(w.RESOLVER2, shows("2a00:64:2::"))
            w.resolvers(w.RESOLVER)
            begin, v = time.monotonic(), self.vault()
            time.sleep(1.1)
            w.resolvers(w.RESOLVER2)
            self.assertEqual(v.dns("www.example.org").addrs, [])
            took = time.monotonic() - begin
            former.set()
            self.wait(lambda: "NAT64 prefix 2a00:64:2::/96" in v.log())
            time.sleep(0.5)
            first.close(), second.close()
            if took < 3:  # else it was asked in vain while it was no former one yet
                break
        self.assertNotIn("2a00:64:1::", v.log())
        self.assertNotIn("does not answer", v.log())  # and it is blamed for nothing

    def test_asks_that_are_cancelled_leave_room_for_no_more_queries(self):
        """And a resolv.conf that changes each second, whose NAT64 prefix nobody tells."""
        w.resolvers(w.DEAD)
        v = self.vault()
        for i in range(3):
            slots = [v.dns_send(f"a{i}-{k}.example") for k in range(150)]
            for s in slots[:100] if i == 2 else slots:
                v.send(w.CANCEL, s, 7)
            if i < 2:
                time.sleep(1.1)
                w.resolvers(w.DEAD, *(f"45.0.1.{3 + k}" for k in range(i + 1)))
        codes = [v.dns_answer(s).rcode for s in slots[100:]]
        self.assertEqual(set(codes), {2})
        w.resolvers(w.RESOLVER)
        self.resolver(w.RESOLVER, self.GOOD)
        self.wait(lambda: v.dns(f"b{time.monotonic_ns()}.example").addrs == [w.PUBLIC])

    def test_a_slot_that_wire_takes_again_has_one_ask(self):
        """Wire has waited for 10 s; after a stall of the vault that is before the old question is over there."""
        w.resolvers(w.DEAD)

        def ask(slot, gen, name):
            n = wire_name(name)
            v.send(w.DNS_ASK, slot, gen, struct.pack("<HH6B", 1, 4096, 1, 0, 0, 0, 0, len(n)) + n + bytes(255 - len(n)) + b"\1\0\0")
        for _ in range(5):
            v = self.vault()
            for s in range(256):
                ask(s, 7, f"a{s}.example")
            for s in range(100):
                ask(s, 8, f"b{s}.example")  # no room: the queries of those before go on
            for s in range(100):
                ask(s, 9, f"a{s}.example")  # joined to them
            said = {}
            while len(said) < 356 and select.select([v.wire], [], [], 40)[0]:
                m = v.wire.recv(70000)
                kind, _, slot, gen = struct.unpack("<HIII", m[2:16])
                if kind == w.DNS_ASK + 1:
                    said[slot, gen] = m[16 + 4 + 3] & 15
            if not any((s, 7) in said for s in range(100)):
                break  # else all of that took more than the 4 s after which a question is over
        self.assertEqual((len(said), set(said.values())), (356, {2}))
        self.assertEqual([k for k in said if k[1] == 7 and k[0] < 100], [])
        self.resolver(w.RESOLVER, self.GOOD)
        w.resolvers(w.RESOLVER)
        time.sleep(1.1)
        self.assertEqual(v.dns("www.example.org").addrs, [w.PUBLIC])

    def test_pre_flight_serves_where_dns_has_none(self):
        self.resolver(w.RESOLVER, lambda n, t: (3, [], [], []))
        w.resolvers(w.RESOLVER)
        named = w.rec(6, w.rec(32, "db.corp.example") + w.rec(33, w.packed(w.LAN)))
        v = self.vault(0, named + rule("db.corp.example", 5432))
        self.assertEqual(v.dns("db.corp.example").addrs, [w.LAN])
        self.assertEqual(v.dns("x.db.corp.example").rcode, 3)
        l = self.listener(w.LAN, 5432)
        self.hello(v.tcp(w.LAN, 5432))
        self.assertEqual(l.seen, 1)


class Families(Case):
    def test_without_ipv6_there_is_none_in_the_guest(self):
        w.sh("ip -6 route del default")
        self.addCleanup(w.sh, "ip -6 route replace default via 2a0e:b107:1::2")
        r = self.resolver(w.RESOLVER, Resolvers.GOOD)
        w.resolvers(w.RESOLVER)
        v = self.vault()
        self.assertEqual((v.config[-2], v.families), (0, "ipv4"))
        self.assertEqual((v.dns("a.example", "AAAA").rcode, r.asked), (0, []))
        o = v.tcp(w.PUBLIC6, 80)
        self.assertEqual((o.outcome, o.error), (FAILED, errno.ENETUNREACH))

    def test_ipv6_lost_and_found(self):
        l = self.listener(w.PUBLIC6, 80)
        v = self.vault()
        self.assertEqual((v.config[-2], v.families), (1, "ipv4 ipv6"))
        self.hello(v.tcp(w.PUBLIC6, 80))
        w.sh("ip -6 route del default")
        self.addCleanup(w.sh, "ip -6 route replace default via 2a0e:b107:1::2")
        self.assertEqual(v.recv(w.FAMILY)[1][:2], b"\1\0")
        self.assertEqual(v.tcp(w.PUBLIC6, 80).error, errno.ENETUNREACH)
        w.sh("ip -6 route add default via 2a0e:b107:1::2")
        self.assertEqual(v.recv(w.FAMILY)[1][:2], b"\1\1")
        self.hello(v.tcp(w.PUBLIC6, 80))
        self.assertEqual(l.seen, 2)

    def test_ipv4_off_where_ipv6_alone_is(self):
        w.sh("ip route del default")
        self.addCleanup(w.sh, "ip route replace default via 10.99.0.2")
        w.resolvers(w.RESOLVER)
        v = self.vault()
        self.assertEqual((v.dns("a.example").rcode, v.dns("a.example").addrs), (0, []))
        self.assertEqual(v.tcp(w.PUBLIC, 80).error, errno.ENETUNREACH)


class Ahead(Case):
    """Port 443 of an address that is not tied, where names are inspected: connected before the name is known (network page 3.2)."""
    SILENT = "45.0.2.2"  # not there yet: with appear() it is, and what waits for it is answered within seconds

    def setUp(self):
        super().setUp()
        self.ends = []

    def vault(self, *a, **kw):
        v = super().vault(*a, inspected=["api.anthropic.com"], **kw)
        v.box = xch.Inbox(v.gate)
        v.dns("gateway.agent-vm.internal")
        self.fds = v.settled_fds()
        return v

    def appear(self):
        with w.S:
            w.sh(f"ip addr add {self.SILENT}/32 dev lo")
        self.addCleanup(self.disappear)

    def disappear(self):
        with w.S:
            w.sh(f"ip addr del {self.SILENT}/32 dev lo 2>/dev/null || true")

    def server(self, addr=w.PUBLIC):
        """Says hello, and keeps how each connection ended."""
        def serve(c):
            with c:
                try:
                    c.sendall(b"hello")
                    while data := c.recv(64):
                        c.sendall(data)
                    self.ends.append("end")
                except ConnectionError:
                    self.ends.append("reset")
        return self.listener(addr, 443, serve=serve)

    def flow(self, v, addr=w.PUBLIC, tied=0):
        o = v.tcp(addr, 443)
        self.assertEqual((o.outcome, o.step), (INSPECT, "public"))
        _, _, _, data, fd = v.box.get(xch.PEEK, slot=o.slot)
        self.assertEqual(struct.unpack("<HB", data[16:19]), (443, tied))
        far = socket.socket(fileno=fd)
        self.addCleanup(o.close), self.addCleanup(far.close)
        return o

    def dial(self, v, o, name="www.example.org"):
        xch.raw_send(v.gate, xch.net_dial(o.slot, 7, name))

    def dialled(self, v, o):
        _, _, _, data, fd = v.box.get(xch.DIALLED, slot=o.slot, timeout=60)
        sock = socket.socket(fileno=fd) if fd is not None else None
        if sock:
            sock.settimeout(20)
            self.addCleanup(sock.close)
        return (*struct.unpack("<II", data[16:]), sock)

    def nothing_left(self, v):
        self.wait(lambda: v.dns("gateway.agent-vm.internal") and v.fds() <= self.fds)

    def test_who_refuses_or_is_not_there_looks_like_it(self):
        v = self.vault()
        w.sh("ip route add unreachable 45.0.3.3/32")
        self.addCleanup(w.sh, "ip route del unreachable 45.0.3.3/32")

        def refused():
            o = v.tcp(w.PUBLIC, 443)
            self.assertEqual((o.outcome, o.error), (FAILED, errno.ECONNREFUSED))
        n = len(self.quick(0.1, refused))
        o = v.tcp("45.0.3.3", 443)
        self.assertEqual((o.outcome, o.error), (FAILED, errno.EHOSTUNREACH))
        o = v.tcp(w.LAN, 443)
        self.assertEqual((o.outcome, o.step), (REFUSED, "private"))
        self.assertTrue(v.box.none(xch.PEEK))
        self.wait(lambda: len(v.audit()) > n + 1)
        self.assertEqual([(l["verdict"], l["end"]) for l in v.audit() if l["k"] == "tcp"],
                         [("inspect", "error:ECONNREFUSED")] * n + [("inspect", "error:EHOSTUNREACH")])

    def test_what_is_open_waits_and_is_used(self):
        l, v = self.server(), self.vault()
        o = self.flow(v)
        self.wait(lambda: l.seen == 1)
        self.dial(v, o)
        outcome, error, sock = self.dialled(v, o)
        self.assertEqual((outcome, error, sock.recv(16)), (CONNECTED, 0, b"hello"))
        sock.sendall(b"ClientHello")
        self.assertEqual(sock.recv(64), b"ClientHello")
        sock.close()
        self.wait(lambda: self.ends == ["end"])
        self.assertEqual(l.seen, 1)
        v.ended(o.slot)
        self.nothing_left(v)
        self.wait(v.audit)
        self.assertEqual([(l["verdict"], l["end"]) for l in v.audit()], [("inspect", "fin")])

    def test_what_is_open_and_not_needed_is_closed(self):
        l, v = self.server(), self.vault()
        o = self.flow(v)
        self.wait(lambda: l.seen == 1)
        self.assertEqual(self.ends, [])
        xch.send(v.gate, xch.INSPECTED, o.slot, 7)
        self.wait(lambda: self.ends)  # while the flow lives
        self.nothing_left(v)
        v.ended(o.slot)
        xch.send(v.gate, xch.INSPECTED, o.slot, 7)  # on its way when the flow ended
        self.assertEqual(v.dns("gateway.agent-vm.internal").addrs, ["192.0.0.1"])
        self.assertEqual(l.seen, 1)

    def test_silence_is_accepted_after_a_quarter_of_a_second(self):
        v = self.vault()
        self.assertGreaterEqual(min(self.quick(0.5, lambda: self.flow(v, w.DEAD))), 0.249)

    def test_silence_then_an_answer(self):
        l, v = self.server(self.SILENT), self.vault()
        joins, waits = self.flow(v, self.SILENT), self.flow(v, self.SILENT)
        self.dial(v, joins)
        self.assertTrue(v.box.none(xch.DIALLED))
        self.appear()
        self.assertEqual(self.dialled(v, joins)[0], CONNECTED)
        self.wait(lambda: l.seen == 2)
        self.dial(v, waits)
        self.assertEqual(self.dialled(v, waits)[2].recv(16), b"hello")
        self.assertEqual(l.seen, 2)

    def test_silence_then_a_refusal(self):
        v = self.vault()
        joins = self.flow(v, self.SILENT)
        self.dial(v, joins)
        self.appear()
        self.assertEqual(self.dialled(v, joins)[:2], (FAILED, errno.ECONNREFUSED))
        v.ended(joins.slot)
        self.disappear()
        late = self.flow(v, self.SILENT)
        self.wait(lambda: len(v.audit()) >= 2)  # of its failure and of its end
        before = len(v.audit())
        self.appear()
        self.wait(lambda: len(v.audit()) > before)
        l = self.server(self.SILENT)
        self.dial(v, late)  # it failed once: that is the answer, whoever has come there since
        self.assertEqual(self.dialled(v, late)[:2], (FAILED, errno.ECONNREFUSED))
        self.assertEqual(l.seen, 0)
        v.ended(late.slot)
        self.nothing_left(v)

    def test_nothing_is_left_whoever_ends_it(self):
        l, v = self.server(), self.vault()
        o = v.ask(w.OPEN_TCP, w.DEAD, 443)  # not answered
        v.send(w.CANCEL, o, 7)
        self.nothing_left(v)
        for addr in (w.DEAD, w.PUBLIC):
            for what in ("wire", "gate", "wire after dial", "cancel on its way"):
                if addr == w.PUBLIC and what == "wire after dial":
                    continue  # it was handed over
                with self.subTest(addr, what=what):
                    self.ends.clear()
                    o = self.flow(v, addr)
                    if what == "wire after dial":
                        self.dial(v, o)
                        self.assertTrue(v.box.none(xch.DIALLED))
                    else:
                        v.dns("gateway.agent-vm.internal")
                        self.assertGreater(v.fds(), self.fds)
                    if what == "gate":
                        xch.send(v.gate, xch.INSPECTED, o.slot, 7)
                    elif what == "cancel on its way":
                        v.send(w.CANCEL, o.slot, 7)
                    else:
                        v.ended(o.slot)
                    if what == "wire after dial":
                        self.assertEqual(self.dialled(v, o)[:2], (FAILED, errno.ECANCELED))
                    self.nothing_left(v)
                    if addr == w.PUBLIC:
                        self.wait(lambda: self.ends)
        self.assertTrue(v.box.none(xch.DIALLED))

    def test_it_is_judged_again_when_it_is_asked_for(self):
        addr, v = "45.0.4.4", self.vault()
        with w.S:
            w.sh(f"ip addr add {addr}/32 dev lo")
        l = self.server(addr)
        o = self.flow(v, addr)
        self.wait(lambda: l.seen == 1)
        silent = self.flow(v, self.SILENT)
        w.sh(f"ip addr add {addr}/32 dev lo; ip addr add {self.SILENT}/32 dev lo")  # became addresses of this host
        self.addCleanup(w.sh, f"ip addr del {addr}/32 dev lo; ip addr del {self.SILENT}/32 dev lo")
        for a in (addr, self.SILENT):  # until it knows
            self.wait(lambda: v.tcp(a, 80).outcome == REFUSED)
        for x in (o, silent):
            self.dial(v, x)
            self.assertEqual(self.dialled(v, x)[::2], (REFUSED, None))
        self.nothing_left(v)

    def test_a_tie_counts_whenever_it_comes(self):
        self.resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, w.PUBLIC)] if t == 1 else [], [], []))
        w.resolvers(w.RESOLVER)
        l, v = self.server(), self.vault()
        o = self.flow(v)
        self.wait(lambda: l.seen == 1)
        self.assertEqual(v.dns("api.anthropic.com").addrs, [w.PUBLIC])
        self.dial(v, o, "front.example")
        self.assertEqual(self.dialled(v, o)[::2], (REFUSED, None))
        self.wait(lambda: self.ends)
        self.flow(v, tied=1)  # nobody is asked there before gate has spoken
        self.assertFalse(v.box.pump(0.3))
        self.assertEqual(l.seen, 1)

    def test_gate_decides_once(self):
        self.server()
        for first in (xch.DIAL, xch.INSPECTED):
            for second in (xch.DIAL, xch.INSPECTED):
                v = self.vault()
                o = self.flow(v)
                for kind in (first, second):
                    xch.raw_send(v.gate, xch.net_dial(o.slot, 7) if kind == xch.DIAL else xch.msg(kind, o.slot, 7))
                self.assertEqual(v.wait(), 1, (first, second))

    def connecting(self):
        with open("/proc/net/tcp") as f:
            return sum(line.split()[3] == "02" for line in f)

    def test_a_flood_has_no_more_under_way_than_wire_may_wait_for(self):
        v, slots, most = self.vault(), [], 0
        for _ in range(4):
            slots += (new := [v.ask(w.OPEN_TCP, w.DEAD, 443) for _ in range(400)])
            for s in new:
                v.opened(w.OPEN_TCP, s, 20).close()
                v.box.pump()
                most = max(most, self.connecting()) if s % 50 == 0 else most
            while v.box.queue:
                if (fd := v.box.queue.pop()[4]) is not None:
                    os.close(fd)
        most = max(most, self.connecting())
        self.assertTrue(400 < most <= 512, most)
        l = self.server()  # and who comes now is asked for ahead like any other
        o = self.flow(v)
        self.wait(lambda: l.seen == 1)
        for s in slots[:200]:
            v.ended(s)
        self.dial(v, o)
        self.assertEqual(self.dialled(v, o)[2].recv(16), b"hello")
        for s in slots[200:]:
            v.ended(s)
        v.ended(o.slot)
        self.nothing_left(v)
        self.assertEqual(self.connecting(), 0)

    def ahead(self, v, addr, n):
        """So many streams to it, each accepted; gate says nothing of them yet."""
        new = [v.ask(w.OPEN_TCP, addr, 443) for _ in range(n)]
        for s in new:
            v.opened(w.OPEN_TCP, s, 20).close()
            v.box.pump()
        while v.box.queue:
            if (fd := v.box.queue.pop()[4]) is not None:
                os.close(fd)
        return new

    def test_one_silent_address_does_not_keep_all_places(self):
        """With all places at one address another one is still asked at the SYN, until both have as many; no more are asked for."""
        other, v, slots = "45.0.1.2", self.vault(), []
        with w.S:
            w.sh(f"ip route add blackhole {other}/32")
        for _ in range(6):
            slots += self.ahead(v, w.DEAD, 100)
        self.assertGreater(self.connecting(), 500)
        o = v.tcp(w.PUBLIC, 443)  # nobody listens there, and it looks like it
        self.assertEqual((o.outcome, o.error), (FAILED, errno.ECONNREFUSED))
        before = self.syns(w.DEAD)
        slots += self.ahead(v, w.DEAD, 100)  # it has the most: nothing gives way
        self.assertLessEqual(len(self.syns(w.DEAD) - before), 1)  # the place of the one that was refused
        for _ in range(4):
            slots += self.ahead(v, other, 100)
        self.assertLess(abs(len(self.syns(other)) - len(self.syns(w.DEAD))), 3)
        self.assertLessEqual(self.connecting(), 512)
        before = self.syns(w.DEAD)
        xch.raw_send(v.gate, xch.net_dial(slots[0], 7, "www.example.org"))  # whose place was taken is asked for anew
        self.assertTrue(v.box.none(xch.DIALLED))
        self.wait(lambda: self.syns(w.DEAD) - before)
        for s in slots:
            v.ended(s)
        self.nothing_left(v)

    @staticmethod
    def syns(addr):
        """Local ports of the connections that are being made to it."""
        to = "%08X:" % struct.unpack("=I", socket.inet_aton(addr))[0]
        with open("/proc/net/tcp") as f:
            return {l.split()[1] for l in f if l.split()[3] == "02" and l.split()[2].startswith(to)}

    def test_by_proxy(self):
        heads, ends = [], []

        def serve(c):
            with c:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += c.recv(1)
                heads.append(head.split()[1].decode())
                if heads[-1] == "45.0.0.11:443":
                    c.sendall(b"HTTP/1.1 403 no\r\n\r\n")
                elif heads[-1] != "45.0.0.12:443":
                    c.sendall(b"HTTP/1.1 200 ok\r\n\r\nbanner")
                try:
                    ends.append(c.recv(1))
                except ConnectionError:
                    ends.append(b"")
        self.listener(w.PROXY, 3128, serve=serve)
        v = self.vault(0, w.rec(8, w.rec(33, w.packed(w.PROXY)) + w.rec(41, 3128) + w.rec(42, "http://proxy.corp:3128")))
        for i in range(1, 11):
            o = v.tcp("45.0.0.11", 443)
            self.wait(lambda: len(ends) == i)
            if o.outcome == FAILED:
                break  # else this proxy was silent for a quarter of a second
            o.close(), os.close(v.box.get(xch.PEEK, slot=o.slot)[4]), v.ended(o.slot)
        self.assertEqual((o.outcome, o.error), (FAILED, errno.ECONNREFUSED))
        del heads[1:], ends[1:]
        o, unused, silent = self.flow(v), self.flow(v), self.flow(v, "45.0.0.12")
        self.dial(v, o)
        self.assertEqual(self.dialled(v, o)[2].recv(16), b"banner")
        self.assertEqual(len(ends), 1)
        for x in (unused, silent):
            xch.send(v.gate, xch.INSPECTED, x.slot, 7)
        self.wait(lambda: len(ends) == 3)
        self.assertEqual(sorted(heads), ["45.0.0.10:443", "45.0.0.10:443", "45.0.0.11:443", "45.0.0.12:443"])
        self.nothing_left(v)


class Publish(Case):
    def test_tcp(self):
        s = socket.create_server(("127.0.0.1", 0))
        v = self.vault(publish=[(s, 3000)])
        c = socket.create_connection(s.getsockname())
        slot, body, fd = v.recv(w.INBOUND)
        self.assertEqual(struct.unpack("<HBB", body), (3000, 4, 0))
        peer = socket.socket(fileno=fd)
        peer.setblocking(True)
        c.sendall(b"to the guest")
        self.assertEqual(peer.recv(64), b"to the guest")
        v.send(w.INBOUND_DONE, slot, 0, struct.pack("<4I", TAKEN, 0, 0, 0))
        v.send(w.ENDED, slot | 0x80000000, 0, struct.pack("<QQII", 120, 4096, 18, 0))
        mine = "%s:%d" % c.getsockname()
        c.close(), peer.close()
        v.close()
        line = v.audit()[-1]
        self.assertEqual((line["k"], line["listen"], line["peer"], line["port"], line["up"], line["down"], line["ms"], line["end"]),
                         ("published", "%s:%d" % s.getsockname(), mine, 3000, 120, 4096, 18, "fin"))
        s.close()

    def inbound(self, v, c):
        slot, body, fd = v.recv(w.INBOUND)
        peer = socket.socket(fileno=fd)
        peer.setblocking(True)
        c.sendall(b"x")
        self.assertEqual(peer.recv(4), b"x")
        v.send(w.INBOUND_DONE, slot, 0, struct.pack("<4I", TAKEN, 0, 0, 0))
        return slot, struct.unpack("<HBB", body)[0], peer

    def test_a_port_that_is_added_while_it_runs(self):
        first = socket.create_server(("127.0.0.1", 0))
        v = self.vault(ALLOW_HOST, publish=[(first, 3000)])
        s = socket.create_server(("127.0.0.1", 0))
        at = s.getsockname()
        self.assertEqual(v.tcp("192.0.0.1", at[1]).outcome, CONNECTED)  # until it is published
        s.accept()[0].close()
        v.listen(5173, s)
        c = socket.create_connection(at)
        slot, port, peer = self.inbound(v, c)
        self.assertEqual(port, 5173)
        o = v.tcp("192.0.0.1", at[1])  # no way back in either
        self.assertEqual((o.outcome, o.step), (REFUSED, "host"))
        # shutdown() ends it for the vault as well; what is connected lives on.
        s.shutdown(socket.SHUT_RDWR)
        with self.assertRaises(ConnectionRefusedError):
            socket.create_connection(at)
        c.sendall(b"still")
        self.assertEqual(peer.recv(8), b"still")
        again = socket.socket()
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(at)
        again.listen()
        end = time.monotonic() + 40  # vault may read the question before it sees that the port has ended
        while (outcome := v.tcp("192.0.0.1", at[1]).outcome) != CONNECTED and time.monotonic() < end:
            time.sleep(0.05)
        self.assertEqual(outcome, CONNECTED)  # it is not the session's port any more
        mine = "%s:%d" % c.getsockname()
        v.send(w.ENDED, slot | 0x80000000, 0, struct.pack("<QQII", 1, 2, 3, 0))
        with socket.create_connection(first.getsockname()) as d:
            self.assertEqual(self.inbound(v, d)[1], 3000)
        v.close()
        line = [l for l in v.audit() if l["k"] == "published" and l["peer"] == mine][0]
        self.assertEqual((line["listen"], line["port"], line["up"], line["end"]), ("%s:%d" % at, 5173, 1, "fin"))
        for x in (first, s, c, peer, again):
            x.close()

    def test_ports_that_come_and_go_leave_nothing_behind(self):
        v = self.vault()
        v.dns("gateway.agent-vm.internal")
        before = v.settled_fds()
        for i in range(300):
            s = socket.create_server(("127.0.0.1", 0))
            v.listen(1024 + i, s)
            s.shutdown(socket.SHUT_RDWR)
            s.close()
        self.wait(lambda: v.settled_fds() == before)  # those that have ended have a place until the vault has looked at them
        refused = v.log().count("cannot be published")
        kept = [socket.create_server(("127.0.0.1", 0)) for _ in range(70)]
        for i, s in enumerate(kept):
            v.listen(2000 + i, s)
        self.wait(lambda: v.log().count("cannot be published") == refused + 6)
        self.assertEqual(v.settled_fds(), before + 64)
        self.assertIn("port 2064 of the guest cannot be published on 127.0.0.1:", v.log())
        for s in kept:
            s.shutdown(socket.SHUT_RDWR)
            s.close()
        self.wait(lambda: v.settled_fds() == before)
        # And it does not spin.
        ticks = lambda: sum(map(int, open(f"/proc/{v.pid}/stat").read().rpartition(")")[2].split()[11:13]))
        used = ticks()
        time.sleep(1)
        self.assertLess(ticks() - used, 20)

    def test_a_port_that_ends_while_the_vault_accepts_nothing(self):
        # 512 connections that wire has not answered: the sockets are not looked at until it has.
        v = self.vault()
        busy, s = socket.create_server(("127.0.0.1", 0), backlog=4096), socket.create_server(("127.0.0.1", 0))
        v.listen(1500, busy)
        v.listen(1501, s)
        clients = [socket.create_connection(busy.getsockname()) for _ in range(530)]
        slots = []
        for _ in range(512):
            slot, _, fd = v.recv(w.INBOUND)
            os.close(fd)
            slots.append(slot)
        s.shutdown(socket.SHUT_RDWR)
        ticks = lambda: sum(map(int, open(f"/proc/{v.pid}/stat").read().rpartition(")")[2].split()[11:13]))
        used = ticks()
        time.sleep(1)
        self.assertLess(ticks() - used, 20)
        for slot in slots:
            v.send(w.INBOUND_DONE, slot, 0, struct.pack("<4I", REFUSED, 0, 0, 0))
        for _ in range(18):
            os.close(v.recv(w.INBOUND)[2])
        for x in (*clients, busy, s):
            x.close()

    def test_what_the_launcher_must_not_send(self):
        s, plain = socket.create_server(("127.0.0.1", 0)), socket.socket()
        for port, text, fds in ((0, "x", [s.fileno()]), (80, "", [s.fileno()]), (80, "y" * 64, [s.fileno()]), (80, "x", []),
                                (80, "x\0y", [s.fileno()]), (80, "x", [s.fileno()] * 2)):
            with self.subTest(port=port, text=text, fds=len(fds)):
                v = self.vault()
                v.listen(port, text=text, fds=fds)
                self.assertEqual(v.wait(), 1)
                self.assertIn("all parts of agent-vm must be of one build", v.log())
        v = self.vault()
        fds = v.settled_fds()
        v.listen(80, text="127.0.0.1:1", fds=[plain.fileno()])  # as one that has ended on the way
        v.listen(81, s)
        with socket.create_connection(s.getsockname()) as c:
            self.assertEqual(self.inbound(v, c)[1], 81)
        self.wait(lambda: v.fds() <= fds + 1)  # the vault closes its copy of the connection behind the message that we have
        s.close(), plain.close()

    def test_udp_answers_go_to_the_peer_only(self):
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        s.bind(("127.0.0.1", 0))
        v = self.vault(publish=[(s, 5000)])
        a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for c in (a, b):
            c.settimeout(20)
            c.connect(s.getsockname())
        a.send(b"from a")
        b.send(b"from b")
        peers = {}
        for _ in range(2):
            _, body, _ = v.recv(w.UDP_IN)
            number, port, n = struct.unpack("<IHH", body[:8])
            self.assertEqual((port, n), (5000, 6))
            peers[body[8:]] = number
        v.send(w.UDP_OUT, 0, 0, struct.pack("<IHH", peers[b"from b"], 5000, 8) + b"to b you")
        self.assertEqual(b.recv(64), b"to b you")
        v.send(w.UDP_OUT, 0, 0, struct.pack("<IHH", peers[b"from b"] + 100, 5000, 4) + b"lost")
        v.send(w.UDP_OUT, 0, 0, struct.pack("<IHH", peers[b"from b"] + 256, 5000, 4) + b"lost")
        v.send(w.UDP_OUT, 0, 0, struct.pack("<IHH", peers[b"from b"], 5001, 4) + b"lost")
        v.dns("gateway.agent-vm.internal")
        for c in (a, b):
            c.settimeout(0.1)
            with self.assertRaises(TimeoutError):
                c.recv(64)
        many = []
        for _ in range(255):  # with these one peer too many: the oldest goes
            c = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            c.connect(s.getsockname())
            c.send(b"x")
            v.recv(w.UDP_IN)
            many.append(c)
        v.close()
        lines = [(l["k"], l["p"], l["listen"], l["peer"], l["port"], l["up"], l["down"], l["end"]) for l in v.audit() if "end" in l]
        name = lambda c: "%s:%d" % c.getsockname()
        self.assertEqual(lines[0], ("published", "udp", name(s), name(a), 5000, 0, 6, "evicted"))
        self.assertIn(("published", "udp", name(s), name(b), 5000, 8, 6, "error:session"), lines)
        self.assertEqual(len(lines), 257)
        for c in (a, b, s, *many):
            c.close()

    def test_a_lost_answer_of_wire_costs_no_place_for_ever(self):
        s = socket.create_server(("127.0.0.1", 0), backlog=600)
        v = self.vault(publish=[(s, 3000)])
        clients = [socket.create_connection(s.getsockname()) for _ in range(513)]
        asked = []
        for _ in range(512):
            slot, _, fd = v.recv(w.INBOUND)
            os.close(fd)
            asked.append(slot)
        with self.assertRaises(TimeoutError):
            v.recv(w.INBOUND, timeout=0.3)
        slot, _, fd = v.recv(w.INBOUND, timeout=60)
        v.send(w.INBOUND_DONE, slot, 1, struct.pack("<4I", TAKEN, 0, 0, 0))
        closed = {v.recv(w.CLOSE, timeout=60)[0] for _ in range(512)}
        self.assertEqual(closed, {slot | 0x80000000 for slot in asked})
        v.send(w.INBOUND_DONE, asked[0], 0, struct.pack("<4I", TAKEN, 0, 0, 0))  # late, and no reason to end
        v.dns("gateway.agent-vm.internal")
        v.close()
        self.assertEqual([l["end"] for l in v.audit() if "end" in l], ["error:ETIMEDOUT"] * 512 + ["error:session"])
        os.close(fd)
        for x in (s, *clients):
            x.close()


class Proxy(Case):
    def proxy(self, answer, then=b"banner"):
        self.heads = []

        def serve(c):
            with c:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += c.recv(1)
                self.heads.append(head.decode())
                try:
                    for piece in answer:
                        c.sendall(piece)
                        time.sleep(0.02)
                    c.sendall(then)
                    c.recv(1)
                except ConnectionError:
                    pass  # it has seen enough
        return self.listener(w.PROXY, 3128, serve=serve)

    def records(self, *no_proxy, auth=None, addr=w.PROXY):
        body = w.rec(33, w.packed(addr)) + w.rec(41, 3128) + w.rec(42, "http://proxy.corp:3128")
        body += w.rec(43, auth) if auth else b""
        return w.rec(8, body + b"".join(w.rec(44, n) for n in no_proxy))

    def test_connect_by_address_and_not_a_byte_lost(self):
        p = self.proxy([b"HTTP/1.1 200 OK\r\nVia: x\r", b"\n\r", b"\n" + b"glued "])
        direct = self.listener(w.PUBLIC, 80)
        v = self.vault(0, self.records(auth="user:pa:ss"))
        o = v.tcp(w.PUBLIC, 80)
        self.assertEqual((o.outcome, o.step), (CONNECTED, "public"))
        got = b""
        while len(got) < 12:
            got += o.sock.recv(64)
        self.assertEqual(got, b"glued banner")
        self.assertEqual(self.heads, ["CONNECT 45.0.0.10:80 HTTP/1.1\r\nHost: 45.0.0.10:80\r\n"
                                      "Proxy-Authorization: Basic dXNlcjpwYTpzcw==\r\n\r\n"])
        self.assertEqual((p.seen, direct.seen), (1, 0))
        o.close()
        v.ended(o.slot, 5, 6, 7)
        v.close()
        self.assertEqual(v.audit()[0]["via"], "http://proxy.corp:3128")
        self.assertNotIn("pa:ss", v.log())

    def test_lan_quic_and_no_proxy(self):
        p = self.proxy([b"HTTP/1.1 200 OK\r\n\r\n"])
        direct, lan = self.listener(w.PUBLIC2, 80), self.listener(w.LAN, 80)
        u = self.listener(w.PUBLIC, 443, udp=True)
        self.reachable(u)
        v = self.vault(ALLOW_LAN, self.records("45.0.0.11/32"))
        self.hello(v.tcp(w.PUBLIC2, 80))
        self.hello(v.tcp(w.LAN, 80))
        self.assertEqual(v.udp(w.PUBLIC, 443).step, "quic")
        self.assertEqual((p.seen, direct.seen, lan.seen, u.seen), (0, 1, 1, 0))
        self.assertEqual(v.tcp(w.METADATA, 80).step, "metadata")
        self.assertEqual(p.seen, 0)

    def test_refusing_dead_and_babbling_proxies(self):
        for answer, said in (([b"HTTP/1.1 407 No\r\n\r\n"], "407"), ([b"SSH-2.0-x\r\n"], "not HTTP"),
                             ([b"HTTP/1.1 200 OK\r\n" + b"x: " + b"y" * 17000 + b"\r\n\r\n"], "not HTTP")):
            p = self.proxy(answer)
            direct = self.listener(w.PUBLIC, 80)
            v = self.vault(0, self.records())
            for _ in range(3):
                o = v.tcp(w.PUBLIC, 80)
                self.assertEqual((o.outcome, o.error), (FAILED, errno.ECONNREFUSED))
            self.assertEqual(v.log().count("proxy http://proxy.corp:3128"), 1)  # one line a minute
            self.assertIn(said, v.log())
            v.close()
            self.assertEqual([(l["via"], l["end"]) for l in v.audit()], [("http://proxy.corp:3128", "error:ECONNREFUSED")] * 3)
            self.assertEqual(direct.seen, 0)
            p.close(), direct.close()

    def test_a_dead_proxy_is_not_gone_around(self):
        direct = self.listener(w.PUBLIC, 80)
        self.reachable(direct)
        v = self.vault(0, self.records())
        o = v.tcp(w.PUBLIC, 80)
        self.assertEqual((o.outcome, o.error, direct.seen), (FAILED, errno.ECONNREFUSED, 0))

    def test_a_name_that_only_the_proxy_knows(self):
        self.resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, "fd00::5")] if t == 28 else [], [], [])
                      if n == "inside.example.org" else (3, [], [], []))
        w.resolvers(w.RESOLVER)
        self.proxy([b"HTTP/1.1 200 OK\r\n\r\n"])
        v = self.vault(0, self.records("corp.example"))
        a = v.dns("www.example.org")
        self.assertEqual((a.rcode, a.addrs[0][:7], a.rrs[0][3]), (0, "198.19.", 60))
        o = v.tcp(a.addrs[0], 443)
        self.assertEqual(o.outcome, CONNECTED)
        self.assertEqual(self.heads[0].split()[1], "www.example.org:443")
        o.close()
        self.assertEqual(v.tcp(a.addrs[0], 22).step, "port")
        self.assertEqual(v.tcp("198.19.200.1", 443).step, "reserved")
        self.assertEqual(v.dns("intra.corp.example").rcode, 3)
        self.assertEqual((v.dns("www.example.org", "AAAA").rcode, v.dns("www.example.org", "AAAA").addrs), (0, []))
        # Names of clouds and of inner networks, which the proxy would look for around itself.
        for n in ("metadata.google.internal", "metadata.goog", "x.metadata.goog", "db.victim.lan", "nas.home.arpa", "wiki.corp",
                  "a.intranet", "x.localdomain", "printer.home", "a.private"):
            self.assertEqual((n, v.dns(n).rcode, v.dns(n, "AAAA").rcode), (n, 3, 3))
        self.assertEqual(v.dns("www.notlan").addrs[0][:7], "198.19.")
        # Known here, and private: the proxy is not asked for it.
        self.assertEqual((v.dns("inside.example.org").addrs, v.dns("inside.example.org", "AAAA").addrs), ([], []))


    def test_a_proxy_on_this_host_knows_no_more_names_than_this_host(self):
        self.resolver(w.RESOLVER, lambda n, t: (3, [], [], []))
        w.resolvers(w.RESOLVER)
        for addr in ("127.0.0.1", "10.99.0.1", "45.9.9.9"):  # loopback, of an interface, by the routes alone
            v = self.vault(0, self.records(addr=addr))
            self.assertEqual((addr, v.dns("www.example.org").rcode), (addr, 3))


class Audit(Case):
    def test_lines(self):
        self.listener(w.PUBLIC, 80)
        self.resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, w.PUBLIC if n == "www.example.org" else "10.0.0.5")], [], []))
        w.resolvers(w.RESOLVER)
        v = self.vault()
        v.dns("www.example.org")
        v.dns("evil.example")
        o = v.tcp(w.PUBLIC, 80)
        o.close()
        v.ended(o.slot, 1834, 90211, 412)
        for _ in range(3):
            v.tcp(w.LAN, 5432)
        v.tcp(w.PUBLIC, 22)
        v.tcp(w.PUBLIC, 80).close()  # still open when the session ends
        v.close()
        lines = v.audit()
        for l in lines:
            self.assertRegex(l.pop("t"), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")
            l.pop("ms", None)
        self.assertIn({"v": 1, "k": "tcp", "id": 1, "name": "www.example.org", "by": "dns", "dst": w.PUBLIC, "port": 80,
                       "verdict": "allow", "rule": "public", "via": "direct", "up": 1834, "down": 90211, "end": "fin"}, lines)
        self.assertIn({"v": 1, "k": "tcp", "id": 2, "name": "www.example.org", "by": "dns", "dst": w.PUBLIC, "port": 80,
                       "verdict": "allow", "rule": "public", "via": "direct", "end": "error:session"}, lines)
        self.assertIn({"v": 1, "k": "dns", "q": "evil.example", "type": "A", "rcode": "NOERROR", "kept": 0, "dropped": 1,
                       "rule": "rebind", "first": "10.0.0.5", "group": "private", "open": "--allow-egress evil.example",
                       "server": 0, "n": 1}, lines)
        self.assertIn({"v": 1, "k": "refused", "p": "tcp", "dst": w.LAN, "port": 5432, "rule": "private",
                       "open": "--allow-egress 192.168.1.20:5432", "n": 1}, lines)
        self.assertEqual(sum(l["n"] for l in lines if l["k"] == "refused" and l["dst"] == w.LAN), 3)
        self.assertIn({"v": 1, "k": "refused", "p": "tcp", "name": "www.example.org", "by": "dns", "dst": w.PUBLIC, "port": 22,
                       "rule": "port", "open": "--allow-ssh www.example.org", "n": 1}, lines)

    def test_a_full_disk_costs_lines_and_nothing_else(self):
        l = self.listener(w.PUBLIC, 80)
        v = self.vault(audit="/dev/full")
        self.assertEqual(v.tcp(w.LAN, 80).outcome, REFUSED)
        self.hello(v.tcp(w.PUBLIC, 80))
        self.assertEqual((l.seen, v.audit()), (1, []))
        v.close()
        self.assertIn("audit: 2 lines were lost; the disk of the log folder is full or gone", v.log())

    def test_names_say_what_opens_them(self):
        zone = {"host.example": "10.99.0.1", "loop.example": "127.0.0.1", "fake.example": "198.18.0.9"}
        self.resolver(w.RESOLVER, lambda n, t: (0, [addr_rr(n, zone[n])] if t == 1 else [], [], []))
        w.resolvers(w.RESOLVER)
        v = self.vault()
        names = [*zone, "db", "printer.local", "5.0.0.10.in-addr.arpa", "1.0.0.127.in-addr.arpa", "use-application-dns.net"]
        for n in names:
            v.dns(n)
        v.close()
        self.assertEqual([(l["q"], l["rule"], l.get("group"), l.get("open")) for l in v.audit()],
                         [("host.example", "rebind", "host", None), ("loop.example", "rebind", "never", None),
                          ("fake.example", "rebind", "reserved", "--allow-egress 198.18.0.9"),
                          ("db", "name", None, "--allow-egress db"),
                          ("printer.local", "name", None, "--allow-egress printer.local"),
                          ("5.0.0.10.in-addr.arpa", "reverse", None, "--allow-lan"),
                          ("1.0.0.127.in-addr.arpa", "never", None, None), ("use-application-dns.net", "doh", None, None)])
        self.assertIn("host.example: 10.99.0.1 left out; nothing opens it", v.log())
        # And the one that is named does.
        v = self.vault(0, rule("198.18.0.9"))
        self.assertEqual(v.dns("fake.example").addrs, ["198.18.0.9"])

    def ends(self, v):
        return [(l["k"], l["dst"], l.get("port"), l["verdict"], l["rule"], l["end"]) for l in v.audit() if "end" in l]

    def test_what_is_not_connected_leaves_a_line(self):
        ping = []
        w.sh("sysctl -qw net.ipv4.ping_group_range='1 0' 2>/dev/null || true")  # group 1 is none in a user's namespace
        self.addCleanup(w.sh, "sysctl -qw net.ipv4.ping_group_range='0 0' 2>/dev/null || true")
        with open("/proc/sys/net/ipv4/ping_group_range") as f:
            if f.read().split() == ["1", "0"]:
                ping = [("echo", w.PUBLIC, None, "allow", "public", "error:EACCES")]
        w.sh("ip route add unreachable 45.0.2.0/24")
        self.addCleanup(w.sh, "ip route del unreachable 45.0.2.0/24")
        v = self.vault()
        self.assertEqual(v.tcp(w.PUBLIC, 4444).error, errno.ECONNREFUSED)
        if ping:
            self.assertEqual(v.open(w.OPEN_ECHO, w.PUBLIC).error, errno.EACCES)
        self.assertEqual(v.tcp("45.0.2.1", 80).error, errno.EHOSTUNREACH)
        v.send(w.CANCEL, v.ask(w.OPEN_TCP, w.DEAD, 80), 7)
        v.ask(w.OPEN_TCP, w.DEAD, 81)
        v.dns("gateway.agent-vm.internal")
        v.close()
        self.assertEqual(self.ends(v), [("tcp", w.PUBLIC, 4444, "allow", "public", "error:ECONNREFUSED"), *ping,
                                        ("tcp", "45.0.2.1", 80, "allow", "public", "error:EHOSTUNREACH"),
                                        ("tcp", w.DEAD, 80, "allow", "public", "error:ECANCELED"),
                                        ("tcp", w.DEAD, 81, "allow", "public", "error:session")])


class Role(Case):
    def test_what_the_self_probe_did_is_marked_until_it_is_over(self):
        self.listener(w.PUBLIC, 80)
        v = self.vault(0, w.rec(10, "secret"))
        self.assertEqual(v.tcp(w.PUBLIC, 4444).error, errno.ECONNREFUSED)
        flow = v.tcp(w.PUBLIC, 80)
        flow.close()
        late = v.ask(w.OPEN_TCP, w.DEAD, 80)
        self.assertEqual(v.tcp(w.METADATA, 80).step, "metadata")
        self.assertEqual(v.dns("rebind.probe.agent-vm.internal").addrs, [])
        v.control.send(b"\3")
        self.wait(lambda: len(v.audit()) >= 3)
        self.assertEqual([l.get("probe") for l in v.audit()], [True, True, True])
        v.ended(flow.slot)
        v.send(w.CANCEL, late, 7)
        v.dns("gateway.agent-vm.internal")
        self.wait(lambda: len(v.audit()) >= 5)
        self.assertEqual([(l["k"], l.get("probe")) for l in v.audit()[3:]], [("tcp", True), ("tcp", True)])
        self.assertNotIn("rebind.probe", v.log())
        self.assertEqual(v.tcp(w.METADATA, 80).step, "metadata")
        self.wait(lambda: len(v.audit()) >= 6)
        self.assertEqual(v.audit()[-1].get("probe"), None)  # at once, and not joined with the probe's
        v.control.send(b"\3")  # only once
        self.assertEqual(v.wait(), 1)
        self.assertEqual([l.get("probe") for l in v.audit()], [True] * 5 + [None])

    def test_the_digest_is_of_what_it_was_told(self):
        told = [(0, b""), (w.ALLOW_LAN, b""), (w.ALLOW_HOST, b""), (0, rule("10.0.0.1", 80)), (0, rule("10.0.0.1", 81))]
        digests = [self.vault(flags, records).digest for flags, records in told]
        self.assertEqual(len(set(digests)), len(told))
        self.assertEqual(digests[0], self.vault(0, b"").digest)

    def test_broken_wires_end_the_session(self):
        head = lambda kind, n, version=1: struct.pack("<HHIII", version, kind, n, 1, 7)
        good = w.net_addr(w.PUBLIC) + struct.pack("<HH", 80, 1)
        bad = {
            "short": b"\1\0", "version": head(0x10, 40, 2) + good, "type": head(0x60, 16), "answer": head(0x11, 32) + bytes(16),
            "length": head(0x10, 41) + good, "too long": head(0x18, 20) + bytes(4),
            "family": head(0x10, 40) + b"\5" + good[1:], "hole": head(0x10, 40) + b"\4\0\0\1" + good[4:],
            "v4 tail": head(0x10, 40) + good[:12] + b"\1" + good[13:],
            "name": head(0x14 + 2, 284) + struct.pack("<HH6B", 1, 512, 1, 0, 0, 0, 0, 3) + b"\2a\0" + bytes(255),
            "upper case": head(0x16, 284) + struct.pack("<HH6B", 1, 512, 1, 0, 0, 0, 0, 3) + b"\1A\0" + bytes(255),
            "size": head(0x16, 284) + struct.pack("<HH6B", 1, 511, 1, 0, 0, 0, 0, 3) + b"\1a\0" + bytes(255),
            "end": head(0x1a, 40) + struct.pack("<QQII", 1, 2, 3, 6), "done": head(0x21, 32) + struct.pack("<4I", TAKEN, 0, 0, 0),
            "datagram": head(0x24, 24) + struct.pack("<IHH", 0, 1, 5),
        }
        for what, msg in bad.items():
            with self.subTest(what):
                v = self.vault()
                v.raw(msg)
                self.assertEqual(v.wait(), 1)
                self.assertEqual(v.control.recv(4096)[0], 2)
        v = self.vault()
        v.raw(head(0x10, 40) + good, [0])
        self.assertEqual(v.wait(), 1)

    def test_more_than_it_may(self):
        v = self.vault()
        try:
            for _ in range(513):
                v.ask(w.OPEN_TCP, w.DEAD, 80)
        except BrokenPipeError:
            pass
        self.assertEqual(v.wait(), 1)
        self.assertIn("more opens than it may", v.log())
        w.resolvers(w.DEAD)
        for _ in range(5):
            v = self.vault()
            try:
                for i in range(257):
                    v.dns_send(f"a{i % 200}.example")
            except BrokenPipeError:
                pass
            self.assertTrue(select.select([v.wire], [], [], 60)[0])
            if not v.wire.recv(70000):
                break  # else it was told after 4 s that nobody answers, and waits no more
        self.assertEqual(v.wait(), 1)
        self.assertIn("more names than it may", v.log())

    def test_a_slot_and_generation_are_of_one_flow(self):
        self.listener(w.PUBLIC, 80)
        for dst in (w.PUBLIC, w.DEAD):  # open; asked for
            v = self.vault()
            slot = v.ask(w.OPEN_TCP, dst, 80)
            if dst == w.PUBLIC:
                v.opened(w.OPEN_TCP, slot).close()
            v.ask(w.OPEN_TCP, w.PUBLIC, 80, slot=slot)
            self.assertEqual(v.wait(), 1)
            self.assertIn("asks twice", v.log())

    def test_ends_with_wire_launcher_and_sigterm(self):
        v = self.vault()
        v.wire.close()
        self.assertEqual(v.wait(), 0)
        self.assertIn(" vault info session ends: wire is gone", v.log())  # as it does whenever the VM has ended
        self.assertNotIn(" vault error ", v.log())
        v = self.vault()
        v.control.close()
        self.assertEqual(v.wait(), 0)
        v = self.vault()
        os.kill(v.pid, signal.SIGTERM)
        self.assertEqual(v.wait(), 0)
        v = self.vault()
        v.gate.close()
        self.assertEqual(v.wait(), 0)

    def test_walls(self):
        """Of a running vault: no capability, no new privileges, seccomp, not dumpable."""
        v = self.vault()
        with open(f"/proc/{v.pid}/status") as f:
            status = dict(l.split(":\t") for l in f.read().splitlines() if ":\t" in l)
        self.assertEqual((int(status["CapEff"], 16), int(status["CapPrm"], 16)), (0, 0))
        self.assertEqual((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"))

    def test_configurations_of_another_build_are_refused(self):
        for records in (w.rec(99, 1), w.rec(1, 0), w.rec(4, w.rec(32, "Upper.example")), rule("10.0.0.0/8", 10, 9), w.rec(3, 1400),
                        w.rec(4, w.rec(33, b"\4\1\2\3") + w.rec(34, 8)), b"\1\2\3"):
            v = self.vault(0, records, ready=False)
            self.assertEqual(v.wait(), 1)
            self.assertIn("configuration of the vault", v.log())


if __name__ == "__main__":
    w.make_world()
    unittest.main(verbosity=2)
