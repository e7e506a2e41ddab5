"""Where a home lies: one folder, the person's own, or a system install, below any root."""

from pathlib import Path

from appliance.wire.home import Home, find_home


def _system(root: Path) -> Path:
    (root / "etc/crosslogic").mkdir(parents=True)
    return root / "var/lib/crosslogic"


def test_a_named_folder_holds_everything(tmp_path: Path) -> None:
    home = find_home(str(tmp_path / "site"), {})
    assert home.config == home.state == tmp_path / "site"
    assert home.arguments == ("--home", str(tmp_path / "site"))


def test_a_system_install_is_found_by_itself(tmp_path: Path) -> None:
    state = _system(tmp_path)
    assert find_home(None, {}, tmp_path) == Home(
        config=tmp_path / "etc/crosslogic",
        state=state,
        run=tmp_path / "run/crosslogic",
        logs=tmp_path / "var/log/crosslogic",
    )
    own = tmp_path / "own"
    assert find_home(None, {"CIC_HOME": str(own)}, tmp_path).state == own


def test_a_system_install_below_a_root_is_found_by_its_state(tmp_path: Path) -> None:
    state = tmp_path / "var/lib/crosslogic"
    assert find_home(str(state), {}).config == state  # no /etc/crosslogic there: a plain folder
    _system(tmp_path)
    home = find_home(str(state), {})
    assert home.config_file == tmp_path / "etc/crosslogic/config.toml"
    assert home.admin_socket == tmp_path / "run/crosslogic/admin.sock"
    assert home.arguments == ("--home", str(state))


def test_without_a_system_install_it_is_the_persons_own(tmp_path: Path) -> None:
    home = find_home(None, {}, tmp_path)
    assert tmp_path not in home.config.parents
    assert home.arguments == ()
