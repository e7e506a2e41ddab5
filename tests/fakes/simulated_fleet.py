"""A large site that does not exist: rows of the live stream that change by a seed. Pure."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import msgspec

from appliance.wire.admin import Environment, Key, LayerReport, LimitValues, UsageRow
from appliance.wire.fleet import Model, Node
from appliance.wire.gpu import Driver, GpuLink, GpuProcess, HealthPart, NodeGpu, NodeHealth
from appliance.wire.stream import (
    Alert,
    DeploymentRow,
    Event,
    LimitRow,
    ReplicaRow,
    RequestRow,
    SiteRow,
    TenantRow,
)
from appliance.wire.sync import SyncStatus

Rows = dict[str, dict[str, Any]]
Condition = Literal["empty", "busy", "failed"]

GIB = 1024**3
_MODELS = ("llama-3-70b", "llama-3-8b", "mistral-7b", "qwen-2.5-32b", "gemma-2-9b", "phi-3-mini")
_PLANS = ("free", "developer", "business", "enterprise")


def iso(at: datetime) -> str:
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


class SimulatedFleet:
    """`tables()` are whole rows by topic; `step()` lets a second pass."""

    def __init__(
        self,
        *,
        nodes: int = 4,
        gpus: int = 8,
        deployments: int = 6,
        tenants: int = 5,
        condition: Condition = "busy",
        seed: int = 1,
        now: datetime = datetime(2026, 11, 23, 19, 22, tzinfo=UTC),
    ) -> None:
        self._chance = random.Random(seed)
        self.now = now
        self.condition = condition
        self._began = now
        self._events = 0
        empty = condition == "empty"
        self._tables: dict[str, Rows] = {
            topic: {}
            for topic in (
                *("site", "nodes", "gpus", "deployments", "replicas", "requests", "models"),
                *("tenants", "environments", "keys", "limits", "sync", "alerts", "events"),
            )
        }
        if not empty:
            self._make_models()
            self._make_nodes(nodes, gpus)
            self._make_deployments(deployments)
            self._make_tenants(tenants)
            self._make_requests()
        self._make_sync()
        self._make_site()
        if condition == "failed":
            self._break()
        if not empty:
            self._event("info", "site.started", "site", "", "The appliance started.")

    def tables(self) -> dict[str, Rows]:
        return self._tables

    def _put(self, topic: str, row_id: str, message: msgspec.Struct) -> None:
        self._tables[topic][row_id] = msgspec.to_builtins(message)

    # Making it.

    def _make_models(self) -> None:
        for at, name in enumerate(_MODELS):
            self._put(
                "models",
                f"mdl_{at}",
                Model(
                    id=f"mdl_{at}",
                    name=name,
                    path=f"/var/lib/crosslogic/models/{name}",
                    digest=f"sha256:{at:064x}",
                    size_bytes=(at + 1) * 7 * GIB,
                    family=name.split("-")[0],
                    licence="llama3" if "llama" in name else "apache-2.0",
                    state="active",
                    created_at=iso(self.now - timedelta(days=30 - at)),
                    files=4,
                    architecture="llama",
                    context_tokens=8192,
                    version="1.0",
                ),
            )

    def _make_nodes(self, nodes: int, gpus: int) -> None:
        for n in range(nodes):
            name, node_id = f"gpu-{n:02}", f"nod_{n:04}"
            self._put(
                "nodes",
                node_id,
                Node(
                    id=node_id,
                    name=name,
                    region="on-prem" if n % 3 else "hall-b",
                    state="ready",
                    agent_version="0.1.0",
                    cores=128,
                    memory_bytes=1024 * GIB,
                    gpus=["NVIDIA H100 80GB HBM3"] * gpus,
                    engines=["llamacpp", "vllm"],
                    last_seen_at=iso(self.now),
                    created_at=iso(self.now - timedelta(days=20)),
                    health=NodeHealth(
                        score=100, state="ok", parts=(HealthPart(name="engine", score=100),)
                    ),
                    driver=Driver(version="570.86.15", cuda="12.8", nvml="12.570"),
                    engine_versions={"vllm": "0.32.0", "llamacpp": "b4567"},
                ),
            )
            for g in range(gpus):
                uuid = f"GPU-{n:08x}-{g:04x}-4000-8000-000000000000"
                self._put("gpus", uuid, self._gpu(n, g, uuid, name, node_id))

    def _gpu(self, n: int, g: int, uuid: str, node: str, node_id: str) -> NodeGpu:
        used = self._chance.randrange(40, 75) * GIB
        return NodeGpu(
            index=g,
            uuid=uuid,
            name="NVIDIA H100 80GB HBM3",
            bus_id=f"00000000:{g + 1:02x}:00.0",
            memory_total_bytes=80 * GIB,
            memory_used_bytes=used,
            memory_reserved_bytes=512 * 1024**2,
            utilisation=self._chance.randrange(30, 99),
            memory_utilisation=self._chance.randrange(10, 60),
            temperature=self._chance.randrange(48, 72),
            temperature_slowdown=87,
            power=float(self._chance.randrange(250, 650)),
            power_limit=700.0,
            sm_clock=1755,
            sm_clock_max=1980,
            memory_clock=2619,
            ecc_enabled=True,
            ecc_corrected=0,
            ecc_uncorrected=0,
            remapped_rows=0,
            remap_pending=False,
            remap_failed=False,
            links=tuple(GpuLink(link=at, up=True) for at in range(18)),
            processes=(GpuProcess(pid=4000 + n * 8 + g, memory_bytes=used, name="vllm"),),
            energy=123_456_789,
            compute_capability="9.0",
            node=node,
            node_id=node_id,
        )

    def _make_deployments(self, deployments: int) -> None:
        nodes = list(self._tables["nodes"].values())
        gpus_of: dict[str, list[str]] = {}
        for uuid, gpu in self._tables["gpus"].items():
            gpus_of.setdefault(gpu["node"], []).append(uuid)
        for d in range(deployments):
            model = _MODELS[d % len(_MODELS)]
            name = model if d < len(_MODELS) else f"{model}-{d // len(_MODELS):02}"
            wanted = 1 + d % 3
            for r in range(wanted):
                node = nodes[(d + r * 7) % len(nodes)]["name"]
                uuids = gpus_of.get(node, [""])
                self._put(
                    "replicas",
                    f"rep_{d:04}_{r}",
                    ReplicaRow(
                        id=f"rep_{d:04}_{r}",
                        deployment=name,
                        node=node,
                        state="ready",
                        reason="",
                        pid=4000 + d * 10 + r,
                        restarts=0,
                        slots=32,
                        context_tokens=8192,
                        requests_running=self._chance.randrange(0, 20),
                        requests_waiting=0,
                        output_tokens_per_s=float(self._chance.randrange(100, 900)),
                        tokens_per_s=1200.0,
                        cache_used_percent=float(self._chance.randrange(5, 70)),
                        load_percent=None,
                        failures=0,
                        since=iso(self.now - timedelta(hours=7)),
                        generation=1,
                        engine_version="0.32.0",
                        gpus=(uuids[d % len(uuids)],),
                    ),
                )
            self._put(
                "deployments",
                f"dep_{d:04}",
                DeploymentRow(
                    id=f"dep_{d:04}",
                    name=name,
                    engine="vllm",
                    model=model,
                    region="on-prem",
                    state="ready",
                    reason="",
                    replicas_wanted=wanted,
                    replicas_ready=wanted,
                    requests_running=self._chance.randrange(0, 60),
                    requests_queued=0,
                    output_tokens_per_s=float(self._chance.randrange(100, 2500)),
                    first_token_p95_ms=float(self._chance.randrange(80, 600)),
                    cache_used_percent=float(self._chance.randrange(5, 70)),
                    strategy="auto",
                    pins=(),
                    idle_s=None,
                    generation=1,
                    created_at=iso(self.now - timedelta(days=9)),
                ),
            )

    def _make_tenants(self, tenants: int) -> None:
        for t in range(tenants):
            tenant_id, name = (
                f"ten_{t:04}",
                ("acme", "globex", "initech")[t] if t < 3 else f"tenant-{t:03}",
            )
            created = iso(self.now - timedelta(days=60 - t % 50))
            self._put(
                "tenants",
                tenant_id,
                TenantRow(
                    id=tenant_id,
                    name=name,
                    plan=_PLANS[t % 4],
                    state="active",
                    created_at=created,
                    environments=1,
                    keys=1,
                    requests_running=self._chance.randrange(0, 9),
                    requests_per_s=self._chance.randrange(0, 300) / 10,
                    output_tokens_per_s=float(self._chance.randrange(0, 900)),
                    limit_percent=float(self._chance.randrange(0, 90)),
                    limit="tokens_per_min",
                ),
            )
            self._put(
                "environments",
                f"env_{t:04}",
                Environment(
                    id=f"env_{t:04}",
                    name="prod",
                    tenant=name,
                    tenant_id=tenant_id,
                    region="on-prem",
                    models=None,
                    state="active",
                    created_at=created,
                    limits=LimitValues(),
                ),
            )
            self._put(
                "keys",
                f"key_{t:04}",
                Key(
                    id=f"key_{t:04}",
                    name="default",
                    prefix=f"clsk_live_Ab{t:02}…",
                    tenant=name,
                    tenant_id=tenant_id,
                    environment="prod",
                    environment_id=f"env_{t:04}",
                    role="developer",
                    state="active",
                    expires_at=None,
                    old_secret_until=None,
                    created_at=created,
                    limits=LimitValues(),
                ),
            )
            self._put(
                "limits",
                f"tenant:{tenant_id}:tokens_per_min",
                LimitRow(
                    layer="tenant",
                    scope_id=tenant_id,
                    name=name,
                    limit="tokens_per_min",
                    value=100_000,
                    used=self._chance.randrange(0, 90_000),
                ),
            )

    def _make_requests(self) -> None:
        tenants = [row["name"] for row in self._tables["tenants"].values()]
        for number, replica in enumerate(list(self._tables["replicas"].values())[:12]):
            self._put(
                "requests",
                f"req_{number:06}",
                RequestRow(
                    id=f"req_{number:06}",
                    tenant=tenants[number % len(tenants)],
                    environment="prod",
                    key=f"clsk_live_Ab{number % 100:02}…",
                    deployment=replica["deployment"],
                    replica=replica["id"],
                    node=replica["node"],
                    operation="chat",
                    phase="streaming",
                    stream=True,
                    started_at=iso(self.now - timedelta(seconds=number)),
                    input_tokens=400,
                    output_tokens=10 * number,
                    client="10.0.0.7",
                ),
            )

    def _make_sync(self) -> None:
        offline = self.condition == "failed"
        self._put(
            "sync",
            "sync",
            SyncStatus(
                mode="online",
                state="offline" if offline else "connected",
                appliance_id="apl_demo",
                epoch=1,
                sealed_through=480,
                accepted_through=409 if offline else 480,
                lag_manifests=71 if offline else 0,
                lag_age_s=255_600 if offline else 0,
                control_plane_url="https://control.example",
                control_plane_key_id="k1",
                last_contact=iso(self.now - timedelta(days=3 if offline else 0)),
                last_error="The connection was refused." if offline else "",
                alarm="",
                alarm_detail="",
                frozen_reason="",
                next_step="Carry a bundle: cic bundle export." if offline else "",
                price_book_version=3,
                plans_version=2,
            ),
        )

    def _make_site(self) -> None:
        running = sum(row["requests_running"] for row in self._tables["deployments"].values())
        busy = self.condition != "empty"
        self._put(
            "site",
            "site",
            SiteRow(
                name="gpubox-01",
                version="0.1.0",
                region="on-prem",
                endpoint="https://gpubox-01:8443/v1",
                ready=busy,
                started_at=iso(self._began - timedelta(days=2)),
                requests_running=running,
                requests_queued=0,
                streams_open=running,
                connections_open=running + 3,
                requests_per_s=12.5 if busy else 0.0,
                input_tokens_per_s=9_120.0 if busy else 0.0,
                output_tokens_per_s=4_210.0 if busy else 0.0,
                failures_per_min=0.0,
                first_token_p50_ms=120.0 if busy else None,
                first_token_p95_ms=275.0 if busy else None,
                records=1_234_567 if busy else 0,
                unsealed=41 if busy else 0,
            ),
        )

    def _break(self) -> None:
        node = next(iter(self._tables["nodes"].values()))
        node.update(state="unreachable", reason="Nothing heard for 40 s. Look at its agent.")
        for gpu in self._tables["gpus"].values():
            if gpu["node"] == node["name"]:
                gpu.update(stale=True)
        lost = list(self._tables["gpus"].values())[9:10]
        for gpu in lost:
            gpu.update(state="gone", score=0, utilisation=None, temperature=None, xids=[79])
        for row in self._tables["replicas"].values():
            if row["node"] == node["name"]:
                row.update(state="failed", reason="Its node is silent.", output_tokens_per_s=None)
                row.update(requests_running=None, cache_used_percent=None)
        for row in self._tables["deployments"].values():
            lost_replicas = [
                each
                for each in self._tables["replicas"].values()
                if each["deployment"] == row["name"] and each["state"] == "failed"
            ]
            if lost_replicas:
                ready = row["replicas_wanted"] - len(lost_replicas)
                row.update(replicas_ready=ready, state="degraded" if ready else "failed")
                row.update(reason="Its node gpu-00 is silent.", requests_queued=7)
                if not ready:
                    row.update(output_tokens_per_s=None, first_token_p95_ms=None)
        self._alert(
            "error", "node", node["name"], "gpu-00 is silent for 40 s.", "cic node show gpu-00"
        )
        for gpu in lost:
            text = f"{gpu['node']} GPU {gpu['index']} fell off the bus (XID 79)."
            self._alert("fatal", "gpu", gpu["uuid"], text, f"cic node drain {gpu['node']}")

    def _alert(self, severity: Any, subject: str, ref: str, text: str, next_step: str) -> None:
        alert = Alert(
            id=f"{subject}:{ref}",
            severity=severity,
            subject=subject,
            ref=ref,
            text=text,
            next_step=next_step,
            since=iso(self.now - timedelta(minutes=4)),
        )
        self._put("alerts", alert.id, alert)
        self._event(severity, f"{subject}.alert", subject, ref, text)

    def _event(self, severity: Any, kind: str, subject: str, ref: str, text: str) -> None:
        self._events += 1
        event = Event(
            seq=self._events,
            at=iso(self.now),
            severity=severity,
            kind=kind,
            subject=subject,
            ref=ref,
            text=text,
        )
        self._put("events", str(event.seq), event)
        self._tables["events"].pop(str(self._events - 500), None)

    # What is asked one by one.

    def limits(self) -> list[LayerReport]:
        return [
            LayerReport(
                layer="global",
                name="site",
                source="settings",
                limits=LimitValues(concurrency=512),
                used=LimitValues(concurrency=37),
            ),
            LayerReport(
                layer="tenant",
                name="acme",
                source="plan free",
                limits=LimitValues(requests_per_min=60, tokens_per_min=100_000),
                used=LimitValues(requests_per_min=49, tokens_per_min=82_000),
            ),
        ]

    def usage(self) -> list[UsageRow]:
        """Of every tenant with every model, today."""
        return [
            UsageRow(
                tenant=tenant["name"],
                tenant_id=tenant["id"],
                model=model,
                requests=100 + at,
                input_tokens=40_000 + 100 * at,
                output_tokens=10_000 + 100 * at,
                cached_tokens=5_000,
            )
            for tenant in self._tables["tenants"].values()
            for at, model in enumerate(_MODELS[:3])
        ]

    # Letting it live.

    def step(self) -> None:
        """A second passes: about a third of the figures move a little."""
        self.now += timedelta(seconds=1)
        for gpu in self._tables["gpus"].values():
            if gpu["state"] == "ok" and not gpu["stale"] and self._chance.random() < 0.3:
                gpu["utilisation"] = self._near(gpu["utilisation"], 6, 0, 100)
                gpu["temperature"] = self._near(gpu["temperature"], 1, 30, 90)
                gpu["power"] = float(self._near(gpu["power"], 20, 60, 700))
        for node in self._tables["nodes"].values():
            if node["state"] == "ready":
                node["last_seen_at"] = iso(self.now)
        for row in self._tables["deployments"].values():
            if row["replicas_ready"] and self._chance.random() < 0.3:
                row["requests_running"] = self._near(row["requests_running"], 3, 0, 200)
                rate = self._near(row["output_tokens_per_s"], 80, 0, 9_000)
                row["output_tokens_per_s"] = float(rate)
                row["first_token_p95_ms"] = float(
                    self._near(row["first_token_p95_ms"], 20, 40, 9_000)
                )
        for row in self._tables["replicas"].values():
            if row["state"] == "ready" and self._chance.random() < 0.3:
                row["requests_running"] = self._near(row["requests_running"], 2, 0, 32)
        for row in self._tables["tenants"].values():
            if self._chance.random() < 0.2:
                row["output_tokens_per_s"] = float(
                    self._near(row["output_tokens_per_s"], 40, 0, 2_000)
                )
                row["limit_percent"] = float(self._near(row["limit_percent"], 3, 0, 100))
        for row in self._tables["requests"].values():
            row["output_tokens"] += self._chance.randrange(5, 40)
        if self.condition != "empty":
            self._make_site()

    def _near(self, value: float | None, by: int, least: int, most: int) -> int:
        return max(least, min(most, int(value or 0) + self._chance.randint(-by, by)))
