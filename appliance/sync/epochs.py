"""The beginning of a new epoch, which only the control plane can grant.

After a restore the site and the control plane agree on a beginning and differ on the rest. The
grant names the head that the control plane accepted last; the new epoch continues it: its event
numbers, sums and log. Which records it begins with follows from what both have in common:

- The site has that very head: the first record after it. What was sealed since is sealed anew.
- It does not: its ledger was restored. What stood in the ledger when the restored site was started
  had been in the ledger that reported, so it counts as reported, as far as the head reaches; what
  came since is new and is sealed. That start is the first after the head was sealed; where two
  copies were at work at once there may be none, and then it is the first after the newest receipt.

No record is counted twice, and none is left out, unless a copy was started and stopped between the
newest receipt and its own backup while the other one went on; the difference is at most what was
served then (docs/BILLING.md).
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace

from appliance.manifests import archive
from appliance.manifests.archive import Chain
from appliance.manifests.documents import EpochGrant
from appliance.manifests.merkle import Frontier
from appliance.manifests.starts import first_start_after
from appliance.security.signing import PublicKey
from appliance.sync.errors import GrantRefused
from appliance.sync.moments import moment_ns

_UNCHANGED = "Nothing was changed. Ask the vendor for a grant for the key that this site showed."


@dataclass(frozen=True, slots=True)
class Common:
    """Up to which record both sides have the same, as far as this site can know.

    `head_record_seq`: the last record of the named head, where the site has it; else None.
    `started_record_seq`: the newest record at the start of the copy; None: no such start is known.
    `receipted_record_seq`: the last record that a receipt covers; 0 when there is none.
    """

    head_record_seq: int | None
    started_record_seq: int | None
    receipted_record_seq: int


def begin(connection: sqlite3.Connection, grant: EpochGrant, key_ids: Sequence[str]) -> None:
    """Let the granted epoch begin, in a transaction. Raises GrantRefused.

    `key_ids`: of the keys that this site holds, the one in use and the one that waits.
    """
    if PublicKey.from_pem(grant.key_pem).key_id not in key_ids:
        raise GrantRefused(
            "The epoch grant is for a key that this site does not hold.", next_step=_UNCHANGED
        )
    chain = archive.chain_state(connection)
    common = _common(connection, grant)
    after = continued(chain, grant, common)
    archive.set_aside(connection, after.record_seq_hi)
    archive.set_chain_state(connection, after)


def continued(chain: Chain, grant: EpochGrant, common: Common) -> Chain:
    """Where the chain stands when the granted epoch begins. Raises GrantRefused."""
    totals = grant.cumulative_totals
    return replace(
        chain,
        epoch=grant.epoch,
        seq=0,
        head_sha256=grant.predecessor_sha256,
        event_seq_hi=grant.event_seq,
        record_seq_hi=_reported(chain, grant, common),
        requests=int(totals.requests),
        input_tokens=int(totals.input_tokens),
        cached_tokens=int(totals.cached_tokens),
        output_tokens=int(totals.output_tokens),
        frontier=_log(grant).to_bytes(),
    )


def _log(grant: EpochGrant) -> Frontier:
    """The log as the control plane knows it; this site may have lost its leaves."""
    try:
        log = Frontier(grant.log_size, [bytes.fromhex(each) for each in grant.log_frontier])
    except ValueError as error:
        raise GrantRefused(
            f"The epoch grant does not tell how the log goes on: {error}.", next_step=_UNCHANGED
        ) from error
    if log.root().hex() != grant.log_root:
        raise GrantRefused(
            "The epoch grant contradicts itself about the log.", next_step=_UNCHANGED
        )
    return log


def _reported(chain: Chain, grant: EpochGrant, common: Common) -> int:
    """The last number of this ledger that counts as reported."""
    if common.head_record_seq is not None:
        return common.head_record_seq
    reached = common.receipted_record_seq
    if common.started_record_seq is not None:
        reached = max(reached, common.started_record_seq)
    if grant.predecessor_epoch == chain.epoch:
        # The head may reach less far than the backup: what lies between was never reported.
        head = grant.event_seq - (chain.event_seq_hi - chain.record_seq_hi)
        reached = min(reached, max(head, 0))
    return reached


def _common(connection: sqlite3.Connection, grant: EpochGrant) -> Common:
    state = archive.sync_state(connection)
    head = archive.manifest_row(connection, grant.predecessor_epoch, grant.predecessor_seq)
    ours = head is not None and head.sha256 == grant.predecessor_sha256
    started = first_start_after(connection, moment_ns(grant.predecessor_wall))
    if started is None and state.newest_received_at:
        started = first_start_after(connection, moment_ns(state.newest_received_at))
    receipted = archive.manifest_row(connection, state.epoch, state.accepted_through)
    return Common(
        head_record_seq=head.record_seq_hi if head is not None and ours else None,
        started_record_seq=started,
        receipted_record_seq=0 if receipted is None else receipted.record_seq_hi,
    )
