"""The signed documents, version 1: what each says, field by field.

Every document travels in a DSSE envelope (`envelope.py`) of its own payload type. The order of the
fields is the order of the bytes that are signed. Quantities are decimal strings, hashes are 64 hex
digits, moments are `2026-11-22T19:22:03.250Z`. A field is never moved, renamed or taken away;
a change of meaning is a new schema. Fields that begin with `x_` may be added and may be ignored;
any other unknown field is refused (`canonical.py`).
"""

from typing import Annotated, Final

import msgspec

MANIFEST_TYPE: Final = "application/vnd.crosslogic.usage-manifest.v1+json"
RECEIPT_TYPE: Final = "application/vnd.crosslogic.receipt.v1+json"
ENTITLEMENT_TYPE: Final = "application/vnd.crosslogic.entitlement.v1+json"
KEY_ROTATION_TYPE: Final = "application/vnd.crosslogic.key-rotation.v1+json"
REVOCATION_TYPE: Final = "application/vnd.crosslogic.key-revocation.v1+json"
EPOCH_GRANT_TYPE: Final = "application/vnd.crosslogic.epoch-grant.v1+json"
PRICE_BOOK_TYPE: Final = "application/vnd.crosslogic.price-book.v1+json"
PLANS_TYPE: Final = "application/vnd.crosslogic.plans.v1+json"
ENROLMENT_TYPE: Final = "application/vnd.crosslogic.enrolment.v1+json"

MANIFEST_SCHEMA: Final = "crosslogic.usage-manifest.v1"
NO_HASH: Final = "0" * 64  # before the first: previous manifest, receipt

# Checked whenever a document is read. A quantity of more than 64 bits is refused where it is added.
Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Quantity = Annotated[str, msgspec.Meta(pattern=r"^(0|[1-9][0-9]{0,18})\Z")]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Salt = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


