"""What a simulated site answers when it is asked once: pasts, tokens, usage, manifests. Pure."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

import msgspec

from appliance.wire.admin import LedgerRow, UsageRow
from appliance.wire.burst import Burst
from appliance.wire.fleet import Region
from appliance.wire.gpu import GpuHistory, GpuPoint, GpuRing, GpuSeries
from appliance.wire.manifests import LineShown, Manifest, ManifestShown
from appliance.wire.node_tokens import NodeCertificate, NodeToken
from appliance.wire.sync import EntitlementStatus
from tests.fakes.simulated_fleet import SimulatedFleet, iso
from tests.fakes.simulated_past import past

_MANIFESTS: Final = 40
_RECORDS_EACH: Final = 20
_POINT_S: Final = 10


def lines_of(fleet: SimulatedFleet, path: str) -> list[msgspec.Struct] | None:
    """An answer of many lines; None: this path has none."""
    empty = fleet.condition == "empty"
    if path == "/v1/manifests":
        return [] if empty else [manifest(fleet, seq) for seq in range(1, _MANIFESTS + 1)]
    if path == "/v1/ledger":
        return [] if empty else _records(fleet)
    return None


def answer_of(fleet: SimulatedFleet, path: str, query: Mapping[str, str]) -> Any:
    """None: this path is not simulated."""
    if path.startswith("/v1/nodes/") and path.endswith("/gpu-history"):
        return gpu_history(fleet, query.get("gpu", ""))
    if path.startswith("/v1/manifests/") and path.rpartition("-")[2].isdigit():
        return _manifest_shown(fleet, path.removeprefix("/v1/manifests/"))
    made = {
        "/v1/limits": fleet.limits,
        "/v1/usage": lambda: usage(fleet, query.get("by", "tenant,model").split(",")),
        "/v1/entitlement": lambda: entitlement(fleet),
        "/v1/node-tokens": lambda: tokens(fleet),
        "/v1/node-certificates": lambda: certificates(fleet),
        "/v1/regions": lambda: regions(fleet),
        "/v1/bursts": lambda: bursts(fleet),
        "/v1/history": lambda: past(fleet, query),
    }.get(path)
    return None if made is None else made()


def usage(fleet: SimulatedFleet, by: list[str]) -> list[UsageRow]:
    """Its sums are the same by whatever columns they are told."""
    sums: dict[tuple[str | None, ...], dict[str, Any]] = {}
    names = ("tenant", "tenant_id", "environment", "environment_id", "key", "key_id", "model")
    for tenant_at, row in enumerate(fleet.usage()):
        number = str(row.tenant_id).removeprefix("ten_")
        every = {
            **{name: getattr(row, name) for name in ("tenant", "tenant_id", "model")},
            "environment": "prod",
            "environment_id": f"env_{number}",
            "key": "default",
            "key_id": f"key_{number}",
            "hour": iso(fleet.now.replace(minute=0, second=0) - timedelta(hours=tenant_at % 15)),
        }
        told = {name: every[name] for name in (*names, "hour") if name.removesuffix("_id") in by}
        total = sums.setdefault(tuple(told.values()), {**told, "figures": [0, 0, 0, 0]})
        figures = (row.requests, row.input_tokens, row.output_tokens, row.cached_tokens)
        total["figures"] = [a + b for a, b in zip(total["figures"], figures, strict=True)]
    kinds = ("requests", "input_tokens", "output_tokens", "cached_tokens")
    return [
        UsageRow(**dict(zip(kinds, total.pop("figures"), strict=True)), **total)
        for total in sums.values()
    ]


def gpu_history(fleet: SimulatedFleet, uuid: str) -> GpuHistory:
    """An hour of it, with five minutes in which nothing was told."""
    gpu = fleet.tables()["gpus"].get(uuid)
    if gpu is None:
        return GpuHistory()
    until_s = int(fleet.now.timestamp())
    points = tuple(
        GpuPoint(
            at_s=until_s - back * _POINT_S,
            utilisation=40 + (back * 7) % 55,
            memory_used_bytes=gpu["memory_used_bytes"],
            temperature=55 + (back // 20) % 18,
            power=300 + (back * 11) % 300,
            sm_clock=1755,
            score=100,
        )
        for back in range(359, -1, -1)
        if not 150 <= back < 180
    )
    return GpuHistory(gpus=(GpuSeries(uuid=uuid, rings=(GpuRing(step_s=10, points=points),)),))


def tokens(fleet: SimulatedFleet) -> list[NodeToken]:
    if fleet.condition == "empty":
        return []
    ages = (("unused", None, 5), ("used", "gpu-00", 90), ("expired", None, 1500))
    return [
        NodeToken(
            id=f"ntk_{at:08}",
            node="gpu-07" if state == "unused" else None,
            state=state,
            created_at=iso(fleet.now - timedelta(minutes=minutes)),
            created_by="1000:ada",
            expires_at=iso(fleet.now - timedelta(minutes=minutes - 60)),
            used_at=iso(fleet.now - timedelta(minutes=80)) if by else None,
            used_by=by,
        )
        for at, (state, by, minutes) in enumerate(ages)
    ]


def certificates(fleet: SimulatedFleet) -> list[NodeCertificate]:
    failed = fleet.condition == "failed"
    return [
        NodeCertificate(
            serial=f"{at + 1:032x}",
            node=row["name"],
            state="revoked" if failed and at == 0 else "good",
            issued_at=iso(fleet.now - timedelta(days=20)),
            expires_at=iso(fleet.now + timedelta(days=10)),
            revoked_at=iso(fleet.now) if failed and at == 0 else None,
        )
        for at, row in enumerate(fleet.tables()["nodes"].values())
    ]


def regions(fleet: SimulatedFleet) -> list[Region]:
    created = iso(fleet.now - timedelta(days=60))
    home = Region(name="on-prem", multiplier_bp=10_000, created_at=created)
    hall = Region(name="hall-b", multiplier_bp=7_000, created_at=created)
    return [home] if fleet.condition == "empty" else [home, hall]


def bursts(fleet: SimulatedFleet) -> list[Burst]:
    if fleet.condition == "empty":
        return []
    failed = fleet.condition == "failed"
    return [
        Burst(
            id="bst_0000",
            name="month-end",
            state="ending" if failed else "running",
            reason="Its budget is spent." if failed else "",
            gpu="H100",
            gpus=8,
            nodes=2,
            spot="prefer",
            budget="1250.00",
            spent="1250.00" if failed else "412.37",
            idle_s=1_800,
            members=[],
            created_at=iso(fleet.now - timedelta(hours=5)),
            ended_at=None,
        )
    ]


def entitlement(fleet: SimulatedFleet) -> EntitlementStatus:
    stage, days = {"empty": ("none", None), "busy": ("active", 37), "failed": ("grace", 4)}[
        fleet.condition
    ]
    ends = "" if days is None else iso(fleet.now + timedelta(days=days - 7))
    return EntitlementStatus(
        stage=stage,  # type: ignore[arg-type]  # one of its words
        entitlement_id="" if days is None else "ent_demo",
        customer="" if days is None else "Example Hospital",
        not_before="" if days is None else iso(fleet.now - timedelta(days=300)),
        expires=ends,
        lease_ends=ends,
        freezes_at="" if days is None else iso(fleet.now + timedelta(days=days)),
        throttles_at="",
        days_left=days,
        grace_days=7,
        gpu_count=0 if days is None else 32,
        gpus=len(fleet.tables()["gpus"]),
        reserved_tokens_per_s=0,
        models=[],
        throttle_tokens_per_s=0,
        exceeded=[],
        message="",
        next_step="",
    )


def manifest(fleet: SimulatedFleet, seq: int) -> Manifest:
    accepted = _MANIFESTS - (12 if fleet.condition == "failed" else 0)
    return Manifest(
        epoch=1,
        seq=seq,
        state="accepted" if seq <= accepted else "sealed",
        sealed_at=iso(fleet.now - timedelta(hours=_MANIFESTS - seq)),
        records=_RECORDS_EACH,
        lines=3,
        input_tokens=1_400_000 + seq,
        cached_tokens=250_000,
        output_tokens=310_000 + seq,
        record_seq_lo=(seq - 1) * _RECORDS_EACH + 1,
        record_seq_hi=seq * _RECORDS_EACH,
        sha256=f"{seq:064x}",
    )


def _manifest_shown(fleet: SimulatedFleet, ref: str) -> ManifestShown:
    shown = manifest(fleet, int(ref.partition("-")[2]))
    hour = iso(fleet.now.replace(minute=0, second=0))
    lines = [
        {
            "tenant": row["name"],
            "tenant_id": row["id"],
            "environment": "prod",
            "key_id": f"key_{row['id'].removeprefix('ten_')}",
            "model": "llama-3-70b",
            "price_class": "standard",
            "region": "on-prem",
            "hour": hour,
            "requests": "40",
            "input_tokens": "466666",
            "output_tokens": "103333",
        }
        for row in list(fleet.tables()["tenants"].values())[:3]
    ]
    return ManifestShown(
        manifest=shown,
        header=msgspec.Raw(b"{}"),
        lines=[
            LineShown(
                index=at,
                leaf_sha256=f"{at:064x}",
                hidden=False,
                line=msgspec.Raw(msgspec.json.encode(line)),
            )
            for at, line in enumerate(lines)
        ],
        envelope="{}",
    )


def _records(fleet: SimulatedFleet) -> list[msgspec.Struct]:
    tenants = [row["name"] for row in fleet.tables()["tenants"].values()][:3]
    last = _MANIFESTS * _RECORDS_EACH
    return [
        LedgerRow(
            seq=seq,
            record_id=f"rec_{seq:08}",
            request_id=f"req_{seq:08}",
            status="error" if seq % 50 == 0 else "ok",
            tenant=tenants[seq % len(tenants)],
            environment="prod",
            key="default",
            model="llama-3-70b",
            region="on-prem",
            operation="chat",
            input_tokens=1_200 + seq,
            output_tokens=300 + seq % 100,
            cached_tokens=128,
            measured="engine",
            http_status=502 if seq % 50 == 0 else 200,
            error_code="engine_lost" if seq % 50 == 0 else "",
            opened_at=iso(fleet.now - timedelta(seconds=last - seq + 4)),
            settled_at=iso(fleet.now - timedelta(seconds=last - seq)),
            latency_ms=3_800,
            first_token_ms=None if seq % 50 == 0 else 140,
        )
        for seq in range(1, last + 1)
    ]
