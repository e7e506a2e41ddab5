"""Figures of the serving process itself, read from the system when they are asked for."""

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

_STATM: Final = Path("/proc/self/statm")
_FILES: Final = "/proc/self/fd"


def process_metrics(loop_delay_s: float | None) -> Iterator[Metric]:
    """What the system does not tell is left out. `loop_delay_s`: the longest of the last minute."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield CounterMetricFamily(
        "crosslogic_process_cpu_seconds",
        "Processor time of the appliance, without engines.",
        value=usage.ru_utime + usage.ru_stime,
    )
    yield GaugeMetricFamily(
        "crosslogic_process_threads", "Threads of the appliance.", value=threading.active_count()
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield GaugeMetricFamily(
        "crosslogic_process_open_files_max", "Open files and sockets it may have.", value=soft
    )
    try:
        resident = int(_STATM.read_text().split()[1]) * resource.getpagesize()
        files = len(os.listdir(_FILES))  # noqa: PTH208 (names alone)
    except OSError:
        return
    yield GaugeMetricFamily(
        "crosslogic_process_resident_bytes", "Memory of the appliance.", value=resident
    )
    yield GaugeMetricFamily(
        "crosslogic_process_open_files", "Open files and sockets it has.", value=files
    )
    if loop_delay_s is not None:
        yield GaugeMetricFamily(
            "crosslogic_event_loop_delay_seconds",
            "The latest turn of the event loop in the last minute.",
            value=loop_delay_s,
        )
