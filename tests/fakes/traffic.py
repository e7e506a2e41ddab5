"""Traffic of an endpoint that nobody asks anything, until a test says otherwise."""

from appliance.admin.pace import Counted
from appliance.admin.ports import Traffic

NO_TRAFFIC = Traffic(
    site=Counted(),
    deployments={},
    tenants={},
    requests=(),
    queued={},
    replicas={},
    streams_open=0,
    connections_open=0,
    records=0,
)


class FixedTraffic:
    def __init__(self, traffic: Traffic = NO_TRAFFIC) -> None:
        self.now = traffic

    @property
    def bands_s(self) -> tuple[float, ...]:
        return (0.1, 0.5, 1.0)

    def traffic(self) -> Traffic:
        return self.now
