"""One deployment as the scheduler holds it: its replicas, who waits for them, and by which way."""

from collections import OrderedDict

from appliance.domain.ids import DeploymentId, ReplicaId
from appliance.scheduler.fair_queue import FairQueue
from appliance.scheduler.lanes import Lanes
from appliance.scheduler.standing import Standing
from appliance.scheduler.tickets import UNKNOWN_LOADING, DeploymentView, ReplicaView, Ticket


class Deployment:
    """The replicas of one deployment and who waits for them."""

    __slots__ = ("again", "asked_at_s", "fair", "known", "lanes", "loading", "ready", "starting")

    def __init__(self) -> None:
        self.known: dict[ReplicaId, Standing] = {}  # ready, or gone but not yet idle
        self.ready: list[Standing] = []
        self.starting = 0
        self.loading = UNKNOWN_LOADING
        self.asked_at_s: float | None = None  # the last arrival
        self.fair = FairQueue()
        self.lanes = Lanes()  # who waits by a lane stands in the fair queue, too
        # Tickets that lost their replica and wait for another; they go first.
        self.again: OrderedDict[Ticket, None] = OrderedDict()

    @property
    def waiting(self) -> int:
        return len(self.fair.waiting) + len(self.again)

    def oldest(self) -> Ticket | None:
        """The ticket that has waited longest."""
        fair, again = self.fair.oldest(), next(iter(self.again), None)
        if fair is None or again is None:
            return fair or again
        return fair if fair.queued_at_s <= again.queued_at_s else again

    def view(self, deployment_id: DeploymentId, now_s: float) -> DeploymentView:
        return DeploymentView(
            deployment_id=deployment_id,
            queued=self.waiting,
            asked_at_s=self.asked_at_s,
            replicas=tuple(_replica_view(standing, now_s) for standing in self.ready),
            lanes=self.lanes.views(now_s),
        )


def _replica_view(standing: Standing, now_s: float) -> ReplicaView:
    return ReplicaView(
        target=standing.target,
        running=standing.running,
        slots=standing.slots,
        outstanding_tokens=standing.outstanding_tokens,
        tokens_per_s=standing.tokens_per_s,
        failures=standing.failures,
        ejected_s=max(0.0, standing.ejected_until_s - now_s) if not standing.trusted else 0.0,
        trusted=standing.trusted,
    )
