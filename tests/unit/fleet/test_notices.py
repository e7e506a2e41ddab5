"""What is done about a machine that will be taken away, by the time that is left."""

import pytest

from appliance.domain.ids import DeploymentId, ReplicaId
from appliance.fleet.notices import Phase, drain_s, handed_over, phase, sooner, wish_under
from appliance.registry.nodes import Wish
from appliance.scheduler.replicas import ReplicaTarget
from appliance.wire.agent import PreemptionNotice
from tests.fakes.clock import START_NS

SECOND_NS = 1_000_000_000


def notice(after_s: float, source: str = "aws") -> PreemptionNotice:
    at_ns = START_NS + round(after_s * SECOND_NS)
    return PreemptionNotice(source=source, at_ns=at_ns, seen_ns=START_NS)  # type: ignore[arg-type]  # one of the sources


def target(node_name: str) -> ReplicaTarget:
    return ReplicaTarget(
        *(ReplicaId(f"rep-{node_name}"), DeploymentId("dep"), node_name),
        *("127.0.0.1", 1, False, "", None, None, 1, None, None, frozenset()),
    )


@pytest.mark.parametrize(
    ("given_s", "passed_s", "expected"),
    [
        (7 * 86_400, 0, Phase.ANNOUNCED),  # a host retires in a week
        (3_600, 2_699, Phase.ANNOUNCED),
        (3_600, 2_700, Phase.EMPTYING),
        (120, 0, Phase.EMPTYING),  # AWS
        (120, 60, Phase.HANDING_OVER),
        (120, 109, Phase.HANDING_OVER),
        (120, 110, Phase.LAST),
        (30, 0, Phase.HANDING_OVER),  # GCP, Azure
        (30, 20, Phase.LAST),
        (6, 0, Phase.HANDING_OVER),
        (6, 4, Phase.LAST),
        (0, 0, Phase.LAST),
        (30, 300, Phase.LAST),  # it is there still
    ],
)
def test_the_phases_of_a_notice(given_s: float, passed_s: float, expected: Phase) -> None:
    assert phase(notice(given_s), START_NS + round(passed_s * SECOND_NS)) is expected


def test_no_notice() -> None:
    assert phase(None, START_NS) is Phase.NONE
    assert wish_under("serving", Phase.NONE) == "serving"


@pytest.mark.parametrize(
    ("wish", "at", "expected"),
    [
        ("serving", Phase.ANNOUNCED, "serving"),
        ("serving", Phase.EMPTYING, "draining"),
        ("serving", Phase.HANDING_OVER, "draining"),
        ("serving", Phase.LAST, "maintenance"),
        ("draining", Phase.ANNOUNCED, "draining"),
        ("draining", Phase.LAST, "maintenance"),
        ("maintenance", Phase.EMPTYING, "maintenance"),  # an administrator wanted more
    ],
)
def test_the_end_and_the_administrators_wish_together(
    wish: Wish, at: Phase, expected: Wish
) -> None:
    assert wish_under(wish, at) == expected


def test_requests_begin_elsewhere_where_there_is_an_elsewhere() -> None:
    here, there = target("leaving"), target("staying")
    assert handed_over((here, there), {"leaving"}) == (there,)
    assert handed_over((here,), {"leaving"}) == (here,)
    assert handed_over((here, there), set()) == (here, there)
    assert handed_over((), {"leaving"}) == ()


def test_of_two_notices_the_sooner_counts() -> None:
    soon, late = notice(30, "gcp"), notice(600, "operator")
    assert sooner(soon, late) is soon
    assert sooner(late, soon) is soon
    assert sooner(None, late) is late
    assert sooner(None, None) is None


def test_requests_have_the_usual_time_or_what_is_left_of_their_machine() -> None:
    now_ns = 1_000 * 1_000_000_000
    ending = PreemptionNotice(source="aws", at_ns=now_ns + 90 * 1_000_000_000, seen_ns=now_ns)
    assert drain_s(120.0, None, now_ns) == 120.0
    assert drain_s(120.0, ending, now_ns) == 87.0
    assert drain_s(30.0, ending, now_ns) == 30.0
    assert drain_s(120.0, ending, ending.at_ns + 1) == 1.0
