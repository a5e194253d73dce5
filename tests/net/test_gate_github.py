#!/usr/bin/env python3
"""GitHub's rules in the real agent-vm-gate: bodies that are read first, questions to GitHub, and answers that are changed (page on
GitHub, 2.4 to 2.9). Vault and GitHub are played; acme/app is listed for writing, acme/lib for reading, acme/secret and octo/pub not."""
import base64
import json
import os
import ssl
import threading
import time
import unittest

import gatetest
import xch
from gatetest import Client, Gate, bits, config, placeholder

REPOS = ["acme/app=write", "acme/lib=read"]
APP, SECRET = 101, 999
NODES = {"PR_mine": ("PullRequest", APP), "PR_theirs": ("PullRequest", SECRET), "PR_evil": ("PullRequest", SECRET), "R_app": ("Repository", APP), "I_mine": ("Issue", APP)}
COMMENT = 'mutation C($id:ID!,$b:String!){addComment(input:{subjectId:$id,body:$b}){commentEdge{node{url}}}}'


class GitHub:
    """What answers behind vault; records every request with credential and body."""

    def __init__(self):
        self.requests, self.reply, self.silent, self.facts, self.delay = [], {}, False, True, 0
        self.heads = []  # of the guest's requests

    def __call__(self, x):
        r, body = x.request, x.read_body()
        query = json.loads(body).get("query", "") if r.path == "/graphql" else ""
        ask = r.get("user-agent") == [b"agent-vm"]
        self.requests.append((r.method, r.path, r.creds, body, ask))
        if not ask:
            self.heads.append((r.flags, r.fields))
        js = [("content-type", "application/json; charset=utf-8")]
        if ask:
            time.sleep(self.delay)
        if ask and self.silent:
            time.sleep(30)
            return
        if ask and "nodes(ids" in query:
            ids = json.loads("[" + query.split("nodes(ids:[")[1].split("]")[0] + "]")
            nodes = [{"__typename": NODES[i][0], **({"databaseId": NODES[i][1]} if NODES[i][0] == "Repository" else
                                                    {"repository": {"databaseId": NODES[i][1]}})} if i in NODES else None for i in ids]
            x.answer(200, js, json.dumps({"data": {"nodes": nodes}}).encode())
        elif ask:
            app = {"id": "R_app", "databaseId": APP, "nameWithOwner": "acme/app", "owner": {"__typename": "Organization"}, "parent": None}
            x.answer(200 if self.facts else 502, js, json.dumps({"data": {"r0": app, "r1": None}}).encode())
        else:
            status, fields, reply = self.reply.get(r.path, (200, js, b'{"data":{}}'))
            x.answer(status, fields, reply)

    def guests(self):
        return [r for r in self.requests if not r[4]]

    def asks(self, word):
        return [r for r in self.requests if r[4] and word in r[3].decode()]


class Case(unittest.TestCase):
    def start(self, repos=REPOS, lent=gatetest.ALL, serve=None, **kw):
        self.world = GitHub()
        self.g = Gate(cfg=config(lent, repos=repos, **kw))
        self.addCleanup(self.g.close)
        self.g.serve(serve or self.world)

    def send(self, host, method, target, body=b"", fields=(), auth="token %s", client=None, chunked=False):
        if client is None:
            c = self.g.tls(host)
            self.addCleanup(c.close)
            client = Client(c)
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{n}: {v}" for n, v in fields)]
        if auth:
            lines.append("Authorization: " + (auth % placeholder("gh") if "%s" in auth else auth))
        if chunked:
            lines.append("Transfer-Encoding: chunked")
            body = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 999]), body[i:i + 999]) for i in range(0, len(body), 999)) + b"0\r\n\r\n"
        elif body:
            lines.append(f"Content-Length: {len(body)}")
        client.sock.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return client.response(method == "HEAD")

    def api(self, method, target, body=b"", **kw):
        return self.send("api.github.com", method, target, body, [("Content-Type", "application/json")] if body else [], **kw)

    def graphql(self, query, variables=None, **kw):
        return self.api("POST", "/graphql", json.dumps({"query": query, "variables": variables}).encode(), **kw)

    def creds(self):
        return [r[2] for r in self.world.guests()]


