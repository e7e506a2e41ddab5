"""Odd requests: targets, methods, versions, headers, pipelines. One envelope for every refusal."""

import contextlib
import json
from collections.abc import Callable

import pytest

from tests.fakes.engine import FaultEngine
from tests.fakes.raw_client import Closed, RawClient, request
from tests.fakes.site import Key, Site

Connect = Callable[[], RawClient]
_BEYOND_BUFFERS_BYTES = 64 << 20  # the kernel takes some MB for a reader that is held up
CHAT = b'{"model":"fault","messages":[{"role":"user","content":"hi"}],"max_tokens":2}'


def bearer(key: Key) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.secret}"}


def code_of(body: bytes) -> str:
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["code"], str)
    return str(error["code"])


# --- headers ------------------------------------------------------------------------------------

EVIL_IDS = [
    "a\r\nSet-Cookie: evil=1",
    "a b",
    "a\tb",
    "é",
    "a" * 10_000,
    '"><script>alert(1)</script>',
    "a;b=c",
    "{}",
    "",
]


@pytest.mark.parametrize("evil", EVIL_IDS)
def test_a_request_id_that_is_no_id(
    connect: Connect, site: Site, key: Key, engine: FaultEngine, evil: str
) -> None:
    """Never echoed, forwarded or recorded: the gateway gives its own."""
    client = connect()
    engine.reset()
    client.send(
        request("POST", "/v1/chat/completions", CHAT, {**bearer(key), "X-Request-Id": evil})
    )
    answer = client.answer()
    assert answer.header("set-cookie") is None
    echoed = answer.header("x-request-id") or ""
    assert answer.status == 200
    if "\r\n" in evil:
        assert echoed == "a"
        return
    assert echoed.startswith("req_")
    assert site.record(echoed)["status"] == "ok"
    if evil:
        sent = json.dumps(engine.requests[-1].headers)
        assert json.dumps(evil)[1:-1] not in sent


def test_two_request_ids(connect: Connect, key: Key) -> None:
    client = connect()
    twice = b"X-Request-Id: one\r\nX-Request-Id: two\r\n"
    whole = request("GET", "/v1/models", None, bearer(key))
    client.send(whole[:-2] + twice + b"\r\n")
    echoed = client.answer().header("x-request-id") or ""
    assert "," not in echoed
    assert echoed


@pytest.mark.parametrize(
    "model", ["a\r\nX-Evil: 1", "a\nb", "a\x00b", "../../etc/passwd", "é" * 50, "x" * 100_000, " "]
)
def test_a_model_name_that_is_no_name(site: Site, key: Key, model: str) -> None:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
    status, headers, answer = site.post("/chat/completions", body, key)
    assert status == 404
    assert code_of(answer) == "model_not_found"
    assert "x-evil" not in headers
    assert len(answer) < 2_000


def test_two_authorizations(connect: Connect, site: Site, key: Key) -> None:
    client = connect()
    other = site.key()
    whole = request("GET", "/v1/models", None, bearer(key))
    client.send(whole[:-2] + f"Authorization: Bearer {other.secret}\r\n\r\n".encode())
    with contextlib.suppress(Closed):
        assert client.answer().status in {400, 401}


@pytest.mark.parametrize(
    "value",
    [
        "Bearer",
        "Bearer ",
        "Basic dXNlcjpwYXNz",
        "clsk_live_x",
        "Bearer clsk_live_" + "A" * 36,
        "Bearer clsk_live_" + "A" * 20_000,
        "Bearer a b",
        "Bearer \x01",
        "Digest username=x",
    ],
)
def test_an_authorization_that_is_none(connect: Connect, value: str) -> None:
    client = connect()
    client.send(request("GET", "/v1/models", None, {"Authorization": value}))
    try:
        answer = client.answer()
    except Closed:
        return
    assert answer.status in {400, 401, 431}
    code_of(answer.body)


def test_the_scheme_is_read_in_any_case(site: Site, key: Key) -> None:
    for scheme in ("bearer", "BEARER"):
        headers = {"Authorization": f"{scheme} {key.secret}"}
        assert site.call("GET", "/models", None, None, headers)[0] == 200


@pytest.mark.parametrize("shape", ["one huge", "many small", "a huge name", "a huge target"])
def test_heads_beyond_the_limit(connect: Connect, key: Key, shape: str) -> None:
    headers = bearer(key)
    target = "/v1/models"
    if shape == "one huge":
        headers["X-Huge"] = "a" * 200_000
    elif shape == "many small":
        headers |= {f"X-{n}": "a" for n in range(20_000)}
    elif shape == "a huge name":
        headers["X-" + "a" * 200_000] = "1"
    else:
        target += "?" + "a" * 200_000
    client = connect()
    try:
        client.send(request("GET", target, None, headers))
        answer = client.answer()
    except (Closed, BrokenPipeError, ConnectionResetError):
        return
    assert answer.status in {400, 413, 414, 431}
    code_of(answer.body)


