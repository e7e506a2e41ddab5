"""What the rows of the live stream are made of: read once a tick, from the registry only if it
changed."""

import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeVar, cast, get_args

import msgspec

from appliance.admin.calls import Services
from appliance.admin.deployments import deployment_view
from appliance.admin.keys import key_view
from appliance.admin.ports import DeploymentLive, Traffic
from appliance.admin.tenants import environment_view
from appliance.domain.clock import iso
from appliance.domain.ids import NodeId
from appliance.domain.limits import Layer, Limits
from appliance.registry.api_keys import KeyRow
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.environments import EnvironmentRow
from appliance.registry.limits import LimitName
from appliance.registry.models import ModelRow
from appliance.registry.nodes import NodeRow
from appliance.registry.snapshot import Snapshot
from appliance.registry.tenants import TenantRow
from appliance.wire.admin import Environment, Key
from appliance.wire.fleet import Deployment
from appliance.wire.gpu import Gpu, NodeGpu

T = TypeVar("T")
LIMITS: Final[tuple[LimitName, ...]] = get_args(LimitName)
# The GPUs of a node as they were told, whether that is old, its name, and their rows.
_NodeGpus = tuple[tuple[Gpu, ...], bool, str, dict[str, NodeGpu]]
# What a deployment is made of: its row, what the fleet sees, names of nodes, its model suspended.
DeploymentSeen = tuple[DeploymentRow, DeploymentLive | None, Mapping[NodeId, str], bool]
# Scope -> its layer, the name of whose it is, and the limits in force.
Scopes = Mapping[str, tuple[Layer, str, Limits]]


