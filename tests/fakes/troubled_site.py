"""A simulated site where anything goes wrong, and a `cic` that does anything. By a seed."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from appliance.wire.admin import (
    AuditEntry,
    Environment,
    Key,
    LayerReport,
    LedgerRow,
    SiteStatus,
    UsageRow,
)
from appliance.wire.backups import BackupList
from appliance.wire.burst import Burst
from appliance.wire.certificates import SiteCertificate
from appliance.wire.checks import CheckResult
from appliance.wire.engine_traces import ReplicaDump, ReplicaLog
from appliance.wire.fleet import Model, Node, Region
from appliance.wire.gpu import GpuHistory, NodeGpu
from appliance.wire.log_lines import LogLine
from appliance.wire.manifests import ManifestShown
from appliance.wire.models import CatalogueModel, PackCopying, PackSeen
from appliance.wire.node_tokens import NodeCertificate, NodeToken
from appliance.wire.placement import Explanation
from appliance.wire.settings import Setting
from appliance.wire.stream import (
    Alert,
    Change,
    DeploymentRow,
    Event,
    HistorySeries,
    LimitRow,
    ReplicaRow,
    RequestRow,
    SiteRow,
    TenantRow,
    Topic,
)
from appliance.wire.sync import EntitlementStatus, SyncStatus
from tests.fakes.random_messages import random_message, random_row, random_text
from tests.fakes.simulated_fleet import SimulatedFleet
from tests.fakes.simulated_site import Faults, SimulatedSite

ROWS: Final[Mapping[Topic, type[msgspec.Struct]]] = {
    "site": SiteRow,
    "nodes": Node,
    "gpus": NodeGpu,
    "deployments": DeploymentRow,
    "replicas": ReplicaRow,
    "requests": RequestRow,
    "models": Model,
    "tenants": TenantRow,
    "environments": Environment,
    "keys": Key,
    "limits": LimitRow,
    "sync": SyncStatus,
    "alerts": Alert,
    "events": Event,
}
# End of a path -> its answer; `LINES` are answered as one object a line.
_ANSWERS: Final[Sequence[tuple[str, Any]]] = (
    ("/v1/status", SiteStatus),
    ("/v1/limits", list[LayerReport]),
    ("/v1/usage", list[UsageRow]),
    ("/v1/entitlement", EntitlementStatus),
    ("/v1/settings", list[Setting]),
    ("/v1/certificates", list[SiteCertificate]),
    ("/v1/backups", BackupList),
    ("/v1/regions", list[Region]),
    ("/v1/bursts", list[Burst]),
    ("/v1/node-tokens", list[NodeToken]),
    ("/v1/node-certificates", list[NodeCertificate]),
    ("/v1/history", list[HistorySeries]),
    ("/gpu-history", GpuHistory),
    ("/explain", Explanation),
    ("/logs", list[ReplicaLog]),
    ("/dumps", list[ReplicaDump]),
    ("/v1/models/catalogue", list[CatalogueModel]),
    ("/v1/models/packs/copying", PackCopying),
    ("/v1/models/packs/look", PackSeen),
)
_LINES: Final[Mapping[str, Any]] = {
    "/v1/checks": CheckResult,
    "/v1/audit": AuditEntry,
    "/v1/ledger": LedgerRow,
    "/v1/logs": LogLine,
}
_FAULTS: Final = (
    Faults(slow_s=0.05),
    Faults(status=500),
    Faults(status=403),
    Faults(status=503, slow_s=0.02),
    Faults(garbage=True),
    Faults(another=True),
    Faults(cut=True),
    Faults(hang_up=True),
    Faults(silent=True),
)
_AWAY_S: Final = 0.03


class TroubledSite:
    """`note` is told what goes wrong, `began` the arguments of each command."""

    def __init__(
        self,
        site: SimulatedSite,
        chance: random.Random,
        note: Callable[[str], None],
        began: Callable[[Sequence[str]], None],
    ) -> None:
        self.site = site
        self.chance = chance
        self._note = note
        self._began = began
        self._odd = False

    async def step(self) -> None:
        self._note("step")
        if self._odd:  # rows that the fleet has not made itself do not live
            self.site.tell()
        else:
            self.site.step()

    async def odd_rows(self) -> None:
        """Rows go, come, and change into anything their type allows."""
        tables = self.site.fleet.tables()
        topic = self.chance.choice(tuple(ROWS))
        table = tables[topic]
        self._note(f"rows of {topic}")
        self._odd = True
        ids = list(table)
        doing = self.chance.random()
        if doing < 0.3 and ids and topic not in ("site", "sync"):
            for row_id in self.chance.sample(ids, self.chance.randrange(len(ids) + 1)):
                del table[row_id]
        elif doing < 0.5 and ids:
            row_id = self.chance.choice(ids)
            made = random_row(ROWS[topic], self.chance)
            names = [name for name in made if not _is_name(name)]
            for name in self.chance.sample(names, min(3, len(names))):
                table[row_id] = {**table[row_id], name: made[name]}
        elif len(ids) < 60:
            row_id = ids[0] if topic in ("site", "sync") and ids else f"x_{self.chance.random()}"
            made = random_row(ROWS[topic], self.chance)
            base = table[self.chance.choice(ids)] if ids else made
            table[row_id] = {**made, **{name: base[name] for name in base if _is_name(name)}}
            if "id" in made:
                table[row_id]["id"] = row_id
        self.site.tell()

    async def unknown_rows(self) -> None:
        """Changes of rows that nobody was told of before, and ends of such."""
        topic = self.chance.choice(tuple(ROWS))
        self._note(f"unknown rows of {topic}")
        made = random_row(ROWS[topic], self.chance)
        names = [name for name in made if not _is_name(name) and name not in ("mode", "seq")]
        part = {name: made[name] for name in self.chance.sample(names, min(2, len(names)))}
        change = Change(topic=topic, rows={"never_seen": part}, gone=["never_there"])
        self.site.beside = (change,)
        self.site.tell()

    async def fault(self) -> None:
        self.site.faults = self.chance.choice(_FAULTS)
        self._note(f"fault {self.site.faults}")
        self.site.tell()

    async def leave(self) -> None:
        """Its socket goes, and comes back at once or with the next that is mended."""
        self._note("its socket goes")
        await self.site.leave()
        if self.chance.random() < 0.5:
            await asyncio.sleep(_AWAY_S)
            await self.site.come_back()

    async def mend(self) -> None:
        self._note("mend")
        self.site.faults = Faults()
        self.site.beside = ()
        await self.site.come_back()
        self.site.tell()

    async def restart(self) -> None:
        self._note("restart")
        self.site.fleet = SimulatedFleet(
            condition=self.chance.choice(("busy", "busy", "failed", "empty")),
            seed=self.chance.randrange(1_000),
        )
        self._odd = False
        self.site.boot = f"b{self.chance.randrange(10**6)}"
        self.site.faults = Faults(hang_up=True)
        self.site.tell()
        await asyncio.sleep(0.02)
        await self.mend()

    async def role(self) -> None:
        self.site.role = self.chance.choice(("viewer", "operator", "admin", "admin", "admin"))
        self._note(f"role {self.site.role}")
        await self.restart()

    async def answers(self) -> None:
        """Other answers for what is read beside the stream, or those that it had."""
        self._note("answers")
        self.site.answers = {} if self.chance.random() < 0.4 else _Answers(self.chance)

    # What `cic` would have done.

    async def child(
        self,
        arguments: Sequence[str],
        _stdin: str,
        _extra: Mapping[str, str],
        answer: bytearray | None,
        on_line: Callable[[str], None],
    ) -> int:
        assert all(isinstance(each, str) for each in arguments), arguments
        self._began(arguments)
        self._note(f"child {list(arguments)}")
        chance = random.Random(self.chance.random())
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.01, 0.1)))
        for _ in range(chance.randrange(5)):
            on_line(random_text(chance, 100))
            await asyncio.sleep(0)
        if chance.random() < 0.05:
            raise FileNotFoundError(2, "No such file or directory", "cic")
        code = chance.choice((0, 0, 0, 1, 2, 5, 130))
        if answer is not None:
            refusal = {"code": "refused", "message": random_text(chance), "next_step": "Look."}
            good = {"secret": "sk-1", "name": random_text(chance), "id": "x", "warnings": ["w"]}
            made = good if code == 0 else {"error": refusal}
            answer += chance.choice((msgspec.json.encode(made), b"", b'{"half', b"\xff[]", b"[1]"))
        return code


class _Answers(dict[str, Any]):
    """An answer by chance for each path that has a type."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = random.Random(chance.random())

    def __contains__(self, path: object) -> bool:
        return self._chance.random() < 0.9 and self._kind(str(path)) is not None

    def _kind(self, path: str) -> Any:
        if path in _LINES:
            return _LINES[path]
        if path == "/metrics":
            return bytes
        if path.startswith("/v1/manifests/"):
            return ManifestShown
        return next((kind for end, kind in _ANSWERS if path.endswith(end)), None)

    def __getitem__(self, path: str) -> Any:
        kind = self._kind(path)
        if path in _LINES:
            number = self._chance.randrange(12)
            rows = [random_message(kind, self._chance) for _ in range(number)]
            return b"\n".join(msgspec.json.encode(row) for row in rows) + b"\n"
        if kind is bytes:
            return random_text(self._chance, 200).encode() + b"\nx_total 1\ny NaN\n"
        return random_message(kind, self._chance)


def _is_name(name: str) -> bool:
    """Fields by which rows name one another."""
    return name in ("id", "name", "kind") or name.endswith("_id")
