"""Whether what a control plane holds of a site agrees with itself, in every place it is kept."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select

from appliance.controlplane import documents, sites
from appliance.controlplane.billing.usage_table import USAGE
from appliance.controlplane.service import ControlPlane
from appliance.controlplane.site_tables import MANIFESTS, ManifestState
from appliance.manifests.keys import open_receipt


@dataclass(frozen=True, slots=True)
class Books:
    """Of one site. `accepted`: rows of manifests; `posted`: manifests with rows of usage."""

    accepted_through: int
    accepted: int
    waiting: int
    posted: int
    requests_reported: int
    requests_posted: int
    receipted_through: int

    @property
    def agree(self) -> bool:
        return (
            self.accepted_through == self.accepted == self.posted == self.receipted_through
            and self.requests_reported == self.requests_posted
        )


def books(plane: ControlPlane, appliance_id: str) -> Books:
    """Of a site in its first epoch, each of whose manifests has records."""

    def run(connection: Any) -> Books:
        site = sites.read(connection, appliance_id)
        assert site is not None

        def rows(state: ManifestState) -> int:
            query = select(func.count()).select_from(MANIFESTS)
            mine = query.where(MANIFESTS.c.appliance_id == appliance_id)
            return int(
                connection.execute(mine.where(MANIFESTS.c.state == state.value)).scalar_one()
            )

        posted = select(func.count(func.distinct(USAGE.c.seq))).where(
            USAGE.c.appliance_id == appliance_id
        )
        requests = select(func.coalesce(func.sum(USAGE.c.requests), 0)).where(
            USAGE.c.appliance_id == appliance_id
        )
        newest = documents.newest(connection, appliance_id, "receipt")
        assert newest is not None
        told = open_receipt(newest, plane.identity.key.public)
        return Books(
            accepted_through=site.state.accepted_through,
            accepted=rows(ManifestState.ACCEPTED),
            waiting=rows(ManifestState.WAITING),
            posted=int(connection.execute(posted).scalar_one()),
            requests_reported=site.state.cumulative.requests,
            requests_posted=int(connection.execute(requests).scalar_one()),
            receipted_through=told.accepted_through,
        )

    return plane.database.read(run)
