"""What of nodes, GPUs, engines and capacity wants an administrator. Pure."""

from collections.abc import Iterator

from appliance.admin.findings import Finding, found
from appliance.admin.observed import Observed
from appliance.wire.stream import AlertSeverity


def nodes(seen: Observed) -> Iterator[Finding]:
    for node in seen.nodes.values():
        show = f"cic node show {node.name}"
        if node.state in ("unreachable", "failed"):
            severity: AlertSeverity = "error"
            text = f"Node {node.name} is {node.state}. {node.reason}".strip()
            yield found(severity, "node", node.id, node.state, text, show)
        if node.notice is not None:
            text = f"Node {node.name} will be gone at {node.notice.at} ({node.notice.source})."
            yield found("warning", "node", node.id, "notice", text, show)
        if node.driver is not None and node.driver.problem:
            text = f"Node {node.name}: {node.driver.problem}"
            yield found("error", "node", node.id, "driver", text, show)
        for fault in node.health.faults if node.health is not None else ():
            if fault.gpu_uuid is None and node.state != "unreachable":
                worst: AlertSeverity = fault.severity
                text = f"Node {node.name}: {fault.message}"
                yield found(worst, "node", node.id, fault.code, text, fault.next_step or show)


def gpus(seen: Observed) -> Iterator[Finding]:
    for node in seen.nodes.values():
        if node.health is None or node.state == "unreachable":
            continue
        for fault in node.health.faults:
            if fault.gpu_uuid is None:
                continue
            gpu = seen.gpus.get(fault.gpu_uuid)
            name = f"GPU {gpu.index}" if gpu is not None else f"GPU {fault.gpu_uuid}"
            # Most say themselves which GPU they are about.
            what = fault.message if fault.message.startswith("GPU ") else f"{name}: {fault.message}"
            yield found(
                *(fault.severity, "gpu", fault.gpu_uuid, fault.code),
                f"{node.name} {what}",
                fault.next_step or f"cic node drain {node.name}",
            )
    for uuid, gpu in seen.gpus.items():
        hot_at, now = gpu.temperature_slowdown, gpu.temperature
        if (
            not gpu.stale
            and hot_at is not None
            and now is not None
            and now >= hot_at - seen.thresholds.gpu_margin_celsius
        ):
            yield found(
                *("warning", "gpu", uuid, "hot"),
                f"{gpu.node} GPU {gpu.index} is at {now} °C; it slows down at {hot_at} °C.",
                "Look at the machine's air and fans.",
            )


def deployments(seen: Observed) -> Iterator[Finding]:
    for row in seen.deployments.values():
        show = f"cic deployment show {row.name}"
        if row.state == "failed":
            text = f"{row.name} serves nobody. {row.reason}".strip()
            yield found("error", "deployment", row.id, "failed", text, show)
        elif row.state == "degraded":
            text = f"{row.name} has {row.replicas_ready} of {row.replicas_wanted} replicas."
            yield found(
                *("warning", "deployment", row.id, "degraded"), f"{text} {row.reason}".strip(), show
            )
        most = max(seen.thresholds.queue_length, row.requests_running)
        if row.requests_queued and row.requests_queued >= most:
            yield found(
                *("warning", "deployment", row.id, "queue"),
                f"{row.requests_queued} requests wait for {row.name}, {row.requests_running} run.",
                f"cic deployment update {row.name} --replicas {row.replicas_wanted + 1}",
            )
    for replica in seen.replicas.values():
        if replica.state == "ejected":
            text = f"A replica of {replica.deployment} on {replica.node} failed {replica.failures}"
            yield found(
                *("warning", "replica", replica.id, "ejected"),
                f"{text} requests in a row and gets none for now. {replica.reason}".strip(),
                f"cic deployment logs {replica.deployment}",
            )


def reservations(seen: Observed) -> Iterator[Finding]:
    for each in seen.reservations:
        minute = each.attained
        if each.slipping and minute is not None and minute.attained_percent is not None:
            whose = each.tenant + (f"/{each.environment}" if each.environment else "")
            yield found(
                *("error", "reservation", each.id, "slipping"),
                f"{whose} was promised {each.tokens_per_s:,} tokens/s of {each.model} and got"
                f" {minute.attained_percent:.0f}% of what it was owed in the last minute.",
                f"cic reservation show {each.id}",
            )
    for room in seen.capacity:
        measured = room.measured_tokens_per_s or 0
        if room.promised_tokens_per_s > measured:
            yield found(
                *("error", "reservation", room.model, "short"),
                f"{room.promised_tokens_per_s:,} tokens/s of {room.model} are promised, its ready"
                f" replicas make {measured:,}.",
                f"cic deployment show {room.model}",
            )


def limits(seen: Observed) -> Iterator[Finding]:
    for row_id, row in seen.limits.items():
        if row.layer == "key" or not row.value or row.limit == "concurrency":
            continue
        percent = 100 * row.used / row.value
        if percent >= seen.thresholds.limit_percent:
            words = row.limit.replace("_", " ")
            yield found(
                *("info", "limit", row_id, "full"),
                f"{row.name}: {percent:.0f}% of its {words} ({row.value:,}) are used.",
                f"cic limit show --tenant {row.name.partition('/')[0]}"
                if row.layer != "global"
                else "cic limit show",
            )
