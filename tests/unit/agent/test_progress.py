"""When an engine counts as stuck."""

from agent.engines.kind import Load
from agent.progress import BUSY_S, Progress, patience_s

LOOK_S = 2.0
STILL_S = 20.0


def looks(loads: list[Load | None], cpu_ticks_per_look: int) -> list[float]:
    """The times at which the engine was said to be stuck."""
    progress = Progress(0.0, STILL_S)
    stuck = []
    for number, load in enumerate(loads, 1):
        now_s = number * LOOK_S
        if progress.look(load, number * cpu_ticks_per_look, now_s) is not None:
            stuck.append(now_s)
    return stuck


def test_an_idle_engine_is_never_stuck() -> None:
    assert looks([Load(0, (5.0,))] * 200, 0) == []


def test_counters_that_move_are_progress_without_any_processor_time_of_ours() -> None:
    assert looks([Load(1, (float(n),)) for n in range(200)], 0) == []


def test_requests_without_progress_are_noticed() -> None:
    first = looks([Load(1, (5.0,))] * 20, 0)[0]
    assert STILL_S <= first <= STILL_S + 2 * LOOK_S


def test_silence_is_noticed_though_answering_it_costs_a_little() -> None:
    first = looks([None] * 20, 1)[0]
    assert STILL_S <= first <= STILL_S + 2 * LOOK_S


def test_a_long_prompt_takes_the_processor_and_is_waited_for_but_not_for_ever() -> None:
    first = looks([None] * 200, 190)[0]
    assert BUSY_S <= first <= BUSY_S + 2 * LOOK_S


def test_work_after_idleness_has_its_full_time() -> None:
    loads: list[Load | None] = [Load(0, (5.0,))] * 50
    loads += [Load(1, (5.0,))] * 8
    assert looks(loads, 0) == []


def test_on_gpus_a_busy_processor_is_no_excuse() -> None:
    busy_s = patience_s(STILL_S, gpus=1, context_tokens=131_072, prefill_tokens_per_s=100.0)
    assert busy_s == STILL_S
    progress = Progress(0.0, STILL_S, busy_s)
    load = Load(1, (5.0,))
    said = [progress.look(load, 200 * n, LOOK_S * n) for n in range(1, 20)]
    first = next(number for number, problem in enumerate(said, 1) if problem)
    assert STILL_S <= first * LOOK_S <= STILL_S + 2 * LOOK_S


def test_a_busy_processor_has_as_long_as_its_longest_prompt_takes() -> None:
    def patience(tokens_per_s: float | None) -> float:
        return patience_s(STILL_S, gpus=0, context_tokens=4_096, prefill_tokens_per_s=tokens_per_s)

    assert patience(None) == BUSY_S
    assert patience(10.0) == BUSY_S
    assert patience(200.0) == 4 * 4_096 / 200.0
    assert patience(50_000.0) == STILL_S


def test_time_that_nobody_looked_does_not_count() -> None:
    """The agent itself stood still: one look without an answer says little of the engine."""
    progress = Progress(0.0, STILL_S, STILL_S)
    assert progress.look(Load(1, (5.0,)), 100, 2.0) is None
    assert progress.look(None, 100, 60.0) is None
    first = next(n for n in range(1, 20) if progress.look(None, 100, 60.0 + LOOK_S * n))
    assert LOOK_S * first >= STILL_S / 2


def test_an_engine_that_waits_for_a_core_is_late_and_not_stuck() -> None:
    """More work than cores: it got a tenth of what it asked for, and its counters stand still."""

    def first(used: int, waited: int) -> int:
        progress = Progress(0.0, STILL_S, STILL_S)
        return next(
            n
            for n in range(1, 1000)
            if progress.look(None, used * n, LOOK_S * n, waited_ticks=waited * n)
        )

    starved = LOOK_S * first(20, 180)
    assert STILL_S * 9 <= starved <= STILL_S * 11
    # The waiting that any process knows changes nothing, nor does one that got nothing at all
    # escape for ever.
    assert LOOK_S * first(20, 30) <= STILL_S + 2 * LOOK_S
    assert LOOK_S * first(0, 200) <= BUSY_S + 2 * LOOK_S


def test_two_looks_at_once_are_no_harm() -> None:
    progress = Progress(0.0, STILL_S)
    assert progress.look(None, 0, 0.0) is None
    assert progress.look(None, 0, 0.0, waited_ticks=0) is None
