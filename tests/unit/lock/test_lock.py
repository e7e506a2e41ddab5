"""The lock of a home: held once, free again when its holder ends in whatever way."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.lock import AlreadyRunning, held

HOLD = "import sys, time; from pathlib import Path; from appliance.lock import held\n"
HOLD += "with held(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"


def test_a_second_holder_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "serve.lock"
    with held(path), pytest.raises(AlreadyRunning, match=str(os.getpid())), held(path):
        pass
    with held(path):
        assert path.read_text() == str(os.getpid())


def test_a_killed_holder_leaves_it_free(tmp_path: Path) -> None:
    path = tmp_path / "serve.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(AlreadyRunning), held(path):
            pass
        holder.kill()
    with held(path):
        pass
