"""install.sh refuses a bundle that is not the signed one before anything of it runs.

The bundle here is small, and its interpreter is a shell script that leaves a mark: what install.sh
itself does is all real, with the machine's own sh and openssl.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.architecture.tree import ROOT

BUNDLE = ROOT / "packaging" / "bundle"
SHELLS = [
    shell for shell in (("dash",), ("busybox", "sh"), ("bash", "--posix")) if shutil.which(shell[0])
]
NOT_GENUINE = 4


def _sealing() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bundle_sealing", BUNDLE / "sealing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


SEALING = _sealing()
KEY = ec.derive_private_key(4711, ec.SECP256R1())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "crosslogic-appliance"
    python = folder / "tree/python/bin/python3"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\necho "$@" >>"{tmp_path}/ran"\n')
    python.chmod(0o755)
    (folder / "tree/app").mkdir()
    (folder / "tree/app/a file with spaces.py").write_text("pass\n")
    shutil.copy(BUNDLE / "install.sh", folder)
    SEALING.seal(folder, KEY)
    return folder


def run(
    bundle: Path, *words: str, shell: tuple[str, ...] = SHELLS[0], path: str = ""
) -> tuple[int, str]:
    done = subprocess.run(
        [*shell, str(bundle / "install.sh"), *words],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        cwd=bundle.parent,
        env={**os.environ, **({"PATH": path} if path else {})},
    )
    return done.returncode, done.stderr


def ran(bundle: Path) -> bool:
    return (bundle.parent / "ran").exists()


@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_a_genuine_bundle_starts_its_installer_with_the_words_as_given(
    bundle: Path, shell: tuple[str, ...]
) -> None:
    code, told = run(bundle, "install", "--answers", "my file", shell=shell)
    assert code == 0, told
    assert "SHA-256 fingerprint" in told
    assert (bundle.parent / "ran").read_text().splitlines()[-1] == (
        "-I -m installer install --answers my file"
    )


def _change(bundle: Path) -> None:
    file = bundle / "tree/app/a file with spaces.py"
    file.write_text("Pass\n")


def _change_the_list(bundle: Path) -> None:
    with (bundle / "SHA256SUMS").open("a") as sums:
        sums.write("0" * 64 + "  tree/more\n")


def _change_the_signature(bundle: Path) -> None:
    signature = bytearray((bundle / "SHA256SUMS.sig").read_bytes())
    signature[-1] ^= 1
    (bundle / "SHA256SUMS.sig").write_bytes(signature)


def _link(bundle: Path) -> None:
    file = bundle / "tree/app/a file with spaces.py"
    shutil.copy(file, bundle.parent / "elsewhere")
    file.unlink()
    file.symlink_to(bundle.parent / "elsewhere")


WRONGS: dict[str, Callable[[Path], object]] = {
    "a changed byte": _change,
    "a changed interpreter": lambda b: (b / "tree/python/bin/python3").write_text("#!/bin/sh\n"),
    "an added file": lambda b: (b / "tree/app/sitecustomize.py").write_text("pass\n"),
    "an added hidden file": lambda b: (b / "tree/.pth").write_text("pass\n"),
    "an added name with a line break": lambda b: (b / "tree/app/x\ny").write_text("pass\n"),
    "a removed file": lambda b: (b / "tree/app/a file with spaces.py").unlink(),
    "a changed list": _change_the_list,
    "a changed signature": _change_the_signature,
    "no signature": lambda b: (b / "SHA256SUMS.sig").unlink(),
    "a link in place of a file": _link,
    "a link to a folder": lambda b: (b / "tree/app/more").symlink_to("/etc"),
    "a pipe": lambda b: os.mkfifo(b / "tree/app/pipe"),
}


@pytest.mark.parametrize("wrong", WRONGS)
@pytest.mark.parametrize("shell", SHELLS, ids=lambda shell: shell[0])
def test_what_is_not_the_signed_bundle_is_refused_before_anything_runs(
    bundle: Path, wrong: str, shell: tuple[str, ...]
) -> None:
    WRONGS[wrong](bundle)
    code, told = run(bundle, shell=shell)
    assert code == NOT_GENUINE, told
    assert "Fix: " in told
    assert not ran(bundle)


def test_a_key_that_was_obtained_elsewhere_decides(bundle: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    shutil.copy(bundle / "release-key.pem", other)
    assert run(bundle, "--key", "other.pem")[0] == 0
    # Somebody signs anew with a key of their own and puts that key into the bundle.
    SEALING.seal(bundle, ec.derive_private_key(4712, ec.SECP256R1()))
    (tmp_path / "ran").unlink()
    code, told = run(bundle, "--key", "other.pem")
    assert code == NOT_GENUINE, told
    assert not ran(bundle)


def test_without_openssl_it_says_what_to_install(bundle: Path, tmp_path: Path) -> None:
    # The script puts the system's folders first: here they are taken out of a copy of it.
    script = (bundle / "install.sh").read_text()
    bare = script.replace("PATH=/usr/sbin:/usr/bin:/sbin:/bin:$PATH", f"PATH={tmp_path}")
    assert bare != script
    (bundle / "install.sh").write_text(bare)
    shell = shutil.which(SHELLS[0][0])
    assert shell is not None
    code, told = run(bundle, shell=(shell, *SHELLS[0][1:]))
    assert code == 1
    assert "openssl is not installed" in told
    assert not ran(bundle)


def test_sealed_and_packed_twice_it_is_the_same_bytes(bundle: Path, tmp_path: Path) -> None:
    first = SEALING.pack(bundle, tmp_path / "first.tar.gz", 1767225600)
    for file in bundle.rglob("*"):
        os.utime(file, (1, 1))
    SEALING.seal(bundle, KEY)
    assert SEALING.pack(bundle, tmp_path / "second.tar.gz", 1767225600) == first
