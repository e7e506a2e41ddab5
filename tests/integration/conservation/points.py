"""The fault points: functions of the product before or after which a process is killed.

A point is told by its name and `before` or `after`. Inside a transaction "after" is before its
commit; what is durable and not yet told is after the function that commits.
"""

from dataclasses import dataclass

SITE = "site"
PLANE = "appliance.controlplane"
CONTROL = "control"


@dataclass(frozen=True, slots=True)
class Point:
    program: str
    name: str
    where: str  # module:attribute, as the caller looks it up


POINTS: tuple[Point, ...] = (
    # The gateway and its ledger.
    Point(SITE, "gateway hands an opening over", "appliance.metering.ledger:Ledger.begin"),
    Point(SITE, "gateway hands a record over", "appliance.metering.ledger:Ledger.settle"),
    Point(SITE, "ledger writes a group", "appliance.metering.ledger:Ledger._apply"),
    Point(SITE, "ledger has committed a group", "appliance.metering.ledger:Ledger._finish"),
    Point(SITE, "ledger tells of a group", "appliance.metering.ledger:Ledger._deliver"),
    # The sealer.
    Point(SITE, "sealer reads a window", "appliance.sync.sealer:read_window"),
    Point(SITE, "sealer signs a window", "appliance.sync.windows:seal"),
    Point(SITE, "sealer stores a manifest", "appliance.sync.windows:store_sealed"),
    Point(SITE, "sealer seals", "appliance.sync.sealer:Sealer._seal_window"),
    Point(SITE, "sealer notes the head", "appliance.sync.sealer:write_note"),
    # The shipper.
    Point(SITE, "shipper packs a bundle", "appliance.sync.shipper:write_usage"),
    Point(SITE, "shipper sends a bundle", "appliance.sync.client:ControlPlane.send"),
    Point(SITE, "shipper pulls receipts", "appliance.sync.client:ControlPlane.pull"),
    Point(SITE, "shipper takes documents", "appliance.sync.arrivals:take_opened"),
    Point(SITE, "shipper exchanges", "appliance.sync.shipper:Shipper.exchange"),
    # The control plane's ingest.
    Point(CONTROL, "ingest takes a bundle", "appliance.controlplane.carriage:take_bundle"),
    Point(CONTROL, "ingest judges a manifest", "appliance.controlplane.chain:Chain.offer"),
    Point(CONTROL, "ingest settles", "appliance.controlplane.ingest:Ingest._settle"),
    Point(CONTROL, "ingest saves the chain", "appliance.controlplane.chain:Chain.save"),
    Point(CONTROL, "ingest keeps a receipt", "appliance.controlplane.receipts:keep"),
    Point(CONTROL, "ingest answers", "appliance.controlplane.carriage:answer"),
    Point(CONTROL, "billing posts a manifest", f"{PLANE}.billing.posting:Posting.add"),
    Point(CONTROL, "billing saves postings", f"{PLANE}.billing.posting:Posting.save"),
    Point(CONTROL, "database commits", "appliance.controlplane.database:Database._attempt"),
    # Billing: delivery to Stripe.
    Point(CONTROL, "delivery claims a batch", f"{PLANE}.payments.sending:claim"),
    Point(
        CONTROL,
        "delivery sends an event",
        (f"{PLANE}.payments.stripe_api:StripeSdk.send_meter_event"),
    ),
    Point(
        CONTROL,
        "delivery sends a batch",
        (f"{PLANE}.payments.deliverer:Deliverer._send"),
    ),
    Point(CONTROL, "delivery writes outcomes", f"{PLANE}.payments.sending:finish"),
    Point(CONTROL, "delivery plans late items", f"{PLANE}.payments.late:plan"),
    Point(
        CONTROL,
        "delivery makes a late item",
        (f"{PLANE}.payments.stripe_api:StripeSdk.create_invoice_item"),
    ),
    Point(CONTROL, "delivery notes a late item", f"{PLANE}.payments.late:_made"),
    Point(CONTROL, "delivery looks an hour up", f"{PLANE}.payments.lookup:Lookup.decide"),
    Point(
        CONTROL,
        "delivery makes a customer",
        (f"{PLANE}.payments.stripe_api:StripeSdk.create_customer"),
    ),
    Point(
        CONTROL,
        "delivery makes a subscription",
        (f"{PLANE}.payments.stripe_api:StripeSdk.create_subscription"),
    ),
)


def names(program: str) -> list[str]:
    """Every place where a process of that program can be killed."""
    return [
        f"{point.name} {when}"
        for point in POINTS
        if point.program == program
        for when in ("before", "after")
    ]
