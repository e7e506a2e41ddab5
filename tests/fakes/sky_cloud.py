"""An interpreter with a SkyPilot whose cloud is this host: machines are processes that really join.

It stands where `burst.python` points, is started as `sky_cloud.py -I sky_process.py`, and answers
what the real `sky_process` answers. Machines live in the folder FAKE_CLOUD; each runs its task's
own script in a home of its own. What is in `FAKE_CLOUD/env.json` is added to their environment.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CLOUD = Path(os.environ["FAKE_CLOUD"])
OFFER = {
    "cloud": "RunPod",
    "region": "RO",
    "instance_type": "1x_L4_SECURE",
    "gpu": "L4",
    "gpus": 1,
    "spot": True,
    "price_micro": 190_000,
}
STEADY = OFFER | {"region": "US", "spot": False, "price_micro": 390_000}
END_S = 20.0


def answer(question: dict[str, Any]) -> dict[str, Any]:
    match question["do"]:
        case "offers":
            wanted = (question["gpu"], question["gpus"]) == ("L4", 1)
            return {"offers": [OFFER, STEADY] if wanted else []}
        case "choose":
            return {"chosen": OFFER}
        case "launch":
            return launch(question["cluster"], question["task"])
        case "down":
            end(CLOUD / question["cluster"])
            return {"request": f"down-{question['cluster']}"}
        case _:
            return look(question["requests"])


def launch(cluster: str, task: dict[str, Any]) -> dict[str, Any]:
    machine = CLOUD / cluster
    machine.mkdir()
    extra = CLOUD / "env.json"
    environ = {
        **{name: text for name, text in os.environ.items() if not name.startswith("CIC_")},
        **task["envs"],
        **task["secrets"],
        "CIC_HOME": str(machine / "home"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **(json.loads(extra.read_text()) if extra.exists() else {}),
    }
    with (machine / "log").open("ab") as log:
        process = subprocess.Popen(
            ["/bin/bash", "-c", f"{task['setup']}\n{task['run']}"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (machine / "pid").write_text(str(process.pid))
    return {"request": f"launch-{cluster}"}


def end(machine: Path) -> None:
    if not machine.exists():
        return
    pid = int((machine / "pid").read_text())
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            break
        deadline_s = time.monotonic() + END_S
        while time.monotonic() < deadline_s and runs(pid):
            time.sleep(0.05)
    machine.rename(machine.with_suffix(".gone"))


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def look(requests: list[str]) -> dict[str, Any]:
    clusters = [
        {"name": machine.name, "state": "up", "resources": OFFER}
        for machine in CLOUD.iterdir()
        if machine.is_dir() and machine.suffix != ".gone"
    ]
    return {
        "clusters": clusters,
        "requests": {name: {"state": "succeeded", "message": ""} for name in requests},
    }


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
