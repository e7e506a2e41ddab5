"""Looking at a `.usage` bundle as an auditor does: with the site's public key and nothing else.

Every manifest is verified alone, and then as the next one of those before it. Where the bundle
begins with the site's first manifest, the log is computed and the checkpoint compared with it;
where it begins later, only what lies between its ends can be said.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from appliance.manifests.bundle import CarriedManifest, KeyChain, UsageReader
from appliance.manifests.canonical import decode
from appliance.manifests.checkpoint import open_checkpoint
from appliance.manifests.codes import Code
from appliance.manifests.documents import NO_HASH, EpochGrant, Header, KeyRotation
from appliance.manifests.envelope import parse
from appliance.manifests.errors import BadManifest, KeyChainBroken, UnknownKey
from appliance.manifests.keys import KnownKey, KnownSite, Place, granted, open_grant, rotated
from appliance.manifests.lines import Sums
from appliance.manifests.merkle import Frontier, leaf_hash
from appliance.manifests.verify import Checked, Finding, check_bytes
from appliance.security.errors import BadPublicKey
from appliance.security.signing import PublicKey


class LogState(StrEnum):
    """How the checkpoint in a bundle stands to the manifests in it."""

    WHOLE = "whole"  # the log was computed from its first manifest on, and is the one it signs
    PARTIAL = "partial"  # it signs the log up to the last manifest; earlier ones are not here
    AHEAD = "ahead"  # it signs a later log, which begins with these
    NO_CHECKPOINT = "no checkpoint"


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """What a bundle that was found right holds."""

    appliance_id: str
    site: str
    first: Place
    last: Place
    manifests: int
    lines: int
    event_seq_lo: int
    event_seq_hi: int
    totals: Sums  # of the manifests in the bundle
    log: LogState
    key_ids: tuple[str, ...]  # of the site, from its first key on
    epochs_unproven: tuple[int, ...]  # begun by a grant that none of the given keys could check


class UsageAudit:
    """Takes the manifests of a bundle one by one. Every defect is a ManifestError.

    `trusted`: public keys that are known to be the site's, or its control plane's.
    """

    def __init__(self, appliance_id: str, chain: KeyChain, trusted: Sequence[PublicKey]) -> None:
        self._site, self._grants = _site_of_chain(appliance_id, chain, trusted)
        self._before: Checked | None = None
        self._log: Frontier | None = None  # None: what went before is not known
        self._whole = False
        self._first: Header | None = None
        self._manifests = self._lines = 0
        self._totals = Sums()
        self._unproven: list[int] = []

    def take(self, manifest: CarriedManifest) -> None:
        place = f"manifest {manifest.epoch}-{manifest.seq}"
        checked = check_bytes(manifest.envelope, manifest.lines, self._site)
        if isinstance(checked, Finding):
            raise _bad(place, checked.code, checked.detail)
        header = checked.header
        if (header.epoch, header.seq) != (manifest.epoch, manifest.seq):
            raise _bad(place, Code.MALFORMED, f"it says that it is {header.epoch}-{header.seq}")
        if self._before is None:
            self._first = header
            self._whole = header.log_size == 0 and header.prev_sha256 == NO_HASH
            self._log = Frontier() if self._whole else None
        else:
            self._continue(place, self._before, checked)
        self._continue_log(place, checked)
        self._before = checked
        self._manifests += 1
        self._lines += header.line_count
        self._totals += checked.totals

    def summary(self, site_name: str, checkpoint: bytes) -> UsageSummary:
        """When all were taken. Raises BadManifest, or BadCheckpoint."""
        if self._before is None or self._first is None:
            raise _bad("the bundle", Code.MALFORMED, "it holds no manifests")
        last = self._before.header
        return UsageSummary(
            appliance_id=self._site.appliance_id,
            site=site_name,
            first=(self._first.epoch, self._first.seq),
            last=(last.epoch, last.seq),
            manifests=self._manifests,
            lines=self._lines,
            event_seq_lo=self._first.event_seq_lo,
            event_seq_hi=last.event_seq_hi,
            totals=self._totals,
            log=self._compared(checkpoint, last.log_size + 1),
            key_ids=tuple(known.key.key_id for known in self._site.keys),
            epochs_unproven=tuple(self._unproven),
        )

    def _continue(self, place: str, before: Checked, after: Checked) -> None:
        """Raises BadManifest when `after` does not follow `before`."""
        old, new = before.header, after.header
        stands = _Stand(before.sha256, old.log_size + 1, old.event_seq_hi, before.cumulative)
        if new.epoch != old.epoch:
            if new.epoch not in self._grants or new.seq != 1:
                raise _bad(place, Code.EPOCH_CLOSED, "no grant for this epoch comes with it")
            grant, proven = self._grants[new.epoch]
            if not proven:
                self._unproven.append(new.epoch)
            if grant.predecessor_sha256 != before.sha256:  # it continues what is not here
                self._log, self._whole = _log_of(grant), False
            stands = _Stand(
                grant.predecessor_sha256,
                grant.log_size,
                grant.event_seq,
                Sums.of(grant.cumulative_totals),
            )
        elif new.seq != old.seq + 1:
            raise _bad(place, Code.GAP, f"it follows {old.epoch}-{old.seq}")
        if problem := stands.broken_by(after):
            raise _bad(place, *problem)

    def _continue_log(self, place: str, checked: Checked) -> None:
        if self._log is None:
            return
        if checked.header.log_root != self._log.root().hex():
            raise _bad(place, Code.LOG_INCONSISTENT, "it does not name the log before it")
        self._log.append(leaf_hash(checked.payload))

    def _compared(self, checkpoint: bytes, size: int) -> LogState:
        """The checkpoint against the log of this bundle. Raises BadManifest, BadCheckpoint."""
        if not checkpoint:
            return LogState.NO_CHECKPOINT
        stated = open_checkpoint(checkpoint, self._site)
        if stated.size < size:
            raise _bad("the checkpoint", Code.LOG_INCONSISTENT, "it is older than the bundle")
        if stated.size > size:
            return LogState.AHEAD
        if self._log is not None and stated.root != self._log.root():
            raise _bad("the checkpoint", Code.LOG_INCONSISTENT, "it is of another log")
        return LogState.WHOLE if self._whole else LogState.PARTIAL


@dataclass(frozen=True, slots=True)
class _Stand:
    """Where the next manifest must begin."""

    sha256: str
    log_size: int
    event_seq_hi: int
    cumulative: Sums

    def broken_by(self, after: Checked) -> tuple[Code, str] | None:
        header = after.header
        if header.prev_sha256 != self.sha256:
            return Code.CHAIN_BROKEN, "it does not continue the manifest before it"
        if header.log_size != self.log_size:
            return Code.LOG_INCONSISTENT, "its log does not grow by one"
        if header.event_seq_lo <= self.event_seq_hi:
            return Code.EVENT_SEQ_OVERLAP, f"{header.event_seq_lo} was reported before"
        if header.event_seq_lo != self.event_seq_hi + 1:
            return Code.EVENT_SEQ_GAP, f"record {self.event_seq_hi + 1} is missing"
        if after.cumulative != self.cumulative + after.totals:
            return Code.CUMULATIVE_REGRESSION, "its sums do not continue those before it"
        return None


def audit_usage(reader: UsageReader, trusted: Sequence[PublicKey]) -> UsageSummary:
    """The whole bundle. Raises ManifestError."""
    audit = UsageAudit(reader.index.appliance_id, reader.keys, trusted)
    for manifest in reader:
        audit.take(manifest)
    return audit.summary(reader.index.site, reader.checkpoint)


_Grants = dict[int, tuple[EpochGrant, bool]]  # epoch -> grant, and whether a given key signed it


def _site_of_chain(
    appliance_id: str, chain: KeyChain, trusted: Sequence[PublicKey]
) -> tuple[KnownSite, _Grants]:
    """The site's keys from the first on, and its grants. Raises ManifestError."""
    try:
        first = PublicKey.from_pem(chain.first_key_pem)
    except BadPublicKey as error:
        raise KeyChainBroken(f"The site's first key is none: {error.message}") from error
    site, grants = KnownSite(appliance_id, (KnownKey(first),)), _Grants()
    for _, raw, is_grant in sorted([*map(_rotation, chain.rotations), *map(_grant, chain.grants)]):
        if not is_grant:
            site = rotated(site, raw)
            continue
        grant, proven = _open_grant(raw, trusted)
        grants[grant.epoch] = (grant, proven)
        if proven:
            site = granted(site, grant)
        elif site.keys[-1].key.pem != grant.key_pem:
            raise KeyChainBroken(
                f"Epoch {grant.epoch} is signed with a key for which its control plane vouches.",
                next_step="Give the control plane's public key as well, with a second --key.",
            )
    if not any(known.key in trusted for known in site.keys):
        raise UnknownKey(
            "The bundle is signed with other keys than the one that was given.",
            next_step="Give the public key of the site that wrote it (`cic manifest public-key`).",
        )
    return site, grants


def _open_grant(raw: bytes, trusted: Sequence[PublicKey]) -> tuple[EpochGrant, bool]:
    for key in trusted:
        with suppress(UnknownKey):
            return open_grant(raw, key), True
    return decode(parse(raw).payload, EpochGrant), False


def _log_of(grant: EpochGrant) -> Frontier:
    try:
        return Frontier(grant.log_size, [bytes.fromhex(one) for one in grant.log_frontier])
    except ValueError as error:
        raise KeyChainBroken(f"The grant of epoch {grant.epoch} has no sound log.") from error


def _rotation(text: str) -> tuple[Place, bytes, bool]:
    raw = text.encode()
    rotation = decode(parse(raw).payload, KeyRotation)
    return (rotation.epoch, rotation.seq), raw, False


def _grant(text: str) -> tuple[Place, bytes, bool]:
    raw = text.encode()
    return (decode(parse(raw).payload, EpochGrant).epoch, 0), raw, True


def _bad(where: str, code: Code, detail: str) -> BadManifest:
    return BadManifest(
        f"{where[0].upper()}{where[1:]} is not right: {code}: {detail}.",
        next_step="Keep this copy as evidence, and ask the site for another.",
    )
