"""The queue of one deployment: first come first served within a tenant, fair between tenants."""

from collections import OrderedDict
from heapq import heappop, heappush
from typing import Final

from appliance.domain.ids import TenantId
from appliance.scheduler.tickets import Ticket

_GAP_WEIGHT: Final = 0.2  # of the newest gap between two starts, in their moving average


class _Line:
    """The waiting tickets of one tenant, and the tokens it has been served: its tag."""

    __slots__ = ("in_heap", "tag", "tickets")

    def __init__(self) -> None:
        self.tag = 0
        self.tickets: OrderedDict[Ticket, None] = OrderedDict()
        self.in_heap = False


class FairQueue:
    """Serves the tenant that was served the fewest tokens since the queue formed.

    A tenant's tag grows by the tokens of each of its tickets that starts. A tenant that comes
    (back) to the queue starts from the tag being served now, so that being absent saves nothing
    up. Between two tenants that both wait, the served tokens never differ by more than the
    largest ticket. All operations are O(log tenants).
    """

    __slots__ = ("_flowing", "_gap_s", "_heap", "_lines", "_now_tag", "_seq", "_since_s", "waiting")

    def __init__(self) -> None:
        self._lines: dict[TenantId, _Line] = {}
        self._heap: list[tuple[int, int, _Line]] = []
        self.waiting: OrderedDict[Ticket, None] = OrderedDict()  # by time of arrival, to be read
        self._seq = 0
        self._now_tag = 0
        self._gap_s: float | None = None  # average time between two starts while tickets wait
        self._since_s = 0.0  # of the last start, or of the queue's beginning
        self._flowing = False  # a ticket has started since the queue began

    def push(self, ticket: Ticket, now_s: float) -> None:
        if not self.waiting:
            self._since_s = now_s
            self._flowing = False
        ticket.queued_at_s = now_s
        self.waiting[ticket] = None
        line = self._lines.get(ticket.tenant_id)
        if line is None:
            line = self._lines[ticket.tenant_id] = _Line()
        if not line.tickets:
            line.tag = max(line.tag, self._now_tag)
        line.tickets[ticket] = None
        if not line.in_heap:
            self._push_line(line)

    def head(self) -> Ticket | None:
        """The next ticket to start; None: nobody waits."""
        while self._heap:
            line = self._heap[0][2]
            if line.tickets:
                return next(iter(line.tickets))
            heappop(self._heap)
            line.in_heap = False
        return None

    def pop(self, now_s: float) -> None:
        """Take out the head, which starts now. There must be one."""
        tag, _, line = heappop(self._heap)
        line.in_heap = False
        self._now_tag = max(self._now_tag, tag)
        ticket, _ = line.tickets.popitem(last=False)
        line.tag += ticket.tokens
        if line.tickets:
            self._push_line(line)
        del self.waiting[ticket]
        if self._flowing:
            gap_s = now_s - self._since_s
            self._gap_s = (
                gap_s if self._gap_s is None else self._gap_s + _GAP_WEIGHT * (gap_s - self._gap_s)
            )
        self._flowing = True
        self._since_s = now_s
        self._forget_when_empty()

    def remove(self, ticket: Ticket) -> None:
        """Take out a waiting ticket, wherever it stands."""
        del self.waiting[ticket]
        del self._lines[ticket.tenant_id].tickets[ticket]
        self._forget_when_empty()

    def oldest(self) -> Ticket | None:
        return next(iter(self.waiting), None)

    def drained_in_s(self, now_s: float) -> float | None:
        """When all that wait now will have started, at the measured pace. None: not known yet.

        When nothing has started for longer than the average gap, that silence is the pace.
        """
        if self._gap_s is None:
            return None
        gap_s = max(self._gap_s, now_s - self._since_s) if self.waiting else self._gap_s
        return gap_s * (len(self.waiting) + 1)

    def _push_line(self, line: _Line) -> None:
        self._seq += 1
        line.in_heap = True
        heappush(self._heap, (line.tag, self._seq, line))

    def _forget_when_empty(self) -> None:
        if not self.waiting:
            self._lines.clear()
            self._heap.clear()
            self._now_tag = 0
