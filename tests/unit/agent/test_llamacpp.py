"""llama.cpp's command line, threads, hopeless starts and the reasons of its ends."""

import importlib
import sys
from pathlib import Path

import pytest

from agent.engines.kind import Address, Room
from agent.engines.kinds import unknown
from agent.engines.llamacpp import LlamaCpp, _libraries, threads
from agent.engines.readings import ready_address
from agent.engines.variables import api_key_of
from appliance.wire.agent import DesiredReplica


def replica(path: str = "/m.gguf", **changes: object) -> DesiredReplica:
    values: dict[str, object] = {
        "replica_id": "rep_1",
        "deployment_id": "dep_1",
        "generation": 1,
        "engine": "llamacpp",
        "model_name": "m",
        "model_path": path,
    }
    return DesiredReplica(**(values | changes))  # type: ignore[arg-type]  # a test's shorthand


def room(folder: Path, cores: int = 3) -> Room:
    return Room(
        cores=cores,
        replicas=1,
        port=4000,
        api_key="secret-key",
        folder=folder / "files",
        cache=folder / "cache",
    )


def test_the_command_has_its_figures_and_the_key_is_not_among_the_arguments(tmp_path: Path) -> None:
    command = LlamaCpp({}).command(
        replica(parallel=3, context_tokens=512, embedding=True), room(tmp_path)
    )
    text = " ".join(command.arguments)
    assert "--model /m.gguf --alias m --parallel 3 --context 512 --threads 2 --embedding" in text
    assert "secret-key" not in text
    assert "secret-key" not in repr(command)
    assert command.environ["OMP_WAIT_POLICY"] == "passive"
    assert command.environ["OMP_NUM_THREADS"] == "2"
    assert api_key_of(dict(command.environ)) == "secret-key"


@pytest.mark.parametrize(
    ("cores", "replicas", "asked", "expected"),
    [
        (1, 1, None, 1),
        (2, 1, None, 1),
        (2, 2, None, 1),
        (9, 2, None, 4),
        (9, 0, None, 8),
        (4, 1, 2, 2),
        (4, 1, 64, 4),
        (4, 9, 0, 1),
    ],
)
def test_threads_are_the_cores_that_are_free(
    cores: int, replicas: int, asked: int | None, expected: int
) -> None:
    assert threads(replica(threads=asked), cores, replicas) == expected


def test_a_start_is_hopeless_without_a_readable_gguf(tmp_path: Path) -> None:
    missing = LlamaCpp({}).hopeless(replica(str(tmp_path / "none.gguf")))
    assert missing is not None
    assert "No such file" in missing
    wrong = tmp_path / "wrong.gguf"
    wrong.write_bytes(b"PK\3\4")
    said = LlamaCpp({}).hopeless(replica(str(wrong)))
    assert said is not None
    assert "not a GGUF model" in said
    before = LlamaCpp({}).fingerprint(replica(str(wrong)))
    wrong.write_bytes(b"GGUF and more")
    assert LlamaCpp({}).hopeless(replica(str(wrong))) is None
    assert LlamaCpp({}).fingerprint(replica(str(wrong))) != before
    assert LlamaCpp({}).fingerprint(replica(str(tmp_path / "none.gguf"))) == (None, None)


def test_the_embedded_engine_is_told_from_a_llama_server() -> None:
    version = LlamaCpp({"PATH": ""}, installed=lambda: True).version()
    assert version is not None
    assert version.startswith("embedded ")


def test_a_start_is_hopeless_without_the_engine() -> None:
    absent = LlamaCpp({}, installed=lambda: False)
    assert absent.version() is None
    said = absent.hopeless(replica())
    assert said is not None
    assert "not installed" in said
    assert "pip install" in said
    assert "cannot run the engine external" in unknown("external")


def test_the_reason_of_a_model_that_does_not_load_is_the_first_error_of_the_last_run() -> None:
    tail = [
        "0.00.001.000 E an error of an earlier run",
        "llama.cpp did not load /m.gguf: Failed to init server.",
        "0.00.005.803 E gguf_init: invalid magic characters: 'junk'.",
        "0.00.005.920 E llama_model_load: error loading model",
        "llama.cpp did not load /m.gguf: Failed to init server.",
    ]
    reason, lasting = LlamaCpp({}).end_reason(3, tail)
    assert reason == "The model does not load: gguf_init: invalid magic characters: 'junk'."
    assert lasting
    assert "no reason" in LlamaCpp({}).end_reason(3, [])[0]


@pytest.mark.parametrize(
    ("exit_code", "words", "lasting"),
    [
        (-9, "signal 9", False),
        (-11, "crashed (signal 11)", False),
        (1, "exit code 1", False),
        (4, "cannot be loaded", True),
        (None, "Exit code unknown: adopted", False),
    ],
)
def test_what_an_exit_code_means(exit_code: int | None, words: str, *, lasting: bool) -> None:
    reason, said_lasting = LlamaCpp({}).end_reason(exit_code, [])
    assert words in reason
    assert said_lasting is lasting


@pytest.mark.parametrize("line", [b"\n", b"[]\n", b'{"host": 1}\n', b'{"port": "x", "host": ""}\n'])
def test_a_line_that_is_no_address(line: bytes) -> None:
    assert ready_address(line) is None


def test_an_address() -> None:
    line = b'{"event": "listening", "host": "127.0.0.1", "port": 4000, "pid": 7}\n'
    assert ready_address(line) == Address("127.0.0.1", 4000)


def test_a_library_that_the_engine_misses_is_named() -> None:
    missing = "xllamacpp is not installed: libgomp.so.1: cannot open shared object file"
    reason, hopeless = LlamaCpp({}).end_reason(4, ["starting", missing])
    assert hopeless
    assert "libgomp.so.1: cannot open shared object file" in reason
    assert "bundle crosslogic-llamacpp" in reason


def test_the_bundles_openmp_is_found_by_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "xllamacpp"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "xllamacpp", raising=False)
    importlib.invalidate_caches()
    assert _libraries({}) == {}  # installed by pip: the host's own library
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libgomp.so.1").touch()
    assert _libraries({}) == {"LD_LIBRARY_PATH": str(tmp_path / "lib")}
    assert _libraries({"LD_LIBRARY_PATH": "/cuda"}) == {
        "LD_LIBRARY_PATH": f"{tmp_path / 'lib'}:/cuda"
    }
