"""What a site reported, and whether its next manifest continues it: stage 2 of verifying.

Pure: it runs in the transaction that stores the manifest, on the state read there.
"""

from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from appliance.manifests.codes import Code
from appliance.manifests.documents import NO_HASH
from appliance.manifests.lines import Sums
from appliance.manifests.merkle import Frontier, leaf_hash
from appliance.manifests.verify import Checked, Finding

FUTURE_MS_MAX: Final = 5 * 60 * 1_000  # a site's clock may be ahead of ours by this much


@dataclass(frozen=True, slots=True)
class ReportedState:
    """What a site has reported so far: what its next manifest must continue. Of a new site: this.

    `log` is never changed in place. `seen_ms` is the latest moment that the site reported and that
    had come when it was taken in: a clock that was once ahead does not stay behind for ever.
    """

    epoch: int = 1
    accepted_through: int = 0
    head_sha256: str = NO_HASH
    event_seq_hi: int = 0
    cumulative: Sums = field(default_factory=Sums)
    log: Frontier = field(default_factory=Frontier)
    prompt_tokens: int = 0  # of the engines
    generated_tokens: int = 0
    wall_ms: int = 0  # of the newest manifest, as are the rest
    watermark_ms: int = 0
    seen_ms: int = 0
    regressions: int = 0
    boot_id: str = ""
    mono_ns: int = 0
    closed: tuple[tuple[int, int], ...] = ()  # epochs that ended: (epoch, last that was accepted)
    frozen: bool = False

    def accepted(self, epoch: int, seq: int) -> bool:
        """Whether the manifest of that number was accepted."""
        through = dict(self.closed).get(epoch, 0)
        return seq <= (self.accepted_through if epoch == self.epoch else through)

    def to_bytes(self) -> bytes:
        """As it is stored; `from_bytes` reads it."""
        return msgspec.json.encode(self, enc_hook=_frontier_hex)

    @classmethod
    def from_bytes(cls, raw: bytes) -> "ReportedState":
        """Raises msgspec.ValidationError when these are no bytes of `to_bytes`."""
        return msgspec.json.decode(raw, type=cls, dec_hook=_hex_frontier)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The manifest continues the chain. With holds it is posted, and not billed yet."""

    state: ReportedState
    holds: tuple[Code, ...]

    @property
    def code(self) -> Code:
        return self.holds[0] if self.holds else Code.ACCEPTED


def check_chain(
    state: ReportedState, checked: Checked, now_ms: int, stored_sha256: str | None = None
) -> Accepted | Finding:
    """Stage 2: does the manifest continue what was reported? `now_ms`: the verifier's own clock.

    `stored_sha256`: of the manifest that is already stored under this epoch and number, accepted
    or waiting behind a gap; None when there is none.
    """
    header = checked.header
    place = f"{header.epoch}-{header.seq}"
    if stored_sha256 == checked.sha256 and state.accepted(header.epoch, header.seq):
        return Finding(Code.ALREADY_ACCEPTED, f"{place} was accepted before")
    if stored_sha256 is not None and stored_sha256 != checked.sha256:
        return Finding(Code.FORK, f"another manifest {place} was signed: {stored_sha256}")
    if state.frozen:
        return Finding(Code.FORK, "the appliance is frozen since its chain forked")
    if header.epoch != state.epoch:
        what = "was closed" if header.epoch < state.epoch else "was not granted"
        return Finding(Code.EPOCH_CLOSED, f"epoch {header.epoch} {what}; {state.epoch} is open")
    if header.seq != state.accepted_through + 1:
        if header.seq <= state.accepted_through:
            return Finding(Code.FORK, f"{place} is not the manifest that was accepted before")
        missing = f"{state.accepted_through + 1} to {header.seq - 1}"
        return Finding(Code.GAP, f"missing: epoch {state.epoch}, {missing}")
    if finding := _broken(state, checked):
        return finding
    return Accepted(_after(state, checked, now_ms), _holds(state, checked, now_ms))


def _broken(state: ReportedState, checked: Checked) -> Finding | None:
    """CHAIN_BROKEN to CUMULATIVE_REGRESSION: what the next manifest must say of those before."""
    header, after = checked.header, state.event_seq_hi + 1
    if header.prev_sha256 != state.head_sha256:
        return Finding(Code.CHAIN_BROKEN, f"it continues {header.prev_sha256}")
    if header.log_size != state.log.size or header.log_root != state.log.root().hex():
        return Finding(Code.LOG_INCONSISTENT, "its log is not the log of what was reported")
    if header.event_seq_lo < after:
        return Finding(Code.EVENT_SEQ_OVERLAP, f"{header.event_seq_lo} was reported before")
    if header.event_seq_lo > after:
        return Finding(Code.EVENT_SEQ_GAP, f"missing: {after} to {header.event_seq_lo - 1}")
    if checked.cumulative != state.cumulative + checked.totals:
        return Finding(
            Code.CUMULATIVE_REGRESSION,
            f"it counts {checked.cumulative}; with what was reported before it is"
            f" {state.cumulative + checked.totals}",
        )
    return None


def _holds(state: ReportedState, checked: Checked, now_ms: int) -> tuple[Code, ...]:
    header, holds = checked.header, []
    engines = header.engines
    if (
        int(engines.prompt_tokens) < state.prompt_tokens
        or int(engines.generated_tokens) < state.generated_tokens
    ):
        holds.append(Code.COUNTER_REGRESSION)
    if _clock_went_back(state, checked):
        holds.append(Code.CLOCK_REGRESSION)
    # The watermark of a clock that was once ahead stays there: only what is said of now counts.
    if max(checked.wall_ms, checked.latest_hour_ms) > now_ms + FUTURE_MS_MAX:
        holds.append(Code.CLOCK_FUTURE)
    return tuple(holds)


def _clock_went_back(state: ReportedState, checked: Checked) -> bool:
    """Whether the hours of this window's lines may be wrong because the clock was set back."""
    header = checked.header
    if checked.wall_ms < max(state.wall_ms, state.seen_ms):
        return True  # behind what was reported before
    if checked.wall_ms < max(checked.latest_hour_ms, _new_watermark_ms(state, checked)):
        return True  # ahead since the last window, and back again before this one was sealed
    if header.regressions < state.regressions:
        return True  # it forgot
    same_boot = header.boot_id != "" and header.boot_id == state.boot_id
    return same_boot and int(header.mono_ns) < state.mono_ns  # time ran twice: a machine's copy


def _new_watermark_ms(state: ReportedState, checked: Checked) -> int:
    """The watermark if it rose since the last window, else 0."""
    return checked.watermark_ms if checked.watermark_ms > state.watermark_ms else 0


def _after(state: ReportedState, checked: Checked, now_ms: int) -> ReportedState:
    header, log = checked.header, state.log.copy()
    log.append(leaf_hash(checked.payload))
    return replace(
        state,
        accepted_through=header.seq,
        head_sha256=checked.sha256,
        event_seq_hi=header.event_seq_hi,
        cumulative=checked.cumulative,
        log=log,
        prompt_tokens=int(header.engines.prompt_tokens),
        generated_tokens=int(header.engines.generated_tokens),
        wall_ms=checked.wall_ms,
        watermark_ms=checked.watermark_ms,
        seen_ms=max(state.seen_ms, min(checked.watermark_ms, now_ms)),
        regressions=header.regressions,
        boot_id=header.boot_id,
        mono_ns=int(header.mono_ns),
    )


def _frontier_hex(log: Frontier) -> str:
    return log.to_bytes().hex()


def _hex_frontier(_kind: type[Frontier], text: str) -> Frontier:
    return Frontier.from_bytes(bytes.fromhex(text))
