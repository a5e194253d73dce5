"""Services of the internet for the tests of logins: TLS servers on loopback below a CA of the test's own, which record what
reached them and give it all back, in fields and in the body."""
import pathlib
import socket
import ssl
import subprocess
import threading


def certificates(folder, names):
    """A CA and a certificate of it for @names: ca.pem, and server.pem with its key."""
    folder = pathlib.Path(folder)

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj",
            "/CN=CA of the test", "-keyout", "ca.key", "-out", "ca.pem")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=server", "-keyout", "server.key",
            "-out", "server.csr")
    (folder / "ext").write_text("subjectAltName=" + ",".join(f"DNS:{n}" for n in names) + "\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "30", "-extfile", "ext", "-out",
            "server.crt")
    (folder / "server.pem").write_text((folder / "server.crt").read_text() + (folder / "server.key").read_text())


class Upstream:
    """One server for all names. @seen: (SNI, head, body) of each request."""

    def __init__(self, folder):
        self.seen, self.handshakes = [], []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pathlib.Path(folder) / "server.pem")
        context.set_alpn_protocols(["http/1.1"])
        context.sni_callback = lambda sock, name, _: self.handshakes.append(name) or setattr(sock, "sni_name", name)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        self.context = context
        self.thread = threading.Thread(target=self.loop, daemon=True)
        self.thread.start()

    def close(self):
        # A thread that waits in accept(2) and is stopped meanwhile begins anew, with whatever has the descriptor's number then.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.thread.join()
        self.listener.close()

    def loop(self):
        while True:
            try:
                c, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.client, args=(c,), daemon=True).start()

    def client(self, c):
        try:
            s = self.context.wrap_socket(c, server_side=True)
            with s:
                data = b""
                while True:
                    while b"\r\n\r\n" not in data:
                        more = s.recv(65536)
                        if not more:
                            return
                        data += more
                    head, data = data.split(b"\r\n\r\n", 1)
                    fields = {k.strip().lower(): v.strip() for k, _, v in (line.partition(b":") for line in head.split(b"\r\n")[1:])}
                    body, data = self.body(s, fields, data)
                    name = getattr(s, "sni_name", None)
                    self.seen.append((name, head.decode("latin-1"), body))
                    self.answer(s, name, head, fields, body)
        except (OSError, ssl.SSLError):
            pass

    @staticmethod
    def body(s, fields, data):
        """The body of a request, and what was read behind it."""
        def more(data):
            got = s.recv(65536)
            if not got:
                raise OSError("cut off")
            return data + got
        if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
            need = int(fields.get(b"content-length", 0))
            while len(data) < need:
                data = more(data)
            return data[:need], data[need:]
        body = b""
        while True:
            while b"\r\n" not in data:
                data = more(data)
            size, data = data.split(b"\r\n", 1)
            size = int(size, 16)
            while len(data) < size + 2:
                data = more(data)
            body, data = body + data[:size], data[size + 2:]
            if size == 0:
                return body, data

    def answer(self, s, name, head, fields, body):
        """Gives back what came."""
        out = b'{"echo":"' + head.replace(b"\r\n", b" ").replace(b'"', b"'") + b'"}'
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Echo: " + fields.get(b"authorization", b"none") +
                  b"\r\nContent-Length: %d\r\n\r\n" % len(out) + (b"" if head.startswith(b"HEAD") else out))
