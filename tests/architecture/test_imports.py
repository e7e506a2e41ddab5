"""Who may import what: the layers of pyproject.toml, and one owner for each outside library."""

import subprocess
import sys

import pytest

from tests.architecture.tree import ROOT, imported_packages, module_name, product_modules

# Library -> the packages that may import it. One module or package per outside system, so that a
# library can be replaced, or its failures wrapped, in one place.
OWNERS = {
    "sqlite_utils": ("appliance.storage",),
    "cryptography": ("appliance.security", "agent.identity"),
    "redis": ("appliance.limits",),
    "stripe": ("appliance.controlplane.payments.stripe_api",),
    "sqlalchemy": ("appliance.controlplane",),
    "pg8000": ("appliance.controlplane",),
    "httpx": ("console", "appliance.sync", "appliance.commands"),
    "sky": ("appliance.fleet.burst.sky_process",),
    "pynvml": ("agent.gpu",),
    "textual": ("console",),
    "textual_serve": ("console.web",),
    "tomlkit": ("appliance.admin.settings_desk",),
    "xllamacpp": ("agent.engines",),
    "click": ("appliance.cli", "appliance.commands", "appliance.wire.command", "agent", "console"),
    "rich": ("appliance.cli", "appliance.commands", "console"),
    "prometheus_client": ("appliance.admin", "appliance.gateway", "appliance.main"),
}
LINT = """
import sys
from importlinter.cli import lint_imports
sys.exit(lint_imports(no_cache=True, no_logo=True))
"""
STANDARD_LIBRARY_ONLY = ("appliance.domain", "installer")


def _inside(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def test_the_layers_and_contracts_of_pyproject_hold() -> None:
    # In a process of its own: it would disable every logger that this one has made so far.
    done = subprocess.run(
        [sys.executable, "-c", LINT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("library", OWNERS)
def test_a_library_is_imported_by_its_owner_alone(library: str) -> None:
    strangers = [
        module_name(file)
        for file in product_modules()
        if library in imported_packages(file) and not _inside(module_name(file), OWNERS[library])
    ]
    assert strangers == [], f"{library} belongs to {', '.join(OWNERS[library])}"


def test_the_words_and_the_installer_use_the_standard_library_alone() -> None:
    allowed = {*sys.stdlib_module_names, "appliance", "installer"}
    strangers = {
        module_name(file): foreign
        for file in product_modules()
        if _inside(module_name(file), STANDARD_LIBRARY_ONLY)
        and (foreign := imported_packages(file) - allowed)
    }
    assert strangers == {}
