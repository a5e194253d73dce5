"""Debian's docker-registry on loopback, and a relay in front of it that counts requests and can hold the bytes back."""
import contextlib
import ctypes
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

LIBC = ctypes.CDLL(None)
SLOW = float(os.environ.get("AGENT_VM_TEST_SLOW", "1"))


def die_with_parent():
    LIBC.prctl(1, signal.SIGKILL)


def wait_for(what, seconds, why):
    end = time.monotonic() + seconds * SLOW
    while True:
        got = what()
        if got:
            return got
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s: {why}")
        time.sleep(0.01)


@contextlib.contextmanager
def nobody():
    """A port of this machine at which nobody listens, and nobody can meanwhile."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]


class Registry:
    """Debian's docker-registry over a folder, at a port that the kernel gives it: one that is chosen before can be taken by then."""

    def __init__(self, folder, http="", more=""):
        self.folder = pathlib.Path(folder)
        self.config, self.log = self.folder / "config.yml", self.folder / "log"
        self.config.write_text(f"version: 0.1\nlog: {{level: info}}\n"
                               f"storage: {{filesystem: {{rootdirectory: {self.folder}/data}}, delete: {{enabled: true}}}}\n"
                               f"http: {{addr: '127.0.0.1:0'{http}}}\n{more}")
        self.start()

    def start(self):
        with open(self.log, "wb") as log:
            self.p = subprocess.Popen(["docker-registry", "serve", self.config], stdout=log, stderr=log, preexec_fn=die_with_parent)
        self.port = int(wait_for(self.listens, 60, "docker-registry does not listen")[1])
        self.at = f"127.0.0.1:{self.port}"

    def listens(self):
        text = self.log.read_text()
        if self.p.poll() is not None:
            raise AssertionError(f"docker-registry ended with status {self.p.returncode}: {text}")
        return re.search(r"listening on 127\.0\.0\.1:(\d+)[\s\",]", text)

    def push(self, image, name):
        with tempfile.TemporaryDirectory() as tmp:
            image.write(tmp)
            subprocess.run(["skopeo", "copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", f"oci:{tmp}:x",
                            f"docker://{self.at}/{name}"], check=True)

    def blob_file(self, digest):
        return self.folder / f"data/docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data"

    def stop(self):
        self.p.terminate()
        self.p.wait()


class Relay:
    """Passes connections on to the registry at the port @target, which may change, and be None; counts what was asked for and who found
    no registry, and holds after a number of bytes of answers."""

    def __init__(self, port):
        self.target, self.asked, self.passed, self.limit, self.refused = port, [], 0, None, 0
        self.change = threading.Condition()
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            try:
                up = self.target and socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                up = None
            if not up:
                self.refused += 1
                client.close()
                continue
            threading.Thread(target=self.up, args=(client, up), daemon=True).start()
            threading.Thread(target=self.down, args=(client, up), daemon=True).start()

    def up(self, client, up):
        head = b""
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                *heads, head = (head + data).split(b"\r\n\r\n")
                self.asked += [m[1] for h in heads if (m := re.match(rb"(?:GET|HEAD) (\S+) HTTP", h))]
                up.sendall(data)
        with contextlib.suppress(OSError):
            up.shutdown(socket.SHUT_WR)

    def down(self, client, up):
        with contextlib.suppress(OSError):
            while data := up.recv(16384):
                with self.change:
                    while self.limit is not None and self.passed >= self.limit:
                        self.change.wait()
                    self.passed += len(data)
                client.sendall(data)
        for s in (client, up):
            # The other thread sits in a recv(2), and would keep the connection open behind a close(2) alone.
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            s.close()

    def hold_after(self, n):
        """From now on n bytes of answers pass; None: all."""
        with self.change:
            self.passed, self.limit = 0, n
            self.change.notify_all()

    def blobs(self):
        """Digests of the blobs that were asked for, as often as they were."""
        return [m[1].decode() for a in self.asked if (m := re.search(rb"/blobs/sha256:([0-9a-f]{64})", a))]

    def forget(self):
        self.asked = []

    def stop(self):
        self.hold_after(None)
        # A thread that waits in accept(2) and is stopped meanwhile begins anew, with whatever has the descriptor's number then.
        self.server.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.server.close()
