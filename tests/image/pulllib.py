"""What the tests of `agent-vm pull` share: a registry (dockerlib.py), and images made here."""
import contextlib
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import random
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import unittest

from dockerlib import SLOW, Registry, Relay, nobody, wait_for

AGENT_VM = os.environ["AGENT_VM"]
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # agent-vm started by nohup(1) ends by none
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
OTHER = "arm64" if ARCH == "amd64" else "amd64"
MB = 1 << 20


def sparse_sum(path):
    """SHA-256 over the blocks of a file that are not zeros, with their places: 16 GiB of holes take no time."""
    total, block = hashlib.sha256(), 4096
    with open(path, "rb") as f:
        size, at = os.fstat(f.fileno()).st_size, 0
        while True:
            try:
                at = os.lseek(f.fileno(), at, os.SEEK_DATA)
            except OSError:
                return total.hexdigest()
            end = os.lseek(f.fileno(), at, os.SEEK_HOLE)
            while at < min(end, size):
                data = os.pread(f.fileno(), block, at)
                if data.count(0) != len(data):
                    total.update(at.to_bytes(8, "little") + data)
                at += len(data)


def alive(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def halves(pid):
    """The halves of agent-vm-image that a launcher has started: {"fetch": pid, "unpack": pid}."""
    found = {}
    for task in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for kid in task.read_text().split():
                words = pathlib.Path(f"/proc/{kid}/cmdline").read_bytes().split(b"\0")
                if len(words) > 1 and words[0].endswith(b"agent-vm-image"):
                    found[words[1].decode()] = int(kid)
    return found


def layer(files):
    """A gzip layer: {name: bytes, None for a folder, str for a link's target}."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as t:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.mode, info.mtime = 0o755, 1_700_000_000
            if data is None:
                info.type = tarfile.DIRTYPE
                t.addfile(info)
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
                t.addfile(info)
            else:
                info.size = len(data)
                t.addfile(info, io.BytesIO(data))
    return raw.getvalue()


class Image:
    """An OCI image of gzip layers, given as tars."""

    def __init__(self, *layers, arch=ARCH, env=("LANG=C.UTF-8",)):
        self.raw = layers
        self.packed = [gzip.compress(raw, 1, mtime=0) for raw in layers]
        self.layers = [hashlib.sha256(p).hexdigest() for p in self.packed]
        self.config = json.dumps({"architecture": arch, "os": "linux", "config": {"Env": list(env)},
                                  "rootfs": {"type": "layers",
                                             "diff_ids": ["sha256:" + hashlib.sha256(r).hexdigest() for r in layers]}}).encode()
        self.bytes = sum(map(len, self.packed))

    def write(self, folder):
        """As an OCI layout with the tag "x"."""
        folder = pathlib.Path(folder)
        blobs = folder / "blobs/sha256"
        blobs.mkdir(parents=True)

        def put(data, kind):
            digest = hashlib.sha256(data).hexdigest()
            (blobs / digest).write_bytes(data)
            return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(data)}

        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": put(self.config, "config.v1+json"),
                               "layers": [put(p, "layer.v1.tar+gzip") for p in self.packed]}).encode()
        entry = put(manifest, "manifest.v1+json") | {"annotations": {"org.opencontainers.image.ref.name": "x"}}
        (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def noise(size, seed):
    return random.Random(seed).randbytes(size)


def base_layer(version="1\n", size=4 * MB, seed=1):
    return layer({"etc": None, "etc/agent-vm-image-version": version.encode(), "usr": None, "usr/bin": None, "tmp": None,
                  "usr/bin/bash": b"#!/bin/sh\n", "usr/lib": None, "usr/lib/noise": noise(size, seed)})


def agent_layer(name, size=2 * MB, seed=2):
    return layer({"usr/local/bin/" + name: noise(size, seed)})


class Case(unittest.TestCase):
    maxDiff = 4000

    @classmethod
    def setUpClass(cls):
        cls.top = pathlib.Path(tempfile.mkdtemp(prefix="agent-vm-pull-", dir="/var/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.top, ignore_errors=True)
        (cls.top / "registry").mkdir()
        cls.registry = Registry(cls.top / "registry")
        cls.addClassCleanup(cls.registry.stop)

    def setUp(self):
        self.relay = Relay(self.registry.port)
        self.addCleanup(self.relay.stop)
        self.state = pathlib.Path(tempfile.mkdtemp(dir=self.top))
        self.store = self.state / "images"
        self.work = pathlib.Path(tempfile.mkdtemp(dir=self.top))
        self.name = f"t/{self.id().rpartition('.')[2].replace('_', '-')}"

    def ref(self, tag="latest"):
        return f"127.0.0.1:{self.relay.port}/{self.name}:{tag}"

    def push(self, image, tag="latest"):
        self.registry.push(image, f"{self.name}:{tag}")
        return image

    def env(self, **more):
        keep = ("PATH", "HOME", "LANG", "ASAN_OPTIONS", "UBSAN_OPTIONS", "LSAN_OPTIONS")
        return {k: v for k, v in os.environ.items() if k in keep} | {
            "AGENT_VM_STATE_DIR": str(self.state), "AGENT_VM_IMAGE_TAG": self.ref()} | more

    def start(self, *words, **more):
        return subprocess.Popen([AGENT_VM, *map(str, words)], env=self.env(**more), cwd=self.work, text=True,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def end(self, p, check=None, seconds=300):
        out, err = p.communicate(timeout=seconds * SLOW)
        if check is not None:
            self.assertEqual(p.returncode, check, out + err)
        return out, err

    def run_it(self, *words, check=0, **more):
        return self.end(self.start(*words, **more), check)

    def images(self):
        return {i["reference"]: i for i in json.loads(self.run_it("images", "--json")[0])}

    def usable(self, digest=None):
        """The image that this test's reference names is whole."""
        got = self.images()[self.ref()]
        self.assertTrue(got["usable"])
        if digest:
            self.assertEqual(got["digest"], digest)
        disk = self.store / "disks" / (got["disk"] + ".ext4")
        fsck = subprocess.run(["e2fsck", "-fn", disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(fsck.returncode, 0, fsck.stdout)
        return got

    def content(self, path):
        got = self.images()[self.ref()]
        return subprocess.run(["debugfs", "-R", f"cat {path}", self.store / "disks" / (got["disk"] + ".ext4")], check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout

    def kept(self):
        """Digests of the whole blobs in the store."""
        return {p.name for p in (self.store / "blobs/sha256").glob("*")}

    def arrived(self, image):
        """Bytes of its layers in the store."""
        return sum(p.stat().st_size for d in image.layers for p in (self.store / "partial" / d, self.store / "blobs/sha256" / d) if p.exists())

    def nothing_under_way(self):
        """No half-made disk is held or, after the next maker's sweep, left."""
        def swept():
            return self.run_it("prune") and not list((self.store / "tmp").glob("*"))
        wait_for(lambda: not list((self.store / "tmp").glob("*")) or swept(), 60, "a disk is left in tmp")
