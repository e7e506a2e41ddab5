"""What a second of the live stream costs the appliance, in CPU time of the thread that serves.

    python -m tests.benchmarks.bench_stream

Not a test: it prints milliseconds a tick (so, at one a second, tenths of a percent of a core) and
judges nothing. A site of 64 nodes with 8 GPUs each, 200 deployments of two replicas and 500 tenants
stands in a real registry; before each tick a third of the GPUs and replicas and a fifth of the
tenants have other figures, as new messages of agents bring them.
"""

import asyncio
import random
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Final, get_args

import msgspec

from appliance.admin.pace import Counted
from appliance.admin.ports import DeploymentLive, LiveReplica, NodeLive
from appliance.wire.fleet import Replica
from appliance.wire.gpu import Gpu
from appliance.wire.stream import Topic
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.simulated_fleet import SimulatedFleet

NODES: Final = 64
DEPLOYMENTS: Final = 200
TENANTS: Final = 500
TICKS: Final = 60
DASH: Final[tuple[Topic, ...]] = (
    *("site", "nodes", "gpus", "deployments", "tenants", "sync", "alerts"),
)
SETS: Final[dict[str, tuple[Topic, ...]]] = {
    "site, alerts, sync": ("site", "alerts", "sync"),
    "the Dash": DASH,
    "all topics": get_args(Topic),
}


class Simulation:
    """Lets a second pass on the doubles of a served site."""

    def __init__(self, site: AdminSite) -> None:
        self._site = site
        self._chance = random.Random(1)
        self._replicas: dict[str, list[Replica]] = {}
        self._tenants: dict[str, Counted] = {}
        self._deployments: dict[str, Counted] = {}
        self._ids: dict[str, str] = {}

    async def populate(self) -> None:
        registry = self._site.services.registry
        rows = SimulatedFleet(nodes=NODES, gpus=8).tables()["gpus"].values()
        own = {field.name for field in msgspec.structs.fields(Gpu)}
        gpus = [msgspec.convert({name: row[name] for name in own}, Gpu) for row in rows]
        for n in range(NODES):
            node = await registry.nodes.ensure("bench", f"gpu-{n:02}")
            self._site.live.nodes[node.id] = NodeLive(
                *("ready", "0.1.0", 128, 2**40),
                gpus=("NVIDIA H100",) * 8,
                engines=("vllm",),
                last_seen_at="2026-11-23T19:22:00Z",
                gpu_figures=tuple(gpus[8 * n : 8 * n + 8]),
            )
        for d in range(DEPLOYMENTS):
            row = await registry.deployments.create(
                "bench", f"model-{d:03}", "external", url="https://engine.test"
            )
            self._ids[row.id] = row.name
            self._replicas[row.id] = [
                Replica(
                    *(f"rep_{d}_{r}", f"gpu-{d % NODES:02}", "ready", "", None, 4_000, 0, 32),
                    *(8_192, 1_200.0, 9, "2026-11-23T12:00:00Z"),
                    output_tokens_per_s=400.0,
                    cache_used_percent=30.0,
                )
                for r in range(2)
            ]
            self._deployments[row.name] = Counted(first_token=(0,) * 12)
        for t in range(TENANTS):
            name = f"tenant-{t:03}"
            tenant = await registry.tenants.create("bench", name)
            await registry.environments.create("bench", "prod", tenant=name)
            await registry.keys.create("bench", tenant=name, environment="prod", name="key")
            self._tenants[tenant.id] = Counted(first_token=(0,) * 12)

    def step(self) -> None:
        chance, live = self._chance, self._site.live
        for node_id, node in live.nodes.items():
            figures = tuple(
                msgspec.structs.replace(gpu, utilisation=chance.randrange(100))
                if chance.random() < 0.3
                else gpu
                for gpu in node.gpu_figures
            )
            live.nodes[node_id] = replace(node, gpu_figures=figures)
        running: dict[str, LiveReplica] = {}
        for deployment_id, replicas in self._replicas.items():
            name = self._ids[deployment_id]
            if chance.random() < 0.3:
                self._deployments[name] = _more(self._deployments[name], chance)
                replicas[0] = msgspec.structs.replace(
                    replicas[0], output_tokens_per_s=float(chance.randrange(900))
                )
            live.deployments[deployment_id] = DeploymentLive("ready", "", tuple(replicas))
            for replica in replicas:
                running[replica.id] = LiveReplica(len(name) % 7, False, 1_200.0, 0)
        for tenant_id, counted in self._tenants.items():
            if chance.random() < 0.2:
                self._tenants[tenant_id] = _more(counted, chance)
        self._site.traffic.now = replace(
            self._site.traffic.now,
            deployments=dict(self._deployments),
            tenants=dict(self._tenants),
            replicas=running,
        )


def _more(counted: Counted, chance: random.Random) -> Counted:
    bands = list(counted.first_token)
    bands[chance.randrange(len(bands))] += 1
    tokens = counted.output_tokens + chance.randrange(50, 900)
    return replace(
        counted, requests=counted.requests + 1, output_tokens=tokens, first_token=tuple(bands)
    )


async def cost_ms(site: AdminSite, topics: tuple[Topic, ...], of: Simulation) -> tuple[float, int]:
    """The median of a tick, and its bytes."""
    services, stream = site.services, site.services.stream
    costs, sizes = [], []
    since = None
    for tick in range(TICKS):
        of.step()
        services.watch.sample()
        stream._computed_s.clear()  # half a second passed
        began_s = time.thread_time()
        await stream._refresh(services, topics)
        event = stream._event(services, topics, since)
        since = stream._tables.version
        if tick >= 5:
            costs.append((time.thread_time() - began_s) * 1000)
            sizes.append(len(event))
        await asyncio.sleep(0)
    return statistics.median(costs), int(statistics.median(sizes))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(Path(folder)) as site:
        simulation = Simulation(site)
        asyncio.run_coroutine_threadsafe(simulation.populate(), site.loop).result()
        simulation.step()
        for name, topics in SETS.items():
            work = cost_ms(site, topics, simulation)
            milliseconds, size = asyncio.run_coroutine_threadsafe(work, site.loop).result()
            print(f"{name:<20} {milliseconds:7.2f} ms  {size / 1024:7.1f} KiB")
        sample_ms = []
        for _ in range(TICKS):
            simulation.step()
            began_s = time.thread_time()
            site.services.watch.sample()
            sample_ms.append((time.thread_time() - began_s) * 1000)
        print(f"{'reading counters':<20} {statistics.median(sample_ms):7.2f} ms")


if __name__ == "__main__":
    main()
