"""What the life of a request works with, brought together once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from appliance.domain.clock import Clock
from appliance.domain.ids import DeploymentId
from appliance.gateway.head import Dater
from appliance.gateway.pools import Pools
from appliance.gateway.stats import Stats
from appliance.gateway.traffic import InFlight, Traffic
from appliance.limits.reservation import LimitStore
from appliance.metering.records import Opening, Settlement
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.tickets import Effects
from appliance.settings import Settings

Done = Callable[[BaseException | None], None]


class Ledger(Protocol):
    """Where requests are recorded. `done(None)` is called on the event loop when it is durable."""

    def begin(self, opening: Opening, done: Done) -> None: ...

    def settle(self, settlement: Settlement, done: Done) -> None: ...


class Estimator(Protocol):
    """Prompt tokens from body bytes, learned from what engines measured."""

    def estimate(
        self, deployment_id: DeploymentId, body_bytes: int, context_tokens: int | None = None
    ) -> int:
        """Seldom too low, and never more than the context can hold."""
        ...

    def likely(self, deployment_id: DeploymentId, body_bytes: int) -> int:
        """As often too low as too high: for the records of requests whose engine tells nothing."""
        ...

    def observe(self, deployment_id: DeploymentId, body_bytes: int, prompt_tokens: int) -> None:
        """What an engine measured."""
        ...


class Running(Protocol):
    """An admitted request, as the gateway watches over it."""

    def check(self, now_s: float) -> None:
        """Act on deadlines that have passed."""
        ...

    def stop(self) -> None:
        """The appliance stops: end it, with a record."""
        ...

    def seen(self) -> InFlight:
        """It as of now, without its content."""
        ...


@dataclass(frozen=True, slots=True)
class Wiring:
    settings: Settings
    limits: LimitStore
    estimator: Estimator
    scheduler: Scheduler
    ledger: Ledger
    clock: Clock
    pools: Pools
    stats: Stats
    traffic: Traffic
    dater: Dater
    running: set[Running]
    apply: Callable[[Effects], None]  # starts and sheds other requests
    new_id: Callable[[str], str]  # of a noun, see domain.ids
