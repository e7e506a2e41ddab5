"""Objects in Stripe, each made once: found there, or made under an intent that was committed.

An object is made in four steps: our intent is committed, Stripe is asked whether it has the
object, it is made, its id is committed. A program killed at any of them starts with the second.
A creation whose answer did not come is repeated with the same idempotency key, so that it cannot
take effect twice; one that Stripe stored as failed, and would only replay, gets another key
("Idempotent requests").
"""

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select, update

from appliance.controlplane.database import Database
from appliance.controlplane.payments.stripe_errors import StripeError, StripeUnavailable
from appliance.controlplane.payments.stripe_tables import STRIPE_OBJECTS, insert_new
from appliance.domain.clock import Clock

HOLD_S: Final = 120  # how long one control plane may take over one object
PAUSE_S: Final = 60  # before what nobody waits for is tried again


@dataclass(frozen=True, slots=True)
class Made:
    """An object that exists in Stripe."""

    stripe_id: str
    parent: str = ""
    covered_from_s: int | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """Our right to make an object: `key` is the idempotency key of this attempt."""

    key: str
    since_s: int  # our first intent
    tried_s: int  # since when this key is used: a repeated call has to be the same call
    ended: bool  # we had one before, and it ended


class Maker:
    """Makes one object at a time of each kind and key, also between several control planes."""

    def __init__(self, database: Database, clock: Clock, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def object(
        self,
        kind: str,
        key: str,
        find: Callable[[Intent], Awaitable[Made | None]],
        make: Callable[[Intent], Awaitable[Made]],
    ) -> Made:
        """The object of that kind and key, found or made. At most one of us makes it at a time."""
        now_ns = self._clock.wall_ns()
        holder = self._entropy(8).hex()
        taken = await self._database.arun(
            lambda connection: _take(connection, kind, key, holder, now_ns)
        )
        if isinstance(taken, Made):
            return taken
        if taken is None:
            raise StripeUnavailable(f"Another control plane is making the {kind} {key}.")
        try:
            made = await find(taken) or await make(taken)
        except StripeError as error:
            said = error
            await self._database.arun(
                lambda connection: _give_up(
                    connection, kind, key, holder, said, self._clock.wall_ns()
                )
            )
            raise
        await self._database.arun(
            lambda connection: _store(connection, kind, key, made, self._clock.wall_ns())
        )
        return made


def _take(
    connection: Connection, kind: str, key: str, holder: str, now_ns: int
) -> Made | Intent | None:
    """The object if it is made, else the right to make it; None while another has that right."""
    objects = STRIPE_OBJECTS
    insert_new(
        connection,
        objects,
        {"kind": kind, "key": key, "intended_at_ns": now_ns, "tried_at_ns": now_ns},
    )
    one = (objects.c.kind == kind) & (objects.c.key == key)
    taken = connection.execute(
        update(objects)
        .where(one, objects.c.stripe_id.is_(None), objects.c.held_until_ns <= now_ns)
        .values(holder=holder, held_until_ns=now_ns + HOLD_S * 1_000_000_000)
    ).rowcount
    row = connection.execute(select(objects).where(one)).mappings().one()
    if row["stripe_id"] is not None:
        return Made(row["stripe_id"], row["parent"], row["covered_from_s"])
    if not taken:
        return None
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    return Intent(
        key=f"cl-{kind}-{digest}-{row['intended_at_ns']}-{row['tries']}",
        since_s=row["intended_at_ns"] // 1_000_000_000,
        tried_s=row["tried_at_ns"] // 1_000_000_000,
        ended=bool(row["ended"]),
    )


def _give_up(
    connection: Connection, kind: str, key: str, holder: str, error: StripeError, now_ns: int
) -> None:
    """Let others try. The idempotency key stays while its first call may yet take effect."""
    objects = STRIPE_OBJECTS
    changes: dict[str, object] = {
        "holder": "",
        "held_until_ns": 0,
        "next_try_ns": now_ns + PAUSE_S * 1_000_000_000,
        "note": error.message,
    }
    if not isinstance(error, StripeUnavailable) or error.stored:
        changes |= {"tries": objects.c.tries + 1, "tried_at_ns": now_ns}
    connection.execute(
        update(objects)
        .where(objects.c.kind == kind, objects.c.key == key, objects.c.holder == holder)
        .values(**changes)
    )


def _store(connection: Connection, kind: str, key: str, made: Made, now_ns: int) -> None:
    """What exists is true whoever found it: the holder does not matter."""
    connection.execute(
        update(STRIPE_OBJECTS)
        .where(STRIPE_OBJECTS.c.kind == kind, STRIPE_OBJECTS.c.key == key)
        .values(
            stripe_id=made.stripe_id,
            parent=made.parent,
            covered_from_s=made.covered_from_s,
            made_at_ns=now_ns,
            holder="",
            held_until_ns=0,
            note="",
        )
    )