def test_a_head_without_end_of_line_is_cut(connect: Connect) -> None:
    client = connect()
    sent = 0
    try:
        while sent < _BEYOND_BUFFERS_BYTES:
            client.send(b"A" * 65_536)
            sent += 65_536
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert sent < _BEYOND_BUFFERS_BYTES


# --- targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/V1/MODELS",
        "//v1/models",
        "/v1//models",
        "/v1/./models",
        "/v1/../v1/models",
        "/v1/chat/completions/",
        "/v1/models/../../etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "/v1/models/%ff",
        "/v1/models/%",
        "/v1/models;x=1",
        "/metrics",
        "/openapi.json",
        "/v1/tenants",
        "/v1/status",
        "/v1/load_lora_adapter",
        "/collective_rpc",
        "/health",
        "/__fake__/requests",
        "/\\evil",
        "/v1/models#fragment",
    ],
)
def test_paths_that_are_none_of_ours(connect: Connect, key: Key, target: str) -> None:
    client = connect()
    client.send(request("GET", target, None, bearer(key)))
    answer = client.answer()
    assert 400 <= answer.status < 500, answer
    code_of(answer.body)
    assert b"root:" not in answer.body


@pytest.mark.parametrize(
    "target", ["models", "*", "http://", "http://x y/v1/models", "/v1/mo dels", "\x7f", "/v1/é"]
)
def test_targets_that_are_no_targets(connect: Connect, key: Key, target: str) -> None:
    client = connect()
    client.send(request("GET", target, None, bearer(key)))
    try:
        answer = client.answer()
    except Closed:
        return
    assert 400 <= answer.status < 500
    code_of(answer.body)


def test_the_absolute_form(connect: Connect, key: Key) -> None:
    """Servers must take it (RFC 9112, 3.2.2); the gateway is no proxy to anywhere else."""
    client = connect()
    client.send(request("GET", "http://appliance.test/v1/models", None, bearer(key)))
    answer = client.answer()
    assert answer.status in {200, 400, 404}
    if answer.status == 200:
        assert answer.json["object"] == "list"
    other = connect()
    other.send(request("GET", "http://169.254.169.254/latest/meta-data/", None, bearer(key)))
    assert 400 <= other.answer().status < 500


@pytest.mark.parametrize("target", ["appliance.test:443", "169.254.169.254:80"])
def test_no_tunnel(connect: Connect, key: Key, target: str) -> None:
    client = connect()
    client.send(request("CONNECT", target, None, bearer(key)))
    try:
        answer = client.answer()
    except Closed:
        return
    assert 400 <= answer.status <= 501


def test_a_query_is_no_matter(site: Site, key: Key) -> None:
    assert site.call("GET", "/models?x=1&y=%0d%0a", None, key)[0] == 200


# --- methods and versions -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/chat/completions"),
        ("DELETE", "/v1/models/fault"),
        ("POST", "/v1/models"),
        ("PATCH", "/v1/embeddings"),
        ("TRACE", "/v1/models"),
        ("POST", "/healthz"),
        ("OPTIONS", "/v1/chat/completions"),
    ],
)
def test_methods_that_do_not_fit(connect: Connect, key: Key, method: str, path: str) -> None:
    client = connect()
    client.send(request(method, path, b"", bearer(key)))
    answer = client.answer()
    assert answer.status in {404, 405}, answer
    code_of(answer.body)
    if answer.status == 405:
        assert answer.header("allow")
    assert key.secret.encode() not in answer.body


@pytest.mark.parametrize("method", ["FOO", "get", "GE\tT", "G" * 5_000, "\x00GET", "É"])
def test_methods_that_are_none(connect: Connect, key: Key, method: str) -> None:
    client = connect()
    client.send(request(method, "/v1/models", None, bearer(key)))
    try:
        answer = client.answer()
    except Closed:
        return
    assert 400 <= answer.status < 500 or answer.status == 501


def test_a_head_request(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(request("HEAD", "/v1/models", None, bearer(key)))
    answer = client.answer(head_only=True)
    assert answer.status in {200, 404, 405}
    client.send(request("GET", "/healthz"))
    # Nothing of a body was sent: the next answer begins where the head ended.
    try:
        assert client.answer().status == 200
    except Closed:
        assert answer.status != 200


@pytest.mark.parametrize(
    "version", ["HTTP/2.0", "HTTP/3", "HTTP/0.9", "HTTP/1.2", "HTTP/11", "http/1.1", "XTTP/1.1", ""]
)
def test_other_versions(connect: Connect, key: Key, version: str) -> None:
    client = connect()
    client.send(request("GET", "/v1/models", None, bearer(key), version=version))
    try:
        answer = client.answer()
    except Closed:
        return
    assert answer.status in {200, 400, 505}
    if answer.status == 200:
        assert version == "HTTP/1.2"


def test_the_preface_of_http_2(connect: Connect) -> None:
    client = connect()
    client.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 20)
    assert client.closed_within(3.0)