GH = [("gh", "bearer")]


class List(Case):
    def test_the_credential_goes_with_listed_repositories_only(self):
        self.start()
        for target, status, creds in (("/repos/acme/app", 200, GH), ("/repos/acme/lib", 200, GH), ("/repos/Acme/APP", 200, GH),
                                      ("/repos/acme/secret", 200, []), ("/repos/acme/app/../secret", 400, None),
                                      ("/repos/acme/app%2f..%2fsecret", 400, None), ("/repos/acme/app/%63ontents/x", 403, None),
                                      ("/repos/acme/app/contents/a%2562", 403, None), ("/repos/acme/secret/%63ontents/x", 200, []),
                                      ("/repos/acme/app/contents/a%2fb", 200, GH), ("/user", 200, GH), ("/user/repos", 403, None)):
            before = len(self.world.guests())
            self.world.reply["/user"] = (200, [("content-type", "application/json")], b'{"login":"me","email":"a@b","plan":{}}')
            r = self.api("GET", target)
            self.assertEqual(r.status, status, (target, r))
            self.assertEqual([x[2] for x in self.world.guests()[before:]], [] if creds is None else [creds], target)
            if target == "/user":
                self.assertEqual(json.loads(r.body), {"login": "me"})

    def test_writes(self):
        self.start()
        for method, target, body, status, creds in (
                ("POST", "/repos/acme/app/issues", b'{"title":"x"}', 200, GH), ("POST", "/repos/acme/lib/issues", b'{"title":"x"}', 403, None),
                ("POST", "/repos/acme/secret/issues", b'{"title":"x"}', 403, None), ("DELETE", "/repos/acme/app", b"", 403, None),
                ("POST", "/repos/acme/app/pulls", b'{"head":"me","base":"main"}', 200, GH),
                ("POST", "/repos/acme/app/pulls", b'{"head":"octo:x","base":"main"}', 403, None),
                ("POST", "/repos/acme/app/pulls", b'{"head":"me","head":"octo:x"}', 403, None)):
            for chunked in (False, True):
                before = len(self.world.guests())
                r = self.api(method, target, body, chunked=chunked and bool(body))
                self.assertEqual(r.status, status, (target, r))
                new = self.world.guests()[before:]
                self.assertEqual([x[2:4] for x in new], [] if creds is None else [(creds, body)], target)
                if creds is None:
                    self.assertIn("sandbox policy", json.loads(r.body)["message"])

    def test_without_a_list_nothing_is_lent(self):
        self.start(repos=[])
        self.assertEqual([self.api("GET", t).status for t in ("/repos/acme/app", "/user", "/rate_limit")], [200] * 3)
        self.assertEqual(self.api("POST", "/repos/acme/app/issues", b"{}").status, 403)
        self.assertEqual(self.graphql("{viewer{login}}").status, 403)
        self.assertEqual(self.creds(), [[]] * 3)
        self.assertFalse([r for r in self.world.requests if r[4]], "nothing is asked either")

    def test_one_connection_mixes(self):
        self.start()
        c = self.g.tls("api.github.com")
        self.addCleanup(c.close)
        k = Client(c)
        head = "Host: api.github.com\r\nAuthorization: token " + placeholder("gh") + "\r\n\r\n"
        c.sendall("".join(f"GET /repos/acme/{n} HTTP/1.1\r\n{head}" for n in ("app", "secret", "app", "secret")).encode())
        self.assertEqual([k.response().status for _ in range(4)], [200] * 4)
        self.assertEqual(self.creds(), [GH, [], GH, []])

    # Switches as by default, and foreign-credentials=anon.
    ANON = 0b10111111
    FOREIGN = "gho_anotherAccounts0000000000000000000000"

    def foreign(self):
        basic = base64.b64encode(b"x:" + self.FOREIGN.encode()).decode()
        return [(host, target, auth) for host, target in (("api.github.com", "/repos/octo/pub"), ("api.github.com", "/repos/acme/app"),
                                                          ("github.com", "/octo/pub/info/refs?service=git-upload-pack"))
                for auth in (f"token {self.FOREIGN}", f"Bearer {self.FOREIGN}", f"Basic {basic}", self.FOREIGN)]

    def test_a_foreign_credential_goes_nowhere(self):
        self.start()
        for host, target, auth in self.foreign():
            r = self.send(host, "GET", target, auth=auth)
            self.assertEqual(r.status, 403, (target, auth, r))
            self.assertIn(b"or start with --github foreign-credentials=anon", r.body)
        self.assertEqual(self.world.guests(), [])

    def test_a_foreign_credential_is_taken_off(self):
        for repos, lent in ((REPOS, gatetest.ALL), ([], bits("copilot"))):
            self.start(repos, lent, switches=self.ANON)
            for host, target, auth in self.foreign():
                if not repos and host != "api.github.com":
                    continue  # not looked into, without a login that goes there
                r = self.send(host, "GET", target, auth=auth)
                self.assertEqual(r.status, 200, (target, auth, r))
                # As without one: the user's own login where it goes, and nothing elsewhere.
                self.assertEqual(self.creds()[-1], GH if repos and "acme/app" in target else [])
            r = self.send("api.github.com", "GET", "/repos/octo/pub", auth=None, fields=[("X-Api-Key", self.FOREIGN)])
            self.assertEqual(r.status, 200, r)
            n = len(self.world.guests())
            self.assertEqual(self.api("POST", "/repos/octo/pub/issues", b"{}", auth=f"token {self.FOREIGN}").status, 403)
            self.assertEqual(self.api("GET", "/repos/octo/pub", auth="token avm-gh-abcdefghijkmnpqrstuvwxyz23").status, 403)
            r = self.send("api.github.com", "GET", "/repos/octo/pub", auth=f"token {self.FOREIGN}", fields=[("X-Api-Key", "k")])
            self.assertEqual(r.status, 400, r)
            self.assertEqual(len(self.world.guests()), n)
            for flags, fields in self.world.heads:
                self.assertFalse(flags & xch.FOREIGN)
                self.assertFalse([f for f in fields if f[0].lower() in (b"authorization", b"x-api-key") or self.FOREIGN.encode() in f[1]], fields)
        # It is GitHub's alone.
        self.start(switches=self.ANON)
        self.assertEqual(self.send("api.anthropic.com", "GET", "/v1/models", auth=f"Bearer {self.FOREIGN}").status, 403)
        self.assertEqual(self.send("api.githubcopilot.com", "GET", "/models", auth=f"Bearer {self.FOREIGN}").status, 403)
        self.assertEqual(self.world.guests(), [])

    def test_configuration_of_another_build_is_refused(self):
        for bad in (*(gatetest.rec(7, r) for r in (
                gatetest.rec(8, "acme/app"), gatetest.rec(8, "acme=read"), gatetest.rec(8, "acme/app=none"), gatetest.rec(9, 1 << 20),
                gatetest.rec(10, ""))), 2 * gatetest.rec(7, gatetest.rec(8, "a/b=read"))):
            g = Gate(cfg=config() + bad, ready=False)
            self.addCleanup(lambda *s: [x.close() for x in s], g.control, g.wire, g.vault)
            self.assertEqual(g.hear()[0], xch.CTL_ERROR)
            self.assertNotEqual(g.wait(), 0)


