"""The control plane over HTTP, as sites, Stripe and operators meet it."""

import asyncio
import os
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import httpx
import msgspec
import pytest

from appliance.controlplane import authority, enrolment
from appliance.controlplane.app import SITES_OF_SENDER
from appliance.controlplane.errors import DatabaseUnavailable, TooManyRequests
from appliance.controlplane.licences import Terms
from appliance.controlplane.rates import Rates
from appliance.controlplane.server import serving
from appliance.controlplane.service import ControlPlane
from appliance.manifests.bundle import (
    RECEIPT_MEDIA_TYPE,
    USAGE_MEDIA_TYPE,
    CarriedDocument,
    read_receipts,
)
from appliance.manifests.codes import Code
from appliance.manifests.documents import Receipt
from appliance.manifests.keys import open_entitlement, open_receipt, open_revocation
from appliance.security.signing import SigningKey
from appliance.sync.enrolment import introduction, parse_code
from appliance.sync.signatures import authorization
from tests.fakes.clock import ManualClock
from tests.fakes.reporting import act, bundle, enrolled, known, sealed
from tests.fakes.sites import Site, signing_key

DAY_S = 86_400


@pytest.fixture
async def client(plane: ControlPlane) -> AsyncIterator[httpx.AsyncClient]:
    listen = msgspec.structs.replace(
        plane.settings.listen, address="127.0.0.1:0", head_s=1.0, body_s=1.0
    )
    settings = msgspec.structs.replace(plane.settings, listen=listen)
    object.__setattr__(plane, "settings", settings)
    async with (
        serving(plane) as url,
        httpx.AsyncClient(base_url=url, timeout=20, trust_env=False) as opened,
    ):
        yield opened


async def post(client: httpx.AsyncClient, raw: bytes) -> httpx.Response:
    return await client.post(
        "/v1/manifests", content=raw, headers={"Content-Type": USAGE_MEDIA_TYPE}
    )


def opened(plane: ControlPlane, response: httpx.Response) -> Receipt:
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == RECEIPT_MEDIA_TYPE
    documents = read_receipts(response.content).documents
    return open_receipt(documents[-1].envelope, plane.identity.key.public)


def error(response: httpx.Response) -> tuple[int, str]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"code", "message", "next_step"}
    return response.status_code, body["error"]["code"]


async def pull(
    client: httpx.AsyncClient, plane: ControlPlane, site: Site, **changes: object
) -> httpx.Response:
    told: dict[str, object] = {
        "appliance": site.appliance_id,
        "epoch": site.state.epoch,
        "head": site.state.head_sha256,
        **{k: v for k, v in changes.items() if k in {"appliance", "epoch", "head"}},
    }
    target = f"/v1/receipts?{urlencode(told)}"
    key = changes.get("key", site.key)
    assert isinstance(key, SigningKey)
    header = authorization(
        method="GET",
        target=str(changes.get("target", target)),
        appliance_id=site.appliance_id,
        wall_ns=plane.clock.wall_ns() + int(str(changes.get("skew_s", 0))) * 1_000_000_000,
        key=key,
        entropy=os.urandom,
    )
    return await client.get(target, headers={"Authorization": str(changes.get("header", header))})


