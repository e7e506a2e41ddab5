"""Privacy: no prompt, no completion and no key is ever at rest, in a log or in an answer of admin.

Distinctive strings go through every path that a request can take, at the most talkative log level;
then every byte that the site wrote is searched for them, plain and in the encodings in which a
string can lie in a file.
"""

import base64
import contextlib
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.raw_client import RawClient, request
from tests.fakes.site import Key, Site, running_site

PROMPT = "canaryprompt7f3a9e"
COMPLETION = "canarycompletion5b21cc"
ENGINE_KEY = "canaryenginekey90d4e1"
# Header values and names of fields are as private as what is in them.
HEADER = "canaryheader33aa71"

PATHS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "messages": "/messages",
    "count_tokens": "/messages/count_tokens",
    "rerank": "/rerank",
    "score": "/score",
}


def body_of(operation: str, **more: Any) -> dict[str, Any]:
    words = f"tell me about {PROMPT} please"
    body: dict[str, Any] = {"model": "fault", "max_tokens": 4, "say": COMPLETION, **more}
    fields: dict[str, dict[str, Any]] = {
        "chat": {"messages": [{"role": "user", "content": words}], "user": PROMPT},
        "completions": {"prompt": words},
        "embeddings": {"input": words},
        "responses": {"input": words, "instructions": words},
        "messages": {"messages": [{"role": "user", "content": words}], "system": words},
        "count_tokens": {"messages": [{"role": "user", "content": words}]},
        "rerank": {"query": words, "documents": [words]},
        "score": {"text_1": words, "text_2": words},
    }
    return body | fields[operation]


@pytest.fixture
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread(FaultEngine(api_key=ENGINE_KEY)) as running:
        yield running


@pytest.fixture
def site(engine: FaultEngine) -> Iterator[Site]:
    settings = {
        "CIC_LOG_LEVEL": "debug",
        "CIC_TIMEOUTS_FIRST_TOKEN_S": "0.5",
        "CIC_TIMEOUTS_TOKEN_GAP_S": "0.5",
        "CIC_TIMEOUTS_BODY_S": "0.5",
        "CIC_SCHEDULER_EJECT_AFTER_FAILURES": "1000000",
    }
    with running_site(settings=settings) as running:
        running.deployment("fault", engine.url, api_key=ENGINE_KEY)
        yield running


FAULTS = [
    "absurd_usage:text",
    "bad_json_body",
    "bad_json_event",
    "bad_request",
    "bad_sse",
    "bad_utf8_event",
    "close_mid_body",
    "close_mid_event",
    "context_llamacpp",
    "error_then_done",
    "hang_before_head",
    "hang_mid_stream",
    "no_usage",
    "reset_mid_stream",
    "split:3",
    "status:500",
    "unauthorized",
    "wrong_type",
]


def honest_traffic(site: Site, key: Key) -> None:
    for operation, path in PATHS.items():
        status, _, answer = site.post(path, body_of(operation), key, {"X-Note": HEADER})
        assert status == 200, (operation, answer)
        if operation in {"chat", "completions", "responses", "messages"}:
            status, _, answer = site.post(path, body_of(operation, stream=True), key)
            assert status == 200
            assert COMPLETION.encode() in answer
    again = {"Idempotency-Key": "canary-again"}
    for _ in range(2):
        assert site.post("/chat/completions", body_of("chat"), key, again)[0] == 200


def failing_traffic(site: Site, key: Key) -> None:
    for fault in FAULTS:
        for stream in (False, True):
            site.post("/chat/completions", body_of("chat", fault=fault, stream=stream), key)
    site.post("/messages", body_of("messages", fault="reset_mid_stream", stream=True), key)
    site.post("/chat/completions", {**body_of("chat"), "model": PROMPT}, key)
    site.post("/chat/completions", {**body_of("chat"), PROMPT: {PROMPT: PROMPT}}, key)
    site.post("/chat/completions", {**body_of("chat"), "messages": PROMPT}, key)


def malformed_traffic(site: Site, key: Key) -> None:
    whole = json.dumps(body_of("chat")).encode()
    broken = [
        whole[:-1],
        whole + whole,
        whole.replace(b'"model"', b'"%s":NaN,"model"' % PROMPT.encode()),
        b'{"%s":1,"%s":2,%s' % (PROMPT.encode(), PROMPT.encode(), whole[1:]),
        whole.replace(PROMPT.encode(), PROMPT.encode() + b"\xff"),
        b"[" * 100 + b'"%s"' % PROMPT.encode(),
        PROMPT.encode(),
    ]
    for data in broken:
        assert site.call("POST", "/chat/completions", data, key)[0] == 400
    assert site.call("POST", f"/{PROMPT}", whole, key)[0] == 404
    assert site.call("GET", f"/models/{PROMPT}", None, key)[0] == 404
    site.call("GET", f"/models?q={PROMPT}", None, key)
    last = "y" if key.secret.endswith("x") else "x"
    for secret in (key.secret[:-1] + last, key.secret + "x", PROMPT):
        headers = {"Authorization": f"Bearer {secret}"}
        assert site.call("POST", "/chat/completions", whole, None, headers)[0] == 401
    for head in (
        b"GET /" + PROMPT.encode() + b" HTTP/9.9\r\n\r\n",
        PROMPT.encode() + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + PROMPT.encode() + b" : x\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: " + PROMPT.encode() + b"\r\n\r\n",
    ):
        with RawClient(site.address) as client:
            client.send(head)
            client.closed_within(2)


