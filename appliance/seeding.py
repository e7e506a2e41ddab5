"""After a start the limits remember what the ledger says was used: a restart is no new quota."""

from collections import defaultdict
from typing import Final

from appliance.domain.clock import Clock
from appliance.domain.limits import Layer
from appliance.limits.memory import MemoryLimitStore, Spent
from appliance.metering.reader import LedgerReader
from appliance.metering.schema import SLOT_NS

_RESERVED: Final = "reserved"  # what ran within a promise does not count in the global layer
_SECOND_NS: Final = 1_000_000_000
_MINUTE_NS: Final = 60 * _SECOND_NS
_DAY_NS: Final = 24 * 60 * _MINUTE_NS


def seed_limits(limits: MemoryLimitStore, ledger: LedgerReader, clock: Clock) -> None:
    """Count the ledger's last day in every scope. Blocks for the disk.

    What may still count in the window of a minute is read by seconds, the day before it in slots
    of five minutes. Each sum is as old as the end of its slot, so nothing is forgotten too early.
    """
    now_ns = clock.wall_ns()
    boundary_ns = (now_ns - _MINUTE_NS) // SLOT_NS * SLOT_NS
    spent: dict[str, list[Spent]] = defaultdict(list)
    for slot_ns, since_ns, until_ns in (
        (SLOT_NS, now_ns - _DAY_NS, boundary_ns),
        (_SECOND_NS, boundary_ns, None),
    ):
        for total in ledger.totals_since(since_ns, slot_ns):
            if until_ns is not None and total.slot_start_ns >= until_ns:
                continue
            age_ns = max(0, now_ns - total.slot_start_ns - slot_ns)
            used = Spent(age_ns / _SECOND_NS, total.requests, total.tokens)
            scopes = [total.tenant_id, total.environment_id, total.key_id]
            if total.price_class != _RESERVED:
                scopes.append(Layer.GLOBAL.value)
            for scope_id in scopes:
                spent[scope_id].append(used)
    for scope_id, sums in spent.items():
        limits.seed(scope_id, sums, clock.monotonic_s())
