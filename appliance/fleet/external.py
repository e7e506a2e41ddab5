"""External engines: any OpenAI-compatible URL. No agent runs them, so they are asked from here.

Asking is `GET {base}/v1/models`. Any answer below 500 says that something serves there; what it
thinks of the request (a 401, a 404) is between it and its clients.
"""

import asyncio
import errno
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from appliance.domain.clock import Clock
from appliance.domain.ids import DeploymentId

log = logging.getLogger(__name__)

_RETRY_S_MIN: Final = 0.25
_DEADLINE_S_MAX: Final = 5.0
# A busy engine may answer one probe late; two in a row are an outage. A refused connection is one
# at once.
_MISSES_MAX: Final = 2
_API_SUFFIX: Final = "/v1"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where an external engine answers. `base_path` is "" or "/prefix", put before "/v1/…"."""

    host: str
    port: int
    tls: bool
    base_path: str

    @property
    def models_url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = "https" if self.tls else "http"
        return f"{scheme}://{host}:{self.port}{self.base_path}{_API_SUFFIX}/models"


def parse_endpoint(url: str) -> Endpoint:
    """Read a base URL, given with or without its `/v1`. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError("not an http or https URL with a host")
    tls = parts.scheme == "https"
    path = parts.path.rstrip("/").removesuffix(_API_SUFFIX).rstrip("/")
    return Endpoint(parts.hostname, parts.port or (443 if tls else 80), tls, path)


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: a change of any of it starts over."""

    endpoint: Endpoint
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Health:
    """What asking told. `asked` False: no answer yet, neither good nor bad."""

    asked: bool = False
    ready: bool = False
    reason: str = ""
    since_ns: int | None = None


@dataclass(slots=True)
class _Probe:
    target: Target
    task: asyncio.Task[None]
    health: Health = Health()


class Prober:
    """Asks every external engine from time to time; one owned task each."""

    def __init__(self, *, every_s: float, clock: Clock, changed: Callable[[], None]) -> None:
        """`changed` is called on the event loop when the health of an engine has changed."""
        self._every_s = every_s
        self._clock = clock
        self._changed = changed
        self._probes: dict[DeploymentId, _Probe] = {}
        self._ending: set[asyncio.Task[None]] = set()  # cancelled, not yet ended
        self._session: aiohttp.ClientSession | None = None

    def watch(self, targets: Mapping[DeploymentId, Target]) -> None:
        """Ask exactly these from now on."""
        for deployment_id, probe in list(self._probes.items()):
            if targets.get(deployment_id) != probe.target:
                del self._probes[deployment_id]
                probe.task.cancel()
                self._ending.add(probe.task)
                probe.task.add_done_callback(self._ending.discard)
        for deployment_id, target in targets.items():
            if deployment_id not in self._probes:
                task = asyncio.create_task(self._ask(deployment_id, target))
                self._probes[deployment_id] = _Probe(target, task)

    def health(self, deployment_id: DeploymentId) -> Health:
        probe = self._probes.get(deployment_id)
        return Health() if probe is None else probe.health

    async def close(self) -> None:
        tasks = [probe.task for probe in self._probes.values()] + list(self._ending)
        self._probes.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, deployment_id: DeploymentId, target: Target) -> None:
        """Ask one engine for ever. Unready, it is asked more often."""
        misses = 0
        retry_s = _RETRY_S_MIN
        while True:
            problem, final = await self._probe(target)
            if problem is None:
                misses, retry_s = 0, _RETRY_S_MIN
                self._note(deployment_id, ready=True, reason="")
                await asyncio.sleep(self._every_s)
                continue
            misses += 1
            if final or misses >= _MISSES_MAX or not self.health(deployment_id).ready:
                self._note(deployment_id, ready=False, reason=problem)
            await asyncio.sleep(min(retry_s, self._every_s))
            retry_s = min(retry_s * 2, self._every_s)

    async def _probe(self, target: Target) -> tuple[str | None, bool]:
        """None when it serves, else why not, and whether there is no doubt about it."""
        url = target.endpoint.models_url
        headers = {} if target.api_key is None else {"Authorization": f"Bearer {target.api_key}"}
        deadline_s = min(self._every_s, _DEADLINE_S_MAX)
        try:
            async with (
                asyncio.timeout(deadline_s),
                self._client().get(url, headers=headers, allow_redirects=False) as answer,
            ):
                if answer.status < 500:
                    return None, True
                return f"{url} answers {answer.status}. Look at the engine there.", False
        except TimeoutError:
            return (
                f"{url} does not answer within {deadline_s:g} s. Look at the engine there.",
                False,
            )
        except aiohttp.ClientConnectorCertificateError as error:
            doubt = error.certificate_error
            return f"The certificate of {target.endpoint.host} is not trusted: {doubt}.", True
        except aiohttp.ClientConnectorError as error:
            refused = error.os_error.errno == errno.ECONNREFUSED
            return f"{url} cannot be reached: {_why(error)}. Start the engine there.", refused
        except (aiohttp.ClientError, ValueError, OSError) as error:
            return f"{url} does not speak HTTP: {type(error).__name__}.", False

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # A connection for each question: a kept one would not notice a new process behind it.
            connector = aiohttp.TCPConnector(force_close=True, limit=0)
            self._session = aiohttp.ClientSession(
                connector=connector,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=_DEADLINE_S_MAX),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _note(self, deployment_id: DeploymentId, *, ready: bool, reason: str) -> None:
        probe = self._probes.get(deployment_id)
        if probe is None:
            return
        before = probe.health
        if before.asked and (before.ready, before.reason) == (ready, reason):
            return
        stays = before.asked and before.ready == ready
        since_ns = before.since_ns if stays else self._clock.wall_ns()
        probe.health = Health(asked=True, ready=ready, reason=reason, since_ns=since_ns)
        if not stays:
            state = "ready" if ready else "not ready"
            log.info(
                f"external engine {state}",  # noqa: G004 - two fixed texts
                extra={"deployment_id": deployment_id, "reason": reason},
            )
        self._changed()


def _why(error: aiohttp.ClientConnectorError) -> str:
    """In the system's words: asyncio puts its own in their place, with the address once more."""
    number = error.os_error.errno
    if isinstance(error, aiohttp.ClientConnectorDNSError) or not number or number < 0:
        return str(error.os_error.strerror or error.os_error)
    return os.strerror(number)
