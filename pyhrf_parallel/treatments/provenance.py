"""The identity of an analysis: analyses with the same identity give the same results."""

from __future__ import annotations

import dataclasses
import functools
import json
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pyhrf_parallel.account import user_name
from pyhrf_parallel.files import checksum
from pyhrf_parallel.treatments.fingerprints import describe
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.region_data import ROIData
from pyhrf_parallel.version import __version__

Identity = dict[str, Any]

_PACKAGES = ("nibabel", "nilearn", "numpy", "pandas", "scipy")


def identify(data: FmriData, analyser: Callable[..., Any]) -> Identity:
    """Return the identity of an analysis: the content of its files, its analyser, all parameters.

    It can be written as JSON, and is the same in another process.
    """
    inputs = {role: [_checksum(path) for path in paths] for role, paths in _roles(data).items()}
    found = {"analyser": describe(analyser), "tr_seconds": data.tr, "inputs": inputs}
    identity: Identity = json.loads(json.dumps(found))  # as it is read again
    return identity


def input_checksums(data: FmriData, identity: Identity) -> dict[str, str]:
    """Return the SHA-256 of each file that was analysed, by its path."""
    return {
        path: digest
        for role, paths in _roles(data).items()
        for path, digest in zip(paths, identity["inputs"][role], strict=True)
    }


def differences(earlier: Identity, now: Identity, data: FmriData) -> list[str]:
    """Say how an earlier analysis differs from this one; nothing if they are the same."""
    told = []
    was, own = earlier.get("analyser", {}), now["analyser"]
    if was.get("name") != own["name"]:
        told.append(f"the analyser was {was.get('name')}, and is {own['name']}")
    else:
        if was.get("source") != own["source"]:
            told.append(f"the source of {own['name']} is another")
        before, parameters = was.get("parameters", {}), own["parameters"]
        told += [
            f"{name} was {before.get(name)!r}, and is {parameters.get(name)!r}"
            for name in sorted({*before, *parameters})
            if before.get(name) != parameters.get(name)
        ]
    if earlier.get("tr_seconds") != now["tr_seconds"]:
        told.append(f"the TR was {earlier.get('tr_seconds')} s, and is {now['tr_seconds']} s")
    for role, paths in _roles(data).items():
        digests, found = earlier.get("inputs", {}).get(role, []), now["inputs"][role]
        if len(digests) != len(found):
            told.append(f"{len(digests)} files of {role} were analysed, and there are {len(found)}")
        elif digests != found:
            changed = [p for p, a, b in zip(paths, digests, found, strict=True) if a != b]
            told.append(f"{', '.join(changed)} had another content")
    return told


def name_of(analyser: Any) -> str:
    """Return an analyser's name for people, without an address in memory."""
    if dataclasses.is_dataclass(analyser):
        return repr(analyser)
    described = describe(analyser)
    parameters = ", ".join(f"{key}={value!r}" for key, value in described["parameters"].items())
    module = f"{described['module']}." if described["module"] else ""
    return f"{module}{described['name']}" + (f"({parameters})" if parameters else "")


def describe_analysis(
    data: FmriData,
    analyser: Callable[..., Any],
    identity: Identity,
    results: Sequence[tuple[ROIData, Any, str]],
) -> dict[str, Any]:
    """Describe for people how results were made."""
    return {
        "analyser": name_of(analyser),
        "bold": list(data.bold),
        "parcellation": data.parcellation,
        "events": list(data.events),
        "confounds": list(data.confounds),
        "tr_seconds": data.tr,
        "n_regions": len(results),
        "n_voxels": sum(roi.n_voxels for roi, _, _ in results),
        "n_voxels_dropped": data.n_dropped,
        "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "by": f"{user_name()}@{platform.node()}",
        "versions": {"python": platform.python_version(), "pyhrf_parallel": __version__}
        | {name: version(name) for name in _PACKAGES},
        "sha256": input_checksums(data, identity),
    }


def _roles(data: FmriData) -> dict[str, list[str]]:
    return {
        "bold": list(data.bold),
        "parcellation": [data.parcellation],
        "events": list(data.events),
        "confounds": list(data.confounds),
    }


def _checksum(path: str) -> str:
    status = Path(path).stat()
    return _checksum_of(path, status.st_size, status.st_mtime_ns, status.st_ino)


@functools.lru_cache(maxsize=256)  # several analyses of the same files
def _checksum_of(path: str, *_status: int) -> str:
    return checksum(path)
