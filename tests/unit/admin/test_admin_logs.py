"""The log in memory: bounded, filtered, followed, and the same lines as are written."""

import asyncio
import logging
import threading

import msgspec

from appliance.admin.log_ring import LogRing, Wanted


def record(event: str, level: int = logging.INFO, **extra: object) -> logging.LogRecord:
    return logging.makeLogRecord(
        {"name": "appliance.t", "levelno": level, "levelname": logging.getLevelName(level)}
        | {"msg": event, "created": 1_000.0 + len(event)}
        | extra
    )


def events(ring: LogRing, wanted: Wanted | None = None) -> list[str]:
    return [line.event for line in ring.lines(wanted or Wanted())]


def test_lines_and_bytes_are_bounded_and_the_newest_stay() -> None:
    ring = LogRing(lines_max=3)
    for number in range(5):
        ring.handle(record(f"e{number}"))
    assert events(ring) == ["e2", "e3", "e4"]
    small = LogRing(bytes_max=1_000)
    for number in range(100):
        small.handle(record(f"e{number}", text="x" * 100))
    assert events(small)[-1] == "e99"
    assert len(events(small)) < 10


def test_what_does_not_fit_is_left_out() -> None:
    ring = LogRing()
    for event, level in (("a", logging.DEBUG), ("bb", logging.ERROR), ("ccc", logging.WARNING)):
        ring.handle(record(event, level, node="N7"))
    assert events(ring, Wanted(level="warning")) == ["bb", "ccc"]
    assert events(ring, Wanted(contains="n7", lines=1)) == ["ccc"]
    assert events(ring, Wanted(since_s=1_002.0)) == ["bb", "ccc"]
    assert events(ring, Wanted(after=2)) == ["ccc"]
    assert events(ring, Wanted(lines=0)) == []


def test_a_line_is_told_with_its_fields_and_a_huge_one_without() -> None:
    ring = LogRing()
    ring.handle(record("e", port=3, why=ValueError("x")))
    ring.handle(record("y" * 5_000, text="z" * 100_000))
    small, huge = ring.lines(Wanted())
    assert {n: msgspec.json.decode(v) for n, v in small.fields.items()} == {"port": 3, "why": "x"}
    assert len(huge.event) == 1_000
    assert set(huge.fields) == {"cut"}


async def test_who_follows_gets_what_comes_from_any_thread_in_order() -> None:
    ring = LogRing()
    ring.handle(record("before"))
    got: list[str] = []
    begun = asyncio.Event()

    async def read() -> None:
        async for line in ring.follow(Wanted(level="info")):
            if line is not None:
                got.append(line.event)
                begun.set()
            if got[-1:] == ["t1-99"]:
                return

    reader = asyncio.ensure_future(read())
    await asyncio.wait_for(begun.wait(), 10)

    def write(name: str) -> None:
        for number in range(100):
            ring.handle(record(f"{name}-{number}"))
            ring.handle(record("hidden", logging.DEBUG))

    for name in ("t0", "t1"):
        thread = threading.Thread(target=write, args=(name,))
        thread.start()
        await asyncio.to_thread(thread.join)
    await asyncio.wait_for(reader, 10)
    assert got == ["before", *(f"{t}-{n}" for t in ("t0", "t1") for n in range(100))]


async def test_a_reader_that_is_too_slow_is_told_how_much_is_missing() -> None:
    ring = LogRing(lines_max=10)
    follower = ring.follow(Wanted())
    ring.handle(record("first"))
    first = await anext(follower)
    assert first is not None
    for number in range(50):
        ring.handle(record(f"e{number}"))
    line = await anext(follower)
    assert line is not None
    assert (line.event, line.missed) == ("e40", 40)
    await follower.aclose()
    assert ring._readers == {}
