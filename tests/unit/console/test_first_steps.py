"""How far a site is, as the first steps read it."""

from typing import Any

from appliance.wire.access import Me
from appliance.wire.checks import CheckResult
from console.first_steps import Facts, Step, Tables, first_open, steps, wanted


def tables(**rows: Any) -> Tables:
    empty: dict[str, Any] = {
        name: {}
        for name in ("nodes", "gpus", "models", "deployments", "tenants", "environments", "keys")
    }
    return Tables(**{**empty, **rows})  # type: ignore[typeddict-item]  # the names above


def me(*, mapped: bool) -> Me:
    return Me(account="0:root", role="admin", groups=[], site="s", mapped=mapped)


def step(facts: Facts, name: str) -> Step:
    return next(each for each in steps(facts) if each.name == name)


SITE = {"endpoint": "http://10.0.0.5:8080/v1", "records": 0}
NODE = {"n1": {"name": "n1", "state": "ready"}}


def test_of_a_site_that_was_not_read_nothing_is_claimed() -> None:
    found = steps(Facts(tables()))
    assert {
        each.standing for each in found if each.name in ("roles", "network", "entitlement")
    } == {"pending"}


def test_the_way_from_an_empty_site_to_the_first_answer() -> None:
    """Each step is open until the site itself shows that it was done."""
    now: dict[str, Any] = {}

    def names() -> str:
        found = first_open(steps(Facts(tables(**now), SITE, me(mapped=False))))
        return found.name if found else ""

    assert names() == "gpus"
    now["nodes"] = NODE
    assert names() == "model"
    now["deployments"] = {"d": {"name": "small", "state": "starting", "reason": "It loads."}}
    assert names() == "model"
    now["deployments"] = {"d": {"name": "small", "state": "ready"}}
    assert names() == "key"
    assert wanted(tables(**now))
    now["tenants"] = {"t": {"name": "acme"}}
    assert "environment" in step(Facts(tables(**now), SITE), "key").advice
    now["environments"] = {"e": {"name": "prod", "tenant": "acme"}}
    assert "secret" in step(Facts(tables(**now), SITE), "key").advice
    now["keys"] = {"k": {"name": "web", "tenant": "acme", "state": "suspended"}}
    assert names() == "key"
    now["keys"] = {"k": {"name": "web", "tenant": "acme", "state": "active"}}
    assert names() == "chat"
    assert not wanted(tables(**now))
    done = Facts(tables(**now), {**SITE, "records": 1}, me(mapped=True))
    assert first_open(steps(done)) is None


def test_a_loopback_address_and_open_roles_may_wait() -> None:
    here = Facts(tables(), {**SITE, "endpoint": "http://127.0.0.1:8080/v1"}, me(mapped=False))
    assert step(here, "network").standing == "optional"
    assert step(here, "roles").standing == "optional"
    assert step(Facts(tables(), SITE, me(mapped=True)), "roles").standing == "done"


def test_a_clock_that_is_wrong_is_open_with_what_to_do() -> None:
    late = CheckResult(
        name="clock.steady",
        subject="",
        outcome="failed",
        seen="4 min behind.",
        why="Limits are by time.",
        fix="Set it.",
        took_ms=1,
        number=1,
        total=1,
    )
    found = step(Facts(tables(), SITE, me(mapped=True), checks=(late,)), "network")
    assert found.standing == "open"
    assert "Set it." in found.advice


def test_a_failed_deployment_says_why() -> None:
    row = {"name": "big", "state": "failed", "reason": "No node has 80 GiB."}
    found = step(Facts(tables(deployments={"d": row}), SITE), "model")
    assert "No node has 80 GiB." in found.found
