"""What the console knows of the site: the tables of the live stream, and how old they are. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from appliance.wire.stream import Tick, Topic
from console.cells import Row

_NOTHING: Final[Mapping[str, Row]] = MappingProxyType({})
_NO_IDS: Final[frozenset[str]] = frozenset()
# What each row of a topic says of itself and never changes: a new row that lacks it is a part.
_SAYS_WHO: Final[Mapping[Topic, str]] = MappingProxyType(
    {
        "site": "started_at",
        "nodes": "id",
        "gpus": "uuid",
        "deployments": "id",
        "replicas": "id",
        "requests": "id",
        "models": "id",
        "tenants": "id",
        "environments": "id",
        "keys": "id",
        "limits": "name",
        "sync": "mode",
        "alerts": "id",
        "events": "seq",
    }
)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a Tick changed. A topic in `whole` was replaced; `rows` names what came or changed."""

    whole: frozenset[Topic] = frozenset()
    rows: Mapping[Topic, frozenset[str]] = field(default_factory=dict)
    gone: Mapping[Topic, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def everything(cls, topics: Iterable[Topic]) -> "Changes":
        """For a view that shows itself anew."""
        return cls(whole=frozenset(topics))

    def touches(self, topic: Topic) -> bool:
        return topic in self.whole or topic in self.rows or topic in self.gone

    def changed(self, topic: Topic) -> frozenset[str]:
        return self.rows.get(topic, _NO_IDS)

    def ended(self, topic: Topic) -> frozenset[str]:
        return self.gone.get(topic, _NO_IDS)

    def __bool__(self) -> bool:
        return bool(self.whole or self.rows or self.gone)


class Store:
    """The newest rows of each topic that was ever subscribed, by their ids.

    A changed row is a new object, so who kept the old one can compare. Rows of a topic that is not
    subscribed any more stay as they were; `fresh` tells the two apart.
    """

    def __init__(self) -> None:
        self._tables: dict[Topic, dict[str, Row]] = {}
        self._heard_ns: int | None = None
        self._fresh: frozenset[Topic] = frozenset()

    def table(self, topic: Topic) -> Mapping[str, Row]:
        """By id; empty where nothing came yet. Not to be changed."""
        return self._tables.get(topic, _NOTHING)

    def row(self, topic: Topic, row_id: str) -> Row | None:
        return self.table(topic).get(row_id)

    @property
    def site(self) -> Row | None:
        """The row of the topic `site`; None until it came."""
        return self.row("site", "site")

    def knows(self, topic: Topic) -> bool:
        """Whether the table came at all: an empty one is not the same as none."""
        return topic in self._tables

    def subscribed(self, topics: frozenset[Topic]) -> None:
        """A new subscription began: only its topics will be kept fresh."""
        self._fresh = topics

    def fresh(self, topic: Topic) -> bool:
        return topic in self._fresh and topic in self._tables

    def age_s(self, now_ns: int) -> float | None:
        """Since anything was heard (monotonic); None before the first Tick."""
        return None if self._heard_ns is None else max(0.0, (now_ns - self._heard_ns) / 1e9)

    def apply(self, tick: Tick, now_ns: int) -> Changes:
        """Take a Tick; tells what is different now. `now_ns` is monotonic."""
        self._heard_ns = now_ns
        whole: set[Topic] = set()
        rows: dict[Topic, frozenset[str]] = {}
        gone: dict[Topic, frozenset[str]] = {}
        for change in tick.changes:
            topic = change.topic
            if change.whole:
                self._tables[topic] = dict(change.rows)
                whole.add(topic)
                continue
            table = self._tables.setdefault(topic, {})
            came = set()
            for row_id, fields in change.rows.items():
                old = table.get(row_id)
                if old is not None or _SAYS_WHO[topic] in fields:  # else a part of who knows what
                    table[row_id] = {**(old or {}), **fields}
                    came.add(row_id)
            ended = frozenset(
                row_id for row_id in change.gone if table.pop(row_id, None) is not None
            )
            if came:
                rows[topic] = frozenset(came)
            if ended:
                gone[topic] = ended
        return Changes(frozenset(whole), rows, gone)
