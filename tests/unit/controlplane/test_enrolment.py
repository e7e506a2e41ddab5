"""One-time codes, requests carried by hand, and what is refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from appliance.controlplane import audit, enrolment, licences, sites
from appliance.controlplane.database import Database
from appliance.controlplane.enrolment import appliance_id_of
from appliance.controlplane.errors import EnrolmentRefused, SiteExists, UnknownSite
from appliance.controlplane.licences import Terms
from appliance.controlplane.service import ControlPlane
from appliance.controlplane.site_tables import ENROLMENT_CODES, OPERATOR_AUDIT
from appliance.manifests.documents import Entitlement
from appliance.security.signing import SigningKey
from appliance.sync.enrolment import check_pin, introduction, parse_code
from tests.fakes.clock import ManualClock
from tests.fakes.reporting import act
from tests.fakes.sites import signing_key

TERMS = Terms(customer="Acme GmbH", gpu_count=8, reserved_tokens_per_s=500, models=("llama",))


def new_code(plane: ControlPlane, name: str = "berlin", ttl_s: int = 600) -> enrolment.Code:
    return plane.database.transact(
        lambda connection: enrolment.make_code(connection, act(plane), name, TERMS, ttl_s)
    )


def shown(plane: ControlPlane, key: SigningKey, code_id: str = "", **changes: object) -> bytes:
    fields: dict[str, object] = {
        "appliance_id": appliance_id_of(key.public),
        "name": "what the site calls itself",
        "epoch": 1,
        **changes,
    }
    return introduction(  # type: ignore[arg-type]  # the arguments of the function
        wall_ns=plane.clock.wall_ns(), key=key, code_id=code_id, **fields
    )


def use(plane: ControlPlane, told: str, raw: bytes) -> sites.Site:
    return plane.database.transact(
        lambda connection: enrolment.enrol_with_code(connection, act(plane), told, raw)
    )


def test_a_code_lets_one_site_in_with_its_licence(plane: ControlPlane) -> None:
    code = parse_code(new_code(plane).text)  # as the site reads it
    check_pin(code, plane.identity.key.public)
    key = signing_key(1)
    site = use(plane, code.told, shown(plane, key, code.code_id))
    assert (site.name, site.customer, site.frozen) == ("berlin", "Acme GmbH", False)
    assert site.appliance_id == f"apl_{key.key_id[:24]}"
    granted = plane.database.read(lambda c: licences.in_force(c, site.appliance_id))
    assert isinstance(granted, Entitlement)
    assert (granted.gpu_count, granted.models, granted.grace_days) == (8, ("llama",), 14)
    assert (granted.not_before, granted.lease_until) == (
        "2026-11-23T19:00:00.000Z",
        "2026-12-23T19:00:00.000Z",
    )
    # Its answer was lost: it asks again and is answered again.
    assert use(plane, code.told, shown(plane, key, code.code_id)) == site
    with pytest.raises(EnrolmentRefused):
        use(plane, code.told, shown(plane, signing_key(2), code.code_id))


def test_the_secret_is_kept_nowhere(plane: ControlPlane) -> None:
    code = new_code(plane)
    secret = code.text.split(".")[1]
    assert secret not in repr(code)
    kept = plane.database.read(
        lambda c: [
            str(tuple(row))
            for table in (ENROLMENT_CODES, OPERATOR_AUDIT)
            for row in c.execute(table.select())
        ]
    )
    assert len(kept) == 2
    assert not any(secret in row for row in kept)


@pytest.mark.parametrize("told", ["", "x", ".", "{id}.wrong", "{id}", "nobody.{secret}"])
def test_a_wrong_code_is_refused_in_the_same_words(plane: ControlPlane, told: str) -> None:
    code = parse_code(new_code(plane).text)
    wrong = told.replace("{id}", code.code_id).replace("{secret}", code.secret)
    with pytest.raises(EnrolmentRefused) as refused:
        use(plane, wrong, shown(plane, signing_key(1), code.code_id))
    assert refused.value.message == "The enrolment code is not valid."


def test_a_code_ends(plane: ControlPlane) -> None:
    code = parse_code(new_code(plane, ttl_s=600).text)
    assert isinstance(plane.clock, ManualClock)
    plane.clock.turn(600)
    with pytest.raises(EnrolmentRefused, match="too old"):
        use(plane, code.told, shown(plane, signing_key(1), code.code_id))


def test_an_introduction_must_be_of_the_key_it_shows_and_of_this_code(plane: ControlPlane) -> None:
    code = parse_code(new_code(plane).text)
    key = signing_key(1)
    good = shown(plane, key, code.code_id)
    for raw in (
        b"",
        b"nonsense",
        good.replace(b"payload", b"paYload", 1),
        shown(plane, key, "another-code"),
        shown(plane, key, code.code_id, appliance_id="apl_" + "0" * 24),
    ):
        with pytest.raises(EnrolmentRefused):
            use(plane, code.told, raw)
    assert use(plane, code.told, good).name == "berlin"


def test_two_sites_that_use_one_code_at_once_are_one_site(
    plane: ControlPlane, tables_url: str
) -> None:
    code = parse_code(new_code(plane).text)
    other = Database.open(tables_url)

    def come(number: int) -> str:
        database = plane.database if number % 2 else other
        raw = shown(plane, signing_key(number), code.code_id)
        try:
            site = database.transact(
                lambda c: enrolment.enrol_with_code(c, act(plane), code.told, raw)
            )
        except (EnrolmentRefused, SiteExists):
            return ""
        return site.appliance_id

    try:
        with ThreadPoolExecutor(4) as threads:
            came = [one for one in threads.map(come, range(1, 5)) if one]
    finally:
        other.close()
    assert len(came) == 1
    assert [site.appliance_id for site in plane.database.read(sites.every)] == came


def test_a_request_or_a_key_may_be_carried_by_hand(plane: ControlPlane) -> None:
    first, second = signing_key(1), signing_key(2)
    raw = shown(plane, first)
    plane.database.transact(lambda c: enrolment.enrol_by_hand(c, act(plane), "berlin", TERMS, raw))
    plane.database.transact(
        lambda c: enrolment.register(c, act(plane), "paris", second.public, TERMS)
    )
    assert [one.name for one in plane.database.read(sites.every)] == ["berlin", "paris"]
    for name, key in (("rome", first), ("paris", signing_key(3)), ("apl_x", signing_key(3))):
        with pytest.raises(SiteExists):
            plane.database.transact(
                lambda c, name=name, key=key: enrolment.register(  # type: ignore[misc]
                    c, act(plane), name, key.public, TERMS
                )
            )


def test_a_request_for_a_new_epoch_is_no_enrolment(plane: ControlPlane) -> None:
    raw = shown(plane, signing_key(1), epoch=2, appliance_id="apl_" + "0" * 24)
    with pytest.raises(EnrolmentRefused, match="new epoch"):
        plane.database.transact(
            lambda c: enrolment.enrol_by_hand(c, act(plane), "berlin", TERMS, raw)
        )


def test_a_site_is_found_by_name_and_id_and_renamed(plane: ControlPlane) -> None:
    site = plane.database.transact(
        lambda c: enrolment.register(c, act(plane), "berlin", signing_key(1).public, TERMS)
    )
    plane.database.transact(lambda c: enrolment.change(c, act(plane), "berlin", "potsdam", 60))
    for reference in ("potsdam", site.appliance_id):
        found = plane.database.read(lambda c, r=reference: sites.find(c, r))  # type: ignore[misc]
        assert (found.name, found.lease_days) == ("potsdam", 60)
    with pytest.raises(UnknownSite):
        plane.database.read(lambda c: sites.find(c, "berlin"))


def test_another_entitlement_takes_the_place_of_the_first(plane: ControlPlane) -> None:
    site = plane.database.transact(
        lambda c: enrolment.register(c, act(plane), "berlin", signing_key(1).public, TERMS)
    )
    before = plane.database.read(lambda c: licences.terms_of(c, site.appliance_id))
    assert before is not None
    terms = Terms(customer="Other", gpu_count=16, lease_days=5)
    plane.database.transact(lambda c: enrolment.license_again(c, act(plane), site, terms))
    after = plane.database.read(lambda c: licences.in_force(c, site.appliance_id))
    assert after is not None
    assert (after.customer, after.gpu_count) == ("Other", 16)
    assert after.lease_until == "2026-11-28T19:00:00.000Z"


def test_every_act_is_in_the_audit_whose_change_is_found(plane: ControlPlane) -> None:
    new_code(plane)
    plane.database.transact(
        lambda c: enrolment.register(c, act(plane), "paris", signing_key(1).public, TERMS)
    )
    rows = plane.database.read(lambda c: audit.entries(c, 0))
    assert [(one.actor, one.action, one.object_name) for one in rows] == [
        ("alice", "enrol", "berlin"),
        ("alice", "register", "paris"),
    ]
    verdict = plane.database.read(audit.verify)
    assert (verdict.entries, verdict.problems) == (2, ())
    plane.database.transact(
        lambda c: c.execute(
            OPERATOR_AUDIT.update().where(OPERATOR_AUDIT.c.seq == 1).values(actor="mallory")
        )
    )
    assert plane.database.read(audit.verify).problems != ()


def test_an_audit_row_that_is_taken_out_is_missed(plane: ControlPlane) -> None:
    for name in ("a", "b", "c"):
        new_code(plane, name)
    plane.database.transact(
        lambda c: c.execute(OPERATOR_AUDIT.delete().where(OPERATOR_AUDIT.c.seq == 2))
    )
    assert plane.database.read(audit.verify).problems != ()


@pytest.mark.parametrize(
    "name", ["", " berlin", "\x1b[31mred", "two\nlines", "a\u202eb", "x" * 101]
)
def test_a_name_that_commands_a_terminal_is_none(plane: ControlPlane, name: str) -> None:
    with pytest.raises(EnrolmentRefused):
        plane.database.transact(
            lambda c: enrolment.make_code(c, act(plane), name, Terms(customer="Acme"), 60)
        )
