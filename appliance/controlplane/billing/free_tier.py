"""The monthly allowance of the free plan: how much of it each customer used.

One allowance for each customer and UTC month, over all sites, tenants, models and kinds; it counts
serverless usage of tenants on the plan "free" in the order in which it is posted. What was posted
under another plan neither uses nor gives back any of it.
"""

from typing import Final

from sqlalchemy import BigInteger, Column, Connection, Table, Text, insert, select, update

from appliance.controlplane.billing.pricing import month_start_s
from appliance.controlplane.schema import METADATA

FREE_USE: Final = Table(
    "free_use",
    METADATA,
    Column("customer_id", Text, primary_key=True),
    Column("month_s", BigInteger, primary_key=True),
    Column("tokens", BigInteger, nullable=False),
)


class FreeUse:
    """What is used within one transaction: read when first asked for, written by `save`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._used: dict[tuple[str, int], int] = {}
        self._new: set[tuple[str, int]] = set()
        self._changed: set[tuple[str, int]] = set()

    def used(self, customer_id: str, hour_s: int) -> int:
        """Tokens of the month of that hour."""
        key = (customer_id, month_start_s(hour_s))
        if key not in self._used:
            found = self._connection.execute(
                select(FREE_USE.c.tokens).where(
                    FREE_USE.c.customer_id == key[0], FREE_USE.c.month_s == key[1]
                )
            ).scalar()
            self._used[key] = 0 if found is None else int(found)
            if found is None:
                self._new.add(key)
        return self._used[key]

    def add(self, customer_id: str, hour_s: int, tokens: int) -> None:
        key = (customer_id, month_start_s(hour_s))
        self._used[key] = self.used(customer_id, hour_s) + tokens
        self._changed.add(key)

    def save(self) -> None:
        for key in sorted(self._changed):
            customer_id, month_s = key
            values = {"customer_id": customer_id, "month_s": month_s, "tokens": self._used[key]}
            if key in self._new:
                self._connection.execute(insert(FREE_USE).values(values))
            else:
                self._connection.execute(
                    update(FREE_USE)
                    .where(FREE_USE.c.customer_id == customer_id, FREE_USE.c.month_s == month_s)
                    .values(tokens=self._used[key])
                )
        self._new -= self._changed
        self._changed.clear()
