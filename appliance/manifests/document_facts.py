"""What is told of a signed document, field by field, once it was verified."""

from collections.abc import Callable
from typing import Any, Final

from appliance.manifests.documents import (
    ENROLMENT_TYPE,
    ENTITLEMENT_TYPE,
    EPOCH_GRANT_TYPE,
    KEY_ROTATION_TYPE,
    PLANS_TYPE,
    PRICE_BOOK_TYPE,
    RECEIPT_TYPE,
    REVOCATION_TYPE,
    Document,
    Enrolment,
    Entitlement,
    EpochGrant,
    KeyRevocation,
    KeyRotation,
    Plans,
    PriceBook,
    Receipt,
)
from appliance.security.signing import PublicKey

# Names are snake_case; values are texts, numbers, or lists of texts.
Facts = tuple[tuple[str, object], ...]


def tell_receipt(receipt: Receipt) -> Facts:
    others = [d for d in receipt.dispositions if d.code != "ACCEPTED"]
    return (
        ("receipt_id", receipt.receipt_id),
        ("appliance_id", receipt.appliance_id),
        ("accepted_through", f"{receipt.epoch}-{receipt.accepted_through}"),
        ("head_sha256", receipt.head_sha256),
        ("received_at", receipt.received_at),
        ("lease_until", receipt.lease_until),
        ("manifests_judged", len(receipt.dispositions)),
        ("not_accepted", [f"{d.epoch}-{d.seq} {d.code} {d.detail}".strip() for d in others]),
        ("frozen", receipt.frozen),
    )


def tell_entitlement(entitlement: Entitlement) -> Facts:
    return (
        ("entitlement_id", entitlement.entitlement_id),
        ("customer", entitlement.customer),
        ("appliance_id", entitlement.appliance_id),
        ("appliance_key_id", entitlement.appliance_key_id),
        ("not_before", entitlement.not_before),
        ("expires", entitlement.expires),
        ("lease_until", entitlement.lease_until),
        ("grace_days", entitlement.grace_days),
        ("gpu_count", entitlement.gpu_count),
        ("reserved_tokens_per_s", entitlement.reserved_tokens_per_s),
        ("models", list(entitlement.models)),
    )


def tell_rotation(rotation: KeyRotation) -> Facts:
    return (
        ("appliance_id", rotation.appliance_id),
        ("first_manifest", f"{rotation.epoch}-{rotation.seq}"),
        ("old_key_id", rotation.old_key_id),
        ("new_key_id", PublicKey.from_pem(rotation.new_key_pem).key_id),
        ("at", rotation.at),
    )


def tell_revocation(revocation: KeyRevocation) -> Facts:
    return (
        ("appliance_id", revocation.appliance_id),
        ("revoked_key_id", revocation.key_id),
        ("from_manifest", f"{revocation.epoch}-{revocation.seq}"),
        ("reason", revocation.reason),
        ("at", revocation.at),
    )


def tell_grant(grant: EpochGrant) -> Facts:
    return (
        ("appliance_id", grant.appliance_id),
        ("epoch", grant.epoch),
        ("continues", f"{grant.predecessor_epoch}-{grant.predecessor_seq}"),
        ("continues_sha256", grant.predecessor_sha256),
        ("reason", grant.reason),
        ("at", grant.at),
    )


def tell_price_book(book: PriceBook) -> Facts:
    return (
        ("version", book.version),
        ("currency", book.currency),
        ("prices", len(book.prices)),
        ("regions", len(book.regions)),
        ("at", book.at),
    )


def tell_plans(plans: Plans) -> Facts:
    return (
        ("appliance_id", plans.appliance_id),
        ("version", plans.version),
        ("tenants", [f"{one.tenant_id} {one.plan} since {one.since}" for one in plans.tenants]),
        ("at", plans.at),
    )


def tell_enrolment(enrolment: Enrolment) -> Facts:
    return (
        ("appliance_id", enrolment.appliance_id),
        ("site", enrolment.name),
        ("epoch", enrolment.epoch),
        ("at", enrolment.at),
    )


_Tell = Callable[[Any], Facts]
# Payload type -> the word for it, its shape, what is told of it.
DOCUMENTS: Final[dict[str, tuple[str, type[Document], _Tell]]] = {
    RECEIPT_TYPE: ("receipt", Receipt, tell_receipt),
    ENTITLEMENT_TYPE: ("entitlement", Entitlement, tell_entitlement),
    KEY_ROTATION_TYPE: ("key rotation", KeyRotation, tell_rotation),
    REVOCATION_TYPE: ("key revocation", KeyRevocation, tell_revocation),
    EPOCH_GRANT_TYPE: ("epoch grant", EpochGrant, tell_grant),
    PRICE_BOOK_TYPE: ("price book", PriceBook, tell_price_book),
    PLANS_TYPE: ("plans", Plans, tell_plans),
    ENROLMENT_TYPE: ("enrolment", Enrolment, tell_enrolment),
}
