"""The subscription: events out of lines, and where it is taken up again when it broke off."""

import asyncio
from collections.abc import AsyncGenerator, Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire.stream import Tick, Topic
from console.client import AdminError, Query
from console.stream import Feed, SseEvent, SseReader

_TICK = msgspec.json.encode(Tick(at="2026-11-23T19:22:00Z", changes=[]))
_PLAIN = st.text(st.characters(codec="ascii", exclude_characters="\r\n\0"), max_size=8)


def _events(lines: Sequence[bytes]) -> list[SseEvent]:
    reader = SseReader()
    return [event for line in lines if (event := reader.take(line)) is not None]


@given(
    events=st.lists(st.tuples(_PLAIN, st.lists(_PLAIN, min_size=1, max_size=3))),
    crlf=st.booleans(),
)
def test_events_come_out_as_they_went_in(
    events: list[tuple[str, list[str]]], *, crlf: bool
) -> None:
    end = b"\r" if crlf else b""
    lines = []
    for event_id, data in events:
        lines += [b": a comment", b"id: " + event_id.encode()]
        lines += [b"data: " + line.encode() for line in data]
        lines.append(b"")
    seen = _events([line + end for line in lines])
    assert [(event.id, event.data) for event in seen] == [
        (event_id, "\n".join(data).encode()) for event_id, data in events
    ]


@given(st.lists(st.binary(max_size=12)))
def test_no_line_is_too_odd(lines: list[bytes]) -> None:
    assert len(_events(lines)) <= len(lines)


def test_retry_is_a_number_or_nothing() -> None:
    assert _events([b"retry: 250", b"data:x", b""])[0].retry_ms == 250
    assert _events([b"retry: soon", b"data:x", b""])[0].retry_ms is None


class Scripted:
    """Answers one connection after the other; behind the last one it stays silent."""

    def __init__(self, *answers: Sequence[bytes] | AdminError) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[str, str | None]] = []
        self.open = 0

    async def lines(
        self, path: str, query: Query | None, *, headers: dict[str, str], silence_s: float
    ) -> AsyncGenerator[bytes, None]:
        assert path == "/v1/stream"
        assert silence_s >= 10
        self.asked.append((str((query or {})["topics"]), headers.get("Last-Event-ID")))
        self.open += 1
        try:
            answer = self._answers.pop(0) if self._answers else None
            if isinstance(answer, AdminError):
                raise answer
            for line in answer or ():
                yield line
            if answer is None:
                await asyncio.Event().wait()
        finally:
            self.open -= 1


def _sent(event_id: str, data: bytes = _TICK) -> list[bytes]:
    return [b"id: " + event_id.encode(), b"data: " + data, b""]


class Watched:
    """A feed and what it told."""

    def __init__(self, reader: Scripted) -> None:
        self.ticks = 0
        self.losses: list[str] = []
        self.begun: list[frozenset[Topic]] = []
        self.feed = Feed(
            reader,
            every_s=0.001,
            on_begin=self.begun.append,
            on_tick=self._tick,
            on_loss=lambda error: self.losses.append(error.code),
            chance=lambda: 0.0,
        )

    def _tick(self, _tick: Tick) -> None:
        self.ticks += 1


async def _until(watched: Watched, reader: Scripted, asked: int) -> None:
    running = asyncio.create_task(watched.feed.run())
    async with asyncio.timeout(10):
        while len(reader.asked) < asked or not reader.open:
            watched.feed.again()  # do not wait for the next attempt
            await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_it_goes_on_where_it_broke_off() -> None:
    reader = Scripted(_sent("b1.7"), AdminError("broken_off", "It broke off."))
    watched = Watched(reader)
    watched.feed.want(frozenset({"nodes"}))
    await _until(watched, reader, 3)
    assert [each for _, each in reader.asked] == [None, "b1.7", "b1.7"]
    assert watched.losses == ["broken_off", "broken_off"]
    assert watched.ticks == 1
    assert watched.begun == [frozenset({"nodes"})]
    assert reader.open == 0


async def test_what_is_not_understood_begins_anew() -> None:
    reader = Scripted(_sent("b1.7"), _sent("b1.8", b'{"at": '), _sent("b1.9", b"\xff"))
    watched = Watched(reader)
    watched.feed.want(frozenset({"nodes"}))
    await _until(watched, reader, 4)
    assert [each for _, each in reader.asked] == [None, "b1.7", None, None]
    assert watched.losses == ["broken_off", "bad_answer", "bad_answer"]


async def test_topics_that_were_not_held_are_asked_for_whole() -> None:
    reader = Scripted(_sent("b1.7"))
    watched = Watched(reader)
    watched.feed.want(frozenset({"nodes", "gpus"}))
    await _until(watched, reader, 2)
    for topics, last in (
        (frozenset[Topic]({"nodes"}), "b1.7"),
        (frozenset[Topic]({"nodes", "keys"}), None),
    ):
        watched.feed.want(topics)
        await _until(watched, reader, len(reader.asked) + 1)
        assert reader.asked[-1] == (",".join(sorted(topics)), last)


async def test_without_topics_there_is_no_connection() -> None:
    reader = Scripted()
    watched = Watched(reader)
    running = asyncio.create_task(watched.feed.run())
    for _ in range(5):
        await asyncio.sleep(0)
    assert reader.asked == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
