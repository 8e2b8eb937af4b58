"""The job that brings a result from the cluster to the machine it was submitted from, by scp.

Started as ``FILE ADDRESS PATH``. The file is whole or absent there, and compared with the one here. The last
thing that is printed is its SHA-256.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pyhrf_parallel.compressing import is_to_be_compressed, packed
from pyhrf_parallel.engine.quoting import remote_command
from pyhrf_parallel.files import checksum

#: Nobody can be asked, and no host is trusted that is not known.
_OPTIONS = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10")


def login(address: str) -> list[str]:
    """Return the words after which a command for another machine goes, from `remote_command`."""
    return ["ssh", *_OPTIONS, "--", address]


def _there(address: str, script: str, *values: str) -> str:
    command = remote_command(["sh", "-c", script, "sh", *values])
    done = subprocess.run(
        [*login(address), command], stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return done.stdout.strip()


def main() -> None:
    """Send the file."""
    file, address, path = sys.argv[1:]
    if is_to_be_compressed(path):
        compressed = Path(f"{file}.gz")
        compressed.write_bytes(packed(path, Path(file).read_bytes()))
        file = str(compressed)
    # scp takes the path apart in ways that depend on its version: it gets one that has nothing to take.
    directory = _there(address, "mktemp -d")
    try:
        target = f"{address}:{directory}/result"
        argv = ["scp", "-q", *_OPTIONS, "--", os.path.relpath(file), target]
        subprocess.run(argv, check=True)
        script = (
            'part=$2.$$.part && trap \'rm -f -- "$part"\' EXIT && cp -- "$1/result" "$part" && '
            'printf "%s  %s\\n" "$3" "$1/result" | sha256sum --check --status && mv -f -- "$part" "$2"'
        )
        expected = checksum(file)
        _there(address, script, directory, path, expected)
        print(expected)  # noqa: T201  (into the log, for whoever reads the file there)
    finally:
        _there(address, 'rm -rf -- "$1"', directory)


if __name__ == "__main__":
    main()
