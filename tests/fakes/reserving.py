"""Reserved capacity for tests of the admin API: figures that stand still."""

from dataclasses import dataclass, field

from appliance.admin.ports import Kept
from appliance.domain.ids import DeploymentId
from appliance.registry.reservations import Room
from appliance.scheduler.attainment import Minute

MINUTE_NS = 60_000_000_000


@dataclass
class FixedReserving:
    """Every deployment was measured to make 100 tokens/s."""

    measured_tokens_per_s: int | None = 100
    minutes: list[Minute] = field(
        default_factory=lambda: [
            Minute(0, 600, 700, 600),
            Minute(MINUTE_NS, 600, 700, 540),
            Minute(2 * MINUTE_NS, 600, 0, 0),
        ]
    )
    times_applied: int = 0

    def room(self, deployment_id: DeploymentId) -> Room:
        return Room(self.measured_tokens_per_s, 20)

    def kept(self, reservation_id: str) -> Kept:
        return Kept(slipping=False, waiting=3, minutes=self.minutes)

    async def applied(self) -> None:
        self.times_applied += 1
