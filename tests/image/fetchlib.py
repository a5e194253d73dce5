"""What the tests of `agent-vm-image fetch` share: the launcher's end of its socket, images made here, and a registry that
can be told to do everything wrong."""
import contextlib
import errno
import fcntl
import gzip
import hashlib
import http.server
import io
import json
import os
import pathlib
import platform
import random
import select
import socket
import ssl
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.parse

from certs import Certificates  # noqa: F401, for those who use this
from dockerlib import die_with_parent

# 3, 4 and 5 are taken here, so that no pipe of subprocess's own lies where the child's descriptors go.
while os.open("/dev/null", os.O_RDONLY) < 5:
    pass


PROGRAM = os.environ["AGENT_VM_IMAGE"]
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = "arm64" if ARCH == "amd64" else "amd64"

# proto/imagemsg.h
FETCH, HEAD, GO, MANIFEST, PART, BLOB, DISK, GROWN, LAYER_DONE, LAYER, PROGRESS, DONE, ERROR = range(1, 14)
(K_SOURCE, K_ARCH, K_SERVED, K_PLATFORM, K_CONFIG, K_LAYERS, K_LAYER, K_COMPRESSION, K_BLOB, K_DIFF_ID, K_BYTES, K_EPOCH,
 K_NAME, K_ENTRIES, K_USED, K_VERSION, K_HAS, K_ERRNO, K_TEXT) = range(1, 20)
NUMBERS = {K_LAYERS, K_LAYER, K_COMPRESSION, K_BYTES, K_ERRNO}
PLAIN, GZIP, ZSTD = range(3)

OCI = "application/vnd.oci.image."
DOCKER = "application/vnd.docker."
INDEX, IMAGE = OCI + "index.v1+json", OCI + "manifest.v1+json"
DOCKER_LIST, DOCKER_IMAGE = DOCKER + "distribution.manifest.list.v2+json", DOCKER + "distribution.manifest.v2+json"


def sha(data):
    return hashlib.sha256(data).hexdigest()


class Message:
    def __init__(self, data, fds):
        self.type, = struct.unpack_from("<I", data)
        self.values, self.fds, at = {}, fds, 4
        while at < len(data):
            key, n = struct.unpack_from("<HI", data, at)
            raw = data[at + 6:at + 6 + n]
            self.values.setdefault(key, []).append(struct.unpack("<Q", raw)[0] if key in NUMBERS else raw.decode())
            at += 6 + n

    def __getitem__(self, key):
        return self.values[key][0]

    def get(self, key):
        return self.values.get(key, [None])[0]


class Failed(Exception):
    def __init__(self, errno, text):
        super().__init__(text)
        self.errno, self.text = errno, text


class TooSlow(Exception):
    """The five seconds that an update check has were over."""


class Store:
    """A folder like <root>/images."""

    def __init__(self):
        self.tmp = tempfile.TemporaryDirectory(prefix="fetch-store-")
        self.path = pathlib.Path(self.tmp.name)

    def blob(self, hex_):
        return self.path / "blobs/sha256" / hex_

    def partial(self, hex_):
        return self.path / "partial" / hex_

    def close(self):
        self.tmp.cleanup()