def aborted_traffic(site: Site, key: Key) -> None:
    for body in (
        body_of("chat", stream=True, max_tokens=500, token_s=0.01),
        body_of("chat", fault="hang_before_head"),
        body_of("chat", fault="hang_mid_stream", stream=True),
    ):
        with RawClient(site.address) as client:
            data = json.dumps(body).encode()
            client.send(request("POST", "/v1/chat/completions", data, key.bearer))
            client.socket.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                client.socket.recv(2_000)
    whole = request(
        "POST", "/v1/chat/completions", json.dumps(body_of("chat")).encode(), key.bearer
    )
    with RawClient(site.address) as client:
        client.send(whole[:-20])  # the body's deadline
        client.closed_within(3)


def traffic(site: Site, key: Key) -> None:
    honest_traffic(site, key)
    failing_traffic(site, key)
    malformed_traffic(site, key)
    aborted_traffic(site, key)


def forms(secret: str) -> list[bytes]:
    """The string as it may lie in a file: in every alignment of base64, in hex, in UTF-16."""
    plain = secret.encode()
    found = [plain, plain[::-1], plain.hex().encode(), secret.encode("utf-16-le")]
    for skipped in range(3):
        packed = base64.b64encode(b"\0" * skipped + plain)
        found.append(packed[4 if skipped else 0 : -4])
    return found


def everything_written(site: Site) -> dict[str, bytes]:
    """Every file of the home (databases, WAL, logs, what lies in run/) and what was printed."""
    files = [path for path in site.folder.rglob("*") if path.is_file()]
    assert any(path.name == "ledger.db" for path in files)
    return {str(path.relative_to(site.folder)): path.read_bytes() for path in files}


def assert_clean(named: dict[str, bytes], key: Key) -> None:
    secrets = {
        "a prompt": PROMPT,
        "a completion": COMPLETION,
        "a header": HEADER,
        "a key": key.secret,
        "most of a key": key.secret[14:-4],
        "an engine's key": ENGINE_KEY,
    }
    leaks = [
        f"{what} in {name}"
        for name, data in named.items()
        for what, secret in secrets.items()
        if any(form in data or form.lower() in data.lower() for form in forms(secret))
    ]
    assert not leaks


def answers_of_admin(site: Site, key: Key) -> dict[str, bytes]:
    paths = [
        "/metrics",
        "/openapi.json",
        "/v1/status",
        "/v1/keys",
        f"/v1/keys/{key.id}",
        "/v1/deployments",
        "/v1/ledger?since=0",
        "/v1/usage?by=tenant,env,key,model,hour",
        "/v1/audit?since=0",
        "/v1/limits",
    ]
    return {path: site.ask("GET", path) for path in paths}


def test_the_search_finds_what_it_looks_for(tmp_path: Path) -> None:
    """A search that finds nothing anywhere would prove nothing."""
    key = Key("key_1", "clsk_live_" + "q" * 36, "k", "t", "e")
    for hidden in (
        PROMPT.encode(),
        b"x" + base64.b64encode(b"ab" + COMPLETION.encode() + b"cd"),
        key.secret.encode().hex().encode(),
        ENGINE_KEY.encode("utf-16-le"),
    ):
        with pytest.raises(AssertionError):
            assert_clean({"file": b"..." + hidden + b"..."}, key)
    assert_clean({"file": zlib.compress(b"nothing of note")}, key)


def test_nothing_is_kept(site: Site) -> None:
    key = site.key()
    traffic(site, key)
    site.wait_idle()
    assert_clean(everything_written(site), key)
    assert_clean(answers_of_admin(site, key), key)
    printed = site.run("--json", "status").stdout + site.run("ledger", "list").stdout
    assert_clean({"cic": printed.encode()}, key)
    site.stop()
    assert_clean(everything_written(site), key)
    log = site.stderr.read_bytes() + site.stdout.read_bytes()
    assert b"debug" in log.lower()  # the talkative level was on


def test_no_core_files(site: Site) -> None:
    """A crash must not write memory to disk, whatever the shell that started it allows."""
    limits = Path(f"/proc/{site.pid}/limits").read_text()
    line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
    assert line.split()[4:6] == ["0", "0"]


def test_nothing_is_kept_when_it_is_killed(site: Site) -> None:
    key = site.key()
    honest_traffic(site, key)
    with contextlib.ExitStack() as open_streams:
        for _ in range(5):
            client = open_streams.enter_context(RawClient(site.address))
            body = body_of("chat", stream=True, max_tokens=5_000, token_s=0.01)
            data = json.dumps(body).encode()
            client.send(request("POST", "/v1/chat/completions", data, key.bearer))
            assert client.socket.recv(1_000)
        site.kill()
    assert_clean(everything_written(site), key)
    site.start()
    assert_clean(everything_written(site), key)
    aborted = [row for row in site.ledger() if row["status"] == "aborted"]
    assert len(aborted) == 5
