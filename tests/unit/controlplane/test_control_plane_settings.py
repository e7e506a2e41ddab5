"""Settings of the control plane: the page, the file, the variables; its home and its identity."""

import re
from pathlib import Path

import msgspec
import pytest

from appliance.controlplane.database import Database
from appliance.controlplane.errors import ControlPlaneUnready, OtherSigningKey
from appliance.controlplane.identity import bind, create, load_identity
from appliance.controlplane.settings import (
    ENVIRONMENT_PREFIX,
    ControlHome,
    ControlPlaneSettings,
    database_url,
    find_control_home,
    load,
)
from appliance.security.errors import SecretMissing
from appliance.settings import SettingsError

PAGE = Path(__file__).resolve().parents[3] / "docs" / "CONTROL_PLANE.md"


def shown(default: object) -> str:
    if default == "":
        return "none"
    return f"{int(default):,}" if isinstance(default, int | float) else str(default)


def test_the_page_lists_every_setting_with_its_variable_and_default() -> None:
    row = re.compile(r"^\| `([\w.]+)` \| `(\w+)` \| `([^`]*)` \| \S", re.MULTILINE)
    listed = set(row.findall(PAGE.read_text(encoding="utf-8")))
    expected = set()
    for section in msgspec.structs.fields(ControlPlaneSettings):
        for field in msgspec.structs.fields(section.type):
            variable = f"{ENVIRONMENT_PREFIX}{section.name}_{field.name}".upper()
            name = f"{section.name}.{field.name}"
            expected.add((name, variable, shown(field.default)))
    assert listed == expected


def test_the_variable_wins_over_the_file(tmp_path: Path) -> None:
    home = ControlHome(tmp_path)
    home.config_file.write_text('[database]\nurl = "sqlite:///a"\n[billing]\ncurrency = "eur"\n')
    settings = load(home, {"CICP_DATABASE_URL": "sqlite:///b", "CICP_HOME": "x", "CIC_X": "y"})
    assert (settings.database.url, settings.billing.currency) == ("sqlite:///b", "eur")
    assert database_url(home, settings) == "sqlite:///b"
    plain = load(ControlHome(tmp_path / "none"), {})
    assert database_url(home, plain) == f"sqlite:///{tmp_path}/control-plane.db"


@pytest.mark.parametrize(
    "text", ["[stripe]\nkey = 1\n", "[nothing]\n", '[billing]\ncurrency = "EURO"\n', "x"]
)
def test_what_is_no_setting_is_named(tmp_path: Path, text: str) -> None:
    home = ControlHome(tmp_path)
    home.config_file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load(home, {})
    assert refused.value.next_step


def test_a_home_is_named_by_option_then_variable(tmp_path: Path) -> None:
    assert find_control_home("/a", {"CICP_HOME": "/b"}).root == Path("/a")
    assert find_control_home(None, {"CICP_HOME": "/b"}).root == Path("/b")
    assert find_control_home(None, {}).root.name == "crosslogic-control-plane"


def test_a_folder_without_a_control_plane_says_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(ControlPlaneUnready) as refused:
        load_identity(ControlHome(tmp_path))
    assert "init" in refused.value.next_step


def test_secrets_are_made_once_and_told_to_nobody(tmp_path: Path) -> None:
    home = ControlHome(tmp_path)
    home.config_file.write_text("")
    first = create(home)
    assert create(home).key.key_id == first.key.key_id == load_identity(home).key.key_id
    assert load_identity(home).operator_token == first.operator_token
    assert first.operator_token not in repr(first)
    for file in (home.signing_key, home.operator_token):
        assert file.stat().st_mode & 0o777 == 0o600
    home.signing_key.unlink()
    with pytest.raises(SecretMissing):
        load_identity(home)


def test_a_database_stays_with_its_signing_key(database: Database) -> None:
    for _ in range(2):
        database.transact(lambda connection: bind(connection, "a" * 64))
    with pytest.raises(OtherSigningKey):
        database.transact(lambda connection: bind(connection, "b" * 64))
