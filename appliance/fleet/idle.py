"""Which deployments nobody asked for, for as long as they were told to wait. Times are parameters.

A deployment that is unloaded has no engines and keeps no places. The next request for it is
answered that it loads, and loads it.
"""

from collections.abc import Collection, Iterable, Mapping

from appliance.domain.ids import DeploymentId
from appliance.registry.deployment_rows import DeploymentRow
from appliance.scheduler.tickets import DeploymentView


class Idle:
    """Remembers when each deployment was last at work. After a start all are taken to be."""

    __slots__ = ("_active_s",)

    def __init__(self) -> None:
        self._active_s: dict[DeploymentId, float] = {}

    def unloaded(
        self,
        deployments: Iterable[DeploymentRow],
        views: Mapping[DeploymentId, DeploymentView],
        on_the_way: Collection[DeploymentId],
        now_s: float,
    ) -> frozenset[DeploymentId]:
        """Those that need no engine now. `on_the_way` have none that is ready, and should have."""
        told = {row.id: row.idle_s for row in deployments if row.idle_s and not row.suspended}
        self._active_s = {d: s for d, s in self._active_s.items() if d in told}
        for deployment_id in told:
            since_s = self._active_s.setdefault(deployment_id, now_s)
            view = views.get(deployment_id)
            if deployment_id in on_the_way or (view is not None and _at_work(view)):
                since_s = now_s
            elif view is not None and view.asked_at_s is not None:
                since_s = max(since_s, view.asked_at_s)
            self._active_s[deployment_id] = since_s
        return frozenset(d for d, idle_s in told.items() if now_s - self._active_s[d] >= idle_s)


def _at_work(view: DeploymentView) -> bool:
    return view.queued > 0 or any(replica.running for replica in view.replicas)
