"""What the clouds announce, read from services that are as strict as theirs."""

from collections.abc import AsyncIterator

import aiohttp
import pytest

from agent.errors import MetadataAway, MetadataStrange
from agent.metadata import Aws, Azure, Ending, Gcp, Metadata
from tests.fakes.metadata import MetadataService, metadata_service

AT = "2027-01-15T08:02:00Z"
AT_NS = 1_800_000_120_000_000_000
GMT = "Fri, 15 Jan 2027 08:02:00 GMT"


@pytest.fixture
async def service() -> AsyncIterator[MetadataService]:
    async with metadata_service() as fake:
        yield fake


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as client:
        yield client


@pytest.mark.parametrize("kind", [Aws, Gcp, Azure])
async def test_a_machine_that_stays_is_told_nothing(
    kind: type[Aws | Gcp | Azure], service: MetadataService, session: aiohttp.ClientSession
) -> None:
    assert await kind(session, service.url).endings() == ()


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
async def test_aws_takes_a_spot_machine(
    action: str, service: MetadataService, session: aiohttp.ClientSession
) -> None:
    service.aws_action = {"action": action, "time": AT}
    (ending,) = await Aws(session, service.url).endings()
    assert (ending.at_ns, ending.detail) == (AT_NS, f"spot {action}")


async def test_aws_ends_a_host(service: MetadataService, session: aiohttp.ClientSession) -> None:
    event = {
        "NotBefore": "15 Jan 2027 08:02:00 GMT",
        "Code": "instance-retirement",
        "Description": "The host is degraded",
        "EventId": "instance-event-0d59",
        "State": "active",
    }
    service.aws_events = [
        event,
        event | {"EventId": "done", "State": "completed"},
        event | {"EventId": "network", "Code": "system-maintenance"},
    ]
    assert await Aws(session, service.url).endings() == (
        Ending("instance-event-0d59", AT_NS, 0, "instance-retirement"),
    )


async def test_aws_is_asked_with_a_token_that_is_renewed_when_it_has_expired(
    service: MetadataService, session: aiohttp.ClientSession
) -> None:
    aws = Aws(session, service.url)
    await aws.endings()
    await aws.endings()
    assert service.asked.count("PUT /latest/api/token") == 1
    service.tokens.clear()
    service.aws_action = {"action": "terminate", "time": AT}
    assert len(await aws.endings()) == 1
    assert service.asked.count("PUT /latest/api/token") == 2


async def test_gcp_gives_half_a_minute(
    service: MetadataService, session: aiohttp.ClientSession
) -> None:
    service.gcp_preempted = "TRUE"
    assert await Gcp(session, service.url).endings() == (
        Ending("gcp-preempted", None, 30, "preempted"),
    )


@pytest.mark.parametrize(("gpus", "notice_s"), [(True, 3_600), (False, 60)])
async def test_gcp_tells_machines_with_gpus_an_hour_before(
    gpus: bool,  # noqa: FBT001 (a parameter of the test)
    notice_s: int,
    service: MetadataService,
    session: aiohttp.ClientSession,
) -> None:
    service.gcp_maintenance = "TERMINATE_ON_HOST_MAINTENANCE"
    gcp = Gcp(session, service.url, gpus=lambda: gpus)
    assert [ending.notice_s for ending in await gcp.endings()] == [notice_s]
    service.gcp_maintenance = "MIGRATE_ON_HOST_MAINTENANCE"  # it moves while it runs
    assert await gcp.endings() == ()


async def test_azure_tells_each_member_of_a_scale_set_of_all(
    service: MetadataService, session: aiohttp.ClientSession
) -> None:
    event = {
        "EventId": "A1",
        "EventType": "Preempt",
        "ResourceType": "VirtualMachine",
        "Resources": ["gpu-6", "GPU-7"],
        "EventStatus": "Scheduled",
        "NotBefore": GMT,
    }
    service.azure_events = [
        event,
        event | {"EventId": "A2", "Resources": ["gpu-6"]},
        event | {"EventId": "A3", "EventType": "Freeze"},  # it goes on after some seconds
        event | {"EventId": "A4", "EventType": "Reboot", "NotBefore": "", "EventStatus": "Started"},
    ]
    assert await Azure(session, service.url).endings() == (
        Ending("A1", AT_NS, 30, "preempt"),
        Ending("A4", None, 0, "reboot"),
    )


@pytest.mark.parametrize("kind", [Aws, Gcp, Azure])
@pytest.mark.parametrize("fault", ["status", "redirect", "garbage"])
async def test_an_answer_that_is_none_is_not_taken_for_peace(
    kind: type[Aws | Gcp | Azure],
    fault: str,
    service: MetadataService,
    session: aiohttp.ClientSession,
) -> None:
    service.aws_action = {"action": "terminate", "time": AT}
    if fault == "garbage":
        service.garbage = True
    else:
        service.broken = 500 if fault == "status" else 302
    metadata: Metadata = kind(session, service.url)
    if kind is Gcp and fault == "garbage":
        assert await metadata.endings() == ()  # a word that is not TRUE is not TRUE
        return
    with pytest.raises(MetadataStrange):
        await metadata.endings()


@pytest.mark.parametrize("kind", [Aws, Gcp, Azure])
async def test_nobody_answers(
    kind: type[Aws | Gcp | Azure], session: aiohttp.ClientSession
) -> None:
    async with metadata_service() as gone:
        url = gone.url
    with pytest.raises(MetadataAway):
        await kind(session, url).endings()


async def test_a_time_that_is_none(
    service: MetadataService, session: aiohttp.ClientSession
) -> None:
    service.aws_action = {"action": "terminate", "time": "soon"}
    with pytest.raises(MetadataStrange):
        await Aws(session, service.url).endings()
    service.azure_events = [
        {"EventId": "1", "EventType": "Preempt", "Resources": ["gpu-7"], "NotBefore": "soon"}
    ]
    with pytest.raises(MetadataStrange):
        await Azure(session, service.url).endings()
