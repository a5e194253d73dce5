"""Drives the real `agent-vm-image unpack` over its control socket (src/proto/imagemsg.h), and reads its disk."""
import array
import hashlib
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import threading

IM_PART, IM_DISK, IM_GROWN, IM_LAYER_DONE, IM_LAYER, IM_PROGRESS, IM_DONE, IM_ERROR = 5, 7, 8, 9, 10, 11, 12, 13
(K_LAYERS, K_LAYER, K_COMPRESSION, K_BLOB, K_DIFF_ID, K_BYTES, K_EPOCH, K_NAME, K_ENTRIES, K_USED, K_VERSION, K_HAS,
 K_ERRNO, K_TEXT) = range(6, 20)
PLAIN, GZIP, ZSTD = 0, 1, 2
BUILD = pathlib.Path(os.environ.get("BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
DISK_BYTES = 16 << 30


class Refused(Exception):
    def __init__(self, errno, text):
        super().__init__(text)
        self.errno, self.text = errno, text


def record(key, value):
    data = struct.pack("<Q", value) if isinstance(value, int) else value.encode() if isinstance(value, str) else value
    return struct.pack("<HI", key, len(data)) + data


def records(data):
    out, at = {}, 0
    while at < len(data):
        key, n = struct.unpack_from("<HI", data, at)
        out[key] = data[at + 6:at + 6 + n]
        at += 6 + n
    return out


def u64(value):
    return struct.unpack("<Q", value)[0]


class Layer:
    """A blob: bytes, or the path of a file. Digests are told unless told=False; pipe=True sends it through a pipe."""

    def __init__(self, blob, compression=PLAIN, diff_id=None, told=True, pipe=False, blob_id=None, size=None):
        self.blob, self.compression, self.diff_id, self.told, self.pipe = blob, compression, diff_id, told, pipe
        self.blob_id, self.size = blob_id, size

    def open(self):
        if isinstance(self.blob, bytes):
            fd = os.memfd_create("blob")
            at = 0
            while at < len(self.blob):
                at += os.write(fd, self.blob[at:at + (1 << 24)])
            os.lseek(fd, 0, os.SEEK_SET)
            return fd
        return os.open(self.blob, os.O_RDONLY)

    def length(self):
        return len(self.blob) if isinstance(self.blob, bytes) else os.stat(self.blob).st_size

    def digest(self):
        if self.blob_id:
            return self.blob_id
        if isinstance(self.blob, bytes):
            return hashlib.sha256(self.blob).hexdigest()
        with open(self.blob, "rb") as f:
            return hashlib.file_digest(f, "sha256").hexdigest()


class Role:
    def __init__(self, log=None, env=None, role=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        logfd = os.open(log or "/dev/null", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

        def fds():
            a, b = os.dup(theirs.fileno()), os.dup(logfd)
            os.dup2(a, 3)
            os.dup2(b, 4)

        null = subprocess.DEVNULL
        self.proc = subprocess.Popen([role or BUILD / "src/image/agent-vm-image", "unpack"], stdin=null, stdout=null,
                                     stderr=None, preexec_fn=fds, pass_fds=(3, 4), env=env)
        theirs.close()
        os.close(logfd)
        self.sock = ours

    def send(self, kind, fields, fd=None):
        data = struct.pack("<I", kind) + b"".join(record(k, v) for k, v in fields)
        anc = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))] if fd is not None else []
        try:
            self.sock.sendmsg([data], anc)
        except OSError:  # it has ended: recv() says why
            pass

    def recv(self):
        data = b""
        for _ in range(2):  # a reset is reported once, before what was sent earlier
            try:
                data = self.sock.recv(8192)
                break
            except ConnectionResetError:
                pass
        if not data:
            return None, {}
        return struct.unpack_from("<I", data)[0], records(data[4:])

    def end(self):
        self.sock.close()
        self.proc.kill()
        self.proc.wait()


def unpack(layers, disk, disk_bytes=DISK_BYTES, epoch=0, growth=None, log=None, env=None, role=None):
    """Unpack into a new file. growth: a random.Random that makes the blobs grow in steps, in any order of layers.
    Returns (fields of IM_DONE, [(diff_id, bytes)]); raises Refused."""
    r = Role(log, env, role)
    fd = os.open(disk, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    r.send(IM_DISK, [(K_BYTES, disk_bytes), (K_LAYERS, len(layers)), (K_EPOCH, epoch)], fd)
    os.close(fd)
    sizes, threads = {}, []
    for i, y in enumerate(layers):
        fields, lfd = [(K_LAYER, i), (K_COMPRESSION, y.compression)], y.open()
        if y.pipe:
            rd, wr = os.pipe()

            def feed(src=lfd, dst=wr):
                with open(src, "rb") as s, open(dst, "wb") as d:
                    try:
                        while piece := s.read(1 << 16):
                            d.write(piece)
                    except BrokenPipeError:
                        pass

            t = threading.Thread(target=feed)
            t.start()
            threads.append(t)
            r.send(IM_LAYER, fields, rd)
            os.close(rd)
            continue
        if y.told:
            sizes[i] = y.size if y.size is not None else y.length()
            fields += [(K_BLOB, y.digest()), (K_BYTES, sizes[i])]
        if y.diff_id:
            fields.append((K_DIFF_ID, y.diff_id))
        r.send(IM_LAYER, fields, lfd)
        os.close(lfd)

    def grow():
        at = {i: 0 for i in sizes}
        while at:
            i = growth.choice(list(at)) if growth else min(at)
            step = growth.choice([1, 511, 4096, 100000, sizes[i]]) if growth else sizes[i]
            at[i] = min(sizes[i], at[i] + step)
            r.send(IM_GROWN, [(K_LAYER, i), (K_BYTES, at[i])])
            if at[i] == sizes[i]:
                del at[i]

    t = threading.Thread(target=grow)
    t.start()
    threads.append(t)
    done = []
    try:
        while True:
            kind, f = r.recv()
            if kind == IM_ERROR:
                raise Refused(u64(f[K_ERRNO]), f[K_TEXT].decode())
            if kind == IM_LAYER_DONE:
                done.append((f[K_DIFF_ID].decode(), u64(f[K_BYTES])))
            if kind == IM_DONE:
                status = r.proc.wait()
                if status:
                    raise Refused(0, f"ended with status {status} after its last word")
                return f, done
            if kind is None:
                raise Refused(0, f"ended without a word, status {r.proc.wait()}")
    finally:
        r.end()
        for t in threads:
            t.join()


def sha256_of(path):
    """Of a sparse file, quickly: holes are hashed as their positions."""
    h, end = hashlib.sha256(), os.stat(path).st_size
    with open(path, "rb", buffering=0) as f:
        at = 0
        while at < end:
            try:
                data = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            stop = os.lseek(f.fileno(), data, os.SEEK_HOLE)
            f.seek(data)
            while data < stop:
                piece = f.read(min(1 << 20, stop - data))
                # A block of zeros may be data or a hole of the host's file: both read the same.
                for k in range(0, len(piece), 4096):
                    block = piece[k:k + 4096]
                    if block.count(0) != len(block):
                        h.update(struct.pack("<Q", data + k))
                        h.update(block)
                data += len(piece)
            at = stop
    h.update(struct.pack("<Q", end))
    return h.hexdigest()


def fsck(disk):
    """e2fsck without a single complaint."""
    e2fsck = next(p for p in ("/sbin/e2fsck", "/usr/sbin/e2fsck") if os.path.exists(p))
    p = subprocess.run([e2fsck, "-fn", disk], capture_output=True, text=True)
    if p.returncode != 0:
        raise AssertionError(f"e2fsck -fn: status {p.returncode}\n{p.stdout[-3000:]}{p.stderr[-1000:]}")


if __name__ == "__main__":
    # By hand: unpackrole.py DISK BLOB...
    kinds = {b"\x1f\x8b": GZIP, b"\x28\xb5": ZSTD}
    blobs = []
    for p in sys.argv[2:]:
        with open(p, "rb") as f:
            blobs.append(Layer(p, kinds.get(f.read(2), PLAIN)))
    try:
        f, done = unpack(blobs, sys.argv[1], log="/dev/stderr")
    except Refused as e:
        sys.exit(f"{e.errno}: {e.text}")
    print({k: u64(v) if len(v) == 8 else v for k, v in f.items()}, done)
