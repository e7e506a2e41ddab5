"""A partner's name: what is signed is used, and anything else changes nothing."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from appliance.branding import BadBranding, Brand, brand_of, open_brand, sign_brand, with_brand
from appliance.checking.standing import branding_found
from appliance.cli import cic
from appliance.security.signing import PublicKey, SigningKey
from appliance.settings import Branding, Gateway, Settings
from console.header import header
from console.store import Store

KEY = SigningKey(bytes(range(32)))
BRAND = Brand(product="Acme AI", owner="acme", support="+49 30 123", accent="#ff8700", made_at="")


def settings(folder: Path, raw: bytes, pem: str) -> Settings:
    (folder / "a.branding").write_bytes(raw)
    (folder / "a.pem").write_text(pem)
    named = Branding(file=str(folder / "a.branding"), publisher=str(folder / "a.pem"))
    return Settings(branding=named)


def test_what_was_signed_is_used_and_told(tmp_path: Path) -> None:
    found = settings(tmp_path, sign_brand(BRAND, KEY), KEY.public.pem)
    assert brand_of(found) == BRAND
    assert with_brand(found).gateway.owned_by == "acme"
    assert branding_found(found).seen == "It is sold as Acme AI."
    own = Settings(branding=found.branding, gateway=Gateway(owned_by="ours"))
    assert with_brand(own).gateway.owned_by == "ours"


def test_without_the_settings_nothing_changes() -> None:
    assert brand_of(Settings()) is None
    assert with_brand(Settings()) == Settings()


def test_what_somebody_else_signed_ends_no_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = SigningKey(os.urandom(32))
    found = settings(tmp_path, sign_brand(BRAND, other), KEY.public.pem)
    assert brand_of(found) is None
    assert "branding left out" in caplog.text
    assert branding_found(found).outcome == "warning"
    gone = Settings(branding=Branding(file="/nowhere", publisher="/nowhere"))
    assert brand_of(gone) is None
    half = Settings(branding=Branding(file=str(tmp_path / "a.branding")))
    assert "both" in branding_found(half).seen


@given(at=st.integers(min_value=0), to=st.integers(0, 255))
def test_a_changed_byte_is_refused(at: int, to: int) -> None:
    raw = bytearray(sign_brand(BRAND, KEY))
    at %= len(raw)
    if raw[at] == to:
        return
    raw[at] = to
    with pytest.raises(BadBranding):
        open_brand(bytes(raw), KEY.public)


@pytest.mark.parametrize(
    "brand",
    [
        Brand(product=""),
        Brand(product="x" * 25),
        Brand(product="a\x1b[2J"),
        Brand(product="a\u202eb"),
        Brand(product="a", owner="a b"),
        Brand(product="a", accent="red"),
        Brand(product="a", accent="#FFFFFF"),
    ],
)
def test_what_could_harm_a_terminal_or_a_client_is_not_signed(brand: Brand) -> None:
    with pytest.raises(BadBranding):
        sign_brand(brand, KEY)


def test_it_is_made_and_checked_by_command(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    key.chmod(0o600)
    described, out = tmp_path / "acme.toml", tmp_path / "acme.branding"
    described.write_text('product = "Acme AI"\nowner = "acme"\naccent = "#ff8700"\n')
    make = ["branding", "make", str(described), "--key", str(key), "--out", str(out)]
    made = CliRunner().invoke(cic, make)
    assert made.exit_code == 0, made.output
    pem = f"{out}.pem"
    checked = CliRunner().invoke(cic, ["--json", "branding", "check", str(out), "--publisher", pem])
    assert checked.exit_code == 0, checked.output
    assert '"Acme AI"' in checked.output
    assert open_brand(out.read_bytes(), PublicKey.from_pem(Path(pem).read_text())).owner == "acme"
    assert CliRunner().invoke(cic, make).exit_code != 0  # nothing is written over
    described.write_text('product = "Acme AI"\nlogo = "x"\n')
    refused = CliRunner().invoke(cic, [*make[:-1], f"{out}2"])
    assert "logo" in str(refused.exception)


@pytest.mark.parametrize(("room", "times"), [(120, 1), (12, 0)])
def test_the_console_shows_it_where_there_is_room(room: int, times: int) -> None:
    store = Store()
    row = {"name": "gpubox-01", "version": "1", "product": "Acme AI", "accent": "#ff8700"}
    store._tables["site"] = {"site": row}
    cells = header(store, datetime(2026, 1, 1, tzinfo=UTC), room)
    assert [cell.text for cell in cells if cell.colour == "#ff8700"] == [" Acme AI"] * times
    assert any("gpubox-01" in cell.text for cell in cells)


@pytest.mark.parametrize("accent", ["gemma-2-9b", "red", "#ff87", "", None, 7, "\u202e#ff8700"])
def test_a_colour_that_the_console_does_not_know_is_none(accent: object) -> None:
    store = Store()
    row = {"name": "gpubox-01", "version": "1", "product": "Acme AI", "accent": accent}
    store._tables["site"] = {"site": row}
    cells = header(store, datetime(2026, 1, 1, tzinfo=UTC), 120)
    assert {cell.colour for cell in cells} == {""}
    assert " Acme AI" in [cell.text for cell in cells]
