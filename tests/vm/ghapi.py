"""GitHub as the real gh, git and git-lfs need it, whoever carries the requests: acme/app is listed, acme/secret is not, octo/pub is
public. And what is asked of gh."""
import json
import os
import pathlib
import re
import shutil
import subprocess

OWN = next((d / "gh/usr/bin/gh" for d in (pathlib.Path(__file__).resolve().parent, pathlib.Path(__file__).resolve().parents[2] / "deps")
            if (d / "gh/usr/bin/gh").exists()), None)  # beside the suite where that runs as another user
GH = os.environ.get("AGENT_VM_TEST_GH") or str(OWN or shutil.which("gh") or "gh")

OWNER = {"__typename": "Organization", "id": "O_1", "login": "acme"}
ISSUE = {"__typename": "Issue", "id": "I_1", "number": 1, "title": "broken", "url": "https://github.com/acme/app/issues/1", "state": "OPEN",
         "author": {"login": "me"}, "comments": {"totalCount": 0, "nodes": []}, "labels": {"nodes": [], "totalCount": 0},
         "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-01T00:00:00Z"}
PULL = {**ISSUE, "__typename": "PullRequest", "id": "PR_1", "title": "mend", "url": "https://github.com/acme/app/pull/1", "headRefName": "fix",
        "baseRefName": "main", "isDraft": False, "mergeable": "MERGEABLE", "mergeStateStatus": "CLEAN", "headRepositoryOwner": OWNER,
        "headRepository": {"id": "R_1", "name": "app"}, "isCrossRepository": False, "reviews": {"nodes": []}, "reviewRequests": {"nodes": []},
        "statusCheckRollup": {"nodes": [{"commit": {"statusCheckRollup": {"contexts": {"nodes": [
            {"__typename": "CheckRun", "name": "build", "status": "COMPLETED", "conclusion": "SUCCESS"}]}}}}]}}
REPO = {"id": "R_1", "databaseId": 1, "name": "app", "nameWithOwner": "acme/app", "owner": OWNER, "parent": None, "hasIssuesEnabled": True,
        "viewerPermission": "WRITE", "visibility": "PRIVATE", "defaultBranchRef": {"name": "main"}, "mergeCommitAllowed": True,
        "issue": ISSUE, "pullRequest": PULL, "issues": {"totalCount": 1, "nodes": [ISSUE]}, "pullRequests": {"totalCount": 1, "nodes": [PULL]}}
PUBLIC = {**REPO, "id": "R_9", "databaseId": 9, "name": "pub", "nameWithOwner": "octo/pub", "owner": {**OWNER, "login": "octo"},
          "viewerPermission": "READ", "visibility": "PUBLIC"}
DATA = {"repository": REPO, "repo_000": REPO, "viewer": {"login": "me"}, "node": PULL,
        "createIssue": {"issue": ISSUE}, "createPullRequest": {"pullRequest": PULL}, "mergePullRequest": {"clientMutationId": ""},
        "addComment": {"commentEdge": {"node": {"url": "https://github.com/acme/app/issues/1#issuecomment-1"}}}}
REST = {"/repos/acme/app/actions/runs": {"total_count": 0, "workflow_runs": []}, "/repos/acme/app/actions/workflows": {"workflows": []},
        "/repos/acme/app/releases": {"id": 5, "html_url": "https://github.com/acme/app/releases/tag/v1", "url": "https://api.github.com/repos/acme/app/releases/5",
                                     "upload_url": "https://uploads.github.com/repos/acme/app/releases/5/assets{?name,label}"}}

MUTATIONS = ("createIssue", "createPullRequest", "mergePullRequest", "addComment")

# What is asked of gh for @R, and what it prints for the listed one; the fault that it shows for the other.
COMMANDS = [
    ("pr list -R @R", "mend"), ("pr view 1 -R @R", "mend"), ("pr view 1 -R @R --json number,title,statusCheckRollup,reviews,headRepository", "mend"),
    ("pr checks 1 -R @R", "build"), ("pr comment 1 -R @R -b hello", "issuecomment"), ("pr merge 1 -R @R --merge", ""),
    ("pr create -R @R -t t -b b -H fix -B main", "/pull/1"), ("issue list -R @R", "broken"), ("issue view 1 -R @R", "broken"),
    ("issue create -R @R -t t -b b", "/issues/1"), ("issue comment 1 -R @R -b hello", "issuecomment"),
    ("run list -R @R", ""), ("release create v1 -R @R -t v1 -n notes FILE", "/releases/tag/v1"), ("repo view @R", ""), ("api repos/@R", "path"),
]
# Those that need git; the first makes there-NAME, in which the others are asked for.
WITH_GIT = ["repo clone @R there-@N -- -q", "pr checkout 1 -R @R"]


def git(repos, method, target, fields, body, signed_in):
    """(status, fields, body) of git's own HTTP backend over the folder @repos."""
    path, _, query = target.partition("?")
    env = {"PATH": os.environ["PATH"], "GIT_PROJECT_ROOT": str(repos), "GIT_HTTP_EXPORT_ALL": "1", "REQUEST_METHOD": method,
           "PATH_INFO": path, "QUERY_STRING": query, "CONTENT_TYPE": fields.get("content-type", ""), "REMOTE_ADDR": "127.0.0.1",
           "REMOTE_USER": "me" if signed_in else "", "CONTENT_LENGTH": str(len(body)), "GIT_PROTOCOL": fields.get("git-protocol", ""),
           "HTTP_CONTENT_ENCODING": fields.get("content-encoding", "")}
    out = subprocess.run(["/usr/lib/git-core/git-http-backend"], input=body, env=env, capture_output=True).stdout
    head, _, body = out.partition(b"\r\n\r\n")
    answer = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line)
    return int(answer.pop("Status", "200").split()[0]), answer, body


def _graphql(query, body):
    if "__type(" in query:  # what this GitHub has
        return {alias: {"fields": []} for alias in re.findall(r"(\w+): ?__type", query)}
    if "PullRequestForBranch" in query:
        return {"repository": {**REPO, "pullRequests": {"nodes": []}}}
    if b'"octo"' in body:
        return {"repository": PUBLIC}
    # No more than was asked for at the top: gh takes no other names.
    return {k: v for k, v in DATA.items() if (k in MUTATIONS) == query.lstrip().startswith("mutation") and
            re.search(rf"\b{k} *" + (r"\{" if k == "viewer" else "[(:]"), query)}


def _facts(query):
    """What the sandbox asks for itself: whose nodes these are, and which repositories."""
    known = {r["nameWithOwner"]: r for r in (REPO, PUBLIC)}
    facts = {alias: known.get(f"{owner}/{name}")
             for alias, owner, name in re.findall(r'(r\d+):repository\(owner:"([^"]*)",name:"([^"]*)"', query)}
    return {**facts, "nodes": [{"__typename": "PullRequest", "repository": {"databaseId": 1}} for _ in range(query.count('_1"'))]}


def answer(method, path, signed_in, body, asks):
    """(status, JSON) for a request; @signed_in: it came with the login; @asks: from the sandbox itself."""
    if path == "/graphql":
        query = json.loads(body)["query"]
        return 200, json.dumps({"data": _facts(query) if asks else _graphql(query, body)}).encode()
    if method == "HEAD":
        return 404, b""
    if not signed_in:
        return 404, b'{"message":"Not Found"}'
    if method == "GET" or path == "/repos/acme/app/releases":
        return 201 if method == "POST" else 200, json.dumps(REST.get(path, {"path": path})).encode()
    return 201, json.dumps(REST["/repos/acme/app/releases"]).encode()