class Known:
    """Of one set of tables. `renew` begins a tick; lists of the registry stay until it changes."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._snapshot: Snapshot | None = None
        self._kept: dict[str, Any] = {}  # until the registry changes
        self._tick: dict[str, Any] = {}  # until the next tick
        self._gpus: dict[NodeId, _NodeGpus] = {}
        self._seen: dict[str, tuple[DeploymentSeen, Deployment]] = {}

    async def renew(self) -> None:
        """What was seen in the last tick is old. Raises StorageError."""
        snapshot = await self._services.registry.snapshot()
        if snapshot is not self._snapshot:
            self._snapshot = snapshot
            self._kept.clear()
        self._tick.clear()

    async def tenants(self) -> Sequence[TenantRow]:
        return await self._list("tenants", self._services.registry.tenants.list)

    async def environments(self) -> Sequence[EnvironmentRow]:
        return await self._list("environments", self._services.registry.environments.list)

    async def keys(self) -> Sequence[KeyRow]:
        return await self._list("keys", self._services.registry.keys.list)

    async def environment_views(self) -> Mapping[str, Environment]:
        """As they are told, by id."""
        if "environment views" not in self._kept:
            self._kept["environment views"] = {
                row.id: environment_view(row) for row in await self.environments()
            }
        found: Mapping[str, Environment] = self._kept["environment views"]
        return found

    async def key_views(self) -> Mapping[str, Key]:
        """As they are told, by id: the same until the registry changes, or a key expires."""
        now_ns = self._services.clock.wall_ns()
        made_ns, until_ns, found = self._kept.get("key views", (0, 0, {}))
        if made_ns <= now_ns < until_ns:
            return cast("Mapping[str, Key]", found)
        rows = await self.keys()
        views: dict[str, Key] = {row.id: key_view(row, now_ns) for row in rows}
        ends = [
            at_ns
            for row in rows
            for at_ns in (row.expires_at_ns, row.retiring_until_ns)
            if at_ns is not None and at_ns > now_ns
        ]
        self._kept["key views"] = now_ns, min(ends, default=sys.maxsize), views
        return views

    async def models(self) -> Sequence[ModelRow]:
        return await self._list("models", self._services.registry.models.list)

    async def nodes(self) -> Sequence[NodeRow]:
        return await self._list("nodes", self._services.registry.nodes.list)

    async def denied(self) -> Collection[NodeId]:
        """Nodes whose certificates were revoked."""
        return await self._list("denied", self._services.registry.node_certificates.denied)

    async def holders(self) -> Collection[NodeId]:
        """Nodes that have a certificate."""
        return await self._list("holders", self._services.registry.node_certificates.holders)

    async def deployments(self) -> Sequence[Deployment]:
        """As they stand now, with their replicas."""
        if "deployments" not in self._tick:
            rows = await self._list("deployments", self._services.registry.deployments.list)
            suspended = {row.id for row in await self.models() if row.suspended}
            names = await self._list("names of nodes", self._names)
            of = self._services.live.deployment
            self._seen = {
                row.id: self._as_seen(row.id, (row, of(row.id), names, row.model_id in suspended))
                for row in rows
            }
            self._tick["deployments"] = [view for _, view in self._seen.values()]
        found: Sequence[Deployment] = self._tick["deployments"]
        return found

    async def _names(self) -> Mapping[NodeId, str]:
        return {row.id: row.name for row in await self.nodes()}

    def _as_seen(
        self, deployment_id: str, seen: DeploymentSeen
    ) -> tuple[DeploymentSeen, Deployment]:
        """The same one as long as nothing of it changed."""
        kept = self._seen.get(deployment_id)
        if kept is not None and kept[0] == seen:
            return kept
        row, live, names, suspended = seen
        return seen, deployment_view(row, live, names, model_suspended=suspended)

    def traffic(self) -> Traffic:
        """As it was at the beginning of this tick."""
        if "traffic" not in self._tick:
            self._tick["traffic"] = self._services.watch.traffic()
        found: Traffic = self._tick["traffic"]
        return found

    async def sizes(self) -> tuple[Mapping[str, int], Mapping[str, int]]:
        """How many environments and keys each tenant has."""
        if "sizes" not in self._kept:
            environments = Counter(row.tenant_id for row in await self.environments())
            keys = Counter(row.tenant_id for row in await self.keys())
            self._kept["sizes"] = environments, keys
        found: tuple[Mapping[str, int], Mapping[str, int]] = self._kept["sizes"]
        return found

    async def created(self) -> Mapping[str, str]:
        """When each tenant was made, as it is told."""
        if "created" not in self._kept:
            self._kept["created"] = {row.id: iso(row.created_at_ns) for row in await self.tenants()}
        found: Mapping[str, str] = self._kept["created"]
        return found

    def tenant_limits(self) -> Sequence[tuple[str, Sequence[tuple[LimitName, int]]]]:
        """Of the tenants that have limits of their own in force: id, and what limits how much."""
        if "tenant limits" not in self._kept:
            self._kept["tenant limits"] = [
                (scope_id, [(n, value) for n in LIMITS if (value := getattr(limits, n))])
                for scope_id, (layer, _, limits) in self.scopes().items()
                if layer is Layer.TENANT
            ]
        found: Sequence[tuple[str, Sequence[tuple[LimitName, int]]]] = self._kept["tenant limits"]
        return found

    def scopes(self) -> Scopes:
        """Of keys that could be used: a limit of nobody limits nothing."""
        if "scopes" not in self._kept:
            assert self._snapshot is not None  # renewed before anything is asked
            self._kept["scopes"] = _scopes(self._snapshot)
        found: Scopes = self._kept["scopes"]
        return found

    async def gpus(self) -> dict[str, NodeGpu]:
        """A silent node's are marked: their figures are old."""
        found: dict[str, NodeGpu] = {}
        nodes = await self.nodes()
        for row in nodes:
            live = self._services.live.node(row.id)
            if live is None:
                self._gpus.pop(row.id, None)
                continue
            stale = live.state == "unreachable"
            kept = self._gpus.get(row.id)
            if kept is None or kept[1:3] != (stale, row.name):
                kept = None
            if kept is None or kept[0] is not live.gpu_figures:
                made = _of_node(live.gpu_figures, row, kept, stale=stale)
                kept = self._gpus[row.id] = (live.gpu_figures, stale, row.name, made)
            found |= kept[3]
        for gone in self._gpus.keys() - {row.id for row in nodes}:
            del self._gpus[gone]
        return found

    async def _list(self, name: str, reading: Callable[[], Awaitable[T]]) -> T:
        if name not in self._kept:
            self._kept[name] = await reading()
        found: T = self._kept[name]
        return found


def _of_node(
    gpus: Sequence[Gpu], row: NodeRow, kept: _NodeGpus | None, *, stale: bool
) -> dict[str, NodeGpu]:
    """By UUID. Those that are as they were are the same objects: they need no second look."""
    before = {} if kept is None else {gpu.uuid: gpu for gpu in kept[0]}
    made: dict[str, NodeGpu] = {}
    for gpu in gpus:
        if kept is not None and before.get(gpu.uuid) == gpu:
            made[gpu.uuid] = kept[3][gpu.uuid]
        else:
            fields = msgspec.structs.asdict(gpu)
            made[gpu.uuid] = NodeGpu(node=row.name, node_id=row.id, stale=stale, **fields)
    return made


def _scopes(snapshot: Snapshot) -> Scopes:
    found: dict[str, tuple[Layer, str, Limits]] = {}
    for credential in snapshot.credentials.values():
        names = {
            Layer.GLOBAL: "site",
            Layer.TENANT: credential.tenant_name,
            Layer.ENVIRONMENT: f"{credential.tenant_name}/{credential.environment_name}",
            Layer.KEY: credential.key_name,
        }
        for each in credential.layers:
            found.setdefault(each.scope_id, (each.layer, names[each.layer], each.limits))
    return found
