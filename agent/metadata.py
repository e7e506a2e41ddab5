"""What the clouds tell a machine about its own end, each through its metadata service.

- AWS: instance metadata version 2, `spot/instance-action` (a 404 means: none) and the scheduled
  events of the host. Two minutes for a spot machine, days for a host.
- GCP: `instance/preempted` (30 s from then on) and `instance/maintenance-event` (an hour for a
  machine with GPUs, which cannot move while it runs; 60 s for any other).
- Azure: scheduled events, of this machine alone: a scale set tells each member of all. 30 s for a
  preempted one, 15 minutes for a restart. Azure may take an event back.

The services answer on the link-local address of the machine itself. They are asked without a
proxy, without redirects, and by address: a name would ask a resolver that may not answer.
"""

import email.utils
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal, Protocol, TypeVar

import aiohttp
import msgspec

from agent.errors import MetadataAway, MetadataStrange

M = TypeVar("M")
Cloud = Literal["aws", "gcp", "azure"]

LINK_LOCAL: Final = "http://169.254.169.254"
_DEADLINE: Final = aiohttp.ClientTimeout(total=2.0)
_ANSWER_BYTES_MAX: Final = 256 * 1024
_TOKEN_S: Final = 21_600  # the longest that AWS gives one for
_GCP_PREEMPTED_S: Final = 30
_GCP_HOST_S: Final = 60
_GCP_HOST_WITH_GPUS_S: Final = 3_600


@dataclass(frozen=True, slots=True)
class Ending:
    """One announced end of this machine. `at_ns` None: `notice_s` after it was first announced."""

    key: str  # the same for as long as it is the same announcement
    at_ns: int | None
    notice_s: int
    detail: str


class Metadata(Protocol):
    """One cloud's metadata service."""

    cloud: Cloud
    poll_s: float

    async def endings(self) -> tuple[Ending, ...]:
        """What is announced now. Raises MetadataAway, MetadataStrange."""
        ...


