"""Checks that nobody else can write to a place: pickles are loaded from such places only.

Whoever may write to a directory can replace the files in it, whoever owns them. So each directory and link on
the way must be safe, up to a directory that nobody else may enter.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pyhrf_parallel.errors import ConfigurationError

_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_ENTER = stat.S_IXGRP | stat.S_IXOTH
_LINKS = 40  # as many as the kernel follows


class Status(NamedTuple):
    """The part of a file's status that counts here."""

    mode: int
    uid: int | None
    gid: int | None


class Files:
    """The files of this machine, as this account sees them."""

    def account(self) -> int:
        """Return the number of the account."""
        return os.getuid()

    def status(self, path: str) -> Status:
        """Return the status of a file, or of a link itself."""
        status = os.lstat(path)
        return Status(status.st_mode, status.st_uid, status.st_gid)

    def target(self, path: str) -> str:
        """Return the target of a link."""
        return os.readlink(path)  # noqa: PTH115  (text)

    def is_nobody(self, uid: int | None) -> bool:
        """Whether an owner is unknown in this container: mostly the host's root."""
        try:
            overflow = int(Path("/proc/sys/fs/overflowuid").read_text())
            known = Path("/proc/self/uid_map").read_text().split()
        except (OSError, ValueError):
            return False
        return uid == overflow and known != ["0", "0", str(2**32 - 1)]

    def is_own_group(self, gid: int | None, uid: int | None) -> bool:
        """Whether a group has its owner as the only member: many systems give one to each user."""
        import grp
        import pwd

        try:
            group, name = grp.getgrgid(gid or 0), pwd.getpwuid(uid or 0).pw_name
        except KeyError:
            return False
        is_named_so = group.gr_name == name and {*group.gr_mem} <= {name}
        return is_named_so and {e.pw_uid for e in pwd.getpwall() if e.pw_gid == gid} <= {uid}


def check_place(path: str | os.PathLike[str], advice: str = "", files: Files | None = None) -> None:
    """Refuse a file or directory that other users could replace or change (root excepted).

    Parameters
    ----------
    path : path
        What is to be read or written.
    advice : str
        Another remedy than changing the modes on the way, ``'set TMPDIR'``.
    files : Files, optional
        Where it is, if not on this machine; the path has to be absolute then.

    Raises
    ------
    ConfigurationError
        Naming the places on the way, and saying what to do.
    OSError
        If there is no such place.
    """
    files = files or Files()
    account = files.account()
    loose = []
    for step in _way(str(Path(path).absolute()), files):
        place, uid = step.path, step.status.uid
        if uid not in (account, 0) and (step.is_shared or not files.is_nobody(uid)):
            raise ConfigurationError(
                f"{place} belongs to another user ({uid}), who could replace what is in {path}"
                f"{_also(advice)}"
            )
        if step.is_reachable and _is_loose(step.status, files):
            loose.append((place, uid))
    if loose:
        raise ConfigurationError(_explain(str(path), loose, account, advice))


class _Step(NamedTuple):
    """A file, link or directory on the way, and whether others can put something beside it, or get to it."""

    path: str
    status: Status
    is_shared: bool
    is_reachable: bool


def _way(path: str, files: Files) -> Iterator[_Step]:
    """Walk to a file as the kernel does, through all links."""
    place, rest = Path("/"), [*reversed(Path(path).parts)]
    modes: dict[Path, int] = {}
    links = 0
    while rest:
        step = place / rest.pop()  # a part "/" begins again
        if step.name == "..":
            place = place.parent
            continue
        status = files.status(str(step))
        directories = [parent for parent in step.parents if parent in modes]
        closed = any(not modes[parent] & _ENTER for parent in directories)
        is_shared = step != place and bool(modes.get(place, 0) & _OTHERS)
        yield _Step(str(step), status, is_shared, not closed)
        modes[step] = status.mode
        if not stat.S_ISLNK(modes[step]):
            place = step
            continue
        links += 1
        if links > _LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        rest += reversed(Path(files.target(str(step))).parts)


def _is_loose(status: Status, files: Files) -> bool:
    """Whether others than the owner may replace something in a directory, or change a file."""
    mode = status.mode
    if stat.S_ISLNK(mode) or not mode & _OTHERS:
        return False
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return False  # they may add files, and cannot touch those of others
    return bool(mode & stat.S_IWOTH) or not files.is_own_group(status.gid, status.uid)


def _explain(path: str, loose: Sequence[tuple[str, int | None]], account: int, advice: str) -> str:
    ours = [place for place, uid in loose if uid == account]
    told = f"others than this account may write to {' and '.join(place for place, _ in loose)}"
    if path != loose[-1][0]:
        told += f", and so replace {path}"
    if len(ours) == len(loose):
        return (
            f"{told}; look whether all that is there is yours, and then: "
            f"chmod go-w {shlex.join(ours)}{_also(advice)}"
        )
    return f"{told}{_also(advice)}"


def _also(advice: str) -> str:
    return f"; {advice}" if advice else ""


def make_private(directory: Path, advice: str = "") -> None:
    """Make a directory and its missing parents with mode 0700; see `check_place`.

    An existing directory is left as it is.
    """
    there = directory.absolute()
    missing = []
    while not os.path.lexists(there):
        missing.append(there)
        there = there.parent
    check_place(there, advice)
    for place in reversed(missing):
        place.mkdir(mode=0o700, exist_ok=True)
    check_place(directory, advice)
