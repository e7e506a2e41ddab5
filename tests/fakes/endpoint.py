"""A gateway on a real socket with engines of our making: what tests of the endpoint stand on."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from appliance.domain.clock import Clock, SystemClock
from appliance.domain.ids import (
    DeploymentId,
    EnvironmentId,
    KeyId,
    ModelId,
    ReplicaId,
    TenantId,
)
from appliance.domain.limits import LayerLimits
from appliance.domain.usage import Operation
from appliance.gateway.app import Gateway
from appliance.gateway.pools import SiteTls
from appliance.limits.estimate import PromptEstimator
from appliance.limits.memory import MemoryLimitStore
from appliance.registry.snapshot import Credential, DeploymentEntry, Role, Snapshot
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.scheduler import Scheduler
from appliance.security.api_keys import digest, new_key
from appliance.settings import Settings
from tests.fakes.memory_ledger import MemoryLedger

PEPPER = b"p" * 32
MODEL = "fault"
DEPLOYMENT = DeploymentId("dep_1")

CREDENTIAL = Credential(
    key_id=KeyId("key_1"),
    key_name="k",
    role=Role.DEVELOPER,
    key_suspended=False,
    expires_at_ns=None,
    tenant_id=TenantId("ten_1"),
    tenant_name="acme",
    tenant_suspended=False,
    plan="enterprise",
    environment_id=EnvironmentId("env_1"),
    environment_name="prod",
    environment_suspended=False,
    region="local",
    models_allowed=None,
    layers=(),
    cache_salt="salt-of-acme",
)
ENTRY = DeploymentEntry(
    deployment_id=DEPLOYMENT,
    name=MODEL,
    model_id=ModelId("mod_1"),
    model_digest="",
    engine="external",
    operations=frozenset(Operation),
    region="local",
    suspended=False,
    context_tokens=4096,
    created_s=1_700_000_000,
)


def target(port: int, name: str = "rep_1", **changes: Any) -> ReplicaTarget:
    """A replica on loopback."""
    plain = ReplicaTarget(
        replica_id=ReplicaId(name),
        deployment_id=DEPLOYMENT,
        node_name="node-7",
        host="127.0.0.1",
        port=port,
        tls=False,
        base_path="",
        api_key=None,
        upstream_model=None,
        slots=None,
        tokens_per_s=None,
        context_tokens=4096,
        operations=frozenset(Operation),
    )
    return replace(plain, **changes)


@dataclass
class Answer:
    """An HTTP answer, taken in whole."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])

    @property
    def events(self) -> list[Any]:
        """The `data:` of each event; "[DONE]" as text."""
        found = []
        for event in self.body.decode().split("\n\n"):
            for line in event.split("\n"):
                if line.startswith("data: "):
                    data = line[6:]
                    found.append(data if data == "[DONE]" else json.loads(data))
        return found


@dataclass
class Endpoint:
    """A running gateway and everything behind it."""

    gateway: Gateway
    ledger: MemoryLedger
    limits: MemoryLimitStore
    scheduler: Scheduler
    settings: Settings
    port: int
    key: str
    credential: Credential
    entries: dict[str, DeploymentEntry] = field(default_factory=dict)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def serve_from(self, *targets: ReplicaTarget, starting: int = 0) -> None:
        """Make these the ready replicas."""
        now_s = SystemClock().monotonic_s()
        self.gateway.apply(self.scheduler.set_replicas(DEPLOYMENT, targets, now_s, starting))

    def change(self, **changes: Any) -> None:
        """Change the caller's credential."""
        self.credential = replace(self.credential, **changes)
        self.gateway.swap(snapshot(self.key, self.credential, self.entries))

    def change_entry(self, **changes: Any) -> None:
        """Change the deployment."""
        self.entries[MODEL] = replace(self.entries[MODEL], **changes)
        self.gateway.swap(snapshot(self.key, self.credential, self.entries))

    def add_tenant(self) -> None:
        """Somebody else with a key of the same site."""
        other = replace(self.credential, tenant_id=TenantId("ten_2"))
        tables = snapshot(self.key, self.credential, self.entries)
        credentials = {**tables.credentials, b"x" * 32: other}
        self.gateway.swap(replace(tables, credentials=credentials))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client's connection; it is closed with the endpoint at the latest."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    def request(
        self,
        body: object,
        path: str = "/v1/chat/completions",
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
    ) -> bytes:
        """A request as bytes; `body` is JSON unless it is bytes."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {
            "Host": "test",
            "Authorization": f"Bearer {self.key}",
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            **(headers or {}),
        }
        head = f"{method} {path} HTTP/1.1\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return head.encode() + b"\r\n" + data

    async def ask(self, body: object, path: str = "/v1/chat/completions", **how: Any) -> Answer:
        """One request on a connection of its own."""
        reader, writer = await self.connect()
        try:
            writer.write(self.request(body, path, **how))
            return await asyncio.wait_for(read_answer(reader, how.get("method", "POST")), 10)
        finally:
            writer.close()

    async def get(self, path: str, **headers: str) -> Answer:
        return await self.ask(b"", path, method="GET", headers=headers)


def chat(**fields: Any) -> dict[str, Any]:
    """A chat request; figures can be worked out by tests/fakes/engine_answers.py."""
    return {
        "model": MODEL,
        "messages": [{"role": "user", "content": "one two three four"}],
        "max_tokens": 5,
        **fields,
    }


async def read_answer(reader: asyncio.StreamReader, method: str = "POST") -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status_line, *lines = head.strip().split("\r\n")
    headers = {n.lower(): v for n, v in (line.split(": ", 1) for line in lines)}
    status = int(status_line.split(" ")[1])
    if status == 100:
        return await read_answer(reader, method)
    body = b""
    if method == "HEAD" or status == 204:
        pass
    elif headers.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readexactly(2) == b"\r\n"
    elif "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    else:
        body = await reader.read()
    return Answer(status, headers, body)


def snapshot(key: str, credential: Credential, entries: Mapping[str, DeploymentEntry]) -> Snapshot:
    return Snapshot(1, {digest(PEPPER, key): credential}, dict(entries))


def settings(**sections: Mapping[str, Any]) -> Settings:
    """Settings with some fields of some sections changed: `settings(timeouts={"head_s": 0.2})`."""
    return msgspec.convert(sections, Settings)


@asynccontextmanager
async def endpoint(
    *targets: ReplicaTarget,
    layers: tuple[LayerLimits, ...] = (),
    using: Settings | None = None,
    ledger: Any = None,
    clock: Clock | None = None,
    site_tls: SiteTls | None = None,
) -> AsyncIterator[Endpoint]:
    """A gateway that serves the model `fault` from these replicas."""
    using = using or Settings()
    key = new_key()
    credential = replace(CREDENTIAL, layers=layers)
    ledger = ledger or MemoryLedger()
    limits = MemoryLimitStore()
    scheduler = Scheduler(using.scheduler)
    entries = {MODEL: ENTRY}
    gateway = Gateway(
        using,
        snapshot(key, credential, entries),
        limits,
        PromptEstimator(),
        scheduler,
        ledger,
        clock or SystemClock(),
        lambda text: digest(PEPPER, text),
        site_tls=site_tls,
    )
    _, port = await gateway.start()
    found = Endpoint(gateway, ledger, limits, scheduler, using, port, key, credential, entries)
    found.serve_from(*targets)
    try:
        yield found
    finally:
        for writer in found.writers:
            writer.transport.abort()
        await gateway.close()
