"""A machine with GPUs for real programs: libnvidia-ml.so.1 built here, its GPUs set by the test."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

SOURCE: Final = Path(__file__).parent / "nvml" / "fake_nvml.c"
THERMAL: Final = "0x60"  # SwThermalSlowdown | HwThermalSlowdown of nvml.h
XID: Final = 8  # nvmlEventTypeXidCriticalError
LOST: Final = 15  # NVML_ERROR_GPU_IS_LOST
NOT_LOADED: Final = 9
MISMATCH: Final = 18
NOT_SUPPORTED: Final = 3


def build_library(folder: Path) -> Path:
    """Compile it; returns the folder that LD_LIBRARY_PATH is to name. Skips without a compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to build the fake libnvidia-ml.so.1 with")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([*command, "-o", str(library), str(SOURCE), "-lpthread"], check=True)
    return folder


class FakeGpus:
    """The GPUs of one machine. A change is seen by the next call of whoever reads."""

    def __init__(self, library: Path, folder: Path, count: int = 2) -> None:
        self.library = library
        self.path = folder / "gpus.ini"
        self.system: dict[str, object] = {}
        self.gpus: list[dict[str, object]] = [{} for _ in range(count)]
        self._events: list[str] = []
        self.write()

    @property
    def environ(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library), "FAKE_NVML_STATE": str(self.path)}

    @staticmethod
    def uuid(index: int) -> str:
        return f"GPU-5e1f0000-0000-4000-8000-{index:012}"

    def set(self, index: int, **values: object) -> None:
        """`fail__FUNCTION` sets `fail.FUNCTION`: no name of Python's has a point."""
        self.gpus[index].update({k.replace("__", "."): v for k, v in values.items()})
        self.write()

    def heal(self, index: int) -> None:
        self.gpus[index].clear()
        self.write()

    def xid(self, index: int, number: int) -> None:
        self._events.append(f"gpu{index},{XID},{number}")
        self.write()

    def write(self) -> None:
        fresh = self.path.with_suffix(".new")
        fresh.write_text("".join(f"{line}\n" for line in self._lines()))
        fresh.replace(self.path)

    def _lines(self) -> Iterator[str]:
        sections = [("system", self.system)]
        sections += [(f"gpu{index}", gpu) for index, gpu in enumerate(self.gpus)]
        sections.append(("events", {str(n): e for n, e in enumerate(self._events, 1)}))
        for name, values in sections:
            yield f"[{name}]"
            for key, value in values.items():
                yield f"{key}={value}"