class Document(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The base of everything that is signed."""


class Totals(Document, frozen=True):
    requests: Quantity
    input_tokens: Quantity  # cached ones included
    cached_tokens: Quantity
    output_tokens: Quantity


class Line(Document, frozen=True):
    """One line of a window: what one key used of one model in one UTC hour.

    `salt` (32 hex digits) keeps a sibling's hash from telling anything; `records_root` is the
    RFC 6962 root over the salted hashes of the records that were added up here.
    """

    tenant_id: str
    tenant: str  # the name as of the records
    environment_id: str
    environment: str
    key_id: str
    model: str
    model_digest: str
    region: str
    price_class: str
    hour: str  # start of the UTC hour of settlement, `2026-11-22T19:00:00Z`
    requests: Quantity
    input_tokens: Quantity
    cached_tokens: Quantity
    output_tokens: Quantity
    records_root: Hash
    salt: Salt


class EngineCounters(Document, frozen=True):
    """Tokens that the engines themselves say they made since the site was installed.

    Added up over every restart of every replica whose engine tells them; "0" where none does.
    """

    prompt_tokens: Quantity
    generated_tokens: Quantity


class Header(Document, frozen=True):
    """What is signed of a window."""

    # Identity
    schema: str
    appliance_id: str
    epoch: Count  # from 1
    seq: Count  # from 1 in every epoch
    prev_sha256: Hash  # of the payload before; in a new epoch the head that its grant names
    key_id: Hash
    entitlement_id: str  # "" when none is installed
    software_digest: str
    # Data
    event_seq_lo: Count  # first record; lo = hi + 1 for a window without records
    event_seq_hi: Count
    line_count: Count
    lines_root: Hash
    totals: Totals
    cumulative_totals: Totals  # since the first record of the site, this window included
    # Log
    log_size: Count  # manifests before this one, over all epochs
    log_root: Hash  # RFC 6962 root over their payloads
    last_receipt_sha256: Hash
    audit_head: str
    # Time
    wall: str
    watermark: str  # the latest moment this site ever saw
    boot_id: str
    mono_ns: str
    regressions: Count  # how many windows were sealed with a wall clock behind the watermark
    engines: EngineCounters


class Disposition(Document, frozen=True):
    """What became of one manifest."""

    epoch: Count
    seq: Count
    sha256: Hash  # of the manifest's payload
    code: str  # of `Code`
    detail: str  # for a person; "" when accepted


class Receipt(Document, frozen=True):
    """The control plane's signed answer. `accepted_through` 0: nothing of this epoch yet."""

    receipt_id: str
    appliance_id: str
    epoch: Count
    accepted_through: Count
    head_sha256: Hash  # of the payload of that manifest; NO_HASH when there is none
    log_size: Count
    log_root: Hash
    dispositions: tuple[Disposition, ...]
    frozen: bool  # the control plane takes no more from this appliance until a person decides
    received_at: str
    nonce: str
    lease_until: str  # "" when the site has no entitlement
    checkpoint: str  # the site's checkpoint, cosigned; "" when none came


class Entitlement(Document, frozen=True):
    """The signed licence. Limits of 0 and an empty list of models mean: none is set."""

    entitlement_id: str
    customer: str
    appliance_id: str
    appliance_key_id: Hash
    not_before: str
    expires: str
    lease_until: str
    grace_days: Count
    gpu_count: Count
    reserved_tokens_per_s: Count
    models: tuple[str, ...]
    offline_report_days_max: Count
    revocation_epoch: Count
    throttle_tokens_per_s: Count  # after the grace, when not 0; never without the warnings before
    issued_at: str


class KeyRotation(Document, frozen=True):
    """The site signs with another key from here on. Carries the signatures of both keys."""

    appliance_id: str
    epoch: Count
    seq: Count  # the first manifest signed with the new key
    old_key_id: Hash
    new_key_pem: str
    at: str


class KeyRevocation(Document, frozen=True):
    """By the control plane: what this key signed from (epoch, seq) on is refused."""

    appliance_id: str
    key_id: Hash
    epoch: Count
    seq: Count
    reason: str
    at: str


class EpochGrant(Document, frozen=True):
    """By the control plane: the site may begin `epoch` after the named head of the one before.

    `event_seq` and `cumulative_totals` are of that head: records from there on are counted anew.
    """

    appliance_id: str
    epoch: Count
    predecessor_epoch: Count
    predecessor_seq: Count
    predecessor_sha256: Hash
    predecessor_wall: str  # when that head was sealed, by the site's clock
    event_seq: Count
    cumulative_totals: Totals
    log_size: Count
    log_root: Hash
    log_frontier: tuple[Hash, ...]  # roots of its full subtrees: the site may have lost the leaves
    key_pem: str  # the key that signs the new epoch
    reason: str
    at: str


class Price(Document, frozen=True):
    """One price: `micros` of the currency's main unit for a million tokens, from a moment on."""

    model: str  # "*" is every model without a price of its own
    kind: str  # input, cached, output
    plan: str
    micros_per_million: Quantity
    since: str


class RegionMultiplier(Document, frozen=True):
    region: str
    multiplier_bp: Count  # 10000 is 1.0
    since: str


class PriceBook(Document, frozen=True):
    """Every price with its history, so that usage of any hour has exactly one price."""

    version: Count
    currency: str
    prices: tuple[Price, ...]
    regions: tuple[RegionMultiplier, ...]
    free_tokens_per_month: Quantity  # for each customer on the free plan's serverless usage
    at: str


class TenantPlan(Document, frozen=True):
    tenant_id: str
    plan: str
    since: str


class Plans(Document, frozen=True):
    """What the vendor knows of the plans of a site's tenants."""

    appliance_id: str
    version: Count
    tenants: tuple[TenantPlan, ...]
    at: str


class Enrolment(Document, frozen=True):
    """The site introduces itself; signed with the key it shows, so that it is known to hold it."""

    appliance_id: str
    name: str
    key_pem: str
    code_id: str  # of the one-time code that is sent beside it; "" when it is carried by hand
    epoch: Count
    at: str
