"""The pages on the command line and the admin API say what there is: no more and no less."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from appliance import cli
from appliance.admin.errors import STATUSES
from appliance.admin.metrics import Exposition
from appliance.admin.ports import (
    Figures,
    HistogramFigures,
    Kept,
    NodeLive,
    ReplicaFigures,
    RequestFigures,
    ReservationFigures,
)
from appliance.admin.routes import ROUTES
from appliance.scheduler.attainment import Minute
from appliance.wire.gpu import GpuFault, HealthPart, NodeHealth
from tests.fakes.admin_site import FixedFigures
from tests.fakes.gpus import gpu
from tests.fakes.sync_port import ENTITLEMENT, STATUS

DOCS = Path(__file__).parents[3] / "docs"
CODE = re.compile(r"`([^`]+)`")


# A node with every figure that a driver may tell, and a fault.
AILING = NodeLive(
    "ready",
    gpu_figures=(gpu(utilisation=1, power=1.0, sm_clock=1, energy=1),),
    health=NodeHealth(
        score=40,
        state="degraded",
        parts=(HealthPart(name="memory", score=40),),
        faults=(GpuFault(code="ECC", severity="error", message="m", next_step="n", since_ns=1),),
    ),
)


def rows(page: str, section: str, columns: int) -> list[list[str]]:
    """The rows of the first table after a heading that begins with `section`."""
    text = (DOCS / page).read_text(encoding="utf-8").split(f"## {section}", 1)[-1]
    table = re.search(r"^\|[^\n]*\n\|(?:---\|)+\n((?:\|[^\n]*\n)+)", text, re.MULTILINE)
    assert table is not None
    found = [line.strip("|").split(" | ") for line in table[1].splitlines()]
    assert {len(row) for row in found} == {columns}
    return [[cell.strip() for cell in row] for row in found]


def commands() -> Iterator[tuple[str, set[str], set[str]]]:
    """Every command as it is typed, its options, and those that must be given."""

    def walk(command: click.Command, path: str) -> Iterator[tuple[str, set[str], set[str]]]:
        if isinstance(command, click.Group):
            for name, nested in command.commands.items():
                yield from walk(nested, f"{path} {name}")
            if not command.invoke_without_command:
                return
        arguments = [p for p in command.params if isinstance(p, click.Argument)]
        options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
        typed = [str(p.name).upper() for p in arguments]
        words = [
            word if argument.required else f"[{word}]"
            for word, argument in zip(typed, arguments, strict=True)
        ]
        yield (
            " ".join([path, *words]),
            {p.opts[0] for p in options} - {"--json"},
            {p.opts[0] for p in options if p.required},
        )

    context = click.Context(cli.cic)
    for name in cli.cic.list_commands(context):
        command = cli.cic.get_command(context, name)
        assert command is not None
        yield from walk(command, name)


def test_the_page_lists_every_command_with_its_options() -> None:
    written = {
        CODE.findall(command)[0]: (
            set(CODE.findall(options)),
            set(re.findall(r"\*\*`([^`]+)`\*\*", options)),
        )
        for command, options in rows("CLI.md", "Every command", 2)
    }
    assert written == {typed: (options, required) for typed, options, required in commands()}


def type_name(kind: Any) -> str:
    if kind is None:
        return ""
    inner = getattr(kind, "__args__", None)
    return f"array of {inner[0].__name__}" if inner else str(kind.__name__)


def test_the_page_lists_every_operation_with_its_messages() -> None:
    written = {
        CODE.findall(operation)[0]: (summary, CODE.findall(query), body, answer)
        for operation, summary, query, body, answer in rows("ADMIN_API.md", "Operations", 5)
    }
    assert written == {
        f"{route.method} {route.path}": (
            route.summary,
            [field.name for field in msgspec.structs.fields(route.query)],
            type_name(route.body),
            ("lines of " if route.lines else "") + type_name(route.answer),
        )
        for route in ROUTES
    }


def test_the_page_gives_every_code_its_status() -> None:
    written = {
        code: int(status)
        for status, codes in rows("ADMIN_API.md", "Errors", 2)
        for code in CODE.findall(codes)
        if status not in ("405", "413")
    }
    assert written == {code: status.value for code, status in STATUSES.items()}


def test_the_page_lists_every_metric_with_its_labels() -> None:
    seen = HistogramFigures((1.0,), (1, 1), 1.0)
    figures = Figures(
        ready=True,
        requests=[RequestFigures("chat", "m", "ok", 1)],
        refusals={"code": 1},
        tokens={"input": 1},
        queued={"m": 1},
        replicas=[ReplicaFigures("rep_1", "m", "n", "ready", 1, 1, 1.0, 0)],
        nodes={"n": AILING},
        first_token=seen,
        latency=seen,
        sync=msgspec.structs.replace(STATUS, alarm="other_head"),
        entitlement=ENTITLEMENT,
        loop_delay_s=0.1,
        reservations=[
            ReservationFigures(
                *("rsv_1", "t", "e", "m"),
                1,
                Kept(slipping=False, waiting=0, minutes=[Minute(0, 1, 1, 1)]),
            )
        ],
    )
    shown = {
        family.name + ("_total" if family.type == "counter" else ""): sorted(
            {label for sample in family.samples for label in sample.labels} - {"le"}
        )
        for family in Exposition(FixedFigures(figures), "1").collect()
    }
    written = {
        CODE.findall(name)[0]: CODE.findall(labels)
        for name, labels, _ in rows("ADMIN_API.md", "Metrics", 3)
    }
    assert written == shown