class _Fetch:
    """Requests to one metadata service."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self._session = session
        self._base = base.rstrip("/")

    async def __call__(
        self, path: str, headers: Mapping[str, str], method: str = "GET"
    ) -> tuple[int, str, Mapping[str, str]]:
        """Status, body and headers. Raises MetadataAway."""
        try:
            async with self._session.request(
                method,
                self._base + path,
                headers=headers,
                timeout=_DEADLINE,
                allow_redirects=False,
            ) as response:
                body = await response.content.read(_ANSWER_BYTES_MAX)
                return response.status, body.decode(errors="replace"), response.headers
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise MetadataAway(
                f"The metadata service at {self._base} does not answer: {error or 'too late'}."
            ) from error


class Aws:
    cloud: Cloud = "aws"
    poll_s = 2.0

    def __init__(self, session: aiohttp.ClientSession, base: str = LINK_LOCAL) -> None:
        self._fetch = _Fetch(session, base)
        self._token: str | None = None

    async def endings(self) -> tuple[Ending, ...]:
        found: list[Ending] = []
        action = await self._get("/latest/meta-data/spot/instance-action")
        if action is not None:
            found.append(aws_spot(action))
        events = await self._get("/latest/meta-data/events/maintenance/scheduled")
        if events is not None:
            found.extend(aws_scheduled(events))
        return tuple(found)

    async def _get(self, path: str) -> str | None:
        """None: there is no such thing. A token that is refused is fetched anew, once."""
        for again in (True, False):
            if self._token is None:
                self._token = await self._new_token()
            status, body, _ = await self._fetch(path, {"X-aws-ec2-metadata-token": self._token})
            if status == 200:
                return body
            if status == 404:
                return None
            if status != 401 or not again:
                break
            self._token = None
        raise MetadataStrange(f"The metadata service answers {status} to {path}.")

    async def _new_token(self) -> str:
        status, body, _ = await self._fetch(
            "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": str(_TOKEN_S)}, "PUT"
        )
        token = body.strip()
        if status != 200 or not token.isascii() or not token.isprintable() or not token:
            raise MetadataStrange(f"The metadata service gives no token: it answers {status}.")
        return token


class Gcp:
    cloud: Cloud = "gcp"
    poll_s = 1.0

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base: str = LINK_LOCAL,
        *,
        gpus: Callable[[], bool] = lambda: True,
    ) -> None:
        """`gpus` tells whether this machine has any: it is then announced an hour before."""
        self._fetch = _Fetch(session, base)
        self._gpus = gpus

    async def endings(self) -> tuple[Ending, ...]:
        found: list[Ending] = []
        if (await self._get("preempted")).upper() == "TRUE":
            found.append(Ending("gcp-preempted", None, _GCP_PREEMPTED_S, "preempted"))
        event = await self._get("maintenance-event")
        if event.upper() == "TERMINATE_ON_HOST_MAINTENANCE":
            notice_s = _GCP_HOST_WITH_GPUS_S if self._gpus() else _GCP_HOST_S
            found.append(Ending("gcp-maintenance", None, notice_s, "maintenance of the host"))
        return tuple(found)

    async def _get(self, name: str) -> str:
        path = f"/computeMetadata/v1/instance/{name}"
        status, body, headers = await self._fetch(path, {"Metadata-Flavor": "Google"})
        if status != 200 or headers.get("Metadata-Flavor") != "Google":
            raise MetadataStrange(f"The metadata service answers {status} to {path}.")
        return body.strip()


class Azure:
    cloud: Cloud = "azure"
    poll_s = 1.0

    def __init__(self, session: aiohttp.ClientSession, base: str = LINK_LOCAL) -> None:
        self._fetch = _Fetch(session, base)
        self._name: str | None = None

    async def endings(self) -> tuple[Ending, ...]:
        if self._name is None:
            compute = await self._get("/metadata/instance/compute?api-version=2021-02-01")
            self._name = _decoded(compute, _AzureCompute).name
        events = await self._get("/metadata/scheduledevents?api-version=2020-07-01")
        return azure_scheduled(events, self._name)

    async def _get(self, path: str) -> str:
        status, body, _ = await self._fetch(path, {"Metadata": "true"})
        if status != 200:
            raise MetadataStrange(f"The metadata service answers {status} to {path}.")
        return body


# What the services' documents say.


class _AwsAction(msgspec.Struct):
    action: str
    time: str


class _AwsEvent(msgspec.Struct, rename="pascal"):
    event_id: str
    code: str
    not_before: str
    state: str = "active"


class _AzureCompute(msgspec.Struct):
    name: str


class _AzureEvent(msgspec.Struct, rename="pascal"):
    event_id: str
    event_type: str
    resources: list[str]
    not_before: str = ""


class _AzureEvents(msgspec.Struct, rename="pascal"):
    events: list[_AzureEvent] = []


_AWS_ENDS: Final = frozenset(
    {"instance-stop", "instance-retirement", "instance-reboot", "system-reboot"}
)
_AZURE_ENDS: Final = frozenset({"Preempt", "Terminate", "Redeploy", "Reboot"})
_AZURE_NOTICE_S: Final = 30  # the least that Azure gives


def aws_spot(body: str) -> Ending:
    """`spot/instance-action`. Hibernation begins at once: its time is already there."""
    told = _decoded(body, _AwsAction)
    try:
        at = datetime.fromisoformat(told.time)
    except ValueError as error:
        raise MetadataStrange(f"The end of this machine is {told.time!r}: no time.") from error
    at_ns = _ns(at)
    return Ending(f"aws-spot-{told.action}-{told.time}", at_ns, 120, f"spot {told.action}")


def aws_scheduled(body: str) -> tuple[Ending, ...]:
    """`events/maintenance/scheduled`: those that end or restart the machine and still stand."""
    told = _decoded(body, list[_AwsEvent])
    return tuple(
        Ending(event.event_id, _date_ns(event.not_before), 0, event.code)
        for event in told
        if event.state == "active" and event.code in _AWS_ENDS
    )


def azure_scheduled(body: str, name: str) -> tuple[Ending, ...]:
    """Those of the machine `name`. An event that has begun has no `NotBefore`: it ends now."""
    told = _decoded(body, _AzureEvents)
    return tuple(
        Ending(
            event.event_id,
            _date_ns(event.not_before) if event.not_before else None,
            0 if not event.not_before else _AZURE_NOTICE_S,
            event.event_type.lower(),
        )
        for event in told.events
        if event.event_type in _AZURE_ENDS and _named(name, event.resources)
    )


def _named(name: str, resources: list[str]) -> bool:
    """Whether the machine is among those; Azure does not keep to one case."""
    return name.lower() in {resource.lower() for resource in resources}


def _date_ns(text: str) -> int:
    """`Mon, 19 Sep 2016 18:29:47 GMT`, or the same without its weekday."""
    try:
        return _ns(email.utils.parsedate_to_datetime(text))
    except ValueError as error:
        raise MetadataStrange(f"The end of this machine is {text!r}: no time.") from error


def _ns(at: datetime) -> int:
    aware = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return int(aware.timestamp()) * 1_000_000_000


def _decoded(body: str, kind: type[M]) -> M:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise MetadataStrange(f"The metadata service's answer is not one: {error}.") from error
