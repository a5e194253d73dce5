"""Certificates of a CA that belongs to a test."""
import pathlib
import ssl
import subprocess


class Certificates:
    """A CA and leaves for 127.0.0.1 and localhost."""

    def __init__(self, folder):
        self.dir = pathlib.Path(folder)
        self.run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key",
                 "-out", "ca.pem", "-days", "30", "-subj", "/CN=Test CA")

    def run(self, *args):
        subprocess.run(["openssl", *args], cwd=self.dir, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def leaf(self, name, alt="IP:127.0.0.1,DNS:localhost", expired=False, selfsigned=False):
        key, csr, pem = name + ".key", name + ".csr", name + ".pem"
        self.run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", csr,
                 "-subj", "/CN=" + name)
        (self.dir / "ext").write_text("subjectAltName=%s\n" % alt)
        signer = ["-signkey", key] if selfsigned else ["-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        if expired:
            (self.dir / "ca.cnf").write_text(
                "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\n"
                "policy=p\n[p]\ncommonName=supplied\n")
            (self.dir / "index.txt").write_text("")
            (self.dir / "serial").write_text("4711\n")
            self.run("ca", "-batch", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-in", csr, "-out", pem,
                     "-startdate", "20190101000000Z", "-enddate", "20200203000000Z", "-extfile", "ext", "-notext")
        else:
            self.run("x509", "-req", "-in", csr, *signer, "-out", pem, "-days", "20", "-extfile", "ext")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.dir / pem, self.dir / key)
        return context
