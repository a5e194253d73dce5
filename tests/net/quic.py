"""The first datagram of a QUIC client, as one of HTTP/3 sends it: an Initial packet (RFC 9000 17.2.2) with a ClientHello, protected with
the keys that follow from its destination connection id (RFC 9001 5.2). The ciphers are OpenSSL's."""
import ctypes
import hashlib
import hmac
import os
import struct

CRYPTO = ctypes.CDLL("libcrypto.so.3")
for name in ("EVP_CIPHER_CTX_new", "EVP_aes_128_gcm", "EVP_aes_128_ecb"):
    getattr(CRYPTO, name).restype = ctypes.c_void_p
SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
GET_TAG = 0x10


def expand(secret, label, n):
    """HKDF-Expand-Label (RFC 8446 7.1), of one block."""
    label = b"tls13 " + label
    return hmac.digest(secret, struct.pack("!HB", n, len(label)) + label + b"\0\1", "sha256")[:n]


def keys(dcid):
    """The client's (key, iv, key of the header)."""
    secret = expand(hmac.digest(SALT, dcid, "sha256"), b"client in", 32)
    return expand(secret, b"quic key", 16), expand(secret, b"quic iv", 12), expand(secret, b"quic hp", 16)


def aes(cipher, key, iv, text, aad=None):
    """What comes of @text, and with @aad the tag behind it."""
    ctx, n, out = ctypes.c_void_p(CRYPTO.EVP_CIPHER_CTX_new()), ctypes.c_int(), ctypes.create_string_buffer(len(text) + 32)
    assert CRYPTO.EVP_EncryptInit_ex(ctx, ctypes.c_void_p(cipher()), None, key, iv) == 1
    if aad is not None:
        assert CRYPTO.EVP_EncryptUpdate(ctx, None, ctypes.byref(n), aad, len(aad)) == 1
    assert CRYPTO.EVP_EncryptUpdate(ctx, out, ctypes.byref(n), text, len(text)) == 1
    done = out.raw[:len(text)]
    if aad is not None:
        assert CRYPTO.EVP_EncryptFinal_ex(ctx, out, ctypes.byref(n)) == 1
        assert CRYPTO.EVP_CIPHER_CTX_ctrl(ctx, GET_TAG, 16, out) == 1
        done += out.raw[:16]
    CRYPTO.EVP_CIPHER_CTX_free(ctx)
    return done


def sized(data, n=2):
    return len(data).to_bytes(n, "big") + data


def client_hello(name, scid):
    """TLS 1.3 alone, no session id (RFC 9001 8.4), ALPN h3 and the transport parameters (8.2)."""
    parameters = b"".join(bytes([k]) + sized(v, 1) for k, v in ((4, b"\x80\x10\0\0"), (8, b"\x40\x64"), (15, scid)))
    extensions = {0: sized(b"\0" + sized(name.encode())), 10: sized(b"\0\x1d"), 13: sized(b"\4\3\x08\4"), 16: sized(sized(b"h3", 1)),
                  43: sized(b"\3\4", 1), 51: sized(b"\0\x1d" + sized(os.urandom(32))), 57: parameters}
    body = b"\3\3" + os.urandom(32) + b"\0" + sized(b"\x13\1\x13\2\x13\3") + b"\1\0"
    body += sized(b"".join(struct.pack("!H", k) + sized(v) for k, v in extensions.items()))
    return b"\1" + sized(body, 3)


def initial(name, dcid=None, size=1200):
    """One datagram of @size bytes: packet number 0, CRYPTO, PADDING."""
    dcid, scid = dcid or os.urandom(8), os.urandom(8)
    hello = client_hello(name, scid)
    key, iv, hp = keys(dcid)
    head = b"\xc3\0\0\0\1" + sized(dcid, 1) + sized(scid, 1) + b"\0"  # no token
    length = size - len(head) - 2
    head += struct.pack("!H", 0x4000 | length) + bytes(4)
    frames = b"\6\0" + struct.pack("!H", 0x4000 | len(hello)) + hello
    text = aes(CRYPTO.EVP_aes_128_gcm, key, iv, frames + bytes(length - 4 - 16 - len(frames)), head)
    mask = aes(CRYPTO.EVP_aes_128_ecb, hp, None, text[:16])  # the sample begins 4 bytes behind the packet number's first
    number = bytes(a ^ b for a, b in zip(head[-4:], mask[1:5]))
    return bytes([head[0] ^ mask[0] & 0x0F]) + head[1:-4] + number + text


def opened(packet):
    """The server name in such a datagram, if it is whole: its tag is right."""
    dcid = packet[6:6 + packet[5]]
    key, iv, hp = keys(dcid)
    at = 6 + len(dcid)
    at += 1 + packet[at] + 1  # source id, no token
    length, = struct.unpack("!H", packet[at:at + 2])
    at += 2
    mask = aes(CRYPTO.EVP_aes_128_ecb, hp, None, packet[at + 4:at + 20])
    head = bytes([packet[0] ^ mask[0] & 0x0F]) + packet[1:at] + bytes(a ^ b for a, b in zip(packet[at:at + 4], mask[1:5]))
    if head[0] != 0xC3 or length & 0x3FFF != len(packet) - at:
        return None
    sealed = packet[at + 4:-16]
    plain = aes(CRYPTO.EVP_aes_128_gcm, key, iv, sealed, head)[:-16]  # counter mode: the same both ways
    if aes(CRYPTO.EVP_aes_128_gcm, key, iv, plain, head) != packet[at + 4:]:
        return None
    at = 4 + 4 + 2 + 32 + 1 + 8 + 2 + 2  # the first extension: all before it is of one size
    n, = struct.unpack("!H", plain[at + 7:at + 9])
    return plain[at + 9:at + 9 + n].decode()


# RFC 9001 A.1.
assert [k.hex() for k in keys(bytes.fromhex("8394c8f03e515708"))] == [
    "1f369613dd76d5467730efcbe3b1a22d", "fa044b2f42a3fd3b46fb255c", "9f50449e04a0e810283a1e9933adedd2"]
