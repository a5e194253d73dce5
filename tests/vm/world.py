#!/usr/bin/env python3
"""A small world for the network tests of the VM: world.py DIR -- COMMAND…

Makes a network namespace for the host that runs COMMAND and one that plays everything else, behind a router:

    host  10.99.0.1/30 --- 10.99.0.2 router, resolver
          192.168.77.10/24 --- 192.168.77.20  a machine of the LAN
                              45.0.0.10       the public internet (www.test, on ports 80 and 5000)
                              169.254.169.254 a cloud's metadata

WORLD_FAMILIES is 4 (the default: no IPv6 at all), 46, or 6. With 6 in it also

    host  2a0e:b107:1::1/64 --- 2a0e:b107:1::2 router, resolver
          fd77:77::10/64 ------ fd77:77::20     the machine of the LAN
                                2a0e:b107::10   the public internet
                                REFUSED6        what must not be reached, of which each one answers here

45.0.0.99 and 2a0e:b107::dead (lame.test) swallow what is sent to them.

Servers answer `GET` with a page that names the address they were reached at and write a line for every connection to
DIR/seen. Port 5001 says goodbye first, and writes down how much it is sent after that; 7/udp echoes. If there is a DIR/tls.pem
(key and certificate), DIR/www is served by https at the public address; a DIR/sshd is run for port 22 of 45.0.0.11 (ssh.test).
WORLD_ENV holds
NAME=VALUE words for COMMAND's environment, for proxies, WORLD_RESOLVER another resolver than ours. HTTP proxies are on
127.0.0.1:3128 and 10.99.0.2:3128 (proxy.test by the hosts file), which ask for alice's password "pa ss" and alone know
inside.corp.test; the hosts file knows hosts-only.test. Names: ZONE; big.test has 3 KB of TXT. As an ordinary user it enters a
user namespace first.
"""
import base64
import ctypes
import functools
import http.server
import os
import pathlib
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

PUBLIC, LAN, META, HOST_LAN = "45.0.0.10", "192.168.77.20", "169.254.169.254", "192.168.77.10"
PUBLIC6, NAT64, LAN6, HOST6, HOST_LAN6 = "2a0e:b107::10", "64:ff9b::2d00:a", "fd77:77::20", "2a0e:b107:1::1", "fd77:77::10"
ROUTER6, LAME, LAME6 = "2a0e:b107:1::2", "45.0.0.99", "2a0e:b107::dead"
SSH, GITHUB = "45.0.0.11", "140.82.112.3"
REFUSED6 = [  # of the router, or of the LAN
    ROUTER6, LAN6, "fd12:3456:789a::1",  # a network that the host is on, the LAN, another private one
    "fd00:ec2::254", "fd20:ce::254",  # metadata
    "64:ff9b::c0a8:4d14", "64:ff9b::c0a8:4d0a", "64:ff9b::a9fe:a9fe", "64:ff9b::7f00:1",  # NAT64: LAN, host, metadata, loopback
    "64:ff9b:1::c0a8:4d14", "2002:c0a8:4d14::1", "2001:0:c0a8:4d14::1", "::c0a8:4d14", "::ffff:0:c0a8:4d14",  # other spellings
    "2001:db8::1", "fec0::1", "4000::1"]  # reserved
PROXY_ONLY = {"inside.corp.test": PUBLIC}  # that only the proxy can resolve
ZONE = {"www.test": [PUBLIC, PUBLIC6], "rebind.test": [LAN, "127.0.0.1", LAN6, "::1", "::ffff:127.0.0.1", "64:ff9b::c0a8:4d14"],
        "both.test": [LAN, PUBLIC, LAN6, PUBLIC6], "lame.test": [PUBLIC, LAME6], "six.test": [PUBLIC6], "ssh.test": [SSH],
        "github.com": [GITHUB], "big.test": []}
LIBC = ctypes.CDLL(None)
FAMILIES = os.environ.get("WORLD_FAMILIES", "4")


def ip(line):
    subprocess.run(["ip", *line.split()], check=True)


def six(address):
    return ":" in address


def there(addresses):
    """Those of the families that there are."""
    return [a for a in addresses if ("6" if six(a) else "4") in FAMILIES]


