"""wire and vault together, gate too if asked for, with their sandboxes on, and a kernel of its own as the guest: this host's TCP
stack behind a TAP in a third namespace, G. The world is vaulttest's."""
import fcntl
import os
import socket
import subprocess
import tempfile
import time

import gatetest
import vaulttest as w
from vaulttest import Namespace, Vault

G = None


def make_guest_namespace():
    global G
    if w.LIBC.unshare(w.CLONE_NEWNET) != 0:
        raise OSError("unshare")
    G = Namespace(os.open("/proc/self/ns/net", os.O_RDONLY))
    Namespace.switch(w.V.fd)


class Pair:
    def __init__(self, build, real_gate=False, **options):
        self.vault, self.real_gate = Vault(ready=False, **options), None
        path = os.path.join(tempfile.mkdtemp(), "link")
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(1)
        with G:
            w.sh("sysctl -qw net.ipv4.ping_group_range='0 0'; ip link set lo up; ip tuntap add dev tap0 mode tap")
            self.adapter = subprocess.Popen([f"{build}/tests/net/adapter", "stream", path, "tap0"], stdout=subprocess.DEVNULL)
        link, _ = listening.accept()
        self.control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.gate, gate = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.log_path = path + ".log"
        log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fds = {3: control.fileno(), 4: log, 5: link.fileno(), 6: self.vault.wire.fileno(), 7: gate.fileno()}
        self.wire = os.fork()
        if self.wire == 0:
            try:
                high = {k: fcntl.fcntl(v, fcntl.F_DUPFD, 200) for k, v in fds.items()}
                os.dup2(log, 2)
                for k, fd in high.items():
                    os.dup2(fd, k)
                os.closerange(8, 4096)
                os.execv(os.environ.get("WIRE") or f"{build}/src/wire/agent-vm-wire", ["agent-vm-wire"])
            finally:
                os._exit(99)
        for s in (link, control, gate, listening, self.vault.wire):
            s.close()
        os.close(log)
        if real_gate:
            self.real_gate = gatetest.Gate(wire=self.gate, vault=self.vault.gate)
        assert self.control.recv(99)[0] == 1 and self.vault.control.recv(99)[0] == 1
        with G:
            w.sh("ip link set tap0 address 02:61:76:01:02:03 mtu 65520 up; ip addr add 192.0.0.2/29 dev tap0")
            w.sh("ip addr add fd6b:91d4:3e07::2/64 dev tap0 nodad; ip route add default via 192.0.0.1")
            w.sh("ip -6 route add default via fd6b:91d4:3e07::1 dev tap0")

    def wire_ended(self, seconds):
        """Its exit status within that time (negative: a signal), or None."""
        end = time.monotonic() + seconds
        while self.wire:
            pid, status = os.waitpid(self.wire, os.WNOHANG)
            if pid:
                self.wire = 0
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                return None
            time.sleep(0.005)

    def log(self):
        with open(self.log_path) as f:
            return f.read() + self.vault.log()

    def close(self):
        if self.real_gate:
            self.real_gate.close()
        self.control.close()
        self.gate.close()
        if self.wire and self.wire_ended(60) is None:
            raise AssertionError("wire does not end")
        self.vault.close()
        self.adapter.kill()
        self.adapter.wait()
        with G:
            w.sh("ip link del tap0")
