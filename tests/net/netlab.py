"""Three network namespaces for the tests and benchmarks of wire: G the guest (this host's own TCP stack behind a TAP), W the
engine, S the servers (network page 10.2). Needs root, or a user namespace: main() enters one by itself."""
import os
import signal
import subprocess
import sys
import tempfile
import time

SERVER4, SERVER6, PORT = "45.0.0.10", "2a0e:b107::10", 5000


def enter(argv):
    """As an ordinary user: again inside `unshare -Urn`; as root: inside `unshare -n`."""
    if os.environ.get("NETLAB_IN"):
        return
    cmd = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    os.execvpe(cmd[0], cmd + [sys.executable] + argv, {**os.environ, "NETLAB_IN": "1"})


def missing():
    """What this host refuses that the lab needs, or None."""
    if os.environ.get("NETLAB_IN"):
        return None
    cmd = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-Urn"]
    tap = cmd + ["ip", "tuntap", "add", "dev", "tap0", "mode", "tap"]
    p = subprocess.run(tap, capture_output=True, text=True)
    return f"{' '.join(tap)}: {p.stderr.strip()}" if p.returncode else None


class Lab:
    def __init__(self, build):
        self.build = build
        self.dir = tempfile.mkdtemp(prefix="netlab-")
        os.chmod(self.dir, 0o777)
        self.procs = []
        self.pid = {}
        for ns in "GWS":
            p = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
            self.procs.append(p)
            self.pid[ns] = p.pid
        own = os.readlink("/proc/self/ns/net")
        for p in self.pid.values():
            while os.readlink(f"/proc/{p}/ns/net") == own:
                time.sleep(0.01)
        for ns in "GWS":
            self.ip(ns, "link set lo up")
        self.ip("W", f"link add veth type veth peer name veth netns {self.pid['S']}")
        for ns, a4, a6 in ("W", "10.99.0.1/30", "2a0e:b107:1::1/64"), ("S", "10.99.0.2/30", "2a0e:b107:1::2/64"):
            self.ip(ns, "link set veth mtu 65520 up")
            self.ip(ns, f"addr add {a4} dev veth")
            self.ip(ns, f"addr add {a6} dev veth nodad")
        self.ip("W", "route add default via 10.99.0.2")
        self.ip("W", "route add default via 2a0e:b107:1::2")
        self.ip("S", f"addr add {SERVER4}/32 dev lo")
        self.ip("S", f"addr add {SERVER6}/128 dev lo nodad")

    def cmd(self, ns, argv):
        return ["nsenter", "-t", str(self.pid[ns]), "-n"] + argv

    def ip(self, ns, line):
        subprocess.run(self.cmd(ns, ["ip"] + line.split()), check=True)

    def start(self, ns, argv, **kw):
        p = subprocess.Popen(self.cmd(ns, argv), text=True, **kw)
        self.procs.append(p)
        return p

    def ready(self, ns, argv, word):
        """Starts it and waits for a line on its stdout that begins with the word; returns process and line."""
        p = self.start(ns, argv, stdout=subprocess.PIPE)
        line = p.stdout.readline()
        if not line.startswith(word):
            raise SystemExit(f"{argv[0]}: {line!r}")
        return p, line

    def tool(self, name):
        return f"{self.build}/tests/net/{name}"

    def servers(self, *more):
        self.ready("S", [self.tool("traffic"), "serve", str(PORT), SERVER4, *more], "ready")

    def guest(self, addr, gw, v6=True, mtu=65520):
        """The guest's side of the link: sysctls and addresses of network page 1."""
        for key, value in (("ipv4.tcp_rmem", "4096 1048576 16777216"), ("ipv4.tcp_wmem", "4096 1048576 16777216"),
                           ("ipv4.tcp_slow_start_after_idle", "0")):
            script = f"echo '{value}' > /proc/sys/net/{key.replace('.', '/')}"
            subprocess.run(self.cmd("G", ["sh", "-c", script]), check=True)
        self.ip("G", f"link set tap0 address 02:61:76:10:20:30 mtu {mtu} up")
        self.ip("G", f"addr add {addr} dev tap0")
        self.ip("G", f"route add default via {gw} initcwnd 20 initrwnd 20")
        if v6:
            self.ip("G", "addr add fd6b:91d4:3e07::2/64 dev tap0 nodad")
            self.ip("G", "route add default via fd6b:91d4:3e07::1 dev tap0")

    def adapter(self, mode, sock, *options):
        self.ip("G", "tuntap add dev tap0 mode tap" + (" vnet_hdr" if "partial" in options else ""))
        self.tap, _ = self.ready("G", [self.tool("adapter"), mode, sock, "tap0", *options], "ready")

    def wire(self, *options, publish=None, mtu=65520):
        """Our engine; returns the fake vault's process and the pid of wire."""
        sock = f"{self.dir}/wire"
        argv = [self.tool("fakevault"), os.environ.get("WIRE") or f"{self.build}/src/wire/agent-vm-wire", sock]
        vault = self.start("W", argv + (["publish", str(publish)] if publish else []), stdout=subprocess.PIPE,
                           stderr=open(f"{self.dir}/log", "a"))
        self.adapter("stream", sock, *options)
        line = vault.stdout.readline()
        self.guest("192.0.0.2/29", "192.0.0.1", mtu=mtu)
        return vault, int(line.split()[1])

    def traffic(self, *args, ns="G", timeout=300):
        p = subprocess.run(self.cmd(ns, [self.tool("traffic"), *map(str, args)]), text=True, capture_output=True,
                           timeout=timeout)
        return p.stdout.strip()

    def close(self):
        for p in reversed(self.procs):
            if p.poll() is None:
                p.send_signal(signal.SIGKILL)
                p.wait()
        subprocess.run(["rm", "-rf", self.dir], check=False)
