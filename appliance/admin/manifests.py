"""Sealed manifests, as the admin API shows and makes them."""

from collections.abc import AsyncIterator
from typing import Annotated, Final

import msgspec

from appliance.admin.calls import Call, Lines, NoQuery, Route, Services
from appliance.wire.admin import SEQ_MAX
from appliance.wire.manifests import (
    Manifest,
    ManifestKey,
    ManifestShown,
    ManifestVerification,
    Sealing,
    UsageProof,
)

_PAGE_ROWS: Final = 500

Number = Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)]


class AfterManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Only manifests after this one; `seq` is of that epoch."""

    epoch: Number = 0
    seq: Number = 0


class OfManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`manifest`, SEQ or EPOCH-SEQ: the key that signed that one."""

    manifest: str | None = None


class ForTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`tenant`, an id or a name: the lines of all others are left out."""

    tenant: str | None = None


async def list_manifests(services: Services, call: Call[AfterManifest, None]) -> Lines:
    return Lines(_rows(services, call.query.epoch, call.query.seq))


async def _rows(services: Services, epoch: int, seq: int) -> AsyncIterator[Manifest]:
    while page := await services.manifests.rows(epoch, seq, _PAGE_ROWS):
        for row in page:
            yield row
        epoch, seq = page[-1].epoch, page[-1].seq


async def show_manifest(services: Services, call: Call[ForTenant, None]) -> ManifestShown:
    return await services.manifests.show(call.ref, call.query.tenant)


async def seal(services: Services, _call: Call[NoQuery, None]) -> Sealing:
    return await services.manifests.seal()


async def verify_manifests(services: Services, _call: Call[NoQuery, None]) -> Lines:
    return Lines(services.manifests.verify())


async def prove(services: Services, call: Call[NoQuery, None]) -> UsageProof:
    return await services.manifests.prove(call.ref)


async def show_key(services: Services, call: Call[OfManifest, None]) -> ManifestKey:
    return await services.manifests.key(call.query.manifest)


async def rotate_key(services: Services, _call: Call[NoQuery, None]) -> ManifestKey:
    return await services.manifests.rotate_key()


ROUTES: Final = (
    Route(
        *("GET", "/v1/manifests", "Sealed manifests, one a line", list_manifests),
        answer=Manifest,
        query=AfterManifest,
        lines=True,
    ),
    Route(
        *("POST", "/v1/manifests/seal", "Seal what is new", seal),
        answer=Sealing,
        role="operator",
    ),
    Route(
        *("GET", "/v1/manifests/verify", "Verify every manifest and the records under it"),
        *(verify_manifests, ManifestVerification),
        lines=True,
    ),
    Route(
        *("GET", "/v1/usage/{ref}/proof", "The proof of a request's record", prove),
        answer=UsageProof,
    ),
    Route(
        *("GET", "/v1/manifests/key", "The key that signs manifests", show_key),
        answer=ManifestKey,
        query=OfManifest,
    ),
    Route(
        *("POST", "/v1/manifests/key/rotate", "Sign with a new key from the next manifest on"),
        *(rotate_key, ManifestKey),
    ),
    Route(
        *("GET", "/v1/manifests/{ref}", "Show a manifest", show_manifest),
        answer=ManifestShown,
        query=ForTenant,
    ),
)
