"""Signed documents with fixed contents: what a control plane and a site write in tests."""

from appliance.manifests.canonical import encode
from appliance.manifests.checkpoint import cosign, sign_checkpoint
from appliance.manifests.codes import Code
from appliance.manifests.documents import (
    ENROLMENT_TYPE,
    ENTITLEMENT_TYPE,
    EPOCH_GRANT_TYPE,
    RECEIPT_TYPE,
    REVOCATION_TYPE,
    Disposition,
    Enrolment,
    Entitlement,
    EpochGrant,
    KeyRevocation,
    KeyRotation,
    Receipt,
)
from appliance.manifests.envelope import sign
from appliance.manifests.keys import sign_rotation
from appliance.manifests.seal import Sealed
from tests.fakes.sites import Site, signing_key

CONTROL_PLANE = signing_key(100)
AT = "2026-11-22T19:30:00.000Z"
AT_S = 1_795_375_800


def make_receipt(site: Site, sealed: Sealed) -> Receipt:
    checkpoint = sign_checkpoint(site.appliance_id, site.state.log, site.key)
    return Receipt(
        receipt_id="rcp_0123456789abcdef01234567",
        appliance_id=site.appliance_id,
        epoch=sealed.header.epoch,
        accepted_through=sealed.header.seq,
        head_sha256=sealed.sha256,
        log_size=site.state.log.size,
        log_root=site.state.log.root().hex(),
        dispositions=(
            Disposition(
                epoch=sealed.header.epoch,
                seq=sealed.header.seq,
                sha256=sealed.sha256,
                code=Code.CLOCK_FUTURE.value,
                detail="the clock is ahead",
            ),
        ),
        frozen=False,
        received_at=AT,
        nonce="00112233445566778899aabbccddeeff",
        lease_until="2026-12-22T19:30:00.000Z",
        checkpoint=cosign(checkpoint, "control-plane", CONTROL_PLANE, AT_S).note(),
    )


def receipt_bytes(site: Site, sealed: Sealed) -> bytes:
    return sign(RECEIPT_TYPE, encode(make_receipt(site, sealed)), CONTROL_PLANE).to_bytes()


def entitlement_bytes(site: Site) -> bytes:
    entitlement = Entitlement(
        entitlement_id="ent_0123456789abcdef01234567",
        customer="Example GmbH",
        appliance_id=site.appliance_id,
        appliance_key_id=site.key.key_id,
        not_before="2026-11-01T00:00:00.000Z",
        expires="2027-11-01T00:00:00.000Z",
        lease_until="2026-12-22T19:30:00.000Z",
        grace_days=14,
        gpu_count=8,
        reserved_tokens_per_s=2_000,
        models=("llama-3.3-70b-instruct",),
        offline_report_days_max=35,
        revocation_epoch=0,
        throttle_tokens_per_s=0,
        issued_at=AT,
    )
    return sign(ENTITLEMENT_TYPE, encode(entitlement), CONTROL_PLANE).to_bytes()


def rotation_bytes(site: Site, to: int, epoch: int, seq: int) -> bytes:
    """Away from the site's key to that of this number."""
    new = signing_key(to)
    rotation = KeyRotation(
        appliance_id=site.appliance_id,
        epoch=epoch,
        seq=seq,
        old_key_id=site.key.key_id,
        new_key_pem=new.public.pem,
        at=AT,
    )
    return sign_rotation(rotation, site.key, new).to_bytes()


def revocation_bytes(site: Site, epoch: int, seq: int) -> bytes:
    revocation = KeyRevocation(
        appliance_id=site.appliance_id,
        key_id=site.key.key_id,
        epoch=epoch,
        seq=seq,
        reason="lost",
        at=AT,
    )
    return sign(REVOCATION_TYPE, encode(revocation), CONTROL_PLANE).to_bytes()


def grant_bytes(grant: EpochGrant) -> bytes:
    return sign(EPOCH_GRANT_TYPE, encode(grant), CONTROL_PLANE).to_bytes()


def enrolment_bytes(site: Site) -> bytes:
    enrolment = Enrolment(
        appliance_id=site.appliance_id,
        name="plant-7",
        key_pem=site.key.public.pem,
        code_id="c1",
        epoch=1,
        at=AT,
    )
    return sign(ENROLMENT_TYPE, encode(enrolment), site.key).to_bytes()
