#!/usr/bin/env python3
"""agent-vm-image unpack, the real program with its sandbox on: what layers become, and what is refused, by which words."""
import gzip
import hashlib
import os
import pathlib
import random
import re
import shutil
import signal
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from ext4read import Ext4
from tars import *
from unpackrole import *

TMP = tempfile.mkdtemp(prefix="unpack-", dir=os.environ.get("TMPDIR", "/tmp"))
DISK = TMP + "/disk.ext4"
SMALL = 64 << 20


def zstd(data, *args):
    return subprocess.run(["zstd", "-q", "-c", *args], input=data, stdout=subprocess.PIPE, check=True).stdout


def layers_of(*tars):
    return [t if isinstance(t, Layer) else Layer(t) for t in tars]


class Case(unittest.TestCase):
    def run(self, result=None):
        began = time.monotonic()
        super().run(result)
        if "TIMES" in os.environ:
            print(f"{time.monotonic() - began:6.2f} s {self.id()}", file=sys.stderr)

    def unpack(self, *tars, **kw):
        """Unpack, check, and give the tree."""
        kw.setdefault("disk_bytes", SMALL)
        self.done, self.layers = unpack(layers_of(*tars), DISK, **kw)
        fsck(DISK)
        self.fs = Ext4(DISK)
        return self.fs.tree()

    def refused(self, text, *tars, **kw):
        """Refused with a text that matches, all of it."""
        kw.setdefault("disk_bytes", SMALL)
        with self.assertRaises(Refused) as c:
            unpack(layers_of(*tars), DISK, **kw)
        self.assertRegex(c.exception.text, "^" + text + "$")

    def hostile(self, cause, *entries, where="x"):
        """One layer over a good one: the refusal names layer, entry and cause."""
        self.refused(rf"layer 2( \([0-9a-f]+\))?: {where}: {cause}; this image cannot be used",
                     tar(folder(b"a"), file(b"a/f")), tar(*entries))


