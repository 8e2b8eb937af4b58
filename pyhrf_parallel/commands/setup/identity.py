"""Versions in an environment that matter on a cluster: found here and there, and compared.

``python -m pyhrf_parallel.commands.setup.identity`` prints them as one line of JSON. Standard library only.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
from contextlib import suppress
from pathlib import Path

from pyhrf_parallel.version import __version__

#: Packages whose versions have to be the same on both sides.
PACKAGES = ("soma-workflow", "cloudpickle")


def identity() -> dict[str, str]:
    """Return the versions of packages in this environment, "" for missing ones, and a checksum of the sources."""
    found = {"python": ".".join(map(str, sys.version_info[:3])), "pyhrf_parallel": __version__}
    return found | {name: _version(name) for name in PACKAGES} | {"sources": _checksum()}


def _version(name: str) -> str:
    with suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return ""


def _checksum() -> str:
    root = Path(__file__).parents[2]  # the package
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def differences(here: dict[str, str], there: dict[str, str]) -> list[str]:
    """Describe the differences of the two sides.

    Examples
    --------
    >>> differences({'cloudpickle': '3.1'}, {'cloudpickle': '3.0'})
    ['cloudpickle is 3.0 there and 3.1 here']
    """
    return [
        f"{name} is {there.get(name) or 'missing'} there and {here[name] or 'missing'} here"
        for name in ("pyhrf_parallel", *PACKAGES)
        if name in here and here[name] != there.get(name)
    ]


if __name__ == "__main__":
    json.dump(identity(), sys.stdout)
