"""What the scheduler is told: which replicas serve, and how long the first of them still takes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Protocol

from appliance.domain.ids import DeploymentId
from appliance.fleet.measurements import Measurements
from appliance.fleet.notices import handed_over
from appliance.fleet.reconcile import Wanted
from appliance.fleet.statuses import DeploymentStatus
from appliance.scheduler.replicas import ReplicaTarget
from appliance.scheduler.tickets import UNKNOWN_LOADING, DeploymentView, Effects, Loading

_Told = tuple[tuple[ReplicaTarget, ...], int, Loading]
_NOTHING: Final[_Told] = ((), 0, UNKNOWN_LOADING)
_SECOND_NS: Final = 1_000_000_000


class SchedulerPort(Protocol):
    """What the fleet needs of the scheduler."""

    def set_replicas(
        self,
        deployment_id: DeploymentId,
        targets: Sequence[ReplicaTarget],
        now_s: float,
        starting: int = 0,
        loading: Loading = UNKNOWN_LOADING,
    ) -> Effects: ...

    def view(self, now_s: float) -> tuple[DeploymentView, ...]: ...

    def view_of(self, deployment_id: DeploymentId, now_s: float) -> DeploymentView | None: ...


class Teller:
    """Tells only what differs from what was told last. `apply` is the gateway's."""

    __slots__ = ("_apply", "_delay_s", "_measurements", "_scheduler", "_told")

    def __init__(
        self,
        scheduler: SchedulerPort,
        apply: Callable[[Effects], None],
        measurements: Measurements,
        delay_s: float,
    ) -> None:
        """A request that asks for a model is heard within `delay_s`."""
        self._scheduler = scheduler
        self._apply = apply
        self._measurements = measurements
        self._delay_s = delay_s
        self._told: dict[DeploymentId, _Told] = {}

    def tell(
        self,
        wanted: Wanted,
        statuses: Mapping[DeploymentId, DeploymentStatus],
        leaving: Collection[str],
        now_s: float,
        now_ns: int,
    ) -> None:
        """`leaving`: names of nodes on which nothing shall begin that can begin elsewhere."""
        rows = {row.id: row for row in wanted.deployments}
        news: dict[DeploymentId, _Told] = {}
        for deployment_id, status in statuses.items():
            loading = UNKNOWN_LOADING
            row = rows.get(deployment_id)
            if row is not None and status.starting and not status.targets:
                generation = wanted.generations.get((row.id, row.generation))
                if generation is not None:
                    takes_s = self._measurements.load_s(row.engine, generation)
                    loading = self._loading(status, takes_s, now_s, now_ns)
            news[deployment_id] = (handed_over(status.targets, leaving), status.starting, loading)
        for deployment_id in self._told.keys() - news.keys():
            news[deployment_id] = _NOTHING
        for deployment_id, told in news.items():
            if self._told.get(deployment_id, _NOTHING) != told:
                self._told[deployment_id] = told
                targets, starting, loading = told
                effects = self._scheduler.set_replicas(
                    deployment_id, targets, now_s, starting, loading
                )
                if effects:
                    self._apply(effects)
        self._told = {d: told for d, told in self._told.items() if d in statuses}

    def _loading(
        self, status: DeploymentStatus, takes_s: float, now_s: float, now_ns: int
    ) -> Loading:
        """In whole seconds, so that a clock that is read twice makes no news."""
        started = [
            replica.report.started_ns
            for replica in status.replicas
            if replica.report is not None and replica.report.started_ns is not None
        ]
        if not started:
            return Loading(takes_s + self._delay_s)
        since_s = (now_ns - min(started)) / _SECOND_NS
        return Loading(takes_s, float(round(now_s - since_s + takes_s)))