def kinds(response: httpx.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [one.kind for one in read_receipts(response.content).documents]


async def test_a_site_enrols_reports_and_pulls(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    pem = await client.get("/v1/key")
    assert pem.text == plane.identity.key.public.pem
    code = parse_code(
        plane.database.transact(
            lambda c: enrolment.make_code(c, act(plane), "berlin", Terms(customer="Acme"), 60)
        ).text
    )
    key = signing_key(1)
    site = Site(key=key, appliance_id=enrolment.appliance_id_of(key.public))
    raw = introduction(
        appliance_id=site.appliance_id,
        name="x",
        epoch=1,
        wall_ns=plane.clock.wall_ns(),
        key=key,
        code_id=code.code_id,
    )
    for _ in range(2):
        answer = await client.post("/v1/enrol", json={"code": code.told, "enrolment": raw.decode()})
        assert answer.status_code == 201
        assert answer.json() == {
            "appliance_id": site.appliance_id,
            "customer": "Acme",
            "key_pem": plane.identity.key.public.pem,
        }
    manifests = sealed(site, 3)
    first = await post(client, bundle(site, manifests))
    receipt = opened(plane, first)
    assert (receipt.accepted_through, receipt.checkpoint != "") == (3, True)
    again = await post(client, bundle(site, manifests))
    assert opened(plane, again) == receipt
    pulled = await pull(client, plane, site)
    assert kinds(pulled)[:2] == ["receipt", "entitlement"]
    documents = {one.kind: one.envelope for one in read_receipts(pulled.content).documents}
    assert open_receipt(documents["receipt"], plane.identity.key.public) == receipt
    entitlement = open_entitlement(documents["entitlement"], plane.identity.key.public)
    assert entitlement.customer == "Acme"


async def test_an_enrolment_that_is_refused_says_why(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    for body in (b"", b"{}", b'{"code": 1, "enrolment": ""}', b"\xff"):
        assert error(await client.post("/v1/enrol", content=body)) == (400, "bad_upload")
    for code in ("a.b", "", "a\0.b", "\u00e9.b"):
        wrong = {"code": code, "enrolment": "x\0"}
        assert error(await client.post("/v1/enrol", json=wrong)) == (403, "enrolment_refused")
    large = await client.post("/v1/enrol", content=b"x" * 1_100_000)
    assert error(large) == (413, "upload_too_large")


async def test_a_bundle_that_is_none_is_refused_and_changes_nothing(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    site = enrolled(plane)
    raw = bundle(site, sealed(site, 3))
    for bad in (b"", b"nonsense", raw[:-2_000], raw[:700], raw.replace(b"index", b"lndex", 1)):
        assert error(await post(client, bad)) == (400, "bad_bundle")
    assert known(plane, site).state.accepted_through == 0
    other = await client.post("/v1/manifests", content=raw, headers={"Content-Type": "text/x"})
    assert error(other) == (400, "bad_upload")
    packed = await client.post(
        "/v1/manifests",
        content=raw,
        headers={"Content-Type": USAGE_MEDIA_TYPE, "Content-Encoding": "gzip"},
    )
    assert error(packed) == (400, "bad_upload")
    assert opened(plane, await post(client, raw)).accepted_through == 3


async def test_a_body_past_its_size_is_refused_with_and_without_a_length(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    ingest = msgspec.structs.replace(plane.settings.ingest, bundle_bytes_max=1_000)
    object.__setattr__(plane, "settings", msgspec.structs.replace(plane.settings, ingest=ingest))
    assert error(await post(client, b"x" * 2_000)) == (413, "upload_too_large")

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 100

    streamed = await client.post(
        "/v1/manifests", content=pieces(), headers={"Content-Type": USAGE_MEDIA_TYPE}
    )
    assert error(streamed) == (413, "upload_too_large")


async def raw_answer(client: httpx.AsyncClient, sent: bytes) -> bytes:
    """What comes back, to the end, for bytes that are followed by silence."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    try:
        writer.write(sent)
        async with asyncio.timeout(15):
            return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_body_that_does_not_come_is_not_waited_for(client: httpx.AsyncClient) -> None:
    head = f"POST /v1/manifests HTTP/1.1\r\nHost: x\r\nContent-Type: {USAGE_MEDIA_TYPE}\r\n"
    answer = await raw_answer(client, f"{head}Content-Length: 1000\r\n\r\nx".encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"did not come in time" in answer


@pytest.mark.parametrize("sent", [b"", b"GET /v1/key HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_a_head_that_does_not_come_is_not_waited_for(
    client: httpx.AsyncClient, sent: bytes
) -> None:
    assert await raw_answer(client, sent) == b""


async def test_dispositions_tell_of_refusals_in_a_good_bundle(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    stranger = Site(key=signing_key(9))
    answer = opened(plane, await post(client, bundle(stranger, sealed(stranger, 1))))
    assert [one.code for one in answer.dispositions] == [Code.UNKNOWN_APPLIANCE]


@pytest.mark.parametrize(
    "changes",
    [
        {"header": ""},
        {"header": "Bearer x"},
        {"header": "CrossLogic-Ed25519 apl_0:1:2:3"},
        {"key": signing_key(3)},
        {"skew_s": 301},
        {"skew_s": -301},
        {"target": "/v1/receipts?appliance=other"},
        {"appliance": "apl_" + "0" * 24},
    ],
)
async def test_a_pull_must_be_signed_now_and_for_this(
    plane: ControlPlane, client: httpx.AsyncClient, changes: dict[str, object]
) -> None:
    site = enrolled(plane)
    assert error(await pull(client, plane, site, **changes)) == (401, "request_refused")
    assert kinds(await pull(client, plane, site, skew_s=299))


async def test_a_pull_that_is_repeated_is_refused(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    site = enrolled(plane)
    target = f"/v1/receipts?appliance={site.appliance_id}&epoch=1&head=x"
    header = authorization(
        method="GET",
        target=target,
        appliance_id=site.appliance_id,
        wall_ns=plane.clock.wall_ns(),
        key=site.key,
        entropy=os.urandom,
    )
    first, second = [await client.get(target, headers={"Authorization": header}) for _ in range(2)]
    assert first.status_code == 200
    assert error(second) == (401, "request_refused")


async def test_a_site_with_nothing_to_report_gets_a_new_lease_once_a_day(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    site = enrolled(plane)
    clock = plane.clock
    assert isinstance(clock, ManualClock)

    async def lease(**changes: object) -> str:
        documents = read_receipts((await pull(client, plane, site, **changes)).content).documents
        raw = next(one.envelope for one in documents if one.kind == "receipt")
        return open_receipt(raw, plane.identity.key.public).lease_until

    first = await lease()
    clock.turn(DAY_S / 2)
    assert await lease() == first
    clock.turn(DAY_S / 2)
    assert await lease(head="ab" * 32) == first  # a copy that knows another head gets none
    second = await lease()
    assert second > first
    assert await lease() == second
    plane.database.transact(lambda c: authority.freeze(c, act(plane), "berlin", "unpaid"))
    clock.turn(2 * DAY_S)
    assert await lease() == second


async def test_a_revoked_key_is_told_of_that_and_nothing_else(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    site = enrolled(plane)
    plane.database.transact(
        lambda c: authority.revoke_key(c, act(plane), "berlin", site.key.key_id, None, "stolen")
    )
    answer = await pull(client, plane, site)
    assert kinds(answer) == ["key-revocation"]
    (document,) = read_receipts(answer.content).documents
    assert isinstance(document, CarriedDocument)
    assert open_revocation(document.envelope, plane.identity.key.public).reason == "stolen"


def test_a_sender_that_asks_too_often_waits() -> None:
    clock = ManualClock()
    rates = Rates(clock, 2)
    rates.spend(("a", "x"))
    rates.spend(("a", "x"))
    with pytest.raises(TooManyRequests) as refused:
        rates.spend(("a", "x"))
    assert refused.value.retry_after_s == 31
    rates.spend(("a", "y"))  # another sender in its name takes nothing from it
    clock.turn(31)
    rates.spend(("a", "x"))
    for _ in range(2 * 3):
        rates.spend(("any", "x"), 3)
    with pytest.raises(TooManyRequests):
        rates.spend(("any", "x"), 3)


async def test_who_changes_the_site_for_each_request_is_slowed_all_the_same(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    statuses = []
    for number in range(SITES_OF_SENDER * plane.settings.ingest.requests_per_min + 1):
        name = f"apl_{number:024x}"
        header = f"CrossLogic-Ed25519 {name}:1:{'0' * 32}:{'A' * 86}"
        path = f"/v1/receipts?appliance={name}"
        statuses.append((await client.get(path, headers={"Authorization": header})).status_code)
    assert set(statuses[:-1]) == {401}
    assert statuses[-1] == 429


async def test_too_many_requests_are_answered_429(
    plane: ControlPlane, client: httpx.AsyncClient
) -> None:
    site = enrolled(plane)
    answers = [await pull(client, plane, site, header="x") for _ in range(3)]
    assert {error(one) for one in answers} == {(401, "request_refused")}
    raw = bundle(site, sealed(site, 1))
    answered = [(await post(client, raw)).status_code for _ in range(125)]
    assert answered[:120] == [200] * 120
    assert set(answered[120:]) == {429}


async def test_operators_need_their_token(plane: ControlPlane, client: httpx.AsyncClient) -> None:
    enrolled(plane)
    for header in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer \xff"}):
        encoded = {name: value.encode("latin-1") for name, value in header.items()}
        answer = await client.get("/v1/operator/sites", headers=encoded)
        assert error(answer) == (401, "operator_denied")


async def test_operators_see_and_decide(plane: ControlPlane, client: httpx.AsyncClient) -> None:
    site = enrolled(plane)
    client.headers["Authorization"] = f"Bearer {plane.identity.operator_token}"
    listed = (await client.get("/v1/operator/sites")).json()
    assert [one["name"] for one in listed] == ["berlin"]
    frozen = await client.post("/v1/operator/sites/berlin/freeze", json={"reason": "unpaid"})
    assert (frozen.json()["state"], frozen.json()["frozen_reason"]) == ("frozen", "unpaid")
    again = await client.post("/v1/operator/sites/berlin/freeze", json={"reason": "unpaid"})
    assert error(again) == (409, "not_possible")
    freed = await client.post("/v1/operator/sites/berlin/unfreeze", json={"reason": "paid"})
    assert freed.json()["state"] == "active"
    assert error(await client.get("/v1/operator/sites/rome")) == (404, "unknown_site")
    bad = await client.post("/v1/operator/sites/berlin/freeze", json={"why": "x"})
    assert error(bad) == (400, "bad_upload")
    grant = await client.post("/v1/operator/sites/berlin/epochs", json={"reason": "restored"})
    assert grant.json()["epoch"] == 2
    code = await client.post(
        "/v1/operator/enrolments", json={"name": "rome", "terms": {"customer": "Roma"}}
    )
    assert code.json()["code"].startswith("clxe_")
    revoked = await client.post(
        "/v1/operator/sites/berlin/revocations",
        json={"key_id": site.key.key_id, "reason": "stolen"},
    )
    assert revoked.json()["key_id"] == site.key.key_id
    assert (await client.get("/v1/operator/evidence")).json() == []


async def test_health_and_what_is_not_there(client: httpx.AsyncClient) -> None:
    for path in ("/healthz", "/readyz"):
        assert (await client.get(path)).status_code == 200
    assert error(await client.get("/nothing")) == (404, "http_error")
    assert error(await client.get("/v1/manifests")) == (405, "http_error")
    assert error(await client.post("/webhooks/stripe", content=b"{}")) == (
        503,
        "stripe_not_configured",
    )


async def test_a_database_that_is_gone_is_said_and_costs_nothing(
    plane: ControlPlane, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = enrolled(plane)
    raw = bundle(site, sealed(site, 1))
    with monkeypatch.context() as gone:

        def fail(_self: object, _run: object) -> None:
            raise DatabaseUnavailable("The database cannot be used: gone.")

        gone.setattr("appliance.controlplane.database.Database.transact", fail)
        assert error(await post(client, raw)) == (503, "database_unavailable")
    assert opened(plane, await post(client, raw)).accepted_through == 1
