#!/usr/bin/env python3
"""A small world for the network tests of the VM: world.py DIR -- COMMAND…

Makes a network namespace for the host that runs COMMAND and one that plays everything else, behind a router:

    host  10.99.0.1/30 --- 10.99.0.2 router, resolver
          192.168.77.10/24 --- 192.168.77.20  a machine of the LAN
                              45.0.0.10       the public internet (www.test, on ports 80 and 5000)
                              169.254.169.254 a cloud's metadata

Servers answer `GET` with a page that names the address they were reached at and write a line for every connection to
DIR/seen. WORLD_ENV holds NAME=VALUE words for COMMAND's environment, for proxies, WORLD_RESOLVER another
resolver than ours. HTTP proxies are on 127.0.0.1:3128 and 10.99.0.2:3128 (proxy.test by the hosts file), which ask for alice's
password "pa ss" and alone know inside.corp.test; the hosts file knows hosts-only.test. Names: www.test 45.0.0.10, rebind.test 192.168.77.20 and 127.0.0.1, both.test both kinds. As an ordinary user it
enters a user namespace first.
"""
import base64
import ctypes
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

PUBLIC, LAN, META, HOST_LAN = "45.0.0.10", "192.168.77.20", "169.254.169.254", "192.168.77.10"
PROXY_ONLY = {"inside.corp.test": PUBLIC}  # that only the proxy can resolve
ZONE = {"www.test": [PUBLIC], "rebind.test": [LAN, "127.0.0.1"], "both.test": [LAN, PUBLIC]}


def ip(line):
    subprocess.run(["ip", *line.split()], check=True)


def serve(where, address, port, seen):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((address, port))
    s.listen(64)

    def client(c):
        with c:
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
                f.write(f"{where} {address}:{port}\n")
            threading.Thread(target=client, args=(c,), daemon=True).start()
    threading.Thread(target=loop, daemon=True).start()


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


def resolver():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("10.99.0.2", 53))
    while True:
        q, peer = s.recvfrom(4096)
        at, labels = 12, []
        while q[at]:
            labels.append(q[at + 1:at + 1 + q[at]].decode())
            at += 1 + q[at]
        qtype = struct.unpack(">H", q[at + 1:at + 3])[0]
        name = ".".join(labels).lower()
        found = ZONE.get(name, []) if qtype == 1 else []
        code = 0 if name in ZONE else 3
        answer = b"".join(b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + socket.inet_aton(a) for a in found)
        s.sendto(q[:2] + struct.pack(">HHHHH", 0x8180 | code, 1, len(found), 0, 0) + q[12:at + 5] + answer, peer)


def rest_of_the_world(seen, ready):
    ctypes.CDLL(None).unshare(0x40000000)  # CLONE_NEWNET
    os.write(ready, b"1")
    while subprocess.run(["ip", "link", "show", "r1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
        time.sleep(0.05)
    ip("link set lo up")
    for dev, addr in ("r0", "10.99.0.2/30"), ("r1", f"{LAN}/24"):
        ip(f"link set {dev} up")
        ip(f"addr add {addr} dev {dev}")
    ip(f"addr add {PUBLIC}/32 dev lo")
    ip(f"addr add {META}/32 dev lo")
    for where, address, port in (("public", PUBLIC, 80), ("public", PUBLIC, 5000), ("public", PUBLIC, 22), ("lan", LAN, 80),
                                 ("metadata", META, 80)):
        serve(where, address, port, seen)
    threading.Thread(target=resolver, daemon=True).start()
    proxy(seen, "10.99.0.2")
    os.write(ready, b"2")
    signal.pause()


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
            rest_of_the_world(seen, ours)
        finally:
            os._exit(1)
    try:
        os.read(theirs, 1)
        ip("link set lo up")
        for w, far, addr in ("w0", "r0", "10.99.0.1/30"), ("w1", "r1", f"{HOST_LAN}/24"):
            ip(f"link add {w} type veth peer name {far} netns {pid}")
            ip(f"link set {w} up")
            ip(f"addr add {addr} dev {w}")
        ip("route add default via 10.99.0.2")
        os.read(theirs, 1)
        resolver_at = os.environ.get("WORLD_RESOLVER", "10.99.0.2")
        (folder / "resolv.conf").write_text(f"nameserver {resolver_at}\n")
        subprocess.run(["mount", "--bind", folder / "resolv.conf", os.path.realpath("/etc/resolv.conf")], check=True)
        for address in ("127.0.0.1", HOST_LAN):
            serve("host", address, 8080, seen)
        proxy(seen, "127.0.0.1")
        (folder / "hosts").write_text(f"127.0.0.1 localhost\n{LAN} hosts-only.test\n10.99.0.2 proxy.test\n")
        subprocess.run(["mount", "--bind", folder / "hosts", "/etc/hosts"], check=True)
        env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "WORLD_IN"}
        env.update(w.split("=", 1) for w in os.environ.get("WORLD_ENV", "").split())
        return subprocess.run(command, env=env).returncode
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
