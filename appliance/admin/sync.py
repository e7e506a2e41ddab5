"""The control plane and the entitlement, as the admin API shows and changes them."""

from appliance.admin.calls import Call, NoQuery, Services
from appliance.wire.sync import (
    DocumentsBring,
    Enrol,
    EntitlementInstall,
    EntitlementStatus,
    RequestMake,
    SignedRequest,
    SyncReport,
    SyncStatus,
)


async def sync_status(services: Services, _call: Call[NoQuery, None]) -> SyncStatus:
    return await services.sync.status()


async def sync_now(services: Services, _call: Call[NoQuery, None]) -> SyncReport:
    return await services.sync.exchange()


async def enrol(services: Services, call: Call[NoQuery, Enrol]) -> SyncStatus:
    return await services.sync.enrol(call.body.url, call.body.code)


async def make_request(services: Services, call: Call[NoQuery, RequestMake]) -> SignedRequest:
    return await services.sync.request(new_key=call.body.new_key)


async def bring(services: Services, call: Call[NoQuery, DocumentsBring]) -> SyncReport:
    return await services.sync.bring(
        [envelope.encode() for envelope in call.body.envelopes], call.body.control_plane_key
    )


async def show_entitlement(services: Services, _call: Call[NoQuery, None]) -> EntitlementStatus:
    return await services.sync.entitlement()


async def install_entitlement(
    services: Services, call: Call[NoQuery, EntitlementInstall]
) -> EntitlementStatus:
    return await services.sync.install(call.body.envelope.encode(), call.body.control_plane_key)