def test_a_tls_hello_on_the_plain_port(connect: Connect) -> None:
    client = connect()
    client.send(bytes.fromhex("16030100c8010000c40303") + b"\x01" * 200)
    assert client.closed_within(3.0)


@pytest.mark.parametrize("stream", [False, True])
def test_http_1_0(connect: Connect, key: Key, *, stream: bool) -> None:
    """No chunks for a client that cannot read them, and the end of the answer is the close."""
    client = connect()
    body = CHAT[:-1] + b',"stream":true}' if stream else CHAT
    client.send(request("POST", "/v1/chat/completions", body, bearer(key), version="HTTP/1.0"))
    head, _, content = client.rest().partition(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n")[0]
    assert b"transfer-encoding" not in head.lower()
    if stream:
        assert content.startswith(b"data: {")
        assert content.rstrip().endswith(b"data: [DONE]")
    else:
        assert json.loads(content)["choices"]


def test_http_1_1_without_host(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(f"GET /v1/models HTTP/1.1\r\nAuthorization: Bearer {key.secret}\r\n\r\n".encode())
    answer = client.answer()
    assert answer.status in {200, 400}  # RFC 9112 asks for 400; there is one virtual host only


# --- pipelines and expectations -----------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(connect: Connect, key: Key) -> None:
    client = connect()
    bodies = [
        b'{"model":"fault","messages":[{"role":"user","content":"hi"}],"max_tokens":1,"say":"<%d>"}'
        % number
        for number in range(20)
    ]
    client.send(
        b"".join(request("POST", "/v1/chat/completions", body, bearer(key)) for body in bodies)
    )
    texts = [client.answer().json["choices"][0]["message"]["content"] for _ in bodies]
    assert texts == [f"<{number}>" for number in range(20)]


def test_a_pipelined_request_after_a_stream(connect: Connect, key: Key) -> None:
    client = connect()
    streamed = CHAT[:-1] + b',"stream":true}'
    client.send(
        request("POST", "/v1/chat/completions", streamed, bearer(key))
        + request("GET", "/v1/models", None, bearer(key))
    )
    first = client.answer()
    assert first.body.rstrip().endswith(b"data: [DONE]")
    assert client.answer().json["object"] == "list"


def test_a_flood_of_pipelined_requests_is_held_back(connect: Connect, key: Key, site: Site) -> None:
    client = connect()
    before = site.memory_bytes()
    one = request("GET", "/v1/models", None, bearer(key))
    client.socket.settimeout(2.0)
    try:
        for _ in range(2_000):
            client.send(one * 100)  # 200,000 requests, never read
    except (TimeoutError, BrokenPipeError, ConnectionResetError):
        pass
    assert site.memory_bytes() - before < 32 * 1024 * 1024


def test_expect_100_continue(connect: Connect, key: Key) -> None:
    client = connect()
    whole = request("POST", "/v1/chat/completions", CHAT, {**bearer(key), "Expect": "100-continue"})
    client.send(whole[: -len(CHAT)])
    assert client.socket.recv(1000).startswith(b"HTTP/1.1 100")
    client.send(CHAT)
    assert client.answer().status == 200


def test_no_100_for_a_stranger(connect: Connect) -> None:
    client = connect()
    headers = {"Authorization": "Bearer clsk_live_nobody", "Expect": "100-continue"}
    client.send(request("POST", "/v1/chat/completions", CHAT, headers)[: -len(CHAT)])
    assert client.socket.recv(1000).startswith(b"HTTP/1.1 401")


def test_an_unknown_expectation(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(request("POST", "/v1/chat/completions", CHAT, {**bearer(key), "Expect": "200-ok"}))
    answer = client.answer()
    assert answer.status == 417
    code_of(answer.body)


def test_upgrades_are_not_offered(connect: Connect, key: Key) -> None:
    for protocol in ("websocket", "h2c"):
        client = connect()
        upgrade = {**bearer(key), "Connection": "Upgrade", "Upgrade": protocol}
        client.send(request("GET", "/v1/models", None, upgrade))
        assert client.answer().status in {200, 400, 426}


def test_empty_lines_before_a_request(connect: Connect, key: Key) -> None:
    client = connect()
    client.send(b"\r\n\r\n" + request("GET", "/v1/models", None, bearer(key)))
    with contextlib.suppress(Closed):
        assert client.answer().status in {200, 400}  # RFC 9112, 2.2: at least one is ignored


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded"])
def test_the_type_of_a_body(site: Site, key: Key, kind: str | None) -> None:
    """JSON is JSON whatever it is called, or it is refused with a code; never a 500."""
    headers = {} if kind is None else {"Content-Type": kind}
    status, _, body = site.call("POST", "/chat/completions", CHAT, key, headers)
    assert status in {200, 400, 415}
    if status != 200:
        code_of(body)
