"""`cic model catalogue|pack|import|gc` against a real admin server."""

import hashlib
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.wire.command import ExitCode
from tests.fakes.admin_site import AdminSite, served
from tests.fakes.command_line import Done, cic
from tests.fakes.tiny_gguf import write_tiny_gguf

LICENCE = "Take it, share it.\n\tNo warranty.\n"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[AdminSite]:
    with served(tmp_path / "site") as site:
        yield site


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "tiny"
    folder.mkdir()
    write_tiny_gguf(folder / "tiny.gguf")
    (folder / "LICENSE").write_text(LICENCE)
    return folder


def run(site: AdminSite, *arguments: object) -> Done:
    return cic("--home", site.home.config, "--json", "model", *arguments)


def packed(tmp_path: Path, model: Path, *options: object, maker: str = "maker") -> Any:
    out = tmp_path / f"{maker}-{len(list(tmp_path.iterdir()))}.modelpack"
    home = tmp_path / f"home-of-{maker}"
    done = cic("--home", home, "--json", "model", "pack", model, "--out", out, *options)
    assert done.code == ExitCode.OK, done
    return done.json


def test_a_pack_is_carried_to_another_site_and_registered(
    site: AdminSite, model: Path, tmp_path: Path
) -> None:
    pack = packed(tmp_path, model, "--name", "tiny", "--version", "2", "--licence", "Free-1.0")
    with tarfile.open(pack["file"]) as tar:
        assert tar.getnames() == ["publisher.pem", "index.json", "LICENSE", "files/tiny.gguf"]

    stranger = run(site, "import", pack["file"])
    assert (stranger.code, stranger.error["code"]) == (ExitCode.CONFLICT, "publisher_unknown")
    assert pack["publisher"] in stranger.error["next_step"]
    wrong = run(site, "import", pack["file"], "--publisher", "0" * 64, "--accept-licence")
    assert (wrong.code, wrong.error["code"]) == (ExitCode.CONFLICT, "publisher_unknown")
    unread = run(site, "import", pack["file"], "--publisher", pack["publisher"])
    assert (unread.code, unread.error["code"]) == (ExitCode.CONFLICT, "licence_not_accepted")
    shown = cic(
        "--home",
        site.home.config,
        "model",
        "import",
        pack["file"],
        "--publisher",
        pack["publisher"],
    )
    assert "No warranty." in shown.err
    assert run(site, "list").json == []

    trusting = ("--publisher", pack["publisher"], "--accept-licence")
    done = run(site, "import", pack["file"], *trusting)
    assert done.code == ExitCode.OK, done
    row = done.json
    assert (row["name"], row["licence"], row["digest"]) == ("tiny:2", "Free-1.0", pack["digest"])
    content = (model / "tiny.gguf").read_bytes()
    assert row["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
    assert Path(row["path"]).read_bytes() == content
    assert Path(row["path"]).stat().st_mode & 0o777 == 0o444

    again = run(site, "import", pack["file"])  # trusted and accepted: neither is asked again
    assert again.json == row
    actions = [(e["object_kind"], e["action"]) for e in _audit(site)]
    assert actions.count(("publisher", "trust")) == 1
    assert actions.count(("licence", "accept")) == 1
    assert actions.count(("model", "create")) == 1


def test_a_home_trusts_its_own_packs(site: AdminSite, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.modelpack"
    made = run(site, "pack", model, "--out", out)
    assert made.code == ExitCode.OK, made
    done = run(site, "import", out, "--accept-licence")
    assert done.code == ExitCode.OK, done
    assert done.json["name"] == "tiny"
    refused = run(site, "pack", model, "--out", out)
    assert refused.error["code"] == "model_pack_not_written"


def test_the_store_is_swept_of_what_no_model_needs(
    site: AdminSite, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "own.modelpack"
    run(site, "pack", model, "--out", out)
    row = run(site, "import", out, "--accept-licence").json
    assert run(site, "gc").json == {"models": [], "freed_bytes": 0, "dry_run": False}
    run(site, "delete", row["id"], "--yes")
    size = (model / "tiny.gguf").stat().st_size
    would = run(site, "gc", "--dry-run").json
    assert would == {"models": [row["digest"]], "freed_bytes": size, "dry_run": True}
    assert Path(row["path"]).exists()
    assert run(site, "gc").json == {**would, "dry_run": False}
    assert not Path(row["path"]).exists()
    assert not [path for path in (site.home.models / "store").rglob("*") if path.is_file()]


def test_the_catalogue_has_the_known_families_and_the_sites_own(site: AdminSite) -> None:
    rows = {row["name"]: row for row in run(site, "catalogue").json}
    assert {row["family"] for row in rows.values()} == {
        *("llama-3", "mistral", "mixtral", "qwen-2.5", "gemma", "phi-3"),
    }
    assert len(rows) == 9
    large = rows["llama-3-70b-instruct"]
    assert large["settings"]["vllm"]["gpus"] == 4
    assert large["gpu_memory_bytes"] > 140 * 10**9
    plain = cic("--home", site.home.config, "model", "catalogue").out
    assert "llama-3-70b-instruct" in plain
    assert "$0.70/0.90" in plain
    site.home.models.mkdir()
    own = site.home.models / "catalogue.toml"
    own.write_text(
        '[[model]]\nname = "house-1b"\nfamily = "house"\narchitecture = "llama"\n'
        'context_tokens = 4096\nlicence = "ours"\nparameters = 1_000_000_000\n'
        "layers = 16\nkv_heads = 4\nhead_size = 64\n"
    )
    assert "house-1b" in {row["name"] for row in run(site, "catalogue").json}
    assert {row["name"] for row in site.client.get("/v1/models/catalogue").json()} >= {"house-1b"}
    own.write_text("[[model]]\nname = 1\n")
    assert run(site, "catalogue").error["code"] == "bad_catalogue"


def test_a_name_that_is_taken_is_told_before_anything_is_copied(
    site: AdminSite, model: Path, tmp_path: Path
) -> None:
    pack = packed(tmp_path, model)
    write_tiny_gguf(model / "tiny.gguf", seed=5)
    other = packed(tmp_path, model)
    trusting = ("--publisher", pack["publisher"], "--accept-licence")
    assert run(site, "import", pack["file"], *trusting).code == ExitCode.OK
    taken = run(site, "import", other["file"])
    assert (taken.code, taken.error["code"]) == (ExitCode.CONFLICT, "already_exists")
    assert len(list((site.home.models / "store" / "sha256").glob("??/*"))) == 1
    assert run(site, "import", other["file"], "--name", "tiny-new").code == ExitCode.OK


def _audit(site: AdminSite) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = cic("--home", site.home.config, "--json", "audit", "list").json
    return entries


@pytest.mark.parametrize(
    ("file", "options", "code"),
    [
        ("a file.gguf", (), "model_pack_not_written"),
        ("m.gguf", ("--name", "-x"), "model_pack_not_written"),
        ("m.gguf", ("--family", "llama\x07"), "model_pack_not_written"),
        ("m.gguf", ("--golden-prompt", "x" * 5_000), "model_pack_not_written"),
        ("m.gguf", ("--golden-answer", "x"), "usage"),
        ("m.gguf", ("--catalogue", "none"), "no_such_catalogue_entry"),
        ("m.gguf", ("--licence-file", "/nowhere"), "model_pack_not_written"),
        ("m.gguf", ("--key", "/nowhere"), "secret_missing"),
    ],
)
def test_what_every_site_would_refuse_is_not_packed(
    tmp_path: Path, file: str, options: tuple[str, ...], code: str
) -> None:
    write_tiny_gguf(tmp_path / file)
    out = tmp_path / "out.modelpack"
    done = cic(
        *("--home", tmp_path / "home", "--json", "model", "pack", tmp_path / file),
        *("--out", out, *options),
    )
    assert done.error["code"] == code
    assert not out.exists()
    assert not (tmp_path / ".out.modelpack.new").exists()


def test_a_pack_takes_its_facts_from_the_catalogue(
    site: AdminSite, model: Path, tmp_path: Path
) -> None:
    pack = packed(tmp_path, model, "--catalogue", "llama-3-8b-instruct", "--golden-prompt", "Hi.")
    row = run(
        site, "import", pack["file"], "--publisher", pack["publisher"], "--accept-licence"
    ).json
    assert (row["name"], row["family"]) == ("llama-3-8b-instruct", "llama-3")
    assert row["licence"] == "Meta Llama 3 Community License"
    assert (row["publisher"], row["golden"]) == (pack["publisher"], True)
    made = cic(
        *("--home", site.home.config, "--json", "deployment", "create", "--name", "chat"),
        *("--engine", "llamacpp", "--model", row["name"]),
    )
    assert made.code == ExitCode.OK, made
