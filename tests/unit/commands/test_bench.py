"""`cic bench` against a real HTTP server, from the command line."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from appliance.cli import cic
from appliance.wire.command import CommandError, ExitCode
from tests.fakes.engine import FaultEngine, engine_in_thread
from tests.fakes.site import running_site


@pytest.fixture
def engine() -> Iterator[FaultEngine]:
    with engine_in_thread() as running:
        yield running


def bench(home: Path, *arguments: str) -> Result:
    command = ["--home", str(home), "--json", "bench", "--key", "clsk_test_any", *arguments]
    return CliRunner().invoke(cic, command)


def test_it_measures_what_the_endpoint_streams(engine: FaultEngine, tmp_path: Path) -> None:
    result = bench(tmp_path, "--url", f"{engine.url}/v1/", "--requests", "6", "--concurrency", "2")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["requests"], found["answered"], found["errors"]) == (6, 6, {})
    assert found["model"] == engine.model
    assert found["output_tokens"] > 0
    assert 0 < found["first_token"]["p50_ms"] <= found["total"]["p99_ms"]
    chats = [request for request in engine.requests if request.target.endswith("/completions")]
    assert len(chats) == 6


def test_errors_are_counted_and_not_measured(engine: FaultEngine, tmp_path: Path) -> None:
    engine.next_fault("status:500", path="/v1/chat/completions")
    engine.next_fault("reset_mid_stream", path="/v1/chat/completions")
    result = bench(tmp_path, "--url", f"{engine.url}/v1", "--requests", "4", "--concurrency", "1")
    found = json.loads(result.stdout)
    assert found["answered"] == 2
    assert found["errors"] == {"500": 1, "ReadError": 1}


def test_nothing_answered_is_a_failure(engine: FaultEngine, tmp_path: Path) -> None:
    engine.next_fault("status:500", path="/v1/chat/completions", times=2)
    result = bench(tmp_path, "--url", f"{engine.url}/v1", "--requests", "2")
    assert isinstance(result.exception, CommandError)
    assert "None of 2 requests" in result.exception.message


def test_without_a_running_site_it_says_how_to_start_one(tmp_path: Path) -> None:
    result = bench(tmp_path)
    assert isinstance(result.exception, CommandError)
    assert result.exception.exit_code == ExitCode.UNREACHABLE
    assert "serve" in result.exception.next_step


def test_an_endpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    result = bench(tmp_path, "--url", "http://127.0.0.1:1/v1")
    assert isinstance(result.exception, CommandError)
    assert result.exception.exit_code == ExitCode.UNREACHABLE
    assert "http://127.0.0.1:1/v1" in result.exception.message


def test_without_a_name_it_takes_the_first_model_that_chats(tmp_path: Path) -> None:
    with engine_in_thread() as engine, running_site(tmp_path) as site:
        site.deployment("a-embeds", engine.url, operations=["embeddings"])
        site.deployment("b-chats", engine.url, upstream_model=engine.model)
        secret = site.key().secret
        arguments = ["--home", str(site.home), "--json", "bench", "--key", secret]
        result = CliRunner().invoke(cic, [*arguments, "--requests", "3"])
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["model"] == "b-chats"
        assert (
            sum(row["requests"] for row in site.cic("usage")) == 3 + 1
        )  # it asked once to find out
