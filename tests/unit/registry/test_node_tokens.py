"""Tokens of nodes and their certificates: good once, for whom they are meant, until denied."""

import asyncio
import hashlib

import pytest

from appliance.domain.ids import NodeId
from appliance.registry.errors import CertificateRefused, InvalidValue, NotFound, TokenRefused
from appliance.security.errors import BadCertificateRequest
from appliance.security.site_ca import Issued
from tests.fakes.registry import ACTOR

HOUR_S = 3_600


@pytest.fixture
def issue(site):
    """Certificates with numbers for serials, good for a day."""
    made = iter(range(1, 1_000))

    def issue_one(_node_id: NodeId) -> Issued:
        now_ns = site.clock.wall_ns()
        return Issued(f"{next(made):X}", "pem", now_ns, now_ns + 24 * HOUR_S * 10**9)

    return issue_one


@pytest.fixture
def redeem(registry, issue):
    async def go(token, name="", host="gpu-host", issue=issue):
        identifier, secret = token.split(".")
        return await registry.node_tokens.redeem("join", identifier, secret, name, host, issue)

    return go


async def made(registry, **options):
    row, token = await registry.node_tokens.create(ACTOR, **{"ttl_s": HOUR_S} | options)
    return row, token


async def test_a_token_makes_one_node_once(registry, redeem):
    row, token = await made(registry)
    node, certificate, _ = await redeem(token)
    assert (node.name, certificate.node_id) == ("gpu-host", node.id)
    with pytest.raises(TokenRefused, match="used before"):
        await redeem(token)
    (listed,) = await registry.node_tokens.list()
    assert (listed.id, listed.used_by) == (row.id, node.id)
    assert [each.name for each in await registry.nodes.list()] == ["gpu-host"]


async def test_of_many_at_once_one_gets_in(registry, redeem):
    _, token = await made(registry)
    came = await asyncio.gather(*(redeem(token) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(one, TokenRefused) for one in came) == 7
    assert len(await registry.node_certificates.list()) == 1


async def test_the_secret_is_kept_nowhere(registry, redeem, site):
    row, token = await made(registry, node_name="n1")
    await redeem(token)
    secret = token.split(".")[1]
    content = b"".join(path.read_bytes() for path in site.path.parent.glob(site.path.name + "*"))
    assert row.id.encode() in content
    assert secret.encode() not in content
    assert hashlib.sha256(secret.encode()).digest() in content
    assert secret not in repr(await registry.audit.list())


async def test_a_token_ends_with_its_time(registry, redeem, site):
    _, token = await made(registry, ttl_s=60)
    site.clock.turn(59.9)
    _, other = await made(registry, ttl_s=60)
    site.clock.turn(0.1)
    with pytest.raises(TokenRefused, match="expired"):
        await redeem(token)
    await redeem(other)


async def test_a_revoked_token_is_refused(registry, redeem):
    row, token = await made(registry)
    assert (await registry.node_tokens.revoke(ACTOR, row.id)).revoked_at_ns is not None
    with pytest.raises(TokenRefused, match="revoked"):
        await redeem(token)
    with pytest.raises(NotFound):
        await registry.node_tokens.revoke(ACTOR, "feedfeedfeedfeed")


async def test_who_has_no_secret_learns_nothing(registry, redeem, site):
    """The same answer whether there is such a token, used, revoked, expired, or not at all."""
    row, fresh = await made(registry)
    used_row, used = await made(registry)
    await redeem(used)
    revoked, _ = await made(registry, node_name="secret-name")
    await registry.node_tokens.revoke(ACTOR, revoked.id)
    expired, _ = await made(registry, ttl_s=1)
    site.clock.turn(2)
    said = set()
    for identifier in (row.id, used_row.id, revoked.id, expired.id, "0" * 16, "", "' OR 1=1 --"):
        for secret in ("0" * 64, "", fresh.split(".")[1][:-1]):
            with pytest.raises(TokenRefused) as caught:
                await redeem(f"{identifier}.{secret}")
            said.add((caught.value.message, caught.value.next_step))
    assert len(said) == 1
    await redeem(fresh)  # guessing does not use it up


@pytest.mark.parametrize("ttl_s", [0, -1, 30 * 86_400 + 1])
async def test_a_token_lives_from_a_second_to_a_month(registry, ttl_s):
    with pytest.raises(InvalidValue):
        await made(registry, ttl_s=ttl_s)


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 200])
async def test_a_token_is_for_a_name_that_a_node_can_have(registry, name):
    with pytest.raises(InvalidValue):
        await made(registry, node_name=name)
    assert await registry.node_tokens.list() == []


async def test_a_token_for_a_name_is_for_no_other(registry, redeem):
    _, token = await made(registry, node_name="n1")
    with pytest.raises(TokenRefused, match="n1"):
        await redeem(token, name="n2")
    node, _, _ = await redeem(token, host="whatever")
    assert node.name == "n1"


async def test_clones_with_one_host_name_get_names_of_their_own(registry, redeem):
    names = []
    for _ in range(3):
        _, token = await made(registry)
        names.append((await redeem(token, host="gpu"))[0].name)
    assert names == ["gpu", "gpu-2", "gpu-3"]
    _, token = await made(registry)
    long = "h" * 63
    await redeem(token, host=long)
    _, token = await made(registry)
    node, _, _ = await redeem(token, host=long)
    assert node.name.endswith("-2")
    assert len(node.name) <= 63


