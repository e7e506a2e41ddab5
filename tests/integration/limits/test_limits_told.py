"""What the endpoint tells of limits is true: come back when it says so, and you are let in.

The gateway and its sockets are real; the clock is turned by hand, so that a day passes at once.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from appliance.domain.limits import Layer, LayerLimits, Limits
from tests.fakes.clock import ManualClock
from tests.fakes.endpoint import Answer, Endpoint, chat, endpoint, target
from tests.fakes.engine import FaultEngine

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?(?:(\d+)ms)?")


def seconds(text: str) -> float:
    """`12ms`, `7s`, `1m30s`, `24h5m0s`."""
    match = _DURATION.fullmatch(text)
    assert match is not None, text
    hours, minutes, whole, milliseconds = (int(part or 0) for part in match.groups())
    return hours * 3_600 + minutes * 60 + whole + milliseconds / 1_000


@dataclass
class Limited:
    """An endpoint whose caller has limits, on a clock of ours."""

    endpoint: Endpoint
    clock: ManualClock

    async def ask(self, **fields: object) -> Answer:
        return await self.endpoint.ask(chat(**fields))

    def limit(self, **limits: int) -> None:
        self.endpoint.change(layers=(LayerLimits(Layer.KEY, "key_1", Limits(**limits)),))


@asynccontextmanager
async def limited(**limits: int) -> AsyncIterator[Limited]:
    clock = ManualClock()
    clock.turn(1_000.25)
    async with FaultEngine() as engine, endpoint(target(engine.port), clock=clock) as site:
        made = Limited(site, clock)
        made.limit(**limits)
        yield made


def refused(answer: Answer, code: str = "rate_limit_exceeded") -> int:
    """Retry-After of a 429 in the right form."""
    assert answer.status == 429, answer
    assert answer.code == code
    return int(answer.headers.get("retry-after", 0))


async def test_requests_per_minute_count_down_and_come_back() -> None:
    async with limited(requests_per_min=3) as site:
        for remaining in (2, 1, 0):
            headers = (await site.ask()).headers
            assert headers["x-ratelimit-limit-requests"] == "3"
            assert headers["x-ratelimit-remaining-requests"] == str(remaining)
            assert 60 <= seconds(headers["x-ratelimit-reset-requests"]) <= 61
            assert "x-ratelimit-limit-tokens" not in headers
            site.clock.turn(10)
        answer = await site.ask()
        wait_s = refused(answer)
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert 30 <= wait_s <= 31
        site.clock.turn(wait_s - 2)
        refused(await site.ask())
        site.clock.turn(2)
        assert (await site.ask()).status == 200


async def test_the_reset_of_a_limit_is_when_all_of_it_is_free() -> None:
    async with limited(requests_per_min=3) as site:
        for _ in range(2):
            reset_s = seconds((await site.ask()).headers["x-ratelimit-reset-requests"])
            site.clock.turn(5)
        # What remains is told by whole seconds, so that it costs nothing to tell; what is admitted
        # is decided to the instant.
        site.clock.turn(reset_s - 5 + 1)
        assert (await site.ask()).headers["x-ratelimit-remaining-requests"] == "2"


async def test_tokens_per_minute_are_held_then_settled() -> None:
    async with limited(tokens_per_min=1_000) as site:
        first = await site.ask(max_tokens=100)
        told = int(first.headers["x-ratelimit-remaining-tokens"])
        used = first.json["usage"]["total_tokens"]
        # The head left before the true count was known: it tells what would be left at worst.
        assert told <= 1_000 - used
        second = await site.ask(max_tokens=100)
        estimate = 1_000 - told
        assert int(second.headers["x-ratelimit-remaining-tokens"]) == pytest.approx(
            1_000 - used - estimate, abs=10
        )
        assert second.headers["x-ratelimit-limit-tokens"] == "1000"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_honours_retry_after_is_let_in(*, stream: bool) -> None:
    async with limited(tokens_per_min=1_000) as site:
        served = waits = 0
        while served < 12:
            answer = await site.ask(max_tokens=300, stream=stream)
            if answer.status == 200:
                served += 1
            else:
                wait_s = refused(answer)
                assert 1 <= wait_s <= 62
                site.clock.turn(wait_s)
                waits += 1
                assert (await site.ask(max_tokens=300, stream=stream)).status == 200
                served += 1
        assert waits >= 2


async def test_a_used_up_day_is_a_quota_and_not_worth_a_retry() -> None:
    async with limited(tokens_per_day=600) as site:
        while (answer := await site.ask(max_tokens=200)).status == 200:
            site.clock.turn(120)
        refused(answer, "insufficient_quota")
        assert answer.headers["x-should-retry"] == "false"
        reset_s = seconds(answer.headers["x-ratelimit-reset-tokens"])
        assert 23 * 3_600 < reset_s <= 24 * 3_600 + 300
        site.clock.turn(3_600)
        refused(await site.ask(max_tokens=200), "insufficient_quota")
        site.clock.turn(reset_s - 3_600)
        assert (await site.ask(max_tokens=200)).status == 200


async def test_anthropic_clients_get_their_own_words() -> None:
    async with limited(requests_per_min=1) as site:
        body = {**chat(), "max_tokens": 5}
        assert (await site.endpoint.ask(body, "/v1/messages")).status == 200
        answer = await site.endpoint.ask(body, "/v1/messages")
        assert answer.status == 429
        assert answer.json["type"] == "error"
        assert answer.json["error"]["type"] == "rate_limit_error"
        assert 1 <= int(answer.headers["retry-after"]) <= 61


async def test_what_the_engine_never_served_is_given_back() -> None:
    async with limited(requests_per_min=2, tokens_per_min=1_000) as site:
        for _ in range(4):
            assert (await site.ask(fault="status:500")).status == 502
        used = site.endpoint.limits.used("key_1", site.clock.monotonic_s())
        assert (used.requests_per_min, used.tokens_per_min, used.concurrency) == (0, 0, 0)
        assert (await site.ask()).status == 200


async def test_a_refused_request_is_not_recorded_and_never_reaches_an_engine() -> None:
    async with limited(requests_per_min=1) as site:
        await site.ask()
        refused(await site.ask())
        assert site.endpoint.ledger.only()


async def test_a_limit_that_changes_holds_from_the_next_request_on() -> None:
    async with limited(requests_per_min=1) as site:
        assert (await site.ask()).status == 200
        refused(await site.ask())
        site.limit(requests_per_min=3)
        assert (await site.ask()).headers["x-ratelimit-remaining-requests"] == "1"
        site.limit(tokens_per_min=10)
        refused(await site.ask())
        site.limit()
        assert "x-ratelimit-limit-requests" not in (await site.ask()).headers