class Fetcher:
    """One run of the role."""

    def __init__(self, store, env=None, limit=None, home="/nonexistent"):
        self.store = store
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock = ours
        self.log = tempfile.TemporaryFile()
        folder = os.open(store.path, os.O_RDONLY | os.O_DIRECTORY)
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs.fileno(), self.log.fileno(), folder)]

        def prepare():
            die_with_parent()
            for want, fd in zip((3, 4, 5), high):
                os.dup2(fd, want)
            if limit:
                limit()

        clean = {"PATH": "/usr/bin:/bin", "HOME": home}
        clean.update(env or {})
        # LeakSanitizer traces its own process, which the sandbox refuses.
        clean["ASAN_OPTIONS"] = os.environ.get("ASAN_OPTIONS", "") + ":detect_leaks=0"
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([PROGRAM, "fetch"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=self.errors, preexec_fn=prepare, pass_fds=(3, 4, 5), env=clean)
        for fd in high + [folder]:
            os.close(fd)
        theirs.close()
        self.manifest, self.layers, self.parts, self.blobs, self.progress = None, [], {}, [], []

    def send(self, kind, *records, fd=None):
        data = struct.pack("<I", kind)
        for key, value in records:
            raw = struct.pack("<Q", value) if key in NUMBERS else value.encode()
            data += struct.pack("<HI", key, len(raw)) + raw
        socket.send_fds(self.sock, [data], [fd] if fd is not None else [])

    def receive(self, timeout=60):
        if not select.select([self.sock], [], [], timeout)[0]:
            raise TimeoutError("no message in %d s" % timeout)
        data, fds, _, _ = socket.recv_fds(self.sock, 8192, 4)
        if not data:
            return None
        m = Message(data, fds)
        if m.type == ERROR:
            raise Failed(m[K_ERRNO], m[K_TEXT])
        return m

    def ask(self, source, arch=ARCH, kind=FETCH, known=None, fd=None):
        records = [(K_SOURCE, source), (K_ARCH, arch)]
        if known:
            records.append((K_SERVED, known))
        self.send(kind, *records, fd=fd)

    def check(self, source, known):
        """The answer to an update check."""
        self.ask(source, kind=HEAD, known=known)
        try:
            return self.receive()
        except Failed as e:
            if e.errno == errno.ETIMEDOUT:
                raise TooSlow from e
            raise

    def described(self, timeout=60):
        """Up to the last LAYER."""
        self.manifest = self.receive(timeout)
        assert self.manifest.type == MANIFEST, self.manifest.type
        for i in range(self.manifest[K_LAYERS]):
            m = self.receive(timeout)
            assert m.type == LAYER and m[K_LAYER] == i
            self.layers.append(m)
        return self.manifest

    def go(self, *layers):
        self.send(GO, *[(K_LAYER, i) for i in layers])

    def work(self, until=None, timeout=60):
        """Take messages until DONE, or until @until says so."""
        while True:
            m = self.receive(timeout)
            if m is None:
                raise EOFError("ended without DONE, status %s: %s" % (self.process.wait(), self.stderr()))
            if m.type == DONE:
                self.process.wait(60)
                return self
            if m.type == PART:
                self.parts[m[K_LAYER]] = (m[K_BYTES], m.fds[0])
            elif m.type == PROGRESS:
                self.progress.append((m[K_LAYER], m[K_BYTES]))
            elif m.type == BLOB:
                assert m[K_LAYER] in self.parts
                self.blobs.append(m[K_LAYER])
            else:
                raise AssertionError("message %d" % m.type)
            if until and until(m):
                return self

    def run(self, source, **more):
        self.ask(source, **more)
        self.described()
        self.go()
        return self.work()

    def part(self, layer):
        """What the handed-over descriptor holds now."""
        fd = self.parts[layer][1]
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode()

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def close(self):
        self.sock.close()
        for _, fd in self.parts.values():
            with contextlib.suppress(OSError):
                os.close(fd)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            self.log.close()
            text = self.stderr()
            self.errors.close()
        if "Sanitizer" in text or "runtime error" in text:
            raise AssertionError(text)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


# --- images ---

def make_tar(files):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as t:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            t.addfile(info, io.BytesIO(content))
    return out.getvalue()


def noise(n, seed=1):
    """Bytes that do not compress."""
    return random.Random(seed).randbytes(n)


class Image:
    """Documents and blobs of one image."""

    def __init__(self, sizes=(3000, 70000, 20000), arch=ARCH, docker=False, seed=1, compression=GZIP, variant=None):
        self.blobs = {}
        self.layers, self.diff_ids, descriptors = [], [], []
        kinds = {PLAIN: "", GZIP: ".gzip" if docker else "+gzip", ZSTD: "+zstd"}
        for i, size in enumerate(sizes):
            tar = make_tar([("file%d" % i, noise(size, seed * 100 + i))])
            blob = gzip.compress(tar, 1, mtime=0) if compression == GZIP else tar
            if compression == ZSTD:
                blob = subprocess.run(["zstd", "-q"], input=tar, stdout=subprocess.PIPE, check=True).stdout
            kind = (DOCKER + "image.rootfs.diff.tar" if docker else OCI + "layer.v1.tar") + kinds[compression]
            self.layers.append(blob)
            self.diff_ids.append(sha(tar))
            descriptors.append(self.put(blob, kind))
        config = {"architecture": arch, "os": "linux", "config": {"Env": ["A=1", "PATH=/bin"]},
                  "rootfs": {"type": "layers", "diff_ids": ["sha256:" + d for d in self.diff_ids]}}
        if variant:
            config["variant"] = variant
        self.config = json.dumps(config).encode()
        self.kind = DOCKER_IMAGE if docker else IMAGE
        self.document = {"schemaVersion": 2, "mediaType": self.kind, "layers": descriptors,
                         "config": self.put(self.config, DOCKER + "container.image.v1+json" if docker else
                                            OCI + "config.v1+json")}

    def put(self, data, kind):
        self.blobs[sha(data)] = data
        return {"mediaType": kind, "digest": "sha256:" + sha(data), "size": len(data)}

    @property
    def manifest(self):
        return json.dumps(self.document).encode()

    def hexes(self):
        return [d["digest"][7:] for d in self.document["layers"]]


def index_of(*entries, kind=INDEX):
    """entries: (image or (bytes, type), platform dict or None)."""
    out = []
    for image, plat in entries:
        data, mt = (image.manifest, image.kind) if isinstance(image, Image) else image
        d = {"mediaType": mt, "digest": "sha256:" + sha(data), "size": len(data)}
        if plat:
            d["platform"] = plat
        out.append(d)
    return json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": out}).encode()


def linux(arch, **more):
    return dict({"os": "linux", "architecture": arch}, **more)


# --- a registry that does what it is told ---

class Server(http.server.ThreadingHTTPServer):
    """Serves documents and blobs; what it does wrong is a function: fault(handler) answers and returns True, or not."""
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, tls=None, host="127.0.0.1"):
        self.tls = tls
        self.documents, self.blobs = {}, {}  # path after /v2/ -> (bytes, type); hex -> bytes
        self.fault = None
        self.requests = []  # (method, path, headers)
        self.lock = threading.Lock()
        self.handshakes_to_cut = 0
        self.head_allowed, self.digest_header, self.ranges = True, True, True
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def get_request(self):
        sock, addr = super().get_request()
        sock.settimeout(30)
        return sock, addr

    def finish_request(self, request, client_address):
        # A handshake with a server that has no TLS ends at once, as real ones end it.
        first = request.recv(1, socket.MSG_PEEK)
        with self.lock:
            cut = self.handshakes_to_cut > 0
            self.handshakes_to_cut -= cut
        if cut:
            return
        if self.tls:
            try:
                request = self.tls.wrap_socket(request, server_side=True)
            except (OSError, ssl.SSLError):
                return
        elif first == b"\x16":
            return
        try:
            super().finish_request(request, client_address)
        except (ConnectionError, TimeoutError, ssl.SSLError):
            pass
        if self.tls:
            with contextlib.suppress(OSError):
                request.close()

    def handle_error(self, request, client_address):
        pass

    @property
    def port(self):
        return self.server_address[1]

    @property
    def at(self):
        return "127.0.0.1:%d" % self.port

    @property
    def url(self):
        return "%s://%s" % ("https" if self.tls else "http", self.at)

    def add(self, image, name="some/image", tag="latest"):
        self.blobs.update(image.blobs)
        self.put(image.manifest, image.kind, name, tag)

    def put(self, data, kind, name="some/image", tag=None):
        self.documents["%s/manifests/sha256:%s" % (name, sha(data))] = (data, kind)
        if tag:
            self.documents["%s/manifests/%s" % (name, tag)] = (data, kind)

    def ref(self, name="some/image", tag="latest"):
        return "%s/%s:%s" % (self.at, name, tag)

    def count(self, word, method=None):
        return sum(1 for m, p, _ in self.requests if word in p and method in (None, m))

    def close(self):
        self.shutdown()
        self.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def handle_all(self):
        with self.server.lock:
            self.server.requests.append((self.command, self.path, dict(self.headers)))
        length = int(self.headers.get("Content-Length") or 0)
        self.form = urllib.parse.parse_qs(self.rfile.read(length).decode()) if length else {}
        if self.server.fault and self.server.fault(self):
            return
        self.serve()

    do_GET = do_POST = do_HEAD = do_CONNECT = handle_all

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            for one in v if isinstance(v, list) else [v]:
                self.send_header(k.replace("_", "-"), one)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return True

    def error(self, status, code="UNKNOWN", **headers):
        body = json.dumps({"errors": [{"code": code, "message": "something\x1b[31m"}]}).encode()
        return self.answer(status, body, Content_Type="application/json", **headers)

    def blob_of(self):
        return self.path.rpartition("/blobs/sha256:")[2] if "/blobs/sha256:" in self.path else None

    def range_from(self):
        r = self.headers.get("Range")
        return int(r[6:-1]) if r else 0

    def serve(self):
        path = self.path[4:] if self.path.startswith("/v2/") else ""
        if path in self.server.documents:
            data, kind = self.server.documents[path]
            if self.command == "HEAD" and not self.server.head_allowed:
                return self.error(405, "UNSUPPORTED")
            more = {"Docker_Content_Digest": "sha256:" + sha(data)} if self.server.digest_header else {}
            if kind:
                more["Content_Type"] = kind
            return self.answer(200, data, **more)
        data = self.server.blobs.get(self.blob_of())
        if data is None:
            return self.error(404, "MANIFEST_UNKNOWN")
        return self.send_blob(data)

    def send_blob(self, data, pace=None, cut=None, hold=()):
        """@cut: bytes of the body after which the connection ends; @pace: seconds between pieces; @hold: (bytes, event): so many are
        sent, and more when the event is set."""
        start = self.range_from() if self.server.ranges else 0
        if start >= len(data) > 0:
            return self.error(416)
        body = data[start:]
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", "bytes %d-%d/%d" % (start, len(data) - 1, len(data)))
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/octet-stream")
        self.end_headers()
        if cut is not None:
            self.wfile.write(body[:cut])
            self.cut()
            return True
        at = 0
        for n, event in hold:
            self.wfile.write(body[at:n])
            at = n
            event.wait(120)
        for i in range(at, len(body), 1 << 16):
            self.wfile.write(body[i:i + (1 << 16)])
            if pace:
                time.sleep(pace)
        return True

    def cut(self):
        self.wfile.flush()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
        return True