async def test_a_token_for_nobody_does_not_take_a_name_that_is_there(registry, redeem):
    await registry.nodes.create(ACTOR, "n1")
    _, token = await made(registry)
    with pytest.raises(TokenRefused, match="already"):
        await redeem(token, name="n1")
    assert (await redeem(token, name="n2"))[0].name == "n2"  # it was not used up


async def test_a_name_that_no_node_can_have_leaves_the_token_unused(registry, redeem):
    _, token = await made(registry)
    for bad in ({"name": "a b"}, {"host": "../x"}, {"host": ""}):
        with pytest.raises(InvalidValue):
            await redeem(token, **bad)
    await redeem(token)


async def test_a_request_that_gets_no_certificate_leaves_the_token_unused(registry, redeem):
    def refuse(_node_id):
        raise BadCertificateRequest("no")

    _, token = await made(registry)
    with pytest.raises(BadCertificateRequest):
        await redeem(token, issue=refuse)
    assert await registry.nodes.list() == []  # nor is there half a node
    await redeem(token)


async def test_joining_anew_takes_the_node_over_and_denies_what_it_had(registry, redeem):
    _, token = await made(registry, node_name="n1")
    first_node, first, _ = await redeem(token)
    _, token = await made(registry, node_name="n1")
    second_node, second, _ = await redeem(token)
    assert second_node.id == first_node.id
    with pytest.raises(CertificateRefused, match="revoked"):
        await registry.node_certificates.check(first.serial)
    assert (await registry.node_certificates.check(second.serial)).node_name == "n1"


async def test_renewing_leaves_the_old_certificate_good_until_it_ends(registry, redeem, issue):
    """An answer that got lost must not lock the node out."""
    _, token = await made(registry)
    _, first, _ = await redeem(token)
    issued = await registry.node_certificates.renew("join", first.serial, issue)
    for serial in (first.serial, issued.serial):
        await registry.node_certificates.check(serial)
    assert len(await registry.node_certificates.list("gpu-host")) == 2


async def test_who_was_revoked_is_checked_renewed_and_held_no_more(registry, redeem, issue):
    _, token = await made(registry)
    node, first, _ = await redeem(token)
    second = await registry.node_certificates.renew("join", first.serial, issue)
    assert await registry.node_certificates.holders() == {node.id}
    assert await registry.node_certificates.revoke(ACTOR, "gpu-host") == 2
    assert await registry.node_certificates.revoke(ACTOR, "gpu-host") == 0
    for serial in (first.serial, second.serial):
        with pytest.raises(CertificateRefused, match="revoked"):
            await registry.node_certificates.check(serial)
        with pytest.raises(CertificateRefused, match="revoked"):
            await registry.node_certificates.renew("join", serial, issue)
    assert await registry.node_certificates.holders() == set()
    actions = [entry.action for entry in await registry.audit.list()]
    assert {"join", "renew", "revoke"} <= set(actions)


async def test_certificates_of_a_node_that_was_removed_are_good_for_nothing(
    registry, redeem, issue
):
    _, token = await made(registry)
    node, held, _ = await redeem(token)
    await registry.nodes.delete(ACTOR, node.id)
    for act in (
        registry.node_certificates.check(held.serial),
        registry.node_certificates.renew("join", held.serial, issue),
    ):
        with pytest.raises(CertificateRefused):
            await act
    assert await registry.node_certificates.holders() == set()
    _, token = await made(registry)
    again, _, _ = await redeem(token)  # a new node of the same name
    assert again.id != node.id
    with pytest.raises(CertificateRefused):
        await registry.node_certificates.check(held.serial)


@pytest.mark.parametrize("serial", ["", "0", "FFFF", "x' OR '1'='1"])
async def test_a_serial_that_nobody_has_is_refused(registry, redeem, serial):
    _, token = await made(registry)
    await redeem(token)
    with pytest.raises(CertificateRefused):
        await registry.node_certificates.check(serial)


async def test_a_node_that_renews_for_years_keeps_a_list_of_bounded_length(
    registry, redeem, issue, site
):
    _, token = await made(registry)
    _, held, _ = await redeem(token)
    serial = held.serial
    for _ in range(80):
        site.clock.turn(12 * HOUR_S)
        serial = (await registry.node_certificates.renew("join", serial, issue)).serial
    rows = await registry.node_certificates.list("gpu-host")
    assert len(rows) == 64
    assert rows[0].serial == serial
    await registry.node_certificates.check(serial)
    with pytest.raises(CertificateRefused):
        await registry.node_certificates.check(held.serial)


async def test_a_node_with_revoked_certificates_alone_is_known_as_that(registry, redeem):
    nodes = {}
    for name in ("kept", "out"):
        _, token = await made(registry, node_name=name)
        node, _, _ = await redeem(token)
        nodes[name] = node.id
    assert await registry.node_certificates.denied() == set()
    await registry.node_certificates.revoke(ACTOR, "out")
    assert await registry.node_certificates.denied() == {nodes["out"]}


async def test_tokens_of_a_node_that_is_given_up_let_nobody_in(registry, redeem):
    _, bound = await made(registry, node_name="burst-1")
    _, used = await made(registry, node_name="burst-1")
    await redeem(used)
    _, other = await made(registry, node_name="n2")
    _, free = await made(registry)
    await registry.node_tokens.revoke_of(ACTOR, "burst-1")
    with pytest.raises(TokenRefused, match="revoked"):
        await redeem(bound)
    for token in (other, free):
        await redeem(token)
    assert sum(e.action == "revoke" for e in await registry.audit.list()) == 1
