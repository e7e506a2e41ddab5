"""A real token of every replica that serves, by the way that requests take to it.

These requests are the appliance's own: no tenant's limits or ledger know them, as with the agents'.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import aiohttp
import msgspec

from appliance.checking.findings import Check, Finding, count, good, span
from appliance.domain.clock import Clock
from appliance.domain.usage import Operation
from appliance.fleet.service import Fleet
from appliance.fleet.view import FleetDeployment
from appliance.registry.deployment_rows import DeploymentRow
from appliance.registry.registry import Registry
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.scheduler import Scheduler

_TOKEN_S: Final = 30.0
_ALL_S: Final = 120.0
_AT_ONCE: Final = 8
_SLOW_S: Final = 10.0
_ANSWER_BYTES_MAX: Final = 1024 * 1024
# What each operation is asked with, the cheapest first that an engine may offer.
_QUESTIONS: Final[tuple[tuple[Operation, str, dict[str, Any]], ...]] = (
    (
        Operation.CHAT,
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "Say one word."}], "max_tokens": 1},
    ),
    (Operation.COMPLETIONS, "/v1/completions", {"prompt": "One word:", "max_tokens": 1}),
    (Operation.EMBEDDINGS, "/v1/embeddings", {"input": "One word."}),
)


def engine_check(
    registry: Registry,
    fleet: Fleet,
    scheduler: Scheduler,
    clock: Clock,
    site_tls: Callable[[], ssl.SSLContext],
) -> Check:
    async def look() -> Sequence[Finding]:
        targets: dict[str, list[ReplicaTarget]] = {}
        for view in scheduler.view(clock.monotonic_s()):
            targets[view.deployment_id] = [replica.target for replica in view.replicas]
        room = asyncio.Semaphore(_AT_ONCE)
        # What the environment says of proxies is not for the way to an engine.
        async with aiohttp.ClientSession(trust_env=False) as session:

            async def one(row: DeploymentRow) -> Finding:
                seen = fleet.deployment(row.id)
                ready = targets.get(row.id, [])
                if not ready or row.suspended:
                    return without_replica(row, seen)
                answers = await asyncio.gather(
                    *(_ask(session, target, row.name, site_tls, room) for target in ready)
                )
                return answered(row.name, seen, list(zip(ready, answers, strict=True)))

            rows = await registry.deployments.list()
            if not rows:
                return [Finding("skipped", "Nothing is deployed yet.")]
            return await asyncio.gather(*(one(row) for row in rows))

    return Check(
        "deployment", "Only a token that came tells that a model can answer.", look, _ALL_S
    )


def without_replica(row: DeploymentRow, seen: FleetDeployment | None) -> Finding:
    """Nothing serves: whether that is meant."""
    if row.suspended:
        return Finding(
            "skipped", "It is suspended.", f"`cic deployment resume {row.name}`", row.name
        )
    if row.replicas == 0:
        return Finding("skipped", "It is scaled to none.", subject=row.name)
    if seen is not None and seen.state == "unloaded":
        return Finding("skipped", "It is unloaded: the next request loads it.", subject=row.name)
    state = "pending" if seen is None else seen.state
    told = f"It is {state}, no replica serves."
    reason = "" if seen is None else seen.reason
    fix = f"`cic deployment explain {row.name}`, `cic deployment logs {row.name}`"
    outcome = Finding("warning" if state in {"pending", "starting"} else "failed", told, fix)
    return Finding(outcome.outcome, f"{told} {reason}".rstrip(), fix, row.name)


def answered(
    name: str, seen: FleetDeployment | None, answers: Sequence[tuple[ReplicaTarget, str | float]]
) -> Finding:
    """`answers`: of each replica the seconds it took, or why there was no token."""
    bad = [(target, said) for target, said in answers if isinstance(said, str)]
    times_s = [said for _, said in answers if not isinstance(said, str)]
    whole = count(len(answers), "replica")
    if bad:
        target, said = bad[0]
        where = f"{target.replica_id} on {target.node_name}"
        told = f"{len(bad)} of {whole} gave no token; {where}: {said}"
        fix = f"`cic deployment logs {name}`; suspend and resume it to start its engines anew."
        return Finding("failed", told, fix, name)
    slowest_s = max(times_s)
    told = f"A token of {whole}, the slowest after {span(slowest_s)}."
    if slowest_s > _SLOW_S:
        return Finding("warning", told, "More replicas, or fewer requests at once.", name)
    if seen is not None and seen.state != "ready" and seen.reason:
        return Finding("warning", f"{told} It is {seen.state}: {seen.reason}", subject=name)
    return good(told, name)


async def _ask(
    session: aiohttp.ClientSession,
    target: ReplicaTarget,
    name: str,
    site_tls: Callable[[], ssl.SSLContext],
    room: asyncio.Semaphore,
) -> str | float:
    """The seconds until the answer, or why there was none."""
    question = next((q for q in _QUESTIONS if q[0] in target.operations), None)
    if question is None:
        return "It offers nothing that a check could ask."
    _, path, body = question
    host = f"[{target.host}]" if ":" in target.host else target.host
    url = f"{'https' if target.tls else 'http'}://{host}:{target.port}{target.base_path}{path}"
    headers = {} if target.api_key is None else {"Authorization": f"Bearer {target.api_key}"}
    tls: ssl.SSLContext | bool = site_tls() if target.server_name is not None else True
    async with room:
        began_s = time.monotonic()
        try:
            async with (
                asyncio.timeout(_TOKEN_S),
                session.post(
                    url,
                    data=msgspec.json.encode({"model": target.upstream_model or name, **body}),
                    headers={"Content-Type": "application/json", **headers},
                    ssl=tls,
                    server_hostname=target.server_name,
                    allow_redirects=False,
                ) as answer,
            ):
                content = await answer.content.read(_ANSWER_BYTES_MAX)
                while not answer.content.at_eof() and len(content) < _ANSWER_BYTES_MAX:
                    content += await answer.content.read(_ANSWER_BYTES_MAX)
                if answer.status != 200:
                    return f"it answered {answer.status}."
        except TimeoutError:
            return f"no answer within {span(_TOKEN_S)}."
        except (aiohttp.ClientError, OSError) as error:
            return f"{type(error).__name__}: {error}."
    return time.monotonic() - began_s if has_token(content) else "an answer without a token."


def has_token(content: bytes) -> bool:
    """Whether an answer of 200 holds a token, or a vector."""
    try:
        answer = msgspec.json.decode(content)
        if data := answer.get("data"):
            return bool(data[0]["embedding"])
        return bool(answer["choices"])
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
    ):
        return False
