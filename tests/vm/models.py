"""The services of the four agents, for the real programs: Messages, Responses, chat completions, each as a stream, and what
Codex and Copilot ask about the account. A request with another token than the login's is answered 401."""
import base64
import json
import subprocess
import threading
import time

from upstream import Upstream

HI = "hi from fake"
TEXT = "made by the agent\n"
ACCOUNT = "11111111-2222-4333-8444-555555555555"
HOSTS = ["api.anthropic.com", "platform.claude.com", "mcp-proxy.anthropic.com", "api.openai.com", "chatgpt.com", "auth.openai.com",
         "api.github.com", "api.githubcopilot.com"]
# Asked for without a login; the certificate is not believed there, so these fail at once.
BESIDES = ["console.anthropic.com", "downloads.claude.ai", "ab.chatgpt.com", "models.opencode.ai", "registry.npmjs.org", "github.com",
           "raw.githubusercontent.com", "copilot-telemetry.githubusercontent.com", "api.individual.githubcopilot.com"]


def jwt(signature, left_s):
    """A token of the form of ChatGPT's, with an account in it."""
    claims = {"exp": int(time.time()) + left_s, "email": "a@b.c", "sub": "u", "https://api.openai.com/auth": {
        "chatgpt_account_id": ACCOUNT, "chatgpt_plan_type": "pro", "chatgpt_user_id": "u"}}

    def part(value):
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
    return f"{part({'alg': 'none'})}.{part(claims)}.{signature}"


def messages(model, call):
    """Events of the Messages stream."""
    block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": HI}
    if call:
        block = {"type": "tool_use", "id": "toolu_1", "name": "Write", "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call)}
    yield {"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [], "stop_reason": None, "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1}}}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "tool_use" if call else "end_turn", "stop_sequence": None},
           "usage": {"output_tokens": 4}}
    yield {"type": "message_stop"}


def responses(model, call):
    """Events of the Responses stream. @call: name and arguments of a function."""
    whole = {"id": "resp_1", "object": "response", "created_at": 1, "status": "in_progress", "model": model, "output": []}
    yield {"type": "response.created", "response": whole}
    if call:
        name, arguments = call[0], json.dumps(call[1])
        item = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": name, "arguments": arguments}
        yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "arguments": ""}}
        yield {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": arguments}
        yield {"type": "response.function_call_arguments.done", "item_id": "fc_1", "output_index": 0, "arguments": arguments}
    else:
        at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed",
                "content": [{"type": "output_text", "text": HI, "annotations": []}]}
        yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, "status": "in_progress", "content": []}}
        yield {"type": "response.content_part.added", **at, "part": {"type": "output_text", "text": "", "annotations": []}}
        yield {"type": "response.output_text.delta", **at, "delta": HI}
        yield {"type": "response.output_text.done", **at, "text": HI}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": {**whole, "status": "completed", "output": [item], "usage": {
        "input_tokens": 1, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 2}}}


def completions(model, call):
    """Pieces of a chat completion."""
    delta = {"role": "assistant", "content": HI}
    if call:
        delta = {"role": "assistant", "content": None, "tool_calls": [
            {"index": 0, "id": "call_1", "type": "function", "function": {"name": "create", "arguments": json.dumps(call)}}]}
    head = {"id": "cc1", "object": "chat.completion.chunk", "created": 1, "model": model}
    yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if call else "stop"}],
           "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}


def accounts(account):
    """What Codex is told of who it is."""
    return {"accounts": [{"id": account, "name": None, "plan_type": "pro", "structure": "personal", "profile_picture_url": None,
                          "workspace_backend_origin": "NO_CONSTRAINT", "account_routing_override": "NO_CONSTRAINT"}],
            "account_ordering": [account], "default_account_id": account}


def copilot_model(name):
    return {"id": name, "name": name, "object": "model", "vendor": "Fake", "version": name, "preview": False, "model_picker_enabled": True,
            "billing": {"is_premium": False, "multiplier": 0}, "policy": {"state": "enabled", "terms": ""},
            "supported_endpoints": ["/chat/completions"],
            "capabilities": {"family": name, "type": "chat", "object": "model_capabilities", "tokenizer": "o200k_base", "limits": {
                "max_context_window_tokens": 200000, "max_output_tokens": 16000, "max_prompt_tokens": 128000},
                "supports": {"streaming": True, "tool_calls": True, "parallel_tool_calls": True, "vision": False}}}


