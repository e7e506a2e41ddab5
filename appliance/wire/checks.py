"""The admin API's messages about the health checks of a site.

GET    /v1/checks?only=        NDJSON of CheckResult, one by one as they are done
"""

from typing import Literal

from appliance.wire.admin_message import Message

# skipped: there was nothing to check, or it cannot be checked here; `seen` says which.
CheckOutcome = Literal["ok", "warning", "failed", "skipped"]


class CheckResult(Message, frozen=True):
    """What one check found. `fix` is "" where there is nothing to do."""

    name: str  # "disk.space"
    subject: str  # of several alike: the deployment, the node, the folder; else ""
    outcome: CheckOutcome
    seen: str  # with figures
    why: str  # why it matters
    fix: str
    took_ms: int
    number: int  # of this result, from 1
    total: int  # results that are expected in all; may grow while checks find their subjects