# --- layouts and archives ---

def layout(images, extra=()):
    """Files of an OCI layout: images = [(name or None, Image or (bytes, type, blobs))]."""
    files, entries = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}, []
    for name, image in images:
        data, kind, blobs = (image.manifest, image.kind, image.blobs) if isinstance(image, Image) else image
        for b in [data, *blobs.values()]:
            files["blobs/sha256/" + sha(b)] = b
        e = {"mediaType": kind, "digest": "sha256:" + sha(data), "size": len(data)}
        if name:
            e["annotations"] = {"org.opencontainers.image.ref.name": name}
        entries.append(e)
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    files.update(dict(extra))
    return files


def write_folder(folder, files):
    for name, data in files.items():
        path = pathlib.Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def archive(files, links=(), form=tarfile.PAX_FORMAT, prefix=""):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as t:
        for name, data in files.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
        for name, target, kind in links:
            info = tarfile.TarInfo(prefix + name)
            info.type, info.linkname = kind, target
            t.addfile(info)
    return out.getvalue()


def saved(images, tars, compress=False):
    """Files of `docker save` as before version 25: images = [(names, Image)], tars = {diff_id: tar}."""
    files, table = {}, []
    for names, image in images:
        layers = []
        for d in image.diff_ids:
            name = "%s/layer.tar" % d
            files[name] = gzip.compress(tars[d], 1, mtime=0) if compress else tars[d]
            layers.append(name)
        files[sha(image.config) + ".json"] = image.config
        table.append({"Config": sha(image.config) + ".json", "RepoTags": names, "Layers": layers})
    files["manifest.json"] = json.dumps(table).encode()
    return files


def saved_by_25(images, tars):
    """Files of `docker save` since version 25, which is an OCI layout as well: images = [(names, Image)]. An image has an
    entry for each of its names, whose ref.name is the tag alone."""
    files, entries, table = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}, [], []
    for names, image in images:
        manifest = json.dumps({"schemaVersion": 2, "mediaType": IMAGE,
                               "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                                          "digest": "sha256:" + sha(image.config), "size": len(image.config)},
                               "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + d,
                                           "size": len(tars[d])} for d in image.diff_ids]}).encode()
        for data in [manifest, image.config, *(tars[d] for d in image.diff_ids)]:
            files["blobs/sha256/" + sha(data)] = data
        for name in names or [None]:
            e = {"mediaType": IMAGE, "digest": "sha256:" + sha(manifest), "size": len(manifest)}
            if name:
                e["annotations"] = {"io.containerd.image.name": name if "." in name else "docker.io/" + name,
                                    "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
            entries.append(e)
        table.append({"Config": "blobs/sha256/" + sha(image.config), "RepoTags": names,
                      "Layers": ["blobs/sha256/" + d for d in image.diff_ids]})
    files["index.json"] = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    files["manifest.json"] = json.dumps(table).encode()
    return files
