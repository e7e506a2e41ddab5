"""What a key is told of its own use: sums, what is left, and no word more."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.domain.ids import EnvironmentId, KeyId, TenantId
from appliance.domain.limits import Layer, LayerLimits, Limits
from appliance.gateway.errors import LedgerDown, NotSealedYet, UsageNotFound
from appliance.gateway.own_usage import LayerGauges, day_and_month_ns, proof_ref, report
from appliance.limits.memory import MemoryLimitStore
from appliance.limits.reservation import Dimension, Reservation
from appliance.manifests.lines import Salts
from appliance.metering.reader import KeyUsage, LedgerReader, Tokens
from appliance.own_books import OwnBooks
from appliance.registry.snapshot import Credential, Role
from appliance.sync.proofs import Proofs
from tests.fakes.ledger_items import NOON_NS
from tests.fakes.sealed_site import sealed_site

DAY_NS = 86_400 * 1_000_000_000
CALLER = Credential(
    key_id=KeyId("key_1"),
    key_name="web",
    role=Role.READ_ONLY,
    key_suspended=False,
    expires_at_ns=None,
    tenant_id=TenantId("ten_1"),
    tenant_name="acme",
    tenant_suspended=False,
    plan="business",
    environment_id=EnvironmentId("env_1"),
    environment_name="prod",
    environment_suspended=False,
    region="local",
    models_allowed=None,
    layers=(),
    cache_salt="",
)


@pytest.mark.parametrize(
    ("now_s", "day", "month"),
    [
        (1_795_392_123, "2026-11-23", "2026-11-01"),
        (1_709_208_000, "2024-02-29", "2024-02-01"),  # a leap day
        (1_704_067_200, "2024-01-01", "2024-01-01"),  # the first instant of a year
        (1_711_857_600, "2024-03-31", "2024-03-01"),  # clocks go forward in Europe
    ],
)
def test_days_and_months_are_those_of_utc(now_s: int, day: str, month: str) -> None:
    told = json.loads(report(CALLER, [], [], now_s * 1_000_000_000))
    assert told["today"]["since"] == f"{day}T00:00:00.000Z"
    assert told["month"]["since"] == f"{month}T00:00:00.000Z"
    day_ns, month_ns = day_and_month_ns(now_s * 1_000_000_000)
    assert day_ns % DAY_NS == month_ns % DAY_NS == 0


def test_models_add_up_to_the_sums() -> None:
    usage = [
        KeyUsage("a", Tokens(1, 10, 5, 2), Tokens(2, 20, 10, 4), Tokens(3, 30, 15, 6)),
        KeyUsage("b", Tokens(0, 0, 0, 0), Tokens(1, 1, 1, 0), Tokens(1, 1, 1, 0)),
    ]
    told = json.loads(report(CALLER, usage, [], NOON_NS))
    assert told["object"] == "usage"
    for window in ("today", "month", "total"):
        for name in ("requests", "input_tokens", "cached_tokens", "output_tokens", "total_tokens"):
            assert told[window][name] == sum(model[window][name] for model in told["models"])
    assert told["total"]["total_tokens"] == 31 + 16
    assert (told["tenant"], told["environment"], told["key"]) == ("acme", "prod", "web")


def test_what_is_left_of_each_limit_is_told_with_its_reset() -> None:
    limits = Limits(requests_per_min=10, tokens_per_min=100, tokens_per_day=50, concurrency=2)
    layer = LayerLimits(Layer.KEY, "key_1", limits)
    store = MemoryLimitStore()
    untouched = store.gauges(layer, 1_000.0)
    assert {gauge.remaining for gauge in untouched.values()} == {10, 100, 50, 2}
    assert {gauge.reset_s for gauge in untouched.values()} == {0.0}
    first = store.reserve((layer,), 40, 1_000.0)
    assert isinstance(first, Reservation)
    held = store.gauges(layer, 1_001.0)
    assert held[Dimension.TOKENS_PER_MIN].remaining == 60
    assert held[Dimension.CONCURRENCY].remaining == 1
    store.settle(first, 70, 1_002.0)  # more than was held, and than the day allows
    told = json.loads(
        report(CALLER, [], [LayerGauges("key", store.gauges(layer, 1_012.0))], NOON_NS)
    )
    (shown,) = told["limits"]
    assert shown == {
        "layer": "key",
        "requests_per_min": {"limit": 10, "remaining": 9, "reset_s": 48},
        "tokens_per_min": {"limit": 100, "remaining": 30, "reset_s": 50},
        "tokens_per_day": {"limit": 50, "remaining": 0, "reset_s": 86_390},
        "concurrency": {"limit": 2, "remaining": 2, "reset_s": 0},
    }


@pytest.mark.parametrize(
    ("path", "ref"),
    [
        ("/v1/usage/req_1/proof", "req_1"),
        ("/v1/usage/a%2Fb%7Ec/proof", "a/b~c"),
        ("/v1/usage", None),
        ("/v1/usage//proof", None),
        ("/v1/usage/a/b/proof", None),
        (f"/v1/usage/{'x' * 401}/proof", None),
    ],
)
def test_the_id_in_the_path_of_a_proof(path: str, ref: str | None) -> None:
    assert proof_ref(path) == ref


async def test_the_books_answer_their_owner_alone(tmp_path: Path) -> None:
    site = sealed_site(tmp_path, manifests=2, records=4)
    reader = LedgerReader(site.home.ledger_file)
    proofs = Proofs(site.home.ledger_file, Salts(site.identity.salts))
    books = OwnBooks(reader, proofs, window_s=300.0)
    mine = next(record for record in reader.rows() if record.tenant_id == "ten_1")
    proof = json.loads(await books.proof(TenantId("ten_1"), mine.request_id))
    assert proof["record_id"] == mine.record_id
    with pytest.raises(UsageNotFound) as foreign:
        await books.proof(TenantId("ten_2"), mine.request_id)
    with pytest.raises(UsageNotFound) as unknown:
        await books.proof(TenantId("ten_2"), "nobody")
    assert str(foreign.value) == str(unknown.value)
    site.record(2)
    with pytest.raises(NotSealedYet) as later:
        await books.proof(TenantId("ten_1"), f"req_{10:028x}")
    assert later.value.retry_after_s == 300
    usage = await books.usage(KeyId("key_1"), 0, 0)
    assert sum(one.total.requests for one in usage) == 5


async def test_books_that_cannot_be_read_are_a_matter_of_trying_again(tmp_path: Path) -> None:
    missing = tmp_path / "ledger.db"
    books = OwnBooks(LedgerReader(missing), Proofs(missing, Salts(b"s" * 32)), window_s=300.0)
    asks: list[Callable[[], object]] = [
        lambda: books.usage(KeyId("key_1"), 0, 0),
        lambda: books.proof(TenantId("ten_1"), "req_1"),
    ]
    for ask in asks:
        with pytest.raises(LedgerDown) as caught:
            await asyncio.ensure_future(ask())  # type: ignore[arg-type]  # both are coroutines
        assert str(missing) not in str(caught.value)
