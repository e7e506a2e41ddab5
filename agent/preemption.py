"""Watches for the end of this machine, where a cloud may take it away.

Off unless it is told, or the machine's own firmware names one of the clouds: reading that asks no
network, so that a site without one never waits for it. What is announced goes out with the next
heartbeat; the appliance then empties this node while there is time.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal

import aiohttp

from agent.durable import read_message, write_message
from agent.errands import Errands
from agent.errors import MetadataAway, MetadataStrange
from agent.metadata import LINK_LOCAL, Aws, Azure, Cloud, Ending, Gcp, Metadata
from appliance.domain.clock import Clock, iso
from appliance.wire.agent import PreemptionNotice

log = logging.getLogger(__name__)

Watching = Literal["auto", "off", "aws", "gcp", "azure"]

DMI: Final = Path("/sys/class/dmi/id")
_AZURE_CHASSIS: Final = "7783-7084-3265-9085-8269-3286-77"  # of every machine there
# The variables with which the clouds' own programs are sent to another address.
_ENDPOINTS: Final[Mapping[str, str]] = {
    "aws": "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "gcp": "GCE_METADATA_HOST",
}
_AWAY_RETRY_S: Final = 10.0
# An announcement that a cloud made stands for so long after its hour: the machine that is still
# there was restarted, or not taken.
_STALE_S: Final = 300
_WRITE_S: Final = 0.5
_SECOND_NS: Final = 1_000_000_000


def detect(dmi: Path = DMI) -> Cloud | None:
    """The cloud that this machine's firmware names; None: none of those we know."""
    vendor, product = _line(dmi / "sys_vendor"), _line(dmi / "product_name")
    if vendor == "Amazon EC2" or "amazon" in _line(dmi / "bios_version"):  # the latter on Xen
        return "aws"
    if product == "Google Compute Engine":
        return "gcp"
    if _line(dmi / "chassis_asset_tag") == _AZURE_CHASSIS:
        return "azure"
    return None


def metadata_of(
    watching: Watching,
    url: str | None,
    environ: Mapping[str, str],
    session: aiohttp.ClientSession,
    gpus: Callable[[], bool],
    dmi: Path = DMI,
) -> Metadata | None:
    """The service to ask, as told or as detected; None: there is nothing to watch."""
    cloud = detect(dmi) if watching == "auto" else watching
    if cloud is None or cloud == "off":
        return None
    base = url or environ.get(_ENDPOINTS.get(cloud, ""), "") or LINK_LOCAL
    if "://" not in base:
        base = f"http://{base}"
    if cloud == "aws":
        return Aws(session, base)
    if cloud == "gcp":
        return Gcp(session, base, gpus=gpus)
    return Azure(session, base)


class Watch:
    """What is announced for this machine. `notice` is what the next heartbeat tells."""

    def __init__(
        self, metadata: Metadata, clock: Clock, changed: Callable[[], None], remembered: Path
    ) -> None:
        """`remembered`: where a notice outlives the agent, so that a restart gives no time more."""
        self._metadata = metadata
        self._clock = clock
        self._changed = changed
        self._path = remembered
        self._errands = Errands("notice")
        self._seen: dict[str, int] = {}  # when each announcement was first seen
        self._answers: bool | None = None
        self._notice = self._remembered()

    def notice(self) -> PreemptionNotice | None:
        return self._notice

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            try:
                endings = await self._metadata.endings()
            except (MetadataAway, MetadataStrange) as error:
                # What was announced stands: a service that falls silent takes nothing back.
                self._note(answers=False, why=str(error))
                await asyncio.sleep(_AWAY_RETRY_S if self._notice is None else 1.0)
                continue
            self._note(answers=True, why="")
            await self._hear(endings)
            await asyncio.sleep(self._metadata.poll_s)

    async def _hear(self, endings: Sequence[Ending]) -> None:
        now_ns = self._clock.wall_ns()
        self._seen = {e.key: self._seen.get(e.key, self._first_seen_ns(e, now_ns)) for e in endings}
        notice = soonest(endings, self._seen, self._metadata.cloud)
        if notice == self._notice:
            return
        writing = self._errands.begin(partial(self._remember, notice))
        await asyncio.wait([writing], timeout=_WRITE_S)  # the appliance is told all the same
        self._notice = notice
        if notice is None:
            log.warning("the end of this machine was taken back")
        else:
            log.warning(
                "this machine will end",
                extra={"source": notice.source, "at": iso(notice.at_ns), "why": notice.detail},
            )
        self._changed()

    def _first_seen_ns(self, ending: Ending, now_ns: int) -> int:
        """An announcement that an earlier agent saw was made then, not now."""
        before = self._notice
        if before is not None and before.detail == ending.detail:
            return before.seen_ns
        return now_ns

    def _remember(self, notice: PreemptionNotice | None) -> None:
        """A disk that is full shall not keep the appliance from hearing of it."""
        try:
            if notice is None:
                self._path.unlink(missing_ok=True)
            else:
                write_message(self._path, notice)
        except OSError as error:
            log.warning("notice not kept", extra={"path": str(self._path), "why": str(error)})

    def _remembered(self) -> PreemptionNotice | None:
        notice = read_message(self._path, PreemptionNotice)
        if notice is None or notice.source != self._metadata.cloud:
            return None
        now_ns = self._clock.wall_ns()
        return notice if now_ns < notice.at_ns + _STALE_S * _SECOND_NS else None

    def _note(self, *, answers: bool, why: str) -> None:
        if answers == self._answers:
            return
        self._answers = answers
        if answers:
            log.info("preemption is watched", extra={"cloud": self._metadata.cloud})
        else:
            log.warning(
                "preemption cannot be watched", extra={"cloud": self._metadata.cloud, "why": why}
            )


def soonest(
    endings: Sequence[Ending], seen_ns: Mapping[str, int], cloud: Cloud
) -> PreemptionNotice | None:
    """The announcement that comes first, with its time worked out."""

    def at_ns(ending: Ending) -> int:
        if ending.at_ns is not None:
            return ending.at_ns
        return seen_ns[ending.key] + ending.notice_s * _SECOND_NS

    first = min(endings, key=lambda ending: (at_ns(ending), ending.key), default=None)
    if first is None:
        return None
    return PreemptionNotice(
        source=cloud, at_ns=at_ns(first), seen_ns=seen_ns[first.key], detail=first.detail
    )


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
