"""Customers: who pays. A customer's tenants may be spread over several sites."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import BigInteger, Column, Connection, Table, Text, insert, or_, select

from appliance.controlplane.billing.billing_errors import BadAmount, CustomerExists, UnknownCustomer
from appliance.controlplane.schema import METADATA

NAME_CHARS_MAX: Final = 200

CUSTOMERS: Final = Table(
    "customers",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("email", Text, nullable=False, default=""),
    Column("created_at_ns", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Customer:
    customer_id: str
    name: str
    email: str
    created_at_ns: int


def add(
    connection: Connection,
    name: str,
    *,
    email: str,
    by: str,
    now_ns: int,
    entropy: Callable[[int], bytes],
) -> Customer:
    """Raises CustomerExists, BadAmount for a name that cannot be."""
    if not name.strip() or len(name) > NAME_CHARS_MAX or name.startswith("cst_"):
        raise BadAmount(
            f"{name!r} cannot be the name of a customer.",
            next_step=f"Use 1 to {NAME_CHARS_MAX} characters, not beginning with cst_.",
        )
    if connection.execute(select(CUSTOMERS.c.name).where(CUSTOMERS.c.name == name)).first():
        raise CustomerExists(
            f"There is a customer {name!r} already.", next_step="Choose another name."
        )
    made = Customer(f"cst_{entropy(12).hex()}", name, email, now_ns)
    connection.execute(
        insert(CUSTOMERS).values(
            customer_id=made.customer_id,
            name=name,
            email=email,
            created_at_ns=now_ns,
            created_by=by,
        )
    )
    return made


def find(connection: Connection, reference: str) -> Customer:
    """By id or name. Raises UnknownCustomer."""
    row = connection.execute(
        select(CUSTOMERS).where(
            or_(CUSTOMERS.c.customer_id == reference, CUSTOMERS.c.name == reference)
        )
    ).first()
    if row is None:
        raise UnknownCustomer(
            f"There is no customer {reference!r}.",
            next_step="See `cic control-plane customers list`, or add it there.",
        )
    return _customer(row)


def list_customers(connection: Connection) -> list[Customer]:
    return [
        _customer(row) for row in connection.execute(select(CUSTOMERS).order_by(CUSTOMERS.c.name))
    ]


def _customer(row: Any) -> Customer:
    return Customer(row.customer_id, row.name, row.email, row.created_at_ns)
