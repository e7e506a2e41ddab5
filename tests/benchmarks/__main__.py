"""`make bench`: what a request and a streamed event cost in CPU time, beside other proxies.

usage: python -m tests.benchmarks [--rounds N] [--seconds S] [--only NAME,NAME] [--json FILE]

Builds the fake engine and the load generator (native/), starts the proxies, and sends the same work
through each in turn, round after round. Prints the ratios to nginx and writes everything as JSON.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.proxies import PROXIES, ROOT, Proxy
from tests.benchmarks.rounds import Run, Work, as_json, lines, ratios, run, table

NATIVE = Path(__file__).parent / "native"
STEP_US = 20_000  # a streamed token of each stream every 20 ms
STREAM_TOKENS = 128
STREAM_S = STREAM_TOKENS * STEP_US / 1e6
# Name of the work -> (the other proxy, how many times its CPU time the gateway may take at most).
AIMS = {
    "answers": (("nginx", 5.0), ("vllm-router", 1.0)),
    "streams": (("nginx", 1.9),),
}

_QUESTION = (
    "Explain in two sentences why a reverse proxy keeps connections open, and name one risk. "
)
_BODY = {
    "model": "bench",
    "messages": [
        {"role": "system", "content": "You answer briefly and precisely."},
        {"role": "user", "content": _QUESTION + "A line of context about the site. " * 10},
    ],
    "temperature": 0.7,
}


def works(seconds: float) -> list[Work]:
    stream = {"stream": True, "stream_options": {"include_usage": True}}
    # No stream is begun in the last half of its length, so that the rounds are equal.
    streamed_s = max(seconds, STREAM_S) - STREAM_S / 2
    return [
        Work("answers", "request", 64, seconds, {**_BODY, "max_tokens": 64}),
        Work("streams", "event", 64, streamed_s, {**_BODY, "max_tokens": STREAM_TOKENS, **stream}),
    ]


def build(folder: Path) -> dict[str, Path]:
    """Compiles what is in native/."""
    folder.mkdir(parents=True, exist_ok=True)
    built = {}
    for source in sorted(NATIVE.glob("*.c")):
        built[source.stem] = folder / source.stem
        command = ["cc", "-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*command, "-o", str(built[source.stem]), str(source)], check=True)
    return built


@contextlib.contextmanager
def running_engine(program: Path) -> Iterator[int]:
    """The port of a running fake engine."""
    with subprocess.Popen(
        [program, "0", str(STEP_US)], stdout=subprocess.PIPE, text=True
    ) as engine:
        assert engine.stdout is not None
        try:
            yield int(engine.stdout.readline())
        finally:
            engine.kill()


def ledger_line(proxy: Proxy, runs: list[Run]) -> str:
    """Whether every answer of the gateway has its record."""
    assert proxy.site is not None
    proxy.site.wait_idle()
    recorded = sum(row["requests"] for row in proxy.site.cic("usage"))
    answered = sum(one.requests for one in runs if one.proxy == proxy.name)
    return f"ledger: {recorded:,} records of {answered:,} answered requests"


def verdicts(work_list: list[Work], runs: list[Run]) -> list[str]:
    """The aims that what was measured can tell about."""
    said = []
    for work in work_list:
        for other, most in AIMS[work.name]:
            if not {"gateway", other} <= {one.proxy for one in runs}:
                continue
            ratio = statistics.median(ratios(runs, work, "gateway", other))
            word = "met" if ratio <= most else "NOT met"
            said.append(f"aim: {work.name}, gateway <= {most:g} x {other}: {ratio:.2f}, {word}")
    return said


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of one proxy in one round")
    parser.add_argument("--only", default=",".join(PROXIES), help="comma-separated: %(default)s")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := set(names) - PROXIES.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    base = "nginx" if "nginx" in names else names[0]
    work_list, runs = works(options.seconds), []
    built = build(ROOT / "build" / "bench")
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(running_engine(built["engine"]))
        proxies = [stack.enter_context(PROXIES[name](engine)) for name in names]
        for number in range(1, options.rounds + 1):
            for work in work_list:
                for proxy in proxies:
                    print(
                        f"round {number}/{options.rounds} {work.name} {proxy.name}", file=sys.stderr
                    )
                    runs.append(
                        run(built["load"], work, proxy, built["load"].with_name("body.json"))
                    )
        notes = [ledger_line(proxy, runs) for proxy in proxies if proxy.site is not None]
    for work in work_list:
        print(table(work, lines(runs, work, base), base), end="\n\n")
    print("\n".join([*notes, *verdicts(work_list, runs)]))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(as_json(work_list, runs, base), indent=1))
    print(f"written: {options.json}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
