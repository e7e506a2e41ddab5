"""The GPUs of this machine, by NVIDIA's own library. The only user of pynvml."""

import logging
import threading
from queue import Empty, SimpleQueue
from typing import Final

import pynvml

log = logging.getLogger(__name__)

DEADLINE_S: Final = 5.0


def gpu_names(deadline_s: float = DEADLINE_S) -> tuple[str, ...]:
    """Names in NVML's order; () where there is no driver, or it does not answer in time.

    A driver in trouble lets calls hang in the kernel for ever, so they are made in a thread of
    their own that the end of the program does not wait for. Blocks up to the deadline.
    """
    answers: SimpleQueue[tuple[str, ...]] = SimpleQueue()
    thread = threading.Thread(target=lambda: answers.put(_ask()), name="nvml", daemon=True)
    thread.start()
    try:
        return answers.get(timeout=deadline_s)
    except Empty:
        log.warning("the GPU driver does not answer", extra={"deadline_s": deadline_s})
        return ()


def _ask() -> tuple[str, ...]:
    try:
        pynvml.nvmlInit()
        try:
            count = pynvml.nvmlDeviceGetCount()
            return tuple(_name(index) for index in range(count))
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError_LibraryNotFound:
        return ()
    except pynvml.NVMLError as error:
        log.warning("GPUs cannot be listed", extra={"why": str(error)})
        return ()


def _name(index: int) -> str:
    name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))
    # Older releases of the binding answer in bytes.
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)
