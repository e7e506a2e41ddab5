"""SkyPilot as bursts see it, without a cloud: machines come up, fail and are taken as told."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from appliance.fleet.burst.sky import Cluster, Request, Sight, Taken
from appliance.fleet.errors import CloudRefused, CloudUnavailable
from appliance.registry.bursts import Offer

CHEAP = Offer("RunPod", "RO", "1x_L4_SECURE", "L4", 1, True, 190_000)
STEADY = Offer("RunPod", "US", "1x_L4_SECURE", "L4", 1, False, 390_000)


@dataclass(slots=True)
class FakeClouds:
    """`away`: SkyPilot does not answer. `no_capacity`: launches fail. `stuck`: downs fail."""

    offered: Sequence[Offer] = (CHEAP, STEADY)
    away: bool = False
    no_capacity: bool = False
    stuck: bool = False
    lose_answer: bool = False  # the launch happens, its answer does not arrive
    clusters: dict[str, Cluster] = field(default_factory=dict)
    requests: dict[str, Request] = field(default_factory=dict)
    tasks: list[Mapping[str, Any]] = field(default_factory=list)
    launched: list[str] = field(default_factory=list)
    looks: int = 0
    _serial: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    async def offers(self, gpu: str, gpus: int, clouds: Sequence[str]) -> Sequence[Offer]:
        self._answer()
        return [offer for offer in self.offered if (offer.gpu, offer.gpus) == (gpu, gpus)]

    async def choose(self, task: Mapping[str, Any]) -> Taken:
        self._answer()
        if self.no_capacity:
            raise CloudRefused("SkyPilot says NoCloudAccessError: no cloud is enabled.")
        return _taken(CHEAP)

    async def launch(self, task: Mapping[str, Any], cluster: str) -> str:
        self._answer()
        self.tasks.append(task)
        self.launched.append(cluster)
        if self.no_capacity:
            return self._request("failed", "ResourcesUnavailableError: no capacity anywhere")
        self.clusters[cluster] = Cluster(cluster, "up", _taken(CHEAP))
        if self.lose_answer:
            self.lose_answer = False
            raise CloudUnavailable("SkyPilot did not answer within 120 s.")
        return self._request("succeeded")

    async def down(self, cluster: str) -> str:
        self._answer()
        if self.stuck:
            return self._request("failed", "the cloud does not answer")
        self.clusters.pop(cluster, None)
        return self._request("succeeded")

    async def look(self, requests: Sequence[str]) -> Sight:
        self._answer()
        self.looks += 1
        known = {name: self.requests[name] for name in requests if name in self.requests}
        return Sight(list(self.clusters.values()), known)

    def _request(self, state: str, message: str = "") -> str:
        name = f"request-{next(self._serial)}"
        self.requests[name] = Request(state, message)
        return name

    def _answer(self) -> None:
        if self.away:
            raise CloudUnavailable("SkyPilot cannot be asked: it is not there.")


def _taken(offer: Offer) -> Taken:
    return Taken(
        *(offer.cloud, offer.region, offer.instance_type, offer.gpu, offer.gpus),
        *(offer.spot, offer.price_micro),
    )
