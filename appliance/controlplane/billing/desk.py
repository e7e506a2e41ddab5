"""What the vendor's people do about billing: each act is one transaction, and is audited.

The command line and the operator API both come here, so they cannot differ.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from sqlalchemy import Connection

from appliance.controlplane import audit, sites
from appliance.controlplane.billing import (
    adjustments,
    capacity,
    customers,
    holds,
    price_book,
    tenants,
)
from appliance.controlplane.billing.adjustments import Adjustment, Correction
from appliance.controlplane.billing.capacity import Capacity
from appliance.controlplane.billing.credits import Credit, grant
from appliance.controlplane.billing.customers import Customer
from appliance.controlplane.billing.holds import HeldSum, Released, Selection
from appliance.controlplane.billing.price_book import BookFile
from appliance.controlplane.billing.tenants import Party
from appliance.controlplane.database import Database
from appliance.domain.clock import Clock


@dataclass(frozen=True, slots=True)
class Mapped:
    appliance_id: str
    tenant_id: str
    customer_id: str
    plan: str
    since_s: int
    released: Released


@dataclass(frozen=True, slots=True)
class Installed:
    version: int
    changed: bool
    released: Released


class Desk:
    """`actor` is who does it, as the audit names them."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        entropy: Callable[[int], bytes],
        *,
        currency: str,
        actor: str,
    ) -> None:
        self.database = database
        self.currency = currency
        self._clock = clock
        self._entropy = entropy
        self._actor = actor

    @property
    def now_ns(self) -> int:
        return self._clock.wall_ns()

    def add_customer(self, name: str, email: str) -> Customer:
        """Raises CustomerExists, BadAmount."""

        def run(connection: Connection) -> Customer:
            made = customers.add(
                connection,
                name,
                email=email,
                by=self._actor,
                now_ns=self.now_ns,
                entropy=self._entropy,
            )
            self._audit(connection, "create", "customer", made.customer_id, made.name, asdict(made))
            return made

        return self.database.transact(run)

    def map_tenant(self, site: str, tenant: str, customer: str, plan: str, since_s: int) -> Mapped:
        """Map, and bill at once what was held for want of it.

        Raises UnknownSite, UnknownTenant, UnknownCustomer, UnknownPlan, AlreadyBilled.
        """

        def run(connection: Connection) -> Mapped:
            appliance_id = sites.find(connection, site).appliance_id
            tenant_id = tenants.find(connection, appliance_id, tenant)
            customer_id = customers.find(connection, customer).customer_id
            now_ns = self.now_ns
            tenants.map_tenant(
                connection,
                appliance_id,
                tenant_id,
                Party(customer_id, plan),
                since_s=since_s,
                by=self._actor,
                now_ns=now_ns,
            )
            selection = Selection(appliance_id=appliance_id, tenant_id=tenant_id)
            released = holds.recheck(connection, now_ns, selection)
            mapped = Mapped(appliance_id, tenant_id, customer_id, plan, since_s, released)
            self._audit(connection, "map", "tenant", tenant_id, "", asdict(mapped))
            return mapped

        return self.database.transact(run)

    def import_prices(self, file: BookFile) -> Installed:
        """Install, and bill at once what was held for want of a price.

        Raises BadPriceBook, AlreadyBilled.
        """

        def run(connection: Connection) -> Installed:
            before = price_book.current(connection).version
            now_ns = self.now_ns
            version = price_book.install(
                connection, file, currency=self.currency, by=self._actor, now_ns=now_ns
            )
            released = holds.recheck(connection, now_ns)
            installed = Installed(version, version != before, released)
            if installed.changed:
                self._audit(connection, "import", "price_book", str(version), "", asdict(installed))
            return installed

        return self.database.transact(run)

    def grant_credit(
        self, customer: str, micros: int, reason: str, since_s: int, until_s: int | None
    ) -> Credit:
        """Raises UnknownCustomer, BadAmount."""

        def run(connection: Connection) -> Credit:
            made = grant(
                connection,
                customers.find(connection, customer).customer_id,
                micros=micros,
                reason=reason,
                since_s=since_s,
                until_s=until_s,
                by=self._actor,
                now_ns=self.now_ns,
                entropy=self._entropy,
            )
            self._audit(connection, "grant", "credit", made.credit_id, customer, asdict(made))
            return made

        return self.database.transact(run)

    def add_capacity(
        self,
        customer: str,
        model: str,
        units: int,
        micros_per_unit_month: int,
        since_s: int,
        *,
        overage: bool,
    ) -> Capacity:
        """Add it, and settle at once what was held for want of it.

        Raises UnknownCustomer, BadAmount.
        """

        def run(connection: Connection) -> Capacity:
            now_ns = self.now_ns
            made = capacity.add(
                connection,
                customers.find(connection, customer).customer_id,
                model=model,
                units=units,
                micros_per_unit_month=micros_per_unit_month,
                overage=overage,
                since_s=since_s,
                by=self._actor,
                now_ns=now_ns,
                entropy=self._entropy,
            )
            holds.recheck(connection, now_ns)
            self._audit(connection, "create", "capacity", made.capacity_id, customer, asdict(made))
            return made

        return self.database.transact(run)

    def end_capacity(self, capacity_id: str, until_s: int) -> Capacity:
        """Raises UnknownCapacity, BadAmount."""

        def run(connection: Connection) -> Capacity:
            ended = capacity.end(connection, capacity_id, until_s)
            self._audit(connection, "end", "capacity", capacity_id, "", asdict(ended))
            return ended

        return self.database.transact(run)

    def list_holds(self, selection: Selection) -> list[HeldSum]:
        return self.database.read(lambda connection: holds.list_holds(connection, selection))

    def release(self, selection: Selection, reason: str) -> Released:
        """Raises NothingHeld, BadAmount."""
        return self.database.transact(
            lambda connection: holds.release(
                connection, selection, by=self._actor, reason=reason, now_ns=self.now_ns
            )
        )

    def write_off(self, selection: Selection, reason: str) -> Released:
        """Raises NothingHeld, BadAmount."""
        return self.database.transact(
            lambda connection: holds.write_off(
                connection, selection, by=self._actor, reason=reason, now_ns=self.now_ns
            )
        )

    def adjust(self, correction: Correction, reason: str) -> Adjustment:
        """The correction's customer may be a name. Raises UnknownCustomer, BadAmount."""

        def run(connection: Connection) -> Adjustment:
            payer = customers.find(connection, correction.customer_id).customer_id
            return adjustments.adjust(
                connection,
                replace(correction, customer_id=payer),
                reason=reason,
                by=self._actor,
                now_ns=self.now_ns,
                entropy=self._entropy,
            )

        return self.database.transact(run)

    def _audit(
        self,
        connection: Connection,
        action: str,
        kind: str,
        object_id: str,
        name: str,
        after: object,
    ) -> None:
        audit.record(
            connection,
            self.now_ns,
            actor=self._actor,
            action=action,
            kind=kind,
            object_id=object_id,
            name=name,
            after=json.dumps(after),
        )
