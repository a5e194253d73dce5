"""Reads an ext4 file system without mounting it: every name with what it names. Independent of libext2fs, so that a
misunderstanding of the writer shows. Knows what the writer writes: 4 KiB blocks, extents, 256-byte inodes, linear folders."""
import hashlib
import mmap
import stat
import struct

BLOCK = 4096
PREFIX = {1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security.", 7: "system."}


class Ext4:
    def __init__(self, path):
        with open(path, "rb") as f:
            self.m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
        sb = self.m[1024:2048]
        assert struct.unpack_from("<H", sb, 0x38)[0] == 0xEF53
        assert struct.unpack_from("<I", sb, 0x18)[0] == 2
        self.inodes_per_group = struct.unpack_from("<I", sb, 0x28)[0]
        self.inode_size = struct.unpack_from("<H", sb, 0x58)[0]
        self.desc_size = struct.unpack_from("<H", sb, 0xFE)[0]
        self.uuid = sb[0x68:0x78]
        self.incompat = struct.unpack_from("<I", sb, 0x60)[0]
        # mounted, written, checked, made
        self.times = [struct.unpack_from("<I", sb, at)[0] for at in (0x2C, 0x30, 0x40, 0x108)]

    def inode(self, ino):
        group, index = divmod(ino - 1, self.inodes_per_group)
        d = BLOCK + group * self.desc_size
        lo, hi = struct.unpack_from("<I", self.m, d + 8)[0], struct.unpack_from("<I", self.m, d + 0x28)[0]
        at = (hi << 32 | lo) * BLOCK + index * self.inode_size
        return self.m[at:at + self.inode_size]

    def extents(self, node):
        magic, n, _, depth, _ = struct.unpack_from("<HHHHI", node, 0)
        assert magic == 0xF30A
        for i in range(n):
            if depth:
                _, lo, hi, _ = struct.unpack_from("<IIHH", node, 12 + 12 * i)
                at = (hi << 32 | lo) * BLOCK
                yield from self.extents(self.m[at:at + BLOCK])
            else:
                lblk, count, hi, lo = struct.unpack_from("<IHHI", node, 12 + 12 * i)
                assert count <= 32768
                yield lblk, count, hi << 32 | lo

    def runs(self, inode):
        return list(self.extents(inode[40:100]))

    def content(self, inode, size):
        """Pieces, in order."""
        at = 0
        for lblk, count, pblk in self.runs(inode):
            start = lblk * BLOCK
            while at < start:
                k = min(1 << 20, start - at)
                yield bytes(k)
                at += k
            end = min(size, start + count * BLOCK)
            yield self.m[pblk * BLOCK:pblk * BLOCK + end - start]
            at = end
        while at < size:
            k = min(1 << 20, size - at)
            yield bytes(k)
            at += k

    def size(self, inode):
        return struct.unpack_from("<I", inode, 4)[0] | struct.unpack_from("<I", inode, 0x6C)[0] << 32

    def xattrs(self, inode):
        out = {}

        def entries(mem, at, base):
            while struct.unpack_from("<I", mem, at)[0]:
                n, index, offs, inum, size, _ = struct.unpack_from("<BBHIII", mem, at)
                assert inum == 0
                name = PREFIX[index] + mem[at + 16:at + 16 + n].decode()
                out[name] = mem[base + offs:base + offs + size]
                at += 16 + (n + 3 & ~3)

        extra = 128 + struct.unpack_from("<H", inode, 0x80)[0]
        if struct.unpack_from("<I", inode, extra)[0] == 0xEA020000:
            entries(inode, extra + 4, extra + 4)
        block = struct.unpack_from("<I", inode, 0x68)[0] | struct.unpack_from("<H", inode, 0x76)[0] << 32
        if block:
            mem = self.m[block * BLOCK:(block + 1) * BLOCK]
            assert struct.unpack_from("<I", mem, 0)[0] == 0xEA020000
            entries(mem, 32, 0)
        return {k: acl_to_kernel(v) if k.startswith("system.posix_acl") else v for k, v in out.items()}

    def names(self, inode):
        """[(name, ino)] without . and .."""
        out = []
        data = b"".join(self.content(inode, self.size(inode)))
        for base in range(0, len(data), BLOCK):
            at = base
            while at < base + BLOCK:
                ino, rec, n, kind = struct.unpack_from("<IHBB", data, at)
                name = data[at + 8:at + 8 + n]
                if ino and name not in (b".", b".."):
                    out.append((name, ino))
                at += rec
        return out

    def entry(self, ino):
        i = self.inode(ino)
        mode, uid, size, _, ctime, mtime = struct.unpack_from("<HHIIII", i, 0)
        gid, links = struct.unpack_from("<HH", i, 0x18)
        uid |= struct.unpack_from("<H", i, 0x78)[0] << 16
        gid |= struct.unpack_from("<H", i, 0x7A)[0] << 16
        extra = struct.unpack_from("<I", i, 0x88)[0]
        seconds = mtime - (1 << 32) if mtime >> 31 else mtime
        e = {"ino": ino, "mode": mode, "uid": uid, "gid": gid, "links": links, "mtime": seconds + ((extra & 3) << 32),
             "ns": extra >> 2, "xattrs": self.xattrs(i), "size": 0}
        if stat.S_ISREG(mode):
            e["size"] = self.size(i)
            h = hashlib.sha256()
            for piece in self.content(i, e["size"]):
                h.update(piece)
            e["sha256"] = h.hexdigest()
            e["blocks"] = sum(c for _, c, _ in self.runs(i))
        elif stat.S_ISLNK(mode):
            n = self.size(i)
            e["target"] = i[40:40 + n] if n < 60 else b"".join(self.content(i, n))
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            old, new = struct.unpack_from("<II", i, 40)
            e["rdev"] = (old >> 8, old & 255) if old else (new >> 8 & 0xFFF, new & 255 | new >> 12 & 0xFFF00)
        return e

    def read(self, path):
        ino = 2
        for part in path.split(b"/"):
            ino = dict(self.names(self.inode(ino)))[part]
        i = self.inode(ino)
        return b"".join(self.content(i, self.size(i)))

    def tree(self):
        """{path: entry}; the root is b"." and lost+found is left out when it is empty."""
        out, done = {}, {}

        def walk(path, ino):
            if ino not in done:
                done[ino] = self.entry(ino)
            out[path or b"."] = done[ino]
            if stat.S_ISDIR(done[ino]["mode"]):
                for name, sub in self.names(self.inode(ino)):
                    if not (ino == 2 and name == b"lost+found" and not self.names(self.inode(sub))):
                        walk(path + b"/" + name if path else name, sub)

        walk(b"", 2)
        return out


def acl_to_kernel(disk):
    """ext4's short form of an ACL to the kernel's."""
    if struct.unpack_from("<I", disk, 0)[0] != 1:
        raise AssertionError("ACL of another version")
    out, at = struct.pack("<I", 2), 4
    while at < len(disk):
        tag, perm = struct.unpack_from("<HH", disk, at)
        at += 4
        ident = 0xFFFFFFFF
        if tag in (2, 8):
            ident = struct.unpack_from("<I", disk, at)[0]
            at += 4
        out += struct.pack("<HHI", tag, perm, ident)
    return out
