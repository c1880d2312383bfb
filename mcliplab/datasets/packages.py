"""The pinned source packages: fetched with the ordinary clients, verified, unpacked."""

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mcliplib.errors import UserError
from mcliplib.files import new_folder


@dataclass(frozen=True)
class Package:
    """One pinned package: where it comes from, the file it arrives as, and that file's SHA-256."""

    short: str
    client: str  # "apt-get" or "npm"
    name: str
    version: str
    file: str
    sha256: str


PACKAGES = (
    Package(
        "gcompris",
        "apt-get",
        "gcompris-qt-data",
        "3.1-2",
        "gcompris-qt-data_3.1-2_all.deb",
        "e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
    ),
    Package(
        "openclipart",
        "apt-get",
        "openclipart-svg",
        "1:0.18+dfsg-19",
        "openclipart-svg_1%3a0.18+dfsg-19_all.deb",
        "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5",
    ),
    Package(
        "pysiogame",
        "apt-get",
        "pysiogame",
        "4.20.01-1",
        "pysiogame_4.20.01-1_all.deb",
        "6b22766dfd8ef3a046c2665fe2598ac8a1ecee3d331bda38accf53de65bc59bf",
    ),
    Package(
        "tuxpaint",
        "apt-get",
        "tuxpaint-stamps-default",
        "2022.06.04-1",
        "tuxpaint-stamps-default_2022.06.04-1_all.deb",
        "6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
    ),
    Package(
        "emojibase",
        "npm",
        "emojibase-data",
        "17.0.0",
        "emojibase-data-17.0.0.tgz",
        "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a",
    ),
    Package(
        "fluent",
        "npm",
        "@iconify-json/fluent-emoji-flat",
        "1.2.6",
        "iconify-json-fluent-emoji-flat-1.2.6.tgz",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    Package(
        "noto",
        "npm",
        "@iconify-json/noto",
        "1.2.9",
        "iconify-json-noto-1.2.9.tgz",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
    ),
    Package(
        "openmoji",
        "npm",
        "@iconify-json/openmoji",
        "1.2.29",
        "iconify-json-openmoji-1.2.29.tgz",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
    ),
    Package(
        "twemoji",
        "npm",
        "@iconify-json/twemoji",
        "1.2.5",
        "iconify-json-twemoji-1.2.5.tgz",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
    ),
)
BY_SHORT = {package.short: package for package in PACKAGES}


def obtain(package: Package, cache: Path, sources: Sequence[Path] = ()) -> Path:
    """The unpacked folder of a package, taken from ``sources`` or fetched into ``cache``; verified either way.

    Raises:
        UserError: a client is missing or fails, the file is not in ``sources``, or its checksum differs.
    """
    archive = _find(package, sources) if sources else _fetch(package, cache)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != package.sha256:
        raise UserError(
            f"{archive} has SHA-256 {digest}, not {package.sha256}: delete it and fetch {package.file} again"
        )
    folder = cache / "unpacked" / f"{package.short}-{digest[:12]}"
    if not folder.is_dir():
        with new_folder(folder) as partial:
            _unpack(archive, partial)
    return folder


def _find(package: Package, sources: Sequence[Path]) -> Path:
    for folder in sources:
        for found in sorted(folder.rglob(package.file.replace("[", "[[]"))):
            return found
    places = ", ".join(str(folder) for folder in sources)
    raise UserError(f"{package.file} is not in {places}: download it there, or leave out --sources to fetch it")


def _fetch(package: Package, cache: Path) -> Path:
    archive = cache / package.file
    if archive.is_file():
        return archive
    cache.mkdir(parents=True, exist_ok=True)
    if package.client == "apt-get":
        command = ["apt-get", "download", f"{package.name}={package.version}"]
    else:
        command = ["npm", "pack", f"{package.name}@{package.version}"]
    _run(command, cache, f"or download {package.file} elsewhere and give its folder with --sources")
    if not archive.is_file():
        raise UserError(f"`{' '.join(command)}` left no {package.file} in {cache}: download it, and use --sources")
    return archive


def _unpack(archive: Path, folder: Path) -> None:
    if archive.suffix == ".deb":
        _run(["dpkg-deb", "-x", str(archive), str(folder)], folder, "it unpacks Debian packages")
        return
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")


def _run(command: list[str], folder: Path, cure: str) -> None:
    if shutil.which(command[0]) is None:
        raise UserError(f"the program {command[0]!r} is not installed: install it ({cure})")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`{' '.join(command)}` failed ({last}): update the client's package lists, {cure}")
