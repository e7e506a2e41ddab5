"""`GET /v1/stream`: the tables of the site as server-sent events, whole at first, then changes.

All subscribers share one set of tables. A topic is computed when somebody looks at it, once for all
who look within the same half second. Nothing is kept for a slow reader: it is given what is new
when it has taken what was before.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Annotated, Final, get_args

import msgspec

from appliance.admin.calls import Call, Events, Route, Services
from appliance.admin.errors import BadRequest, TooManySubscribers
from appliance.admin.known import Known
from appliance.admin.rows import SOURCES, RowSource
from appliance.admin.tables import Tables
from appliance.domain.clock import iso
from appliance.wire.stream import Tick, Topic

_TOPICS: Final[tuple[Topic, ...]] = get_args(Topic)
_SUBSCRIBERS_MAX: Final = 32
# A topic that was computed so recently is given as it is.
_FRESH_S: Final = 0.45
_RETRY_MS: Final = 1_000


class StreamQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`topics` with commas; without it, all."""

    topics: str = ""
    every_s: Annotated[float, msgspec.Meta(ge=0.5, le=60)] = 1.0


class LiveStream:
    """The tables of one appliance and those who look at them."""

    def __init__(
        self,
        entropy: Callable[[int], bytes],
        sources: Mapping[Topic, RowSource] = SOURCES,
    ) -> None:
        self._boot = entropy(6).hex()
        self._sources = sources
        self._tables = Tables()
        self._known: Known | None = None
        self._told: dict[tuple[tuple[Topic, ...], int | None], bytes] = {}  # since it was computed
        self._computed_s: dict[Topic, float] = {}
        self._computing = asyncio.Lock()
        self._subscribers = 0
        self._over = asyncio.Event()

    async def stop(self) -> None:
        """Let every subscriber go: the appliance stops, and does not wait for them."""
        self._over.set()

    @property
    def known(self) -> Known:
        """What sources of rows make them of; there while they are asked."""
        assert self._known is not None  # made before the first source is asked
        return self._known

    def subscribe(
        self, services: Services, topics: tuple[Topic, ...], every_s: float, last_id: str
    ) -> AsyncIterator[bytes]:
        """Raises TooManySubscribers. `last_id` is what a subscriber saw last, "" for nothing."""
        if self._subscribers >= _SUBSCRIBERS_MAX:
            raise TooManySubscribers(
                f"{self._subscribers} subscribers look at the live stream already.",
                next_step="Close a console, or ask for `cic status`.",
            )
        return self._events(services, topics, every_s, self._seen(last_id))

    async def rows(
        self, services: Services, topics: tuple[Topic, ...]
    ) -> dict[Topic, dict[str, msgspec.Struct]]:
        """The rows of now, as they are for subscribers, for who looks at the site from inside."""
        await self._refresh(services, topics)
        return {topic: self._tables.messages(topic) for topic in topics}

    def _seen(self, last_id: str) -> int | None:
        boot, _, version = last_id.partition(".")
        if boot != self._boot or not (version.isascii() and version.isdecimal()):
            return None
        return min(int(version), self._tables.version)

    async def _events(
        self, services: Services, topics: tuple[Topic, ...], every_s: float, since: int | None
    ) -> AsyncIterator[bytes]:
        self._subscribers += 1
        try:
            yield b"retry: %d\n\n" % _RETRY_MS
            while not self._over.is_set():
                began_s = services.clock.monotonic_s()
                await self._refresh(services, topics)
                event = self._event(services, topics, since)
                since = self._tables.version
                yield event
                took_s = services.clock.monotonic_s() - began_s
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._over.wait(), max(_FRESH_S, every_s - took_s))
        finally:
            self._subscribers -= 1

    async def _refresh(self, services: Services, topics: tuple[Topic, ...]) -> None:
        async with self._computing:
            now_s = services.clock.monotonic_s()
            old = [
                (topic, self._sources[topic])
                for topic in topics
                if topic in self._sources
                and now_s - self._computed_s.get(topic, -_FRESH_S) >= _FRESH_S
            ]
            if not old:
                return
            if self._known is None:
                self._known = Known(services)
            await self._known.renew()
            self._told.clear()
            for topic, source in old:
                self._tables.take(topic, await source(services))
                self._computed_s[topic] = now_s

    def _event(self, services: Services, topics: tuple[Topic, ...], since: int | None) -> bytes:
        """What those see who saw version `since`: encoded once for all of them."""
        event = self._told.get((topics, since))
        if event is None:
            changes = self._tables.changes(topics, since)
            text = msgspec.json.encode(Tick(at=iso(services.clock.wall_ns()), changes=changes))
            event = b"id: %s.%d\ndata: %s\n\n" % (
                *(self._boot.encode(), self._tables.version),
                text,
            )
            self._told[topics, since] = event
        return event


async def stream(services: Services, call: Call[StreamQuery, None]) -> Events:
    named = [word.strip() for word in call.query.topics.split(",") if word.strip()]
    unknown = sorted(set(named) - set(_TOPICS))
    if unknown:
        raise BadRequest(
            f"topics: there is no topic '{unknown[0]}'.",
            next_step=f"Topics: {', '.join(_TOPICS)}.",
        )
    topics = tuple(topic for topic in _TOPICS if topic in named or not named)
    return Events(services.stream.subscribe(services, topics, call.query.every_s, call.last_id))


ROUTES: Final = (
    Route(
        *("GET", "/v1/stream", "The site as it changes, as server-sent events", stream, Tick),
        query=StreamQuery,
        streams=True,
    ),
)