class Questions(Case):
    def test_a_node_of_a_listed_repository(self):
        self.start()
        r = self.graphql(COMMENT + "# what was judged is printed anew", {"id": "PR_mine", "b": "hello"})
        self.assertEqual(r.status, 200, r)
        self.assertEqual(self.creds(), [GH])
        sent = json.loads(self.world.guests()[0][3])
        self.assertEqual(sent["variables"], {"id": "PR_mine", "b": "hello"})
        self.assertIn("addComment", sent["query"])
        self.assertNotIn("#", sent["query"])
        self.assertEqual(len(self.world.asks("PR_mine")), 1)
        self.assertEqual(len(self.world.asks("repository(owner")), 1)
        # What was asked once is known.
        self.assertEqual(self.graphql(COMMENT, {"id": "PR_mine", "b": "again"}).status, 200)
        self.assertEqual(len(self.world.asks("PR_mine")), 1)

    def test_a_node_of_another_one(self):
        self.start()
        for _ in range(2):
            r = self.graphql(COMMENT, {"id": "PR_theirs", "b": "x"})
            self.assertEqual((r.status, r.get("x-sandbox-policy")), (403, "gql-id"))
        self.assertEqual(self.graphql(COMMENT, {"id": "PR_nobody", "b": "x"}).status, 403)
        self.assertEqual(self.world.guests(), [])

    def test_no_answer(self):
        self.start()
        self.assertEqual(self.graphql(COMMENT, {"id": "PR_mine", "b": "1"}).status, 200)
        self.world.silent = True
        at = time.monotonic()
        r = self.graphql(COMMENT, {"id": "I_mine", "b": "x"})
        self.assertEqual((r.status, len(self.world.guests())), (403, 1))
        self.assertTrue(4 < time.monotonic() - at < 28)

    def test_the_list_is_not_told(self):
        self.start()
        self.world.facts = False
        self.assertEqual(self.graphql(COMMENT, {"id": "PR_mine", "b": "x"}).status, 403)
        self.assertEqual(self.world.guests(), [])
        # By name it works all the same.
        self.assertEqual(self.api("GET", "/repos/acme/app").status, 200)

    def test_whoever_asks_and_leaves(self):
        # What was asked for one is not taken for the answer about another's, who came while it was under way.
        self.start()
        self.assertEqual(self.graphql(COMMENT, {"id": "I_mine", "b": "1"}).status, 200)
        self.world.delay = 1  # of the five seconds that gate waits
        c = self.g.tls("api.github.com")
        body = json.dumps({"query": COMMENT, "variables": {"id": "PR_mine", "b": "x"}})
        c.sendall((f"POST /graphql HTTP/1.1\r\nHost: api.github.com\r\nAuthorization: token {placeholder('gh')}\r\n"
                   f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
        end = time.monotonic() + 20
        while not self.world.asks("PR_mine"):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        c.close()
        r = self.graphql(COMMENT, {"id": "PR_evil", "b": "1"})
        self.assertEqual((r.status, r.get("x-sandbox-policy")), (403, "gql-id"))
        self.world.delay = 0
        asked = len(self.world.asks("PR_mine"))
        self.assertEqual(self.graphql(COMMENT, {"id": "PR_mine", "b": "1"}).status, 200)
        self.assertEqual((asked, len(self.world.asks("PR_mine"))), (1, 1), "the answer is kept though nobody waited")
        self.assertFalse([r for r in self.world.guests() if b"PR_evil" in r[3]])

    def test_many_at_once(self):
        self.start()
        clients = []
        for i in range(12):
            c = self.g.tls("api.github.com")
            self.addCleanup(c.close)
            body = json.dumps({"query": COMMENT, "variables": {"id": ("PR_mine", "I_mine", "PR_theirs")[i % 3], "b": str(i)}})
            c.sendall((f"POST /graphql HTTP/1.1\r\nHost: api.github.com\r\nAuthorization: token {placeholder('gh')}\r\n"
                       f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}").encode())
            clients.append(Client(c))
        self.assertEqual([k.response().status for k in clients], [200, 200, 403] * 4)
        self.assertEqual(len(self.world.guests()), 8)


class Answers(Case):
    def test_tokens_are_taken_out(self):
        self.start()
        self.world.reply["/repos/acme/app"] = (200, [("content-type", "application/json"), ("set-cookie", "a=b"), ("etag", "x")],
                                               b'{"id":1,"temp_clone_token":"AAABBB","name":"app"}')
        r = self.api("GET", "/repos/acme/app")
        self.assertEqual(json.loads(r.body), {"id": 1, "temp_clone_token": "xxxxxx", "name": "app"})
        self.assertEqual((r.get("set-cookie"), r.get("etag")), (None, "x"))

    def test_a_hint_in_place_of_a_failure(self):
        self.start()
        self.world.reply["/repos/acme/secret"] = (404, [("content-type", "application/json"), ("link", "x")], b'{"message":"Not Found"}')
        self.world.reply["/acme/secret/info/refs"] = (401, [("www-authenticate", "Basic")], b"who?")
        for _ in range(2):
            r = self.api("GET", "/repos/acme/secret")
            self.assertIn("--repo acme/secret", json.loads(r.body)["message"])
            self.assertEqual(r.status, 404)
        r = self.send("github.com", "GET", "/acme/secret/info/refs?service=git-upload-pack")
        self.assertEqual((r.status, r.get("content-type"), r.get("www-authenticate")), (403, "text/plain; charset=utf-8", None))
        r = self.api("HEAD", "/repos/acme/secret")
        self.assertEqual(r.status, 404)

    def test_an_account_that_is_not_json(self):
        self.start()
        self.world.reply["/user"] = (200, [("content-type", "text/html")], b"<email>")
        self.assertEqual(self.api("GET", "/user").status, 502)
        self.world.reply["/user"] = (200, [("content-type", "application/json")], b'{"a":"' + b"x" * (2 << 20) + b'"}')
        self.assertEqual(self.api("GET", "/user").status, 502)

    def test_a_long_answer_goes_on_as_it_came(self):
        self.start()
        big = b'{"data":{"a":"' + b"x" * (3 << 20) + b'"}}'
        self.world.reply["/graphql"] = (200, [("content-type", "application/json")], big)
        self.assertEqual(self.graphql('{repository(owner:"acme",name:"app"){id}}').body, big)

    def test_an_answer_that_must_be_completed_and_cannot_be_read_is_refused(self):
        # gh asks for the repositories behind several remotes at once; the one that is not listed is answered with null from here.
        self.start()
        query = 'query RepositoryNetwork{repo_000:repository(owner:"acme",name:"app"){id} repo_001:repository(owner:"acme",name:"secret"){id}}'
        js = [("content-type", "application/json")]
        self.world.reply["/graphql"] = (200, js, b'{"data":{"repo_000":{"id":"R_app"}}}')
        self.assertEqual(json.loads(self.graphql(query).body)["data"], {"repo_000": {"id": "R_app"}, "repo_001": None})
        for reply in (b'{"data":{"repo_000":"' + b"x" * (3 << 20) + b'"}}', b'{"data":{"repo_000":{"id":"R_app"}', b"[]"):
            self.world.reply["/graphql"] = (200, js, reply)
            r = self.graphql(query)
            self.assertEqual((r.status, r.get("x-sandbox-policy")), (502, "upstream-framing"), reply[:60])

    def test_of_issues_in_other_repositories_only_which_is_told(self):
        self.start()
        api, js = "https://api.github.com/repos/", [("content-type", "application/json"), ("etag", "x"), ("link", "<n>")]
        ours = {"id": 1, "number": 2, "repository_url": api + "acme/app", "body": "b"}
        theirs = {"id": 9, "number": 3, "html_url": "u", "repository_url": api + "acme/secret", "title": "hidden", "body": "hidden"}
        which = {"number": 3, "html_url": "u", "repository": {"full_name": "acme/secret"}}
        for tail, answer, want in (("timeline", [{"event": "cross-referenced", "source": {"issue": theirs}}, {"event": "labeled"}],
                                    [{"event": "cross-referenced", "source": {"issue": which}}, {"event": "labeled"}]),
                                   ("sub_issues", [ours, theirs], [ours, which]), ("parent", theirs, which),
                                   ("dependencies/blocked_by", [theirs], [which])):
            target = "/repos/acme/app/issues/2/" + tail
            for status in (200, 203):
                self.world.reply[target] = (status, js, json.dumps(answer).encode())
                r = self.api("GET", target)
                self.assertEqual((r.status, json.loads(r.body), r.get("etag"), r.get("link")), (status, want, "x", "<n>"), tail)
        many = json.dumps([ours] * 80000).encode()
        self.assertTrue(7 << 20 < len(many) < 8 << 20)
        self.world.reply[target] = (200, js, many)
        self.assertEqual(json.loads(self.api("GET", target).body), [ours] * 80000)
        # What cannot be looked through does not pass; how to get it is said.
        for reply in ((200, js, b'[{"body":"hidden"}'), (200, [("content-type", "text/html")], b"hidden"),
                      (206, js, b'"body":"hidden"}]'), (200, js, json.dumps([ours] * 100000).encode())):
            self.world.reply[target] = reply
            r = self.api("GET", target)
            self.assertEqual((r.status, r.get("x-sandbox-policy")), (502, "limit"), reply[2][:40])
            self.assertIn("per_page", json.loads(r.body)["message"])
            n = self.g.note()
            self.assertEqual((n.status, n.code), (502, "limit"))
        self.world.reply[target] = (404, js, b'{"message":"Not Found"}')
        self.assertEqual(json.loads(self.api("GET", target).body), {"message": "Not Found"})
        self.world.reply["/user"] = (206, js, b'{"login":"me","email":"a@b"}')
        self.assertEqual(json.loads(self.api("GET", "/user").body), {"login": "me"})

    def test_so_many_long_answers_are_looked_through_at_once(self):
        target, go, there, got = "/repos/acme/app/issues/2/timeline", threading.Event(), threading.Semaphore(0), []

        def world(x):
            if x.request.path != target:
                return self.world(x)
            x.read_body()
            x.answer(200, [("content-type", "application/json")], b"[" + b" " * (2 << 20), stream=True, end=False)
            there.release()  # gate has read all but what a socket holds
            go.wait(60)
            x.sock.sendall(xch.frame(xch.DATA, b"1]") + xch.frame(xch.END))
        self.start(serve=world)
        threads = [threading.Thread(target=lambda: got.append(self.api("GET", target))) for _ in range(32)]
        for t in threads:
            t.start()
        for _ in threads:
            self.assertTrue(there.acquire(timeout=60))
        self.assertEqual(self.api("GET", target).status, 502)
        self.assertEqual(self.api("GET", "/repos/acme/app/issues/2").status, 200)
        go.set()
        for t in threads:
            t.join()
        self.assertEqual({(r.status, r.body) for r in got}, {(200, b"[1]")})
        self.assertEqual((len(got), self.api("GET", target).status), (32, 200))

    def test_issues_of_a_listed_repository_are_learned(self):
        self.start()
        link = ("POST", "/repos/acme/app/issues/1/sub_issues", b'{"sub_issue_id":77}')
        self.assertEqual(self.api(*link).status, 403)
        self.world.reply["/repos/acme/app/issues/2"] = (200, [("content-type", "application/json")], b'{"id":77,"number":2}')
        self.assertEqual(self.api("GET", "/repos/acme/app/issues/2").status, 200)
        self.assertEqual(self.api(*link).status, 200)


class Mcp(Case):
    def test_closed_with_an_error_that_clients_of_mcp_read(self):
        self.start()
        head = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
        for host in ("api.githubcopilot.com", "api.individual.githubcopilot.com"):
            for target in ("/mcp", "/mcp/", "/mcp/x/issues"):
                for id_, body in ((7, {"method": "initialize"}), ("a", {"method": "tools/call", "params": {
                        "name": "get_file_contents", "arguments": {"owner": "acme", "repo": "app"}}}), (None, [])):
                    if id_ is not None:
                        body |= {"jsonrpc": "2.0", "id": id_}
                    r = self.send(host, "POST", target, json.dumps(body).encode(), head, auth="Bearer " + placeholder("copilot"))
                    self.assertEqual((r.status, r.get("content-type"), r.get("x-sandbox-policy")), (200, "application/json", "mcp-tool"), target)
                    answer = json.loads(r.body)
                    self.assertEqual((answer["jsonrpc"], answer["id"], answer["error"]["code"]), ("2.0", id_, -32602))
                    self.assertIn("GitHub's MCP server is closed in this sandbox", answer["error"]["message"])
                    self.assertIn("use gh or git", answer["error"]["message"])
            for method in ("GET", "DELETE"):
                self.assertEqual(self.send(host, method, "/mcp/", auth=None).status, 403)
        self.assertEqual(self.world.requests, [])


def first_to_speak(clients, timeout=30):
    """Which of @clients has bytes of an answer first."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        for k in clients:
            k.sock.setblocking(False)
            try:
                k.fill()
                return k
            except ssl.SSLWantReadError:
                pass
            finally:
                k.sock.settimeout(30)
        time.sleep(0.01)
    raise AssertionError("nobody was answered")


class Push(Case):
    OLD, NEW = b"1" * 40, b"2" * 40

    def line(self, ref, new=None, caps=b"\0report-status side-band-64k"):
        text = self.OLD + b" " + (new or self.NEW) + b" " + ref + caps
        return b"%04x" % (len(text) + 4) + text

    def push(self, repo, front, pack=b"", **kw):
        return self.send("github.com", "POST", f"/{repo}/git-receive-pack", front + b"0000" + pack,
                         [("Content-Type", "application/x-git-receive-pack-request")], auth=None, **kw)

    def test_the_pack_streams_behind_the_commands(self):
        self.start()
        for chunked in (False, True):
            pack = os.urandom(3 << 20)
            front = self.line(b"refs/heads/main")
            r = self.push("acme/app.git", front, pack, chunked=chunked)
            self.assertEqual(r.status, 200)
            self.assertEqual(self.world.guests()[-1][2:4], ([("gh", "basic")], front + b"0000" + pack))

    def test_what_may_not_be_pushed(self):
        self.start(push_refs="refs/heads/agent/*")
        for repo, front in (("acme/app", self.line(b"refs/heads/main")), ("acme/secret", self.line(b"refs/heads/agent/x")),
                            ("acme/lib", self.line(b"refs/heads/agent/x")),
                            ("acme/app", self.line(b"refs/heads/agent/x") + self.line(b"refs/tags/v1", caps=b"")), ("acme/app", b"zzzz")):
            r = self.push(repo, front, b"PACK")
            self.assertEqual((r.status, r.get("content-type")), (200, "application/x-git-receive-pack-result"), (repo, front, r))
        self.assertEqual(self.push("acme/app", self.line(b"refs/heads/agent/x"), b"PACK").status, 200)
        self.assertEqual(len(self.world.guests()), 1)

    def test_too_many_bodies_at_once(self):
        self.start()
        open_ = []
        for _ in range(33):
            c = self.g.tls("api.github.com")
            self.addCleanup(c.close)
            c.sendall(f"POST /repos/acme/app/pulls HTTP/1.1\r\nHost: api.github.com\r\nAuthorization: token {placeholder('gh')}\r\n"
                      "Content-Length: 20\r\n\r\n{".encode())
            open_.append(Client(c))
        refused = first_to_speak(open_)  # mostly the last: what comes at once is read in the order that epoll tells
        self.assertEqual(refused.response().status, 503)
        open_.remove(refused)
        for k in open_:
            k.sock.sendall(b'"head":"me"       }')
            self.assertEqual(k.response().status, 200)
        self.assertEqual(self.api("POST", "/repos/acme/app/pulls", b'{"head":"me"}').status, 200)


if __name__ == "__main__":
    unittest.main()
