"""Sealing: the header of a window, signed, and where the chain stands after it."""

from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from appliance.manifests.canonical import encode
from appliance.manifests.documents import (
    MANIFEST_SCHEMA,
    MANIFEST_TYPE,
    NO_HASH,
    EngineCounters,
    Header,
)
from appliance.manifests.envelope import Envelope, sign
from appliance.manifests.lines import SealedLines, Sums
from appliance.manifests.merkle import Frontier, leaf_hash
from appliance.manifests.moments import MS_NS, moment
from appliance.security.signing import SigningKey

_NO_ENGINES: Final = EngineCounters(prompt_tokens="0", generated_tokens="0")


@dataclass(frozen=True, slots=True)
class ChainState:
    """Where a chain stands: what the next manifest continues. The first of a site is the default.

    `watermark_ns` is the latest moment this site ever saw. `log` is never changed in place.
    """

    epoch: int = 1
    seq: int = 0  # of the newest manifest of this epoch; 0: none yet
    head_sha256: str = NO_HASH
    event_seq_hi: int = 0
    cumulative: Sums = field(default_factory=Sums)
    log: Frontier = field(default_factory=Frontier)
    watermark_ns: int = 0
    regressions: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """The time of sealing, on both clocks of this machine."""

    wall_ns: int
    mono_ns: int
    boot_id: str


@dataclass(frozen=True, slots=True)
class SealContext:
    """What else a header says of the site."""

    appliance_id: str
    software_digest: str
    entitlement_id: str = ""
    last_receipt_sha256: str = NO_HASH
    audit_head: str = NO_HASH
    engines: EngineCounters = _NO_ENGINES


@dataclass(frozen=True, slots=True)
class Sealed:
    """A manifest as it is stored and sent, and the state that the next one continues."""

    header: Header
    payload: bytes
    envelope: Envelope
    sha256: str  # of the payload
    next: ChainState


def seal(
    state: ChainState,
    window: SealedLines,
    event_seq_lo: int,
    event_seq_hi: int,
    moment_now: Moment,
    context: SealContext,
    key: SigningKey,
) -> Sealed:
    """Sign the window that continues `state`.

    Raises ValueError when its numbers do not follow, are not as many as its records, or a sum
    does not fit: nothing is signed that could not be accepted.
    """
    if event_seq_lo != state.event_seq_hi + 1:
        raise ValueError(f"the window begins at {event_seq_lo}, not after {state.event_seq_hi}")
    if event_seq_hi - event_seq_lo + 1 != window.totals.requests:
        raise ValueError("the window has not as many records as numbers")
    if not (state.cumulative + window.totals).fits():
        raise ValueError("a sum is beyond 64 bits")
    seen = _seen(state, window, moment_now.wall_ns)
    header = _header(seen, window, moment_now, context, key)
    payload = encode(header)
    digest = sha256(payload).hexdigest()
    log = state.log.copy()
    log.append(leaf_hash(payload))
    return Sealed(
        header=header,
        payload=payload,
        envelope=sign(MANIFEST_TYPE, payload, key),
        sha256=digest,
        next=replace(
            seen,
            seq=header.seq,
            head_sha256=digest,
            event_seq_hi=event_seq_hi,
            cumulative=state.cumulative + window.totals,
            log=log,
        ),
    )


def _seen(state: ChainState, window: SealedLines, wall_ns: int) -> ChainState:
    """The state with what the clock says now. Less than a millisecond is not told, nor counted."""
    before_ns = max(state.watermark_ns, window.latest_ns)
    behind = wall_ns // MS_NS < before_ns // MS_NS
    return replace(
        state,
        watermark_ns=max(before_ns, wall_ns),
        regressions=state.regressions + behind,
    )


def _header(
    state: ChainState,
    window: SealedLines,
    moment_now: Moment,
    context: SealContext,
    key: SigningKey,
) -> Header:
    return Header(
        schema=MANIFEST_SCHEMA,
        appliance_id=context.appliance_id,
        epoch=state.epoch,
        seq=state.seq + 1,
        prev_sha256=state.head_sha256,
        key_id=key.key_id,
        entitlement_id=context.entitlement_id,
        software_digest=context.software_digest,
        event_seq_lo=state.event_seq_hi + 1,
        event_seq_hi=state.event_seq_hi + window.totals.requests,
        line_count=window.line_count,
        lines_root=window.root.hex(),
        totals=window.totals.totals(),
        cumulative_totals=(state.cumulative + window.totals).totals(),
        log_size=state.log.size,
        log_root=state.log.root().hex(),
        last_receipt_sha256=context.last_receipt_sha256,
        audit_head=context.audit_head,
        wall=moment(moment_now.wall_ns // MS_NS),
        watermark=moment(state.watermark_ns // MS_NS),
        boot_id=moment_now.boot_id,
        mono_ns=str(moment_now.mono_ns),
        regressions=state.regressions,
        engines=context.engines,
    )
