"""What the engines themselves say they made, added up over every restart since the site began.

An engine counts from 0 at each start. `incarnation` tells one start of a replica from the next; a
counter that falls within one is a restart that nobody told us of. So the sum never falls. It is a
lower bound: what an engine counted after its last reading and before its end is not in it.
"""

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from appliance.manifests.documents import EngineCounters

TALLIES_MAX: Final = 100_000
QUANTITY_MAX: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EngineReading:
    """The counters of one running engine, as it tells them."""

    replica_id: str
    incarnation: str
    prompt_tokens: int
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class EngineCounts:
    """The sums, and the last reading of every replica that they contain."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    last: Mapping[str, EngineReading] = field(default_factory=dict)  # by replica id

    def counters(self) -> EngineCounters:
        """As they stand in a header."""
        return EngineCounters(
            prompt_tokens=str(self.prompt_tokens), generated_tokens=str(self.generated_tokens)
        )


class EngineTally:
    """Readings as they come in, kept until they are sealed; those of engines that ended, too."""

    __slots__ = ("_readings",)

    def __init__(self) -> None:
        self._readings: dict[tuple[str, str], EngineReading] = {}  # in the order of first sight

    def observe(self, reading: EngineReading) -> None:
        """The newest of an engine stands; more starts of replicas than any site has are refused."""
        key = (reading.replica_id, reading.incarnation)
        if key in self._readings or len(self._readings) < TALLIES_MAX:
            self._readings[key] = reading

    def readings(self) -> list[EngineReading]:
        """To be sealed, in an order in which `advance` takes each start of a replica once."""
        return list(self._readings.values())

    def sealed(self, readings: Iterable[EngineReading]) -> None:
        """These are in a manifest: forget those that a later start of the same replica followed."""
        newest = dict(self._readings.keys())  # the last start of each replica
        for reading in readings:
            if newest.get(reading.replica_id) != reading.incarnation:
                self._readings.pop((reading.replica_id, reading.incarnation), None)


def advance(counts: EngineCounts, readings: Iterable[EngineReading]) -> EngineCounts:
    """The counts after these readings. What an engine could not have counted is left out."""
    prompt, generated = counts.prompt_tokens, counts.generated_tokens
    last = dict(counts.last)
    for reading in readings:
        if min(reading.prompt_tokens, reading.generated_tokens) < 0:
            continue
        before = last.get(reading.replica_id)
        more_prompt, more_generated = reading.prompt_tokens, reading.generated_tokens
        if before is not None and _goes_on(before, reading):
            more_prompt -= before.prompt_tokens
            more_generated -= before.generated_tokens
        if max(prompt + more_prompt, generated + more_generated) > QUANTITY_MAX:
            continue
        prompt, generated = prompt + more_prompt, generated + more_generated
        last[reading.replica_id] = reading
    return EngineCounts(prompt, generated, last)


def _goes_on(before: EngineReading, after: EngineReading) -> bool:
    return (
        before.incarnation == after.incarnation
        and after.prompt_tokens >= before.prompt_tokens
        and after.generated_tokens >= before.generated_tokens
    )


def load_counts(connection: sqlite3.Connection) -> EngineCounts:
    prompt, generated = connection.execute(
        "SELECT prompt_tokens, generated_tokens FROM engine_totals"
    ).fetchone()
    rows = connection.execute(
        "SELECT replica_id, incarnation, prompt_tokens, generated_tokens FROM engine_readings"
    )
    return EngineCounts(prompt, generated, {row[0]: EngineReading(*row) for row in rows})


def store_counts(
    connection: sqlite3.Connection, counts: EngineCounts, readings: Iterable[EngineReading]
) -> None:
    """Keep the sums, and the last reading of each of these replicas."""
    connection.execute(
        "UPDATE engine_totals SET prompt_tokens = ?, generated_tokens = ?",
        (counts.prompt_tokens, counts.generated_tokens),
    )
    connection.executemany(
        "INSERT INTO engine_readings VALUES (?, ?, ?, ?) ON CONFLICT (replica_id) DO UPDATE SET"
        " incarnation = excluded.incarnation, prompt_tokens = excluded.prompt_tokens,"
        " generated_tokens = excluded.generated_tokens",
        [
            (one.replica_id, one.incarnation, one.prompt_tokens, one.generated_tokens)
            for reading in readings
            if (one := counts.last.get(reading.replica_id)) is not None
        ],
    )
