#!/usr/bin/env python3
"""The real agent-vm-gate with its sandbox on, and everything around it played (credentials pages 5 to 7, network page 3.6)."""
import os
import socket
import ssl
import struct
import threading
import time
import unittest

import xch
from gatetest import ALL, Client, Gate, bits, config, placeholder

ANTHROPIC = "api.anthropic.com"
MESSAGES = (b"POST /v1/messages HTTP/1.1\r\nHost: api.anthropic.com\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s")


def messages(body=b"{}"):
    return MESSAGES % (placeholder("claude-a").encode(), len(body), body)


class Case(unittest.TestCase):
    def gate(self, *a, **kw):
        g = Gate(*a, **kw)
        self.addCleanup(g.close)
        return g


class Start(Case):
    def test_lists(self):
        xch.check_tables(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))

    def test_ready(self):
        g = self.gate()
        self.assertTrue(g.alive())


class Http1(Case):
    def test_request_and_answer(self):
        g = self.gate()
        c = g.tls(ANTHROPIC)
        c.sendall(messages(b'{"a":1}'))
        x = g.exchange()
        self.assertEqual((x.request.host, x.request.method, x.request.path), (ANTHROPIC, "POST", "/v1/messages"))
        self.assertEqual(x.request.creds, [("claude-a", "bearer")])
        self.assertEqual(x.read_body(), b'{"a":1}')
        x.answer(200, [("content-type", "application/json")], b'{"b":2}')
        k = Client(c)
        r = k.response()
        self.assertEqual((r.status, r.body, r.get("content-type")), (200, b'{"b":2}', "application/json"))
        x.close()
        # The connection is kept.
        c.sendall(b"GET /v1/models HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n")
        x = g.exchange()
        self.assertEqual((x.request.path, x.request.creds, x.read_body()), ("/v1/models", [], b""))
        x.answer(200, [], b"one ", stream=True, trailers=[("grpc-status", "0")])
        r = k.response()
        self.assertEqual((r.body, r.trailers), (b"one ", [("grpc-status", "0")]))


if __name__ == "__main__":
    unittest.main()
