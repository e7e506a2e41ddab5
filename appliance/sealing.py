"""Makes what seals: the sealer of a running site, and what is asked of it."""

import asyncio

from appliance.domain.clock import Clock
from appliance.manifests.engine_counts import EngineTally
from appliance.manifests.starts import record_start
from appliance.metering.ledger import Ledger
from appliance.registry.audit import AuditHeads
from appliance.registry.registry import Registry
from appliance.settings import Settings
from appliance.sync.identity import Identity
from appliance.sync.manifest_service import ManifestService
from appliance.sync.sealer import Sealer, Surroundings, read_boot_id
from appliance.sync.software import software_digest
from appliance.wire.home import Home


async def make_sealer(
    home: Home,
    settings: Settings,
    registry: Registry,
    ledger: Ledger,
    identity: Identity,
    clock: Clock,
    *,
    engines: EngineTally,
) -> Sealer:
    """The ledger remembers this start first: a restored copy is told by it."""
    boot_id = read_boot_id()
    now_ns, mono_ns = clock.wall_ns(), int(clock.monotonic_s() * 1_000_000_000)
    await asyncio.wrap_future(
        ledger.transact(lambda connection: record_start(connection, now_ns, boot_id, mono_ns))
    )
    surroundings = Surroundings(
        audit_head=registry.audit.head,
        engines=engines,
        software_digest=await asyncio.to_thread(software_digest),
        boot_id=boot_id,
    )
    return Sealer(
        *(home.ledger_file, ledger, home.secrets, identity, surroundings, clock),
        window_s=settings.manifests.window_s,
        note_file=home.manifest_note,
    )


def manifest_service(home: Home, sealer: Sealer, clock: Clock) -> ManifestService:
    return ManifestService(
        *(sealer, home.ledger_file, home.manifest_note, AuditHeads(home.registry_file), clock)
    )