COPILOT_USER = {
    "login": "tester", "access_type_sku": "copilot_for_individual_subscriber", "copilot_plan": "individual", "chat_enabled": True,
    "assigned_date": "2026-01-01T00:00:00Z", "can_signup_for_limited": False, "organization_login_list": [], "organization_list": [],
    "analytics_tracking_id": "x", "is_mcp_enabled": True, "quota_snapshots": {},
    "endpoints": {"api": "https://api.githubcopilot.com", "proxy": "https://copilot-proxy.githubusercontent.com",
                  "telemetry": "https://copilot-telemetry.githubusercontent.com",
                  "origin-tracker": "https://origin-tracker.githubusercontent.com"}}


class Models(Upstream):
    """@token: the login that is believed. @make: a file that the next agent is told to make; @made: called when it was told."""

    def __init__(self, folder, token=None):
        self.token, self.make, self.made, self.lock = token, None, None, threading.Lock()
        self.refused = []  # (host, path, credential)
        self.models = []   # (host, path) of each request to a model that was answered
        super().__init__(folder)

    def paths(self):
        """(host, path) of each request."""
        return [(name, head.split(" ")[1].partition("?")[0]) for name, head, _ in self.seen]

    def tell(self):
        """The file to make, once."""
        with self.lock:
            path, self.make = self.make, None
            if path and self.made:
                self.made()
            return path

    def answer(self, s, name, head, fields, body):
        method, target, _ = head.split(b"\r\n")[0].decode("latin-1").split(" ")
        path = target.split("?")[0]
        status, out = self.route(name, method, path, fields, body)
        if not isinstance(out, dict):
            return self.stream(s, path, out)
        out = json.dumps(out).encode()
        s.sendall(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(out)) +
                  (b"" if method == "HEAD" else out))

    @staticmethod
    def stream(s, path, events):
        def chunk(text):
            s.sendall(b"%x\r\n" % len(text) + text + b"\r\n")
        s.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for n, event in enumerate(events):
            if path.endswith("/responses"):
                event["sequence_number"] = n
            kind = f"event: {event['type']}\n" if "type" in event else ""
            chunk(f"{kind}data: {json.dumps(event)}\n\n".encode())
            time.sleep(0.05)
        if path.endswith("/completions"):
            chunk(b"data: [DONE]\n\n")
        s.sendall(b"0\r\n\r\n")

    def route(self, host, method, path, fields, body):
        if path.endswith(("/messages", "/responses", "/chat/completions", "/accounts/check", "/copilot_internal/user")) or (
                host == "api.githubcopilot.com" and path == "/models"):
            credential = (fields.get(b"x-api-key") or fields.get(b"authorization", b"").partition(b" ")[2]).decode("latin-1")
            if credential != self.token:
                self.refused.append((host, path, credential))
                return 401, {"type": "error", "error": {"type": "authentication_error", "message": "not the login's token"}}
        if path == "/copilot_internal/user":
            return 200, COPILOT_USER
        if path.endswith("/accounts/check"):
            return 200, accounts(ACCOUNT)
        if host == "api.githubcopilot.com" and path == "/models":
            return 200, {"object": "list", "data": [copilot_model(m) for m in ("claude-sonnet-4.5", "gpt-5-mini", "gpt-4.1")]}
        if path.endswith("/count_tokens"):
            return 200, {"input_tokens": 10}
        if path.endswith("/responses") and method == "GET":  # no WebSocket here; the agent goes on with POST
            return 426, {"error": {"message": "upgrade refused"}}
        if method == "POST" and path.endswith(("/messages", "/responses", "/chat/completions")):
            return self.model(host, path, fields, body)
        return 404, {"type": "error", "error": {"type": "not_found_error", "message": "nothing here"}}

    def model(self, host, path, fields, body):
        if fields.get(b"content-encoding") == b"zstd":
            body = subprocess.run(["zstd", "-dc"], input=body, stdout=subprocess.PIPE, check=True).stdout
        asked = json.loads(body)
        model = asked.get("model", "m")
        self.models.append((host, path))
        codex = fields.get(b"originator", b"").startswith(b"codex")
        file = self.tell() if codex or asked.get("tools") else None
        if path.endswith("/messages"):
            events = messages(model, file and {"file_path": file, "content": TEXT})
            if not asked.get("stream"):
                return 200, {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": [{"type": "text", "text": HI}],
                             "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
        elif path.endswith("/responses"):
            command = f"printf '{TEXT[:-1]}\\n' > {file}"
            # OpenCode offers no tool "write" to this model.
            call = ("exec_command", {"cmd": command}) if codex else ("bash", {"command": command, "description": "Makes a file"})
            events = responses(model, file and call)
        else:
            events = completions(model, file and {"path": file, "file_text": TEXT})
        return 200, events
