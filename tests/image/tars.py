"""Tars made by hand, byte by byte: what tarfile would refuse to write is what these tests are about."""
import struct

REG, LINK, SYM, CHR, BLK, DIR, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"


def number(value, width):
    if isinstance(value, bytes):
        return value.ljust(width, b"\0")
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    return bytes([0x80 if value >= 0 else 0xFF]) + (value % (1 << 8 * (width - 1))).to_bytes(width - 1, "big")


def header(name, kind=REG, size=0, mode=0o644, uid=0, gid=0, mtime=0, link=b"", dev=(0, 0), magic=b"ustar\x0000",
           checksum=None, prefix=b""):
    h = bytearray(512)
    h[0:100] = name.ljust(100, b"\0")[:100]
    h[100:108] = number(mode, 8)
    h[108:116] = number(uid, 8)
    h[116:124] = number(gid, 8)
    h[124:136] = number(size, 12)
    h[136:148] = number(mtime, 12)
    h[148:156] = b" " * 8
    h[156:157] = kind
    h[157:257] = link.ljust(100, b"\0")[:100]
    h[257:265] = magic
    h[329:337] = number(dev[0], 8)
    h[337:345] = number(dev[1], 8)
    h[345:345 + len(prefix)] = prefix
    h[148:156] = b"%06o\0 " % (sum(h) if checksum is None else checksum)
    return bytes(h)


def padded(data):
    return data + bytes(-len(data) % 512)


def records(items):
    out = b""
    for key, value in items:
        body = b" " + key + b"=" + value + b"\n"
        n = len(body) + 1
        while len(str(n)) + len(body) != n:
            n += 1
        out += b"%d" % n + body
    return out


def pax(items, kind=b"x", raw=None):
    body = records(items) if raw is None else raw
    return header(b"pax", kind, len(body)) + padded(body)


def file(name, data=b"", **kw):
    return header(name, REG, len(data), **kw) + padded(data)


def folder(name, mode=0o755, **kw):
    return header(name, DIR, mode=mode, **kw)


def link(name, target, **kw):
    return header(name, LINK, link=target, **kw)


def symlink(name, target, **kw):
    return header(name, SYM, link=target, mode=0o777, **kw)


def tar(*parts):
    return b"".join(parts) + bytes(1024)


def long_name(name, kind=b"L"):
    return header(b"././@LongLink", kind, len(name) + 1) + padded(name + b"\0")


def capability(bits=0x400, revision=2):
    head = struct.pack("<IIIII", revision << 24 | 1, bits, 0, 0, 0)
    return head + struct.pack("<I", 0) if revision == 3 else head
