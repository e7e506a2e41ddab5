"""The price book with its history: prices, regions' multipliers, the monthly allowance.

A version adds rows and takes none away, so usage of any hour keeps the one price it had. The
vendor's file is TOML or JSON; `examples` is a book of made-up prices for trying things out.
"""

import hashlib
import json
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Integer,
    Table,
    Text,
    insert,
    select,
)

from appliance.controlplane.billing.billing_errors import AlreadyBilled, BadPriceBook
from appliance.controlplane.billing.outbox_table import OUTBOX
from appliance.controlplane.billing.pricing import (
    ANY,
    HOUR_S,
    NO_BOOK,
    Book,
    History,
    Kind,
    Rate,
    month_start_s,
)
from appliance.controlplane.schema import METADATA
from appliance.domain.clock import iso
from appliance.domain.limits import Plan
from appliance.manifests.documents import Price, PriceBook, RegionMultiplier

MICROS_MAX: Final = 10**13  # for a million tokens: ten million dollars
MULTIPLIER_BP_MAX: Final = 1_000_000
_LAST_S: Final = 2**62
_CACHE: Final = "price_book"  # in Connection.info: the book and its hash

PRICE_BOOKS: Final = Table(
    "price_books",
    METADATA,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("currency", Text, nullable=False),
    Column("free_tokens_per_month", BigInteger, nullable=False),
    Column("free_since_s", BigInteger, nullable=False),  # the start of the month it counts from
    Column("sha256", Text, nullable=False),  # of the version before and what this one adds
    Column("created_at_ns", BigInteger, nullable=False),
    Column("created_by", Text, nullable=False),
)
PRICES: Final = Table(
    "prices",
    METADATA,
    Column("model", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("plan", Text, primary_key=True),
    Column("since_s", BigInteger, primary_key=True),
    Column("micros_per_million", BigInteger, nullable=False),
    Column("version", Integer, nullable=False),  # the first that has it
)
MULTIPLIERS: Final = Table(
    "region_multipliers",
    METADATA,
    Column("region", Text, primary_key=True),
    Column("since_s", BigInteger, primary_key=True),
    Column("multiplier_bp", Integer, nullable=False),
    Column("version", Integer, nullable=False),
)


class PriceLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A price in the vendor's file. `since` absent: always."""

    model: str
    plan: str
    input: int | None = None  # micros for a million tokens
    cached: int | None = None
    output: int | None = None
    since: str = "1970-01-01T00:00:00Z"


class RegionLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    region: str
    multiplier_bp: int
    since: str = "1970-01-01T00:00:00Z"


class BookFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vendor's file. What it does not name stays as it is."""

    currency: str
    prices: list[PriceLine] = []
    regions: list[RegionLine] = []
    free_tokens_per_month: int | None = None
    free_since: str | None = None  # a month; the present one when absent


def examples(currency: str) -> BookFile:
    """Example prices, to be replaced by the vendor's own: 0.10, 0.05 and 0.40 for a million."""
    lines = [PriceLine(ANY, plan.value, 100_000, 50_000, 400_000) for plan in Plan]
    regions = [("india", 7_000), ("usa", 10_000), ("eu", 11_000), ("apac", 9_000), (ANY, 10_000)]
    return BookFile(
        currency,
        lines,
        [RegionLine(region, multiplier) for region, multiplier in regions],
        1_000_000,
        "1970-01-01T00:00:00Z",
    )


def read_file(raw: bytes, *, toml: bool) -> BookFile:
    """Raises BadPriceBook with the place."""
    try:
        loaded: Any = tomllib.loads(raw.decode()) if toml else json.loads(raw)
        book = msgspec.convert(loaded, BookFile)
    except (ValueError, msgspec.ValidationError) as error:
        raise BadPriceBook(
            f"That is no price book: {error}.",
            next_step="See docs/BILLING.md for the form of the file.",
        ) from error
    return checked(book)


def checked(book: BookFile) -> BookFile:
    """The book itself. Raises BadPriceBook for a name or a figure that cannot be."""
    for line in book.prices:
        _check(line.model and _plain(line.plan), "a price needs a model, and a plan without '/'")
        for micros in (line.input, line.cached, line.output):
            _check(
                micros is None or 0 <= micros <= MICROS_MAX, f"the price {micros} of {line.model}"
            )
    for region in book.regions:
        _check(region.region == ANY or _plain(region.region), f"the region {region.region!r}")
        _check(0 <= region.multiplier_bp <= MULTIPLIER_BP_MAX, f"multiplier of {region.region}")
    return book


def install(connection: Connection, file: BookFile, *, currency: str, by: str, now_ns: int) -> int:
    """Add what is new in the file; the version, unchanged when nothing is.

    Raises BadPriceBook for another currency or a price of the past that would change, and
    AlreadyBilled when usage that is in the outbox would cost something else.
    """
    _check(file.currency == currency, f"it is in {file.currency}, the control plane in {currency}")
    before = current(connection)
    version = before.version + 1
    prices, regions = _additions(connection, file, version)
    allowance, free_since_s = _allowance(connection, file, now_ns)
    if not prices and not regions and allowance is None and before.version:
        return before.version
    last = connection.execute(
        select(PRICE_BOOKS).where(PRICE_BOOKS.c.version == before.version)
    ).first()
    if allowance is None:
        allowance = last.free_tokens_per_month if last else 0
        free_since_s = last.free_since_s if last else 0
    connection.execute(
        insert(PRICE_BOOKS).values(
            version=version,
            currency=currency,
            free_tokens_per_month=allowance,
            free_since_s=free_since_s,
            sha256=_sha256(
                last.sha256 if last else "", [*prices, *regions, allowance, free_since_s]
            ),
            created_at_ns=now_ns,
            created_by=by,
        )
    )
    if prices:
        connection.execute(insert(PRICES), prices)
    if regions:
        connection.execute(insert(MULTIPLIERS), regions)
    _refuse_other_prices(connection, current(connection))
    return version


def ensure(connection: Connection, currency: str, now_ns: int) -> bool:
    """Install the example prices where there is no book at all; whether it did."""
    if current(connection).version:
        return False
    install(
        connection, examples(currency), currency=currency, by="init (example prices)", now_ns=now_ns
    )
    return True


def current(connection: Connection) -> Book:
    """The newest book; read anew only when there is a newer one."""
    newest = connection.execute(
        select(PRICE_BOOKS.c.version, PRICE_BOOKS.c.sha256)
        .order_by(PRICE_BOOKS.c.version.desc())
        .limit(1)
    ).first()
    if newest is None:
        return NO_BOOK
    # By its content, not by its number: a version may be rolled back and be made by another.
    known = connection.info.get(_CACHE)
    if isinstance(known, tuple) and known[0] == newest.sha256:
        book: Book = known[1]
        return book
    book = _read(connection, newest.version)
    connection.info[_CACHE] = (newest.sha256, book)
    return book


def document(connection: Connection) -> PriceBook | None:
    """The newest book as it is signed and given to the sites; None when there is none."""
    row = connection.execute(
        select(PRICE_BOOKS).order_by(PRICE_BOOKS.c.version.desc()).limit(1)
    ).first()
    if row is None:
        return None
    prices = connection.execute(
        select(PRICES).order_by(PRICES.c.model, PRICES.c.plan, PRICES.c.kind, PRICES.c.since_s)
    )
    regions = connection.execute(
        select(MULTIPLIERS).order_by(MULTIPLIERS.c.region, MULTIPLIERS.c.since_s)
    )
    return PriceBook(
        version=row.version,
        currency=row.currency,
        prices=tuple(
            Price(
                model=price.model,
                kind=price.kind,
                plan=price.plan,
                micros_per_million=str(price.micros_per_million),
                since=iso(price.since_s * 1_000_000_000),
            )
            for price in prices
        ),
        regions=tuple(
            RegionMultiplier(
                region=region.region,
                multiplier_bp=region.multiplier_bp,
                since=iso(region.since_s * 1_000_000_000),
            )
            for region in regions
        ),
        free_tokens_per_month=str(row.free_tokens_per_month),
        at=iso(row.created_at_ns),
    )


def installed_by(connection: Connection) -> str:
    """Who installed the newest book; "" when there is none."""
    by = connection.execute(
        select(PRICE_BOOKS.c.created_by).order_by(PRICE_BOOKS.c.version.desc()).limit(1)
    ).scalar()
    return by or ""


def _sha256(before: str, added: list[Any]) -> str:
    return hashlib.sha256(f"{before}{json.dumps(added, sort_keys=True)}".encode()).hexdigest()


def _read(connection: Connection, version: int) -> Book:
    prices: dict[tuple[str, str, str], list[tuple[int, int]]] = defaultdict(list)
    for row in connection.execute(select(PRICES).where(PRICES.c.version <= version)):
        prices[row.model, row.kind, row.plan].append((row.since_s, row.micros_per_million))
    regions: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for row in connection.execute(select(MULTIPLIERS).where(MULTIPLIERS.c.version <= version)):
        regions[row.region].append((row.since_s, row.multiplier_bp))
    books = connection.execute(
        select(PRICE_BOOKS).where(PRICE_BOOKS.c.version <= version).order_by(PRICE_BOOKS.c.version)
    ).all()
    free = {row.free_since_s: int(row.free_tokens_per_month) for row in books}
    return Book(
        version,
        books[-1].currency,
        {key: History(points) for key, points in prices.items()},
        {region: History(points) for region, points in regions.items()},
        History(free.items()),
    )


def _additions(
    connection: Connection, file: BookFile, version: int
) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    known = {
        (row.model, row.kind, row.plan, row.since_s): row.micros_per_million
        for row in connection.execute(select(PRICES))
    }
    wanted = {
        (line.model, kind.value, line.plan, hour_of(line.since)): micros
        for line in file.prices
        for kind, micros in zip(Kind, (line.input, line.cached, line.output), strict=True)
        if micros is not None
    }
    known_regions = {
        (row.region, row.since_s): row.multiplier_bp
        for row in connection.execute(select(MULTIPLIERS))
    }
    wanted_regions = {
        (line.region.lower(), hour_of(line.since)): line.multiplier_bp for line in file.regions
    }
    for key in known.keys() & wanted.keys():
        _check(known[key] == wanted[key], f"{key[0]} has another {key[1]} price of that hour")
    for place in known_regions.keys() & wanted_regions.keys():
        _check(known_regions[place] == wanted_regions[place], f"{place[0]} has another multiplier")
    return (
        [
            {
                "model": model,
                "kind": kind,
                "plan": plan,
                "since_s": since_s,
                "micros_per_million": wanted[model, kind, plan, since_s],
                "version": version,
            }
            for model, kind, plan, since_s in sorted(wanted.keys() - known.keys())
        ],
        [
            {
                "region": region,
                "since_s": since_s,
                "multiplier_bp": wanted_regions[region, since_s],
                "version": version,
            }
            for region, since_s in sorted(wanted_regions.keys() - known_regions.keys())
        ],
    )


def _allowance(connection: Connection, file: BookFile, now_ns: int) -> tuple[int | None, int]:
    """The file's allowance and the month it counts from; None when it is the present one."""
    if file.free_tokens_per_month is None:
        return None, 0
    _check(0 <= file.free_tokens_per_month <= 10**15, "the monthly allowance")
    since_s = now_ns // 1_000_000_000 if file.free_since is None else hour_of(file.free_since)
    since_s = month_start_s(since_s)
    present = current(connection).free.at(since_s)
    same = present == file.free_tokens_per_month
    return (None if same else file.free_tokens_per_month), since_s


def _refuse_other_prices(connection: Connection, book: Book) -> None:
    """The caller's transaction is undone when what was billed would cost something else."""
    for words in other_prices(connection, book, 0, _LAST_S):
        raise AlreadyBilled(
            f"{words[0].upper()}{words[1:]}.",
            next_step="Give the price a later `since`, and correct the past by an adjustment.",
        )


def other_prices(connection: Connection, book: Book, from_s: int, until_s: int) -> Iterator[str]:
    """What was billed at another price than the book has for its hour, in words."""
    columns = (OUTBOX.c.model, OUTBOX.c.kind, OUTBOX.c.plan, OUTBOX.c.region, OUTBOX.c.hour_s)
    used = connection.execute(
        select(*columns, OUTBOX.c.micros_per_million, OUTBOX.c.multiplier_bp)
        .where(OUTBOX.c.hour_s >= from_s, OUTBOX.c.hour_s < until_s)
        .distinct()
    )
    for row in used:
        rate = book.rate(row.model, row.kind, row.plan, row.region, row.hour_s)
        if rate != Rate(row.micros_per_million, row.multiplier_bp):
            yield (
                f"{row.kind} tokens of {row.model} in {row.region} at "
                f"{iso(row.hour_s * 1_000_000_000)} are billed at another price"
            )


def hour_of(text: str) -> int:
    """ISO 8601 to the start of its UTC hour in seconds. Raises BadPriceBook."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise BadPriceBook(
            f"{text!r} is not a moment.", next_step="Write it as 2026-11-22T19:00:00Z."
        ) from error
    seconds = int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    return seconds - seconds % HOUR_S


def _plain(word: str) -> bool:
    return bool(word) and len(word) <= 63 and "/" not in word and word.isprintable()


def _check(holds: object, what: str) -> None:
    if not holds:
        raise BadPriceBook(
            f"The price book cannot be taken: {what}.", next_step="Correct the file."
        )