def serve(where, address, port, seen):
    s = socket.socket(socket.AF_INET6 if six(address) else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen(64)

    def client(c):
        with c:
            if port == 5001:
                c.sendall(b"goodbye\n")
                c.shutdown(socket.SHUT_WR)
                rest = sum(iter(lambda: len(c.recv(65536)), 0))
                with open(seen, "a") as f:
                    f.write(f"after goodbye {rest}\n")
                return
            data = c.recv(65536)
            if data.startswith(b"GET /big"):
                c.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * (8 << 20))
            elif data.startswith(b"GET"):
                c.sendall(f"HTTP/1.0 200 OK\r\n\r\nthis is {where}\n".encode())
            else:
                while data:  # echo, until the other side has said all
                    c.sendall(data)
                    data = c.recv(65536)

    def loop():
        while True:
            c, _ = s.accept()
            with open(seen, "a") as f:
                f.write(f"{where} [{address}]:{port}\n" if six(address) else f"{where} {address}:{port}\n")
            threading.Thread(target=client, args=(c,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()


def echo(address):
    s = socket.socket(socket.AF_INET6 if six(address) else socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((address, 7))

    def loop():
        while True:
            s.sendto(*s.recvfrom(65536))
    threading.Thread(target=loop, daemon=True).start()


class Https(http.server.ThreadingHTTPServer):
    def __init__(self, address, handler):
        self.address_family = socket.AF_INET6 if six(address) else socket.AF_INET
        super().__init__((address, 443), handler)


def serve_tls(folder, address):
    server = Https(address, functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder / "www"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.pem")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def proxy(seen, address):
    """An HTTP proxy: writes down what it is asked, and asks for alice's password."""
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, 3128))
    s.listen(64)

    def pump(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def client(c):
        head = b""
        while b"\r\n\r\n" not in head:
            head += c.recv(1)
        target = head.split()[1].decode()
        good = b"Basic " + base64.b64encode(b"alice:pa ss") in head
        with open(seen, "a") as f:
            f.write(f"proxy {target} {'alice' if good else 'nobody'}\n")
        if not good:
            c.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
            c.close()
            return
        host, _, port = target.rpartition(":")
        far = socket.create_connection((PROXY_ONLY.get(host, host), int(port)))
        c.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        threading.Thread(target=pump, args=(far, c), daemon=True).start()
        pump(c, far)

    def loop():
        while True:
            threading.Thread(target=client, args=(s.accept()[0],), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()


def dns_answer(q, tcp):
    at, labels = 12, []
    while q[at]:
        labels.append(q[at + 1:at + 1 + q[at]].decode())
        at += 1 + q[at]
    qtype = struct.unpack(">H", q[at + 1:at + 3])[0]
    name = ".".join(labels).lower()
    room = struct.unpack(">H", q[at + 8:at + 10])[0] if q[10:12] != b"\0\0" else 512  # one OPT, which says how much there may be
    family = {1: socket.AF_INET, 28: socket.AF_INET6}.get(qtype)
    found = [socket.inet_pton(family, a) for a in ZONE.get(name, []) if six(a) == (qtype == 28)] if family else []
    if (name, qtype) == ("big.test", 16):
        found = [bytes([250]) + bytes([97 + i]) * 250 for i in range(12)]
    code = 0 if name in ZONE else 3
    records = b"".join(b"\xc0\x0c" + struct.pack(">HHLH", qtype, 1, 60, len(f)) + f for f in found)
    cut = not tcp and len(q) + len(records) > room
    head = struct.pack(">HHHHH", (0x8380 if cut else 0x8180) | code, 1, 0 if cut else len(found), 0, 0)
    return q[:2] + head + q[12:at + 5] + (b"" if cut else records)


def resolver(address):
    family = socket.AF_INET6 if six(address) else socket.AF_INET
    u, t = socket.socket(family, socket.SOCK_DGRAM), socket.socket(family)
    t.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    u.bind((address, 53))
    t.bind((address, 53))
    t.listen(16)

    def by_udp():
        while True:
            q, peer = u.recvfrom(4096)
            u.sendto(dns_answer(q, False), peer)

    def client(c):
        with c, c.makefile("rb") as f:
            while n := f.read(2):
                a = dns_answer(f.read(int.from_bytes(n, "big")), True)
                c.sendall(len(a).to_bytes(2, "big") + a)

    def by_tcp():
        while True:
            threading.Thread(target=client, args=(t.accept()[0],), daemon=True).start()
    threading.Thread(target=by_udp, daemon=True).start()
    threading.Thread(target=by_tcp, daemon=True).start()


def give(dev, addresses):
    ip(f"link set {dev} up")
    for a in there(addresses):
        ip(f"addr add {a} dev {dev}" + (" nodad" if six(a) else ""))


def end_with_parent():
    LIBC.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def rest_of_the_world(folder, seen, ready):
    os.setpgid(0, 0)
    end_with_parent()
    LIBC.unshare(0x40000000)  # CLONE_NEWNET
    os.write(ready, b"1")
    while subprocess.run(["ip", "link", "show", "r1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        time.sleep(0.05)
    ip("link set lo up")
    for dev, addresses in ("r0", ["10.99.0.2/30", f"{ROUTER6}/64"]), ("r1", [f"{LAN}/24", f"{LAN6}/64"]):
        give(dev, addresses)
    others = [a for a in REFUSED6 if a not in (ROUTER6, LAN6)]
    give("lo", [f"{a}/32" for a in (PUBLIC, META, SSH, GITHUB)] + [f"{a}/128" for a in (PUBLIC6, NAT64, *others)])
    for where, addresses, ports in (("public", [PUBLIC, PUBLIC6, NAT64], (80, 5000, 5001, 22)), ("lan", [LAN], (80,)),
                                    ("metadata", [META], (80,)), ("github", [GITHUB], (22,)), ("refused", REFUSED6, (80,))):
        for address in there(addresses):
            for port in ports:
                serve(where, address, port, seen)
    for address in there([PUBLIC, PUBLIC6]):
        echo(address)
        if (folder / "tls.pem").exists():
            serve_tls(folder, address)
    for address in there(["10.99.0.2", ROUTER6]):
        resolver(address)
    if "4" in FAMILIES:
        proxy(seen, "10.99.0.2")
    if (folder / "sshd").exists():
        pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
        subprocess.Popen(["sh", folder / "sshd"], preexec_fn=end_with_parent)
    os.write(ready, b"2")
    signal.pause()


def allow_ping():
    """Debian's default lets nobody have a ping socket. A user namespace knows few groups."""
    for last in "4294967294", "65534", "0":
        try:
            return pathlib.Path("/proc/sys/net/ipv4/ping_group_range").write_text(f"0 {last}")
        except OSError:
            pass


def main():
    folder, command = pathlib.Path(sys.argv[1]), sys.argv[sys.argv.index("--") + 1:]
    if not os.environ.get("WORLD_IN"):
        flags = "-nm" if os.geteuid() == 0 else "-Urnm"
        os.execvpe("unshare", ["unshare", flags, "/usr/bin/python3", *sys.argv], {**os.environ, "WORLD_IN": "1"})
    seen = folder / "seen"
    seen.touch()
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            rest_of_the_world(folder, seen, ours)
        finally:
            os._exit(1)
    try:
        os.read(theirs, 1)
        ip("link set lo up")
        for w, far, addresses in ("w0", "r0", ["10.99.0.1/30", f"{HOST6}/64"]), ("w1", "r1", [f"{HOST_LAN}/24", f"{HOST_LAN6}/64"]):
            ip(f"link add {w} type veth peer name {far} netns {pid}")
            give(w, addresses)
        for router in there(["10.99.0.2", ROUTER6]):
            ip(f"route add default via {router}")
        allow_ping()
        os.read(theirs, 1)
        resolver_at = os.environ.get("WORLD_RESOLVER") or there(["10.99.0.2", ROUTER6])[0]
        (folder / "resolv.conf").write_text(f"nameserver {resolver_at}\n")
        subprocess.run(["mount", "--bind", folder / "resolv.conf", os.path.realpath("/etc/resolv.conf")], check=True)
        for address in there([HOST_LAN, HOST6, HOST_LAN6]) + ["127.0.0.1", "::1"]:
            serve("host", address, 8080, seen)
        proxy(seen, "127.0.0.1")
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{LAN} hosts-only.test\n10.99.0.2 proxy.test\n")
        subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True)
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "WORLD_IN"}
        env.update(w.split("=", 1) for w in os.environ.get("WORLD_ENV", "").split())
        return subprocess.run(command, env=env).returncode
    finally:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
