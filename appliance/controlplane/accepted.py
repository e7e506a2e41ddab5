"""What ingest hands to billing: one manifest that was accepted, inside its transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.manifests.codes import Code
from appliance.manifests.documents import Line


@dataclass(frozen=True, slots=True)
class AcceptedManifest:
    """Verified, in its place in the chain, and stored by the same transaction.

    `holds`: why its billing waits for a person although it is accepted; empty when it does not.
    """

    appliance_id: str
    epoch: int
    seq: int
    sha256: str  # of the header's payload
    lines: Sequence[Line]
    holds: tuple[Code, ...]