class Kinds(Case):
    def test_every_kind_owner_mode_and_time_arrives(self):
        t = self.unpack(tar(
            folder(b"d/", mode=0o1777, uid=5, gid=6, mtime=77),
            file(b"d/suid", b"x" * 5000, mode=0o6755, uid=1 << 31, gid=4294967294, mtime=1 << 33),
            symlink(b"d/short", b"../x"), pax([(b"linkpath", b"y/" * 100)]), symlink(b"d/long", b""),
            header(b"d/chr", CHR, dev=(1, 3), mode=0o666), header(b"d/blk", BLK, dev=(259, 70000)), header(b"d/fifo", FIFO),
            header(b"d/old", CHR, dev=(0, 0)),
            pax([(b"mtime", b"-2000000000.25")]), file(b"d/before", b""),
            pax([(b"mtime", b"1.000000007")]), file(b"d/nano", b"")))
        self.assertEqual((t[b"d"]["mode"], t[b"d"]["uid"], t[b"d"]["gid"], t[b"d"]["mtime"]), (0o041777, 5, 6, 77))
        e = t[b"d/suid"]
        self.assertEqual((e["mode"], e["uid"], e["gid"], e["mtime"], e["size"]), (0o106755, 1 << 31, 4294967294, 1 << 33, 5000))
        self.assertEqual(e["sha256"], hashlib.sha256(b"x" * 5000).hexdigest())
        self.assertEqual((t[b"d/short"]["target"], t[b"d/long"]["target"]), (b"../x", b"y/" * 100))
        self.assertEqual((t[b"d/chr"]["rdev"], t[b"d/blk"]["rdev"], t[b"d/old"]["rdev"]), ((1, 3), (259, 70000), (0, 0)))
        self.assertTrue(stat.S_ISFIFO(t[b"d/fifo"]["mode"]))
        self.assertLess(t[b"d/before"]["mtime"], -1999999999)
        self.assertEqual((t[b"d/nano"]["mtime"], t[b"d/nano"]["ns"]), (1, 7))

    def test_names_of_any_bytes_and_any_length_arrive(self):
        deep = b"/".join([b"n" * 15] * 255)
        names = [b"gr\xc3\xbc\xc3\x9fe", b"\xff\xfe", b"n" * 255, b"sp ace\n\x1b", "\u65e5\u672c".encode()]
        t = self.unpack(tar(*[long_name(n) + file(b"cut") for n in names],
                            pax([(b"path", "pax-\u00fc".encode())]) + file(b"cut"),
                            pax([(b"hdrcharset", b"BINARY"), (b"path", b"bin-\xff")]) + file(b"cut"),
                            long_name(deep + b"/f") + file(b"cut")))
        for n in names + ["pax-\u00fc".encode(), b"bin-\xff", deep + b"/f"]:
            self.assertIn(n, t)

    def test_names_that_pax_would_have_in_another_form_arrive(self):
        raw = b"raw-\xff\xc3"
        t = self.unpack(tar(pax([(b"path", raw)]) + file(b"cut", b"data" * 2000), file(b"next", b"n"),
                            pax([(b"linkpath", raw)]) + symlink(b"sym", b"cut"), pax([(b"linkpath", raw), (b"path", raw + b"2")]) + link(b"cut", b"cut"),
                            pax([(b"uname", raw), (b"gname", raw)]) + file(b"owned", uid=7),
                            pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", raw + b"3"),
                                 (b"GNU.sparse.realsize", b"1024")]) + file(b"cut", padded(b"1\n512\n512\n") + b"B" * 512)))
        self.assertEqual(set(t), {b".", raw, b"next", b"sym", raw + b"2", raw + b"3", b"owned"})
        self.assertEqual((t[raw]["size"], t[raw]["ino"], t[b"sym"]["target"]), (8000, t[raw + b"2"]["ino"], raw))
        self.assertEqual((t[b"owned"]["uid"], t[raw + b"3"]["sha256"]), (7, hashlib.sha256(bytes(512) + b"B" * 512).hexdigest()))

    def test_hard_links_may_give_a_size(self):
        big, mark = b"b" * 300000, pax([(b"mtime", b"1.5")])
        want = {b".", b"a", b"l", b"m", b"z"}
        for body in True, False:
            for first in mark, b"":
                if first or not body:  # a body is PAX's alone
                    with self.subTest(body=body, pax=bool(first)):
                        size = lambda n, data: first + header(n, LINK, len(data), link=b"a") + (padded(data) if body else b"")
                        t = self.unpack(tar(first + file(b"a", big), size(b"l", big), size(b"m", b"!"), file(b"z", b"last")))
                        self.assertEqual(set(t), want)
                        self.assertEqual((t[b"l"]["ino"], t[b"m"]["links"], t[b"a"]["size"]), (t[b"a"]["ino"], 3, len(big)))
        # At the end, with and without a mark; and where the block behind it begins a piece of the stream.
        for end in bytes(1024), b"":
            t = self.unpack(mark + file(b"a", b"x") + mark + header(b"l", LINK, 1, link=b"a") + end)
            self.assertEqual(set(t), {b".", b"a", b"l"})
        fill = (256 << 10) - 512 * (2 + 1 + 2 + 1)
        t = self.unpack(tar(mark + file(b"a", b"x" * fill), mark + header(b"l", LINK, 1, link=b"a"), file(b"z")))
        self.assertEqual(set(t), {b".", b"a", b"l", b"z"})
        t = self.unpack(tar(mark + file(b"a", b"x" * fill), mark + header(b"l", LINK, 1, link=b"a"), padded(b"!"), file(b"z")))
        self.assertEqual(set(t), {b".", b"a", b"l", b"z"})

    def test_names_are_tidied(self):
        t = self.unpack(tar(folder(b"./", mode=0o700, mtime=9), file(b"./a//b/./c"), folder(b"d///"), folder(b".")))
        self.assertEqual(set(t), {b".", b"a", b"a/b", b"a/b/c", b"d"})
        self.assertEqual(t[b"."]["mode"], 0o040755)
        for name in b"/", b"//", b"./", b".":
            e = self.unpack(tar(file(b"a/b/c"), folder(name, mode=0o1711, uid=5, gid=6, mtime=9)), tar(file(b"x")))[b"."]
            self.assertEqual((e["mode"], e["uid"], e["gid"], e["mtime"]), (0o041711, 5, 6, 9), name)
        t = self.unpack(tar(file(b"./a//b/./c")))
        self.assertEqual((t[b"a"]["mode"], t[b"a"]["mtime"], t[b"a"]["uid"]), (0o040755, 0, 0))

    def test_attributes_are_kept_or_left_out_as_the_page_says(self):
        acl = struct.pack("<IHHIHHIHHIHHIHHI", 2, 1, 6, 0xFFFFFFFF, 2, 4, 1000, 4, 4, 0xFFFFFFFF, 16, 4, 0xFFFFFFFF, 32, 0, 0xFFFFFFFF)
        want = {"security.capability": capability(), "user.bin": b"a\0b", "user.empty": b"", "trusted.t": b"1",
                "system.posix_acl_access": acl, "user.big": b"v" * 3000}
        drop = {"trusted.overlay.opaque": b"y", "security.selinux": b"x", "security.ima": b"x", "system.nfs4_acl": b"x"}
        t = self.unpack(tar(
            pax([(b"SCHILY.xattr." + k.encode(), v) for k, v in {**want, **drop}.items()]), file(b"f", b"data"),
            pax([(b"LIBARCHIVE.xattr.user.a", b"b2xk"), (b"SCHILY.xattr.user.a", b"new")]), file(b"both"),
            pax([(b"SCHILY.xattr.security.capability", capability(revision=3))]), file(b"v3"),
            pax([(b"SCHILY.xattr.user.d", b"1")]), folder(b"dir"),
            pax([(b"SCHILY.xattr.security.capability", b"short")]), file(b"bad")))
        self.assertEqual(t[b"f"]["xattrs"], want)
        self.assertEqual(t[b"both"]["xattrs"], {"user.a": b"new"})
        self.assertEqual(t[b"v3"]["xattrs"], {"security.capability": capability(revision=3)})
        self.assertEqual(t[b"dir"]["xattrs"], {"user.d": b"1"})
        self.assertEqual(t[b"bad"]["xattrs"], {})

    def test_sparse_files_keep_their_holes(self):
        big = 300 << 20
        new = b"2\n0\n512\n%d\n512\n" % (big - 512)
        body = padded(new) + b"A" * 512 + b"B" * 512
        sparse = pax([(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"new"),
                      (b"GNU.sparse.realsize", b"%d" % big)]) + file(b"GNUSparseFile.0/new", body)
        old = bytearray(header(b"old", b"S", 1024, magic=b"ustar  \0"))
        old[345:512] = bytes(167)
        old[386:410], old[410:434] = number(0, 12) + number(512, 12), number(big - 512, 12) + number(512, 12)
        old[483:495] = number(big, 12)
        old[148:156] = b" " * 8
        old[148:156] = b"%06o\0 " % sum(old)
        zeros = file(b"zeros", b"x" * 4096 + bytes(1 << 20) + b"y" * 4096 + bytes(8192) + b"z")
        t = self.unpack(tar(sparse, bytes(old) + b"A" * 512 + b"B" * 512, zeros))
        h = hashlib.sha256(b"A" * 512)
        for _ in range((big - 1024) >> 20):
            h.update(bytes(1 << 20))
        h.update(bytes((big - 1024) % (1 << 20)) + b"B" * 512)
        for name in b"new", b"old":
            self.assertEqual((t[name]["size"], t[name]["blocks"], t[name]["sha256"]), (big, 2, h.hexdigest()))
        self.assertEqual(t[b"zeros"]["blocks"], 5, "a long stretch of zeros is a hole, a short one is not")

    def test_a_file_in_many_pieces_and_a_large_one_have_extent_trees(self):
        many = b"".join(b"x" * 4096 + bytes(16 * 4096) for _ in range(1500))
        large = os.urandom(1 << 20) * 130
        t = self.unpack(tar(file(b"many", many), file(b"large", large)), disk_bytes=1 << 30)
        self.assertEqual((t[b"many"]["blocks"], t[b"many"]["sha256"]), (1500, hashlib.sha256(many).hexdigest()))
        self.assertEqual(t[b"large"]["sha256"], hashlib.sha256(large).hexdigest())

    def test_a_folder_of_20000_names_and_one_with_many_folders(self):
        t = self.unpack(tar(*[file(b"d/%d" % i) for i in range(20000)], *[folder(b"e/%d" % i) for i in range(2000)]),
                        disk_bytes=1 << 30)
        self.assertEqual(len(t), 3 + 22000)
        self.assertEqual(t[b"e"]["links"], 2002)

    def test_what_is_told_at_the_end(self):
        progs = [b"bin/bash", b"usr/local/bin/claude", b"opt/codex/codex", b"usr/bin/opencode"]
        self.unpack(tar(symlink(b"bin", b"usr/bin"), *[file(p, b"#!", mode=0o755) for p in progs[:3]], file(progs[3], b"", mode=0o644),
                        symlink(b"usr/local/bin/codex", b"/opt/codex/codex"), file(b"etc/agent-vm-image-version", b" 1\n")))
        self.assertEqual(u64(self.done[K_HAS]), 1 | 2 | 4)
        self.assertEqual(self.done[K_VERSION], b" 1\n")
        self.assertEqual(u64(self.done[K_ENTRIES]), 7)
        self.unpack(tar(file(b"etc/agent-vm-image-version", b"9" * 5000)), tar())
        self.assertEqual(self.done[K_VERSION], b"9" * 32)
        self.unpack(tar(symlink(b"etc/agent-vm-image-version", b"x"), file(b"etc/x", b"1")))
        self.assertNotIn(K_VERSION, self.done)


