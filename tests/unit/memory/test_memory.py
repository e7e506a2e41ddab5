"""A process that was large for a moment becomes small again."""

import subprocess
import sys

# Blocks of a kilobyte, all freed but every thousandth: glibc by itself gives next to nothing back.
SCRIPT = """
import asyncio, ctypes, time
from appliance import memory

async def main():
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    blocks = [libc.malloc(1_000) for _ in range(200_000)]
    for block in blocks:
        ctypes.memset(block, 1, 1_000)
    for number, block in enumerate(blocks):
        if number % 1_000:
            libc.free(block)
    large = memory.resident_bytes()
    task = asyncio.create_task(memory.give_back())
    until = time.monotonic() + 20
    while memory.resident_bytes() > large - 100_000_000:
        assert time.monotonic() < until, (large, memory.resident_bytes())
        await asyncio.sleep(0.1)
    task.cancel()
asyncio.run(main())
"""


def test_freed_memory_goes_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
