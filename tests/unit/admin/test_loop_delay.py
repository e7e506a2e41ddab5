"""A blocked event loop shows."""

import asyncio
import time

from appliance.admin.loop_delay import LoopDelay


async def test_a_turn_that_comes_late_is_told_for_a_minute() -> None:
    delay = LoopDelay()
    assert delay.latest_s is None
    task = asyncio.ensure_future(delay.run())
    await asyncio.sleep(0)
    time.sleep(0.4)  # noqa: ASYNC251 (that is what is to be seen)
    await asyncio.sleep(0.02)
    task.cancel()
    assert delay.latest_s is not None
    assert 0.1 < delay.latest_s < 5