class Layers(Case):
    """The merge itself is tested in t-image-tree; here is what it does to the disk."""

    def test_replaced_content_is_gone_from_the_disk(self):
        secret = os.urandom(100000).hex().encode()
        t = self.unpack(tar(file(b"a/f", secret), file(b"keep", b"k" * 9999)), tar(file(b"a/f", b"new")), tar(file(b"a/.wh.f")))
        self.assertEqual(set(t), {b".", b"a", b"keep"})
        with open(DISK, "rb") as f:
            self.assertNotIn(secret[5000:5064], f.read())

    def test_a_file_with_a_name_left_keeps_its_content(self):
        t = self.unpack(tar(file(b"a", b"one"), link(b"b", b"a")), tar(file(b".wh.a"), link(b"c", b"b"), file(b"x", b"9")))
        self.assertEqual(set(t), {b".", b"b", b"c", b"x"})
        self.assertEqual((t[b"b"]["ino"], t[b"b"]["links"], t[b"b"]["size"]), (t[b"c"]["ino"], 2, 3))

    def test_room_that_was_given_back_is_used_again(self):
        data = os.urandom(30 << 20)
        t = self.unpack(*[tar(file(b"f", data), file(b"g%d" % i, b"x")) for i in range(5)])
        self.assertEqual(t[b"f"]["sha256"], hashlib.sha256(data).hexdigest())

    def test_a_link_to_the_root_lands_in_the_image(self):
        t = self.unpack(tar(symlink(b"a", b"/"), symlink(b"up", b"../../..")), tar(file(b"a/etc/x", b"1"), file(b"up/y", b"2")))
        self.assertIn(b"etc/x", t)
        self.assertIn(b"y", t)
        self.assertTrue(stat.S_ISLNK(t[b"a"]["mode"]))

    def test_an_empty_layer_and_one_of_no_bytes(self):
        t = self.unpack(tar(file(b"a")), tar(), b"", gzip.compress(b""))
        self.assertEqual(set(t), {b".", b"a"})

    def test_lost_and_found_stays(self):
        self.unpack(tar(folder(b"lost+found", mode=0o755), file(b"lost+found/x")), tar(file(b".wh.lost+found")))
        self.hostile("the file system keeps this name for a folder", file(b"lost+found"), where="lost.found")


