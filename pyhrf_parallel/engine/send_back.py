"""The job that sends a result from the cluster to the machine it was submitted from, by scp.

Started as ``FILE ADDRESS PATH CHECKSUM...`` in the directory of the file. The file is whole or absent there, and
replaces nothing but a file with one of these SHA-256 checksums, or one that this run has sent before. The last
thing that is printed is the checksum of what was sent.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from pyhrf_parallel.compressing import is_to_be_compressed, packed
from pyhrf_parallel.engine.quoting import remote_command
from pyhrf_parallel.files import checksum

#: The checksums of the results that this run has sent, or was about to: one a line, beside the result.
SENT = ".sent_results"
#: Nobody can be asked, and no host is trusted that is not known.
_OPTIONS = ("-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", "ConnectTimeout=10")
#: Puts a file in its place on any machine with a POSIX shell, and prints ``sent``, ``damaged``, or ``refused`` and
#: what is there. Its arguments are the directory with the file, the target, the checksum and the size of the file,
#: and the checksums of files that may be replaced.
PLACE_SCRIPT = r"""
found=$1/result target=$2 expected=$3 size=$4
shift 4
sum() {
    if command -v sha256sum >/dev/null; then sha256sum
    elif command -v shasum >/dev/null; then shasum -a 256
    elif command -v sha256 >/dev/null; then sha256
    elif command -v openssl >/dev/null; then openssl dgst -sha256 -r
    fi <"$1" | sed 's/[^0-9a-f].*//'
}
size() { echo "$(($(wc -c <"$1")))"; }
tell() { echo "$*"; exit 0; }
is_there() { test -e "$target" || test -L "$target"; }
claim() { (set -C && : >"$1"); }

part=$target.$$.part
claim "$part" || exit 1
trap 'rm -f -- "$part"' EXIT
cat <"$found" >"$part" || exit 1
test "$(size "$part")" = "$size" || tell damaged
arrived=$(sum "$part")
test "${arrived:-$expected}" = "$expected" || tell damaged
if ! is_there; then
    ln -- "$part" "$target" 2>/dev/null && tell sent
    if ! is_there; then  # a file system without hard links
        claim "$target" || exit 1
        mv -f -- "$part" "$target" && tell sent
        rm -f -- "$target"
        exit 1
    fi
fi
test -d "$target" && tell refused a directory
test -f "$target" || tell refused not a regular file
present=$(sum "$target")
test -n "$present" || tell refused a file whose SHA-256 checksum cannot be computed there
for known; do
    if test "$known" = "$present"; then
        mv -f -- "$part" "$target" && tell sent
        exit 1
    fi
done
tell refused "a file of $(size "$target") bytes, SHA-256 $present"
"""


def login(address: str) -> list[str]:
    """Return the words after which a command for another machine goes, from `remote_command`."""
    return ["ssh", *_OPTIONS, "--", address]


def _run_there(address: str, script: str, *values: str) -> str:
    """Run a script of a POSIX shell on another machine; return the last line that it prints."""
    command = remote_command(["sh", "-c", script, "sh", *values])
    done = subprocess.run(
        [*login(address), command], stdout=subprocess.PIPE, text=True, check=True, timeout=600
    )
    return (done.stdout.splitlines() or [""])[-1].strip()


def _note(sent: str) -> list[str]:
    """Note a checksum; return those of this run: a file that has one may be replaced when the run is retried."""
    path = Path(SENT)
    known = path.read_text(encoding="ascii").split() if path.exists() else []
    if sent not in known:
        with path.open("a", encoding="ascii") as file:
            file.write(f"{sent}\n")
    return [*known, sent]


def send(file: Path, address: str, path: str, replaceable: list[str]) -> str:
    """Send a file; return why it did not get there, and an empty text if it did."""
    expected = checksum(file)
    own = _note(expected)
    # scp takes the path apart in ways that depend on its version: it gets one that has nothing to take.
    directory = _run_there(address, "mktemp -d")
    try:
        arriving = f"{address}:{directory}/result"
        argv = ["scp", "-q", *_OPTIONS, "--", os.path.relpath(file), arriving]
        subprocess.run(argv, check=True)
        values = [directory, path, expected, str(file.stat().st_size), *replaceable, *own]
        said = _run_there(address, PLACE_SCRIPT, *values)
    finally:
        _run_there(address, 'rm -rf -- "$1"', directory)
    answer, _, what = said.partition(" ")
    if answer == "refused":
        return f"{path} is {what}, and not the result of an earlier analysis: it was not replaced"
    return "" if answer == "sent" else "what arrived there is not what was sent"


def main() -> None:
    """Send the file that the command line names."""
    name, address, path, *replaceable = sys.argv[1:]
    file = Path(name)
    if is_to_be_compressed(path):
        file = Path(f"{name}.gz")
        file.write_bytes(packed(path, Path(name).read_bytes()))
    try:
        problem = send(file, address, path, replaceable)
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        sys.exit(f"The result was not sent to {address}: {problem}. It is kept: {file.absolute()}")
    print(checksum(file))  # noqa: T201  (into the log, for whoever reads the file there)


if __name__ == "__main__":
    main()
