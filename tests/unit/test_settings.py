"""Settings: every one from the file and from its variable, and what is refused."""

import json
from pathlib import Path

import msgspec
import pytest

from appliance.settings import Settings, SettingsError, load

TWINS = [
    (section.name, field.name)
    for section in msgspec.structs.fields(Settings)
    for field in msgspec.structs.fields(section.type)
]
TEXTS = {"listen": "127.0.0.1:9", "level": "debug", "mode": "offline", "provider": "skypilot"} | {
    "when_offline": "local",
    "certificate_s": "3600.0",
    "copy_bytes_per_s": "4096",
}
OTHERS = {"listen": "127.0.0.1:8", "level": "error", "mode": "online", "provider": "off"} | {
    "when_offline": "silent",
    "certificate_s": "7200.0",
    "copy_bytes_per_s": "8192",
}


def one(section: str, name: str, text: str) -> object:
    """The setting as its variable alone makes it."""
    settings = load(Path("/nonexistent"), {f"CIC_{section}_{name}".upper(): text})
    return getattr(getattr(settings, section), name)


@pytest.mark.parametrize(("section", "name"), TWINS)
def test_every_setting_has_a_twin_that_wins_over_the_file(
    tmp_path: Path, section: str, name: str
) -> None:
    text = TEXTS.get(name, "7")
    value = one(section, name, text)
    assert value == (text,) or str(value) in {text, "7.0"}
    file = tmp_path / "config.toml"
    file.write_text(f"[{section}]\n{name} = {json.dumps(value)}\n")
    read = load(file, {})
    assert getattr(getattr(read, section), name) == value
    other = OTHERS.get(name, "8")
    won = getattr(getattr(load(file, {f"CIC_{section}_{name}".upper(): other}), section), name)
    assert won == (other,) or str(won) in {other, "8.0"}


def test_a_list_in_a_variable_is_its_words_with_commas() -> None:
    assert one("access", "viewers", " ops, night-shift ,") == ("ops", "night-shift")


def test_none_takes_away_what_the_file_sets(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[limits]\nconcurrency = 3\n[metrics]\nlisten = "127.0.0.1:9"\n')
    environ = {"CIC_LIMITS_CONCURRENCY": "none", "CIC_METRICS_LISTEN": "none"}
    assert load(file, environ) == Settings()


@pytest.mark.parametrize("text", ["", "0", "-1", "nan", "inf", "none", "ten"])
def test_a_time_that_no_timer_takes_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="CIC_TIMEOUTS_HEAD_S"):
        one("timeouts", "head_s", text)
