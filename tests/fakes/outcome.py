"""A request, what came of it at the client, and what the ledger says: compared in one place."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tests.fakes import sse
from tests.fakes.engine_answers import figures
from tests.fakes.site import Key, Row, Site

# Nothing of this may reach a client: names and addresses that the fault engine lets slip.
SECRETS = ("10.0.0.7", "gpu-node", ".internal", "/var/log", "127.0.0.1", "169.254")


PATHS = {
    "chat": "/chat/completions",
    "completions": "/completions",
    "embeddings": "/embeddings",
    "responses": "/responses",
    "messages": "/messages",
}


def body_of(operation: str, **more: Any) -> dict[str, Any]:
    """A small request of the operation: its prompt has five words."""
    words = "five words are in here"
    messages = [{"role": "user", "content": words}]
    body: dict[str, Any] = {"model": "fault"}
    if operation in {"chat", "messages"}:
        body |= {"messages": messages, "max_tokens": 6}
    elif operation == "responses":
        body |= {"input": words, "max_output_tokens": 6}
    elif operation == "completions":
        body |= {"prompt": words, "max_tokens": 6}
    else:
        body |= {"input": words}
    return body | more


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the client got and what the ledger says about it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    record: Row
    sent: dict[str, Any]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def streamed(self) -> bool:
        return self.headers["content-type"].startswith("text/event-stream")

    @property
    def events(self) -> list[sse.Sse]:
        return sse.parse(self.body)

    @property
    def error_code(self) -> str:
        """The code of the error, in the answer or at the end of the stream."""
        value = self.events[-1].json if self.streamed else self.json
        return str(value["error"]["code"])

    def assert_nothing_leaked(self) -> None:
        text = self.body.decode(errors="replace") + json.dumps(dict(self.headers))
        assert not [secret for secret in SECRETS if secret in text]


@dataclass(frozen=True, slots=True)
class Asker:
    site: Site
    key: Key

    def __call__(self, operation: str = "chat", *, fault: str = "", **more: Any) -> Outcome:
        """One request with a fault, and its record. Fails when there is not exactly one."""
        request_id = self.site.new_request_id()
        body = body_of(operation, **more) | ({"fault": fault} if fault else {})
        status, headers, answer = self.site.post(
            PATHS[operation], body, self.key, {"X-Request-Id": request_id}
        )
        assert headers["x-request-id"] == request_id
        record = self.site.record(request_id)
        outcome = Outcome(status, headers, answer, record, body)
        outcome.assert_nothing_leaked()
        assert record["model"] == "fault"
        assert record["operation"] == operation
        assert record["http_status"] == status
        return outcome


def assert_honest_figures(outcome: Outcome) -> None:
    tally = figures(outcome.record["operation"], outcome.sent)
    assert outcome.record["status"] == "ok"
    assert outcome.record["measured"] == "engine"
    assert outcome.record["input_tokens"] == tally.input
    assert outcome.record["output_tokens"] == tally.output
    assert outcome.record["cached_tokens"] == tally.cached