class Streams(Case):
    """Compression and digests."""

    def setUp(self):
        self.tar = tar(*[file(b"f%d" % i, os.urandom(3000) + b"y" * 70000) for i in range(40)])
        self.sum = hashlib.sha256(self.tar).hexdigest()

    def same(self, *layers, **kw):
        self.unpack(*layers, **kw)
        self.assertEqual(self.layers[0], (self.sum, len(self.tar)))
        return sha256_of(DISK)

    def test_all_forms_of_a_layer_give_the_same_disk(self):
        half = len(self.tar) // 2
        member = gzip.compress(self.tar[:half]) + gzip.compress(b"") + gzip.compress(self.tar[half:])
        skip = struct.pack("<II", 0x184D2A53, 5) + b"skip!"
        frames = skip + zstd(self.tar[:half], "-3") + skip + zstd(self.tar[half:], "-19") + skip
        forms = [Layer(self.tar), Layer(self.tar, told=False), Layer(self.tar, told=False, pipe=True),
                 Layer(gzip.compress(self.tar), GZIP), Layer(member, GZIP), Layer(frames, ZSTD), Layer(zstd(self.tar), PLAIN),
                 Layer(gzip.compress(self.tar), ZSTD, diff_id=self.sum), Layer(self.tar, GZIP),
                 Layer(zstd(self.tar, "--long=27", "-19"), ZSTD)]
        self.assertEqual(len({self.same(f) for f in forms}), 1)

    def test_the_disk_does_not_depend_on_anything_else(self):
        three = [Layer(gzip.compress(self.tar), GZIP), Layer(tar(file(b"f1", b"new"), file(b".wh.f2"), folder(b"d"))),
                 Layer(zstd(tar(link(b"d/l", b"f1"))), ZSTD)]
        sums = {self.same(*three, env={"TZ": tz}, growth=g) for tz, g in
                [("UTC", None), ("Pacific/Kiritimati", None), ("UTC", random.Random(1)), ("UTC", random.Random(2))]}
        self.assertEqual(len(sums), 1)
        self.assertEqual(self.fs.times, [0, 1, 0, 0], "libext2fs takes 0 for the clock's time")
        uuid = self.fs.uuid
        self.same(self.tar)
        self.assertNotEqual(uuid, self.fs.uuid, "other layers, another UUID")

    def test_cut_and_broken_streams_are_refused(self):
        who = r"layer 1( \([0-9a-f]{12}\))?: "
        g, z = gzip.compress(self.tar), zstd(self.tar)
        for kind, blob in (GZIP, g), (ZSTD, z):
            name = ["", "gzip", "zstd"][kind]
            for cut in 5, len(blob) // 2, len(blob) - 1:
                self.refused(who + rf"(.*: )?the {name} stream is cut off", Layer(blob[:cut], kind))
            broken = bytearray(blob)
            broken[-6] ^= 1
            broken[len(blob) // 2] ^= 0x55
            self.refused(who + rf"(.*: )?(the {name} stream is broken \(.*\)|a broken tar .*)", Layer(bytes(broken), kind))
        self.refused(who + r"(.*: )?the gzip stream is broken \(.*\)", Layer(g + b"garbage", GZIP))
        self.refused(who + r"(.*: )?the zstd stream is broken \(.*\)", Layer(z + b"garbage", ZSTD))

    def test_wrong_digests_and_sizes_are_refused(self):
        z, who, wrong = zstd(self.tar), r"layer 1( \([0-9a-f]{12}\))?: ", "0" * 64
        self.refused(who + r"(.*: )?the blob has SHA-256 [0-9a-f]{12} and should have 000000000000; .*pull it again",
                     Layer(z, ZSTD, blob_id=wrong))
        self.refused(who + r"(.*: )?its content has SHA-256 [0-9a-f]{12} and the image's config says 000000000000; the image is broken",
                     Layer(z, ZSTD, diff_id=wrong))
        self.refused(who + r"(.*: )?the blob ends after \d+ of \d+ bytes; pull it again", Layer(z, ZSTD, size=len(z) + 1))

    def test_a_window_of_more_than_128_mib_is_refused(self):
        # Window descriptor of a frame without a content size: exponent 18 is 2^28.
        frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([18 << 3]) + b"\x01\x00\x00"
        self.refused(r"layer 1.*: the zstd stream is broken \(Frame requires too much memory for decoding\)", Layer(frame, ZSTD))


class Hostile(Case):
    def test_names(self):
        self.hostile("an absolute name", file(b"/etc/passwd"), where="/etc/passwd")
        self.hostile(r"a name with '\.\.'", file(b"a/../../x"), where=r"a/\.\./\.\./x")
        self.hostile(r"a name with '\.\.'", folder(b".."), where=r"\.\.")
        self.hostile("a component longer than 255 bytes", long_name(b"n" * 256) + file(b"x"), where="n+")
        self.hostile("a name longer than 4096 bytes", long_name(b"n/" * 2049) + file(b"x"), where="[n/]+")
        self.hostile("more than 256 levels deep", long_name(b"/".join([b"n"] * 258)) + file(b"x"), where="[n/]+")
        self.hostile("a name with a zero byte", pax([(b"path", b"x\0y")]) + file(b"x"))
        self.hostile("a name with a zero byte", pax([(b"linkpath", b"x\0y")]) + symlink(b"x", b"z"))
        self.refused(r"layer 1 \([0-9a-f]+\): an empty name; this image cannot be used", tar(header(b"")))

    def test_parents_that_are_no_folder(self):
        for first in file(b"p"), header(b"p", CHR, dev=(1, 3)), header(b"p", FIFO):
            self.hostile("lies below something that is not a folder", first, file(b"p/x"), where="p/x")
        self.hostile("lies below something that is not a folder", file(b"t"), symlink(b"p", b"t"), file(b"p/x"), where="p/x")
        self.hostile("lies below more than 40 links", symlink(b"p", b"p"), file(b"p/x"), where="p/x")
        self.hostile("lies below more than 40 links", symlink(b"p", b"q/.."), symlink(b"q", b"p"), file(b"p/x"), where="p/x")

    def test_markers_that_name_nothing(self):
        for m in b".wh.", b".wh..", b".wh...":
            self.hostile("a marker that names nothing", file(b"a/" + m), where=re.escape("a/" + m.decode()))

    def test_links(self):
        self.hostile("a hard link to what is not there", link(b"x", b"none"))
        self.hostile("a hard link to a folder", link(b"x", b"a"))
        self.hostile("a hard link to what cannot be: an absolute name", link(b"x", b"/a/f"))
        self.hostile(r"a hard link to what cannot be: a name with '\.\.'", link(b"x", b"a/../a/f"))
        self.hostile("a hard link to what is not there", file(b"a/.wh.f"), link(b"x", b"a/f"))
        self.hostile("a link whose target is empty or longer than 4095 bytes",
                     long_name(b"t" * 4096, b"K") + symlink(b"x", b"t" * 99))
        self.hostile("a link whose target (is empty or longer than 4095 bytes|cannot be read)", symlink(b"x", b""))
        self.hostile("more than 65,000 names for one file", *[link(b"l%d" % i, b"a/f") for i in range(65000)], where=r"l\d+")

    def test_devices_and_owners(self):
        self.hostile("more than 4096 devices", *[header(b"n%d" % i, CHR, dev=(1, 3)) for i in range(4097)], where="n4096")
        self.hostile("a device with a number out of range", header(b"x", CHR, dev=(4096, 0)))
        self.hostile("an owner out of range", header(b"x", uid=(1 << 32) - 1))
        self.hostile("a number below 0", header(b"x", uid=-1))
        self.refused(r"layer 1.*(a number below 0|a broken tar \(Tar entry has negative size.*\)); this image cannot be used",
                     header(b"x", size=-1))

    def test_attributes(self):
        many = [(b"SCHILY.xattr.user.%d" % i, b"") for i in range(65)]
        self.hostile("more than 64 attributes", pax(many) + file(b"x"))
        self.hostile("attributes that do not fit into the inode and one block",
                     pax([(b"SCHILY.xattr.user.a", b"v" * 4096)]) + file(b"x"))
        self.hostile("attributes that do not fit into the inode and one block",
                     pax([(b"SCHILY.xattr.user.%d" % i, b"v" * 1300) for i in range(4)]) + file(b"x"))

    def test_headers_that_lie(self):
        self.hostile(r"a broken tar \(.*\)", file(b"ok"), header(b"x", checksum=1), where="the entry behind ok")
        self.hostile(r"a broken tar \(.*\)", file(b"ok"), pax([(b"path", b"name"), (b"GNU.sparse.map", b"1,2,x")]) + file(b"cut", b"abc"),
                     where="name")
        self.hostile("the root is not a folder here", symlink(b"/", b"x"), where="/")
        self.refused(r"layer 1.*: x: a broken tar \(Truncated tar archive.*\); this image cannot be used", header(b"x", size=1 << 20) + b"data")
        self.refused(r"layer 1.*: a broken tar \(.*\); this image cannot be used", b"not a tar at all" * 100)
        self.refused(r"layer 1.*: bytes behind the end of its tar; this image cannot be used", tar(file(b"x")) + bytes(700000) + b"!")
        self.refused(r"layer 1.*: bytes behind the end of its tar; this image cannot be used", tar(file(b"x")) + file(b"y") + bytes(1024))

    def test_special_headers_beyond_bounds(self):
        self.hostile("a PAX header with more than 256 records", pax([(b"k%d" % i, b"v") for i in range(257)]) + file(b"x"))
        self.refused(r"layer 1.*(a broken tar \(.*\)|a special header of more than 1 MiB); this image cannot be used",
                     tar(pax([(b"comment", b"v" * (1 << 20))]) + file(b"x")))
        self.refused(r"layer 1.*(a broken tar \(.*\)|more than 16 special headers); this image cannot be used",
                     tar(pax([(b"comment", b"v")], b"g") * 40 + file(b"x")))
        self.refused(r"layer 1.*(a broken tar \(.*\)|a PAX header with a broken record); this image cannot be used",
                     tar(pax([], raw=b"9999 path=x\n") + file(b"x")))

    def test_bombs(self):
        self.refused(r"layer 1.*: x: more than 64 GiB unpacked; this image cannot be used",
                     Layer(zstd(header(b"x", size=65 << 30) + bytes(1 << 20)), ZSTD), disk_bytes=DISK_BYTES)
        # Of a file that is only said to be large nothing is kept.
        lie = zstd(header(b"x", size=60 << 30) + bytes(1 << 20))
        self.refused(r"layer 1.*: x: a broken tar \(Truncated tar archive.*\); this image cannot be used", Layer(lie, ZSTD),
                     disk_bytes=DISK_BYTES)

    def test_more_content_than_the_disk_holds(self):
        self.refused(r"layer 1.*: x: its content does not fit into a disk of 64 MiB; use a smaller image", tar(file(b"x", os.urandom(65 << 20))))
        self.refused(r"layer 1.*: its content does not fit into a disk of 16 MiB; use a smaller image",
                     tar(*[file(b"f%d" % i, b"x" * 20000) for i in range(900)]), disk_bytes=16 << 20)
        self.refused(r"layer 1: n\d+: more than the 1024 files that fit on the disk; use a smaller image",
                     tar(*[file(b"n%d" % i) for i in range(1100)]), disk_bytes=16 << 20)

    def test_a_million_entries_and_one(self):
        some = zstd(header(b"same") * 10000)
        t = self.unpack(Layer(some * 50, ZSTD), Layer(some * 50, ZSTD))
        self.assertEqual((u64(self.done[K_ENTRIES]), set(t)), (1000000, {b".", b"same"}))
        self.refused(r"layer 2 \([0-9a-f]+\): one: more than 1,000,000 entries; this image cannot be used",
                     Layer(some * 99, ZSTD), Layer(some + zstd(header(b"one")), ZSTD))


class Process(Case):
    def test_it_ends_when_the_launcher_is_gone(self):
        r = Role()
        fd = os.open(DISK, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        r.send(IM_DISK, [(K_BYTES, SMALL), (K_LAYERS, 1), (K_EPOCH, 0)], fd)
        rd, wr = os.pipe()
        r.send(IM_LAYER, [(K_LAYER, 0), (K_COMPRESSION, PLAIN)], rd)
        os.write(wr, header(b"x", size=9000) + b"waits for more")
        r.sock.close()
        self.assertEqual(r.proc.wait(timeout=60), 1)
        for f in fd, rd, wr:
            os.close(f)

    def test_wrong_orders_end_it_with_a_line(self):
        for fields in ([(K_LAYER, 3), (K_BYTES, 1)], [(K_LAYER, 0), (K_BYTES, 99)]):
            r = Role()
            fd = os.open(DISK, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            r.send(IM_DISK, [(K_BYTES, SMALL), (K_LAYERS, 2), (K_EPOCH, 0)], fd)
            r.send(IM_LAYER, [(K_LAYER, 0), (K_COMPRESSION, PLAIN), (K_BYTES, 50)], fd)
            r.send(IM_GROWN, fields)
            kind, f = r.recv()
            self.assertEqual(kind, IM_ERROR)
            self.assertIn(b"cannot have grown", f[K_TEXT])
            self.assertEqual(r.proc.wait(timeout=60), 1)
            r.end()
            os.close(fd)

    def test_a_disk_that_is_not_an_empty_file_is_refused(self):
        for path, flags in ("/dev/null", os.O_RDWR), (DISK, os.O_RDONLY):
            open(DISK, "wb").close()
            r = Role()
            fd = os.open(path, flags)
            r.send(IM_DISK, [(K_BYTES, SMALL), (K_LAYERS, 1), (K_EPOCH, 0)], fd)
            kind, f = r.recv()
            self.assertEqual((kind, f[K_TEXT]), (IM_ERROR, b"disk image: not an empty file that can be read and written"))
            r.end()
            os.close(fd)

    def test_a_full_host_disk_is_told(self):
        unshare = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-rm"]
        if subprocess.run([*unshare, "true"], capture_output=True).returncode:
            self.skipTest("needs a file system of its own")
        where = TMP + "/full"
        os.mkdir(where)
        script = f"mount -t tmpfs -o size=4m none {where} && BUILD={BUILD} {sys.executable} {__file__} --into {where}/disk"
        p = subprocess.run([*unshare, "sh", "-c", script], capture_output=True, text=True)
        self.assertRegex(p.stdout, "disk image: cannot be written: No space left on device; free some space where images are stored")

    def test_by_hand_it_says_so(self):
        p = subprocess.run([BUILD / "src/image/agent-vm-image", "unpack"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        self.assertEqual((p.returncode, p.stderr), (2, "agent-vm-image: started by agent-vm, not by hand\n"))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--into"]:
        try:
            unpack([Layer(tar(file(b"x", os.urandom(8 << 20))))], sys.argv[2], SMALL)
        except Refused as e:
            print(e.text)
        sys.exit()
    try:
        unittest.main(verbosity=1)
    finally:
        shutil.rmtree(TMP)
