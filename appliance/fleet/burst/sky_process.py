"""One question to SkyPilot: read from standard input, answered on standard output, both JSON.

Runs as a file in the interpreter that has SkyPilot, which need not have the appliance: this module
imports nothing else of ours. SkyPilot prints much; that goes to standard error.

    {"do": "offers", "gpu": "H100", "gpus": 8, "clouds": ["aws"]}  -> {"offers": [...]}
    {"do": "choose", "task": {...}}                                -> {"chosen": {...}}
    {"do": "launch", "task": {...}, "cluster": "…", "dry": false}  -> {"request": "…"}
    {"do": "down", "cluster": "…"}                                 -> {"request": "…"}
    {"do": "look", "requests": ["…"]}                              -> {"clusters": …, "requests": …}

What fails answers {"error": "<class>", "message": "…"}.
"""

import json
import math
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

_MESSAGE_CHARS_MAX = 2_000
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def main() -> None:
    question = json.load(sys.stdin)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answers:
        json.dump(_answer(question), answers)


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    try:
        # Not at the top: what fails here is an answer as well.
        import sky  # noqa: F401, PLC0415

        return _QUESTIONS[question["do"]](question)
    # The edge of a foreign program: whatever it raises is told by its class and words.
    except Exception as error:  # noqa: BLE001
        return {"error": type(error).__name__, "message": _words(error)}


def _offers(question: dict[str, Any]) -> dict[str, Any]:
    """Every price of the GPU that the catalogue has, in every region. Asks no cloud.

    No clouds named: those whose accounts SkyPilot knows.
    """
    import sky  # noqa: PLC0415
    from sky import catalog  # noqa: PLC0415
    from sky.client import sdk  # noqa: PLC0415

    clouds = question["clouds"] or [str(cloud) for cloud in sky.get(sdk.enabled_clouds())]
    if not clouds:
        return {"offers": []}
    found = catalog.list_accelerators(
        name_filter=f"^{question['gpu']}$",
        quantity_filter=question["gpus"],
        clouds=[cloud.lower() for cloud in clouds],
        case_sensitive=False,
        all_regions=True,
    )
    offers = []
    for entries in found.values():
        for entry in entries:
            if not entry.instance_type or entry.accelerator_count != question["gpus"]:
                continue
            for spot, price in ((False, entry.price), (True, entry.spot_price)):
                if price is None or math.isnan(price):
                    continue
                offers.append(
                    {
                        "cloud": entry.cloud,
                        "region": entry.region,
                        "instance_type": entry.instance_type,
                        "gpu": entry.accelerator_name,
                        "gpus": int(entry.accelerator_count),
                        "spot": spot,
                        "price_micro": _micro(price),
                    }
                )
    return {"offers": offers}


def _choose(question: dict[str, Any]) -> dict[str, Any]:
    """What SkyPilot's optimiser takes, with the clouds whose accounts it knows."""
    import sky  # noqa: PLC0415
    from sky.optimizer import Optimizer  # noqa: PLC0415

    task = _task(question["task"])
    with sky.Dag() as dag:
        dag.add(task)
    Optimizer.optimize(dag, quiet=True)
    return {"chosen": _resources(task.best_resources)}


def _launch(question: dict[str, Any]) -> dict[str, Any]:
    import sky  # noqa: PLC0415

    request = sky.launch(
        _task(question["task"]), cluster_name=question["cluster"], dryrun=question["dry"]
    )
    return {"request": str(request)}


def _down(question: dict[str, Any]) -> dict[str, Any]:
    import sky  # noqa: PLC0415

    return {"request": str(sky.down(question["cluster"]))}


def _look(question: dict[str, Any]) -> dict[str, Any]:
    """All clusters of this account of SkyPilot's, and how those requests stand."""
    import sky  # noqa: PLC0415

    clusters = [
        {
            "name": record.name,
            "state": record.status.value.lower(),
            "resources": _resources_of(record.handle),
        }
        for record in sky.get(sky.status(refresh=sky.StatusRefreshMode.AUTO))
    ]
    requests = {}
    for name in question["requests"]:
        for payload in sky.api_status([name]):
            if payload.request_id == name:
                requests[name] = {"state": payload.status.lower(), "message": ""}
        if requests.get(name, {}).get("state") in {"failed", "cancelled"}:
            requests[name]["message"] = _why(name)
    return {"clusters": clusters, "requests": requests}


def _why(request: str) -> str:
    """The words of a request that failed: SkyPilot raises them where they are fetched."""
    import sky  # noqa: PLC0415

    try:
        sky.get(request)
    except Exception as error:  # noqa: BLE001 (the failure of another process, handed over)
        return f"{type(error).__name__}: {_words(error)}"
    return ""


def _words(error: Exception) -> str:
    """What an error says, without the colours that SkyPilot gives it."""
    return _COLOURS.sub("", str(error))[:_MESSAGE_CHARS_MAX]


def _task(content: dict[str, Any]) -> Any:
    """SkyPilot reads a task from a file; this one holds a secret and is gone at once."""
    import sky  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "task.yaml"
        path.touch(0o600)
        path.write_text(json.dumps(content))
        return sky.Task.from_yaml(str(path))


def _resources_of(handle: Any) -> dict[str, Any] | None:
    launched = getattr(handle, "launched_resources", None)
    return None if launched is None else _resources(launched)


def _resources(resources: Any) -> dict[str, Any]:
    """What was taken. `price_micro` None: the catalogue has it no more."""
    ((gpu, gpus),) = (resources.accelerators or {"": 0}).items()
    try:
        price_micro = _micro(resources.get_cost(3_600))
    except ValueError:
        price_micro = None
    return {
        "cloud": str(resources.cloud),
        "region": resources.region or "",
        "instance_type": resources.instance_type or "",
        "gpu": gpu,
        "gpus": int(gpus),
        "spot": bool(resources.use_spot),
        "price_micro": price_micro,
    }


def _micro(dollars: float) -> int:
    return round(dollars * 1_000_000)


_QUESTIONS = {
    "offers": _offers,
    "choose": _choose,
    "launch": _launch,
    "down": _down,
    "look": _look,
}

if __name__ == "__main__":
    main()
