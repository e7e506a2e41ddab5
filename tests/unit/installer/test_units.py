"""The units that ship: how closed they are, and how the installer fits them to a site."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from installer.errors import StepFailed
from installer.layout import AGENT_ACCOUNT, GATEWAY_ACCOUNT, Layout
from installer.making import Maker
from installer.records import Manifest
from installer.units import (
    drop_missing_units,
    enable,
    lay_units,
    listen_elsewhere,
    numeric,
    wanted_by,
)

UNITS = Path(__file__).resolve().parents[3] / "packaging/systemd"


@pytest.mark.parametrize(("unit", "at_most"), [("gateway", 1.2), ("agent", 2.0)])
def test_a_service_is_exposed_no_more_than_it_must(unit: str, at_most: float) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    file = UNITS / f"crosslogic-{unit}.service"
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    said = subprocess.run(command, check=False, capture_output=True, text=True).stdout
    told = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    if told is None:
        pytest.skip("this systemd-analyze cannot look at a file")
    assert float(told[1]) <= at_most


def test_the_agent_sees_gpus_and_the_gateway_no_device() -> None:
    agent = (UNITS / "crosslogic-agent.service").read_text()
    gateway = (UNITS / "crosslogic-gateway.service").read_text()
    assert "PrivateDevices" not in agent.replace("# No PrivateDevices", "")
    for device in ("char-nvidia rw", "char-nvidiactl rw", "char-nvidia-uvm rw", "char-kfd rw"):
        assert f"DeviceAllow={device}\n" in agent
    assert "PrivateDevices=yes\n" in gateway
    assert "DeviceAllow" not in gateway


def test_units_name_the_accounts_and_folders_of_the_layout() -> None:
    layout = Layout()
    for unit, account, home in (
        ("gateway", GATEWAY_ACCOUNT, layout.home),
        ("agent", AGENT_ACCOUNT, layout.agent_home),
    ):
        text = (UNITS / f"crosslogic-{unit}.service").read_text()
        assert f"\nUser={account}\nGroup={account}\n" in text
        assert f"\nExecStart={layout.current}/bin/cic --home {home} " in text
        assert f"\nStateDirectory={home.name}\n" in text
        assert wanted_by(text) == ["multi-user.target"]


def test_the_endpoints_socket_listens_where_the_answers_say(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    layout.records.mkdir(parents=True)
    make = Maker(layout, Manifest(layout))
    drop_in = tmp_path / "etc/systemd/system/crosslogic-gateway.socket.d/10-listen.conf"
    listen_elsewhere(make, layout, UNITS, "0.0.0.0:8080")
    assert not drop_in.exists()  # as the unit says already
    listen_elsewhere(make, layout, UNITS, "[::1]:9000")
    assert drop_in.read_text() == "[Socket]\nListenStream=\nListenStream=[::1]:9000\n"
    assert "/etc/systemd/system/crosslogic-gateway.socket.d/10-listen.conf" in make.manifest.made


def test_a_name_becomes_an_address_or_a_clear_refusal() -> None:
    assert numeric("localhost") == "127.0.0.1"
    assert numeric("[2001:db8::1]") == "[2001:db8::1]"
    with pytest.raises(StepFailed, match="nobody knows this name"):
        numeric("no-such-host.invalid")


def test_a_unit_that_another_version_does_not_have_goes_with_what_enabled_it(
    tmp_path: Path,
) -> None:
    layout = Layout(tmp_path / "r")
    layout.records.mkdir(parents=True)
    make = Maker(layout, Manifest(layout))
    newer, older = tmp_path / "newer", tmp_path / "older"
    for folder, names in ((newer, ("a.service", "b.timer")), (older, ("a.service",))):
        folder.mkdir()
        for name in names:
            (folder / name).write_text("[Install]\nWantedBy=multi-user.target\n")
    lay_units(make, layout, newer)
    enable(make, layout, newer, ("a.service", "b.timer"))
    drop_missing_units(layout, make.manifest, older)
    wants = layout.root / "etc/systemd/system/multi-user.target.wants"
    assert [one.name for one in layout.units.iterdir()] == ["a.service"]
    assert [one.name for one in wants.iterdir()] == ["a.service"]
    assert not [name for name in Manifest(layout).made if "b.timer" in name]
