"""Wheels of the packages that run here, for a cluster without access to a package index."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import importlib.util
import io
import re
import zipfile
from contextlib import suppress
from pathlib import Path

from pyhrf_parallel.errors import ClusterError
from pyhrf_parallel.version import __version__

_OURS = "pyhrf_parallel"
# Distributions and their modules.
_MODULES = {
    _OURS: (_OURS,),
    "cloudpickle": ("cloudpickle",),
    "tqdm": ("tqdm",),
    "soma-workflow": ("soma_workflow", "somadrmaa", "somadrmaa2"),
    "six": ("six",),
}
_COMPILED = (".so", ".pyd", ".dylib")
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the same wheel for the same files


def collect_wheels() -> dict[str, bytes]:
    """Return the wheels of this package and all that its engine needs, by file name.

    They are made from the files imported here, so that the cluster runs the same code, released
    or not.

    Raises
    ------
    ClusterError
        If something is not installed here, or cannot be packed.
    """
    return dict(_wheel(name, *modules) for name, modules in _MODULES.items())


def pip_wheel() -> tuple[str, bytes]:
    """Return a wheel of pip, which can be run without installing it.

    Raises
    ------
    ClusterError
        If there is no pip here.
    """
    with suppress(ClusterError):
        return _wheel("pip", "pip")
    bundled = importlib.util.find_spec("ensurepip")  # environments made by uv have no pip
    if bundled and bundled.origin:
        for path in (Path(bundled.origin).parent / "_bundled").glob("pip-*.whl"):
            return path.name, path.read_bytes()
    raise ClusterError(
        "pip is needed here too, to be sent to the cluster; install it with: python -m ensurepip (or: "
        "uv pip install pip)"
    )


def _wheel(name: str, *modules: str) -> tuple[str, bytes]:
    version, texts = _metadata(name)
    stem = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}"
    contents: dict[str, bytes] = {}
    for module in modules:
        contents |= _files(name, module)
    contents |= {f"{stem}.dist-info/{file}": text.encode() for file, text in texts.items()}
    record = "".join(f"{path},{_digest(data)},{len(data)}\n" for path, data in contents.items())
    contents[f"{stem}.dist-info/RECORD"] = f"{record}{stem}.dist-info/RECORD,,\n".encode()
    return f"{stem}-py3-none-any.whl", _zip(contents)


def _files(name: str, module: str) -> dict[str, bytes]:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ClusterError(
            f"{name} is needed here too, to be sent to the cluster; install it with: "
            "pip install 'pyhrf_parallel[cluster]'"
        )
    origin = Path(spec.origin)
    if not spec.submodule_search_locations:
        return {origin.name: origin.read_bytes()}
    files = [p for p in sorted(origin.parent.rglob("*")) if _belongs(p)]
    compiled = [path for path in files if path.suffix in _COMPILED]
    if compiled:
        raise ClusterError(
            f"{name} is not pure Python here ({compiled[0]}) and cannot be sent to the cluster; "
            f"install it again with: pip install --force-reinstall {name}"
        )
    return {str(path.relative_to(origin.parent.parent)): path.read_bytes() for path in files}


def _belongs(path: Path) -> bool:
    return path.is_file() and path.suffix != ".pyc" and not path.name.startswith(".")


def _metadata(name: str) -> tuple[str, dict[str, str]]:
    """Return the version and the texts of the ``.dist-info``."""
    texts = {"WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    version, text = __version__, ""
    try:
        installed = importlib.metadata.distribution(name)
        version = __version__ if name == _OURS else installed.version
        text = installed.read_text("METADATA") or ""
        texts["entry_points.txt"] = installed.read_text("entry_points.txt") or ""
    except importlib.metadata.PackageNotFoundError:
        if name != _OURS:  # which may be on PYTHONPATH only
            raise ClusterError(f"{name} is not installed here") from None
    text = text or f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    # That of an editable installation is from the day on which it was made.
    texts["METADATA"] = re.sub(r"(?m)^Version: .*$", f"Version: {version}", text, count=1)
    return version, texts


def _digest(data: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest())
    return f"sha256={digest.decode().rstrip('=')}"


def _zip(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            entry = zipfile.ZipInfo(path, _EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()
