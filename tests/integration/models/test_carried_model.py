"""A model pack made on one machine, carried, cut off in the middle of its import, and served.

MODEL_PACK_MIB is its size; `make packs` takes 5 GiB.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.fakes.site import Row, Site, running_site
from tests.fakes.tiny_gguf import write_tiny_gguf

MIB = 1024 * 1024
SIZE_MIB = int(os.environ.get("MODEL_PACK_MIB", "192"))
COPY_S = 60.0 + SIZE_MIB / 10
PROMPT = {"model": "carried", "messages": [{"role": "user", "content": "river"}], "max_tokens": 4}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, with_agent=True) as running:
        yield running


@pytest.fixture(autouse=True)
def room(tmp_path: Path) -> Iterator[None]:
    """What is so large is not kept for a look at it."""
    yield
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A real model with much behind its weights, which llama.cpp does not look at."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = write_tiny_gguf(folder / "carried.gguf")
    with path.open("ab") as file:
        for number in range(SIZE_MIB):
            file.write(sha256(str(number).encode()).digest() * (MIB // 32))
    (folder / "LICENSE").write_text("Free as the wind.\n")
    return folder


@pytest.mark.timeout(COPY_S * 4)
def test_a_carried_model_survives_a_crash_of_its_import_and_serves(
    site: Site, model: Path, tmp_path: Path
) -> None:
    pack = tmp_path / "carried.modelpack"
    made = _connected(tmp_path, "model", "pack", str(model), "--out", str(pack))
    assert made["size_bytes"] > SIZE_MIB * MIB
    trusting = ("--publisher", made["publisher"], "--accept-licence")

    importing = subprocess.Popen(
        [*site.command, "--json", "model", "import", str(pack), *trusting],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=site.environ,
    )
    site.until(lambda: _copied(site) > made["size_bytes"] // 4, COPY_S, "a quarter of the copy")
    site.kill()
    out, _ = importing.communicate(timeout=COPY_S)
    assert json.loads(out)["error"]["code"] in {"command_failed", "not_running"}
    (partial,) = (site.home / "models" / "store" / "partial").iterdir()
    assert made["size_bytes"] // 4 < partial.stat().st_size < made["size_bytes"]
    begun = partial.stat().st_ino

    site.start()
    assert site.cic("model", "list") == []
    row = _import(site, pack)  # publisher and licence are known since the first attempt
    assert row["digest"] == made["digest"]
    weights = Path(row["path"])
    assert weights.stat().st_ino == begun  # what was there was gone on with
    assert weights.stat().st_size == (model / "carried.gguf").stat().st_size
    with weights.open("rb") as copied, (model / "carried.gguf").open("rb") as original:
        while chunk := original.read(8 * MIB):
            assert copied.read(8 * MIB) == chunk

    site.cic(
        "deployment", "create", "--name", "carried", "--engine", "llamacpp", "--model", row["name"]
    )
    site.wait_ready("carried", COPY_S)
    status, _, body = site.post("/chat/completions", PROMPT, site.key())
    assert (status, json.loads(body)["usage"]["completion_tokens"]) == (200, 4)


@pytest.mark.timeout(COPY_S * 2)
def test_a_bit_that_tipped_on_the_way_is_noticed_and_nothing_of_it_stays(
    site: Site, model: Path, tmp_path: Path
) -> None:
    pack = tmp_path / "carried.modelpack"
    made = _connected(tmp_path, "model", "pack", str(model), "--out", str(pack))
    with pack.open("r+b") as file:
        file.seek(made["size_bytes"] // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 16]))
    done = site.run(
        *("--json", "model", "import", str(pack), "--publisher", made["publisher"]),
        *("--accept-licence",),
        check=False,
    )
    assert json.loads(done.stdout)["error"]["code"] == "bad_model_pack"
    assert site.cic("model", "list") == []
    assert [path for path in (site.home / "models").rglob("*") if path.is_file()] == []


def _connected(tmp_path: Path, *arguments: str) -> Row:
    """`cic` on the machine where the pack is made."""
    elsewhere = Site(tmp_path / "elsewhere")
    done = subprocess.run(
        [*elsewhere.command, "--json", *arguments],
        capture_output=True,
        env=elsewhere.environ,
        timeout=COPY_S,
        check=False,
    )
    assert done.returncode == 0, done
    row: Row = json.loads(done.stdout)
    return row


def _import(site: Site, pack: Path) -> Row:
    done = subprocess.run(
        [*site.command, "--json", "model", "import", str(pack)],
        capture_output=True,
        env=site.environ,
        timeout=COPY_S,
        check=False,
    )
    assert done.returncode == 0, done
    row: Row = json.loads(done.stdout)
    return row


def _copied(site: Site) -> int:
    done: int = site.admin("GET", "/v1/models/packs/copying")["done_bytes"]
    return done
