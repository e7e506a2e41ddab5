"""A process of its own that reads the GPUs for the agent, because the driver may hang or crash.

`python -m agent.gpu.reader` writes a line (`agent.gpu.messages`) for every look at a GPU, and ends
when its standard input does: with the agent. A call that hangs in the kernel cannot be taken back;
here it stops one thread of a process that can be given up. A new process also loads the library
that an upgrade of the driver has brought.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pynvml

from agent.gpu.messages import (
    DriverFailed,
    DriverRead,
    GpuFailed,
    GpuRead,
    Line,
    XidSeen,
    encode,
)
from agent.gpu.reading import (
    DriverUnreadable,
    GpuUnreadable,
    find_gpu,
    greet_again,
    library_file,
    open_library,
    read_driver,
    read_gpu,
    read_uuid,
    replaced,
)

EVERY_S: Final = 1.0
_COUNT_EVERY_S: Final = 2.0
_EVENT_WAIT_MS: Final = 1_000
_EVENT_RETRY_S: Final = 1.0

Say = Callable[[Line], None]


class Reader:
    """Two threads for each GPU, figures and events, and one that counts the GPUs."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._library: tuple[Path, int] | None = None
        self._over = threading.Event()  # something ended that a new process may do better

    def run(self) -> None:
        """Returns when there is no use in going on."""
        try:
            open_library()
            self._library = library_file()
            driver, count = read_driver()
        except DriverUnreadable as error:
            self._give_up(error)
            return
        self._say(DriverRead(driver=driver, count=count))
        for index in range(count):
            self._begin(f"gpu{index}", self._watch_gpu, index)
            self._begin(f"xids{index}", self._watch_xids, index)
        self._begin("count", self._watch_count, count)
        self._over.wait()

    def _begin(self, name: str, target: Callable[[int], None], argument: int) -> None:
        threading.Thread(target=target, args=(argument,), name=name, daemon=True).start()

    def _give_up(self, error: DriverUnreadable) -> None:
        self._say(DriverFailed(trouble=error.trouble, detail=str(error)))
        self._over.set()

    def _watch_gpu(self, index: int) -> None:
        handle: Any = None
        uuid: str | None = None
        while not self._over.is_set():
            began_s = time.monotonic()
            try:
                if handle is None:
                    handle = find_gpu(index)
                    uuid = read_uuid(handle)
                self._say(GpuRead(gpu=read_gpu(index, handle)))
            except GpuUnreadable as error:
                self._say(
                    GpuFailed(index=index, uuid=uuid, trouble=error.trouble, detail=str(error))
                )
            except DriverUnreadable as error:
                self._give_up(error)
            time.sleep(max(0.0, EVERY_S - (time.monotonic() - began_s)))

    def _watch_count(self, count: int) -> None:
        """End when GPUs came or went, or the driver was upgraded: both need the library anew."""
        while not self._over.wait(_COUNT_EVERY_S):
            try:
                greet_again()
                driver, now = read_driver()
            except DriverUnreadable as error:
                self._give_up(error)
                return
            self._say(DriverRead(driver=driver, count=now))
            if now != count or replaced(self._library):
                self._over.set()

    def _watch_xids(self, index: int) -> None:
        """Tell the errors the driver reports of one GPU. A GPU that is lost is waited past.

        Each GPU has its own set of events: what the event's GPU is called needs no question that a
        lost GPU could not answer.
        """
        try:
            handle = find_gpu(index)
            uuid = read_uuid(handle)
            events = pynvml.nvmlEventSetCreate()
            pynvml.nvmlDeviceRegisterEvents(handle, pynvml.nvmlEventTypeXidCriticalError, events)
        except (pynvml.NVMLError, GpuUnreadable, DriverUnreadable):
            return  # it cannot tell: its faults are then seen by their figures alone
        while not self._over.is_set():
            try:
                event = pynvml.nvmlEventSetWait(events, _EVENT_WAIT_MS)
            except pynvml.NVMLError_Timeout:
                continue
            except pynvml.NVMLError:
                self._over.wait(_EVENT_RETRY_S)
                continue
            self._say(XidSeen(uuid=uuid, xid=int(event.eventData), at_ns=time.time_ns()))


def main() -> None:
    """Read until the agent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent's business: it ends us
    lock = threading.Lock()
    descriptor = sys.stdout.fileno()

    def say(line: Line) -> None:
        raw = memoryview(encode(line) + b"\n")
        with lock:
            while raw:
                raw = raw[os.write(descriptor, raw) :]

    reader = threading.Thread(target=_run_and_leave, args=(Reader(say),), daemon=True)
    reader.start()
    sys.stdin.buffer.read()
    os._exit(0)  # without waiting for threads that a driver holds


def _run_and_leave(reader: Reader) -> None:
    try:
        reader.run()
    except BrokenPipeError:
        pass  # the agent is gone
    finally:
        os._exit(0)


if __name__ == "__main__":
    main()
