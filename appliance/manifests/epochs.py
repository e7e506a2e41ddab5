"""Epochs: how the chain of a restored site goes on without anything counted twice.

The control plane grants a new epoch on the head that it knows; what it knows is the truth. How the
site continues from there, also where its own copy is older, is `appliance.sync.epochs`.
"""

from dataclasses import replace

from appliance.manifests.documents import EpochGrant
from appliance.manifests.errors import KeyChainBroken
from appliance.manifests.moments import moment
from appliance.manifests.reported import ReportedState
from appliance.security.signing import PublicKey


def make_grant(
    state: ReportedState, appliance_id: str, key: PublicKey, reason: str, at: str
) -> EpochGrant:
    """What the control plane signs so that `key` may begin the next epoch on this state."""
    return EpochGrant(
        appliance_id=appliance_id,
        epoch=state.epoch + 1,
        predecessor_epoch=state.epoch,
        predecessor_seq=state.accepted_through,
        predecessor_sha256=state.head_sha256,
        predecessor_wall=moment(state.wall_ms),
        event_seq=state.event_seq_hi,
        cumulative_totals=state.cumulative.totals(),
        log_size=state.log.size,
        log_root=state.log.root().hex(),
        log_frontier=tuple(one.hex() for one in state.log.roots),
        key_pem=key.pem,
        reason=reason,
        at=at,
    )


def granted_state(state: ReportedState, grant: EpochGrant) -> ReportedState:
    """What the control plane expects after a grant on this state.

    The engines may count anew: a restored site forgot what it had added up. Raises KeyChainBroken
    when the grant does not follow this very state.
    """
    named = (grant.predecessor_epoch, grant.predecessor_seq, grant.predecessor_sha256)
    if named != (state.epoch, state.accepted_through, state.head_sha256):
        raise KeyChainBroken("The epoch grant names another head than the site's.")
    expected = make_grant(
        state, grant.appliance_id, PublicKey.from_pem(grant.key_pem), grant.reason, grant.at
    )
    if grant != expected:
        raise KeyChainBroken("The epoch grant names other sums than its head's.")
    return replace(
        state,
        epoch=grant.epoch,
        accepted_through=0,
        closed=(*state.closed, (state.epoch, state.accepted_through)),
        prompt_tokens=0,
        generated_tokens=0,
        watermark_ms=0,
        regressions=0,
        boot_id="",
        mono_ns=0,
        frozen=False,
    )
