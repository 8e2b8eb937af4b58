"""Files of a cluster, over SFTP: many requests at a time, and errors that say what to do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import paramiko

from pyhrf_parallel.errors import ClusterError, ConfigurationError, TransferError
from pyhrf_parallel.places import Files, Status, check_place
from pyhrf_parallel.progress import ProgressOption, counting_bytes

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster

#: Errors of the connection, and not of a file.
LOST = (ClusterError, paramiko.SSHException, EOFError, ConnectionError, TimeoutError)
_REQUEST = 1 << 15  # bytes, the most that every server has to answer with
_WINDOW = 128  # requests at a time; their answers are in memory a second time
_ASKING = "_prefetch_thread"  # of a paramiko file: what its thread runs

T = TypeVar("T")


class SFTPFiles(Files):
    """The files of a cluster, as its account sees them.

    Parameters
    ----------
    cluster : Cluster
        The cluster. Everything but sending is repeated if the connection is lost.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._account: int | None = None

    @property
    def _sftp(self) -> paramiko.SFTPClient:
        return self._cluster.connection.sftp

    # ---- who may write to them ----------------------------------------------------------------

    def account(self) -> int:
        """Return the number of the account."""
        if self._account is None:
            home = self._sftp.stat(self._cluster.path("~")).st_uid
            self._account = home or int(self._cluster.connection.run(["id", "-u"]).out.split()[-1])
        return self._account

    def check(self, directory: str) -> None:
        """Refuse a directory in which others could have put something; see `check_place`."""

        def look() -> None:
            with suppress(FileNotFoundError):  # reported when something is read
                check_place(directory, files=self)

        self._persistently(directory, look)

    def status(self, path: str) -> Status:
        """Return the status of a file, or of a link itself."""
        status = self._sftp.lstat(path)
        return Status(status.st_mode or 0, status.st_uid, status.st_gid)

    def target(self, path: str) -> str:
        """Return the target of a link."""
        return self._sftp.readlink(path) or ""

    def is_nobody(self, uid: int | None) -> bool:
        """Return whether an owner is unknown."""
        del uid
        return False

    def is_own_group(self, gid: int | None, uid: int | None) -> bool:
        """Return whether a group is its owner's alone, by its number: names are not known here."""
        return gid == uid

    # ---- what is in them ----------------------------------------------------------------------

    def sizes(self, directory: str) -> dict[str, int]:
        """Return the sizes in bytes of the files of a directory, by their names."""

        def look() -> dict[str, int]:
            return {a.filename: a.st_size or 0 for a in self._sftp.listdir_attr(directory)}

        return self._persistently(directory, look)

    def pieces(self, path: str, position: int = 0) -> Iterator[bytes]:
        """Yield the content of a file from a position on, piece by piece."""
        opened: tuple[paramiko.SFTPClient, paramiko.SFTPFile, int] | None = None

        def fetch() -> bytes:
            nonlocal opened
            sftp = self._sftp
            if opened is None or opened[0] is not sftp:  # also after connecting again
                file = _quiet(sftp.open(path, "rb"))
                opened = sftp, file, file.stat().st_size or 0
            _, file, size = opened
            end = min(size, position + _WINDOW * _REQUEST)
            starts = range(position, end, _REQUEST)
            return b"".join(file.readv([(at, min(_REQUEST, end - at)) for at in starts]))

        try:
            while piece := self._persistently(path, fetch):
                yield piece
                position += len(piece)
        finally:
            if opened is not None and self._cluster.connection.is_alive:
                with suppress(OSError, *LOST):
                    opened[1].close()

    def get(self, path: str, target: Path, progress: ProgressOption = None) -> None:
        """Fetch a file."""
        size = self._persistently(path, lambda: self._sftp.stat(path).st_size or 0)
        with target.open("xb") as file, counting_bytes(progress, size, target.name) as tell:
            for piece in self.pieces(path):
                file.write(piece)
                tell(len(piece))

    def put(self, path: Path, target: str, name: str = "") -> None:
        """Send a file, called `name` in errors. It appears there only when complete.

        Raises
        ------
        TransferError
            If it did not get there, or there is one of that name.
        """
        size = path.stat().st_size
        with self.telling(f"{name or path} ({size / 1e6:.1f} MB) did not get to", target):
            with suppress(FileNotFoundError):
                self._sftp.lstat(target)
                raise FileExistsError("a file of that name is there already")

            def send() -> None:
                self._sftp.put(str(path), f"{target}.part")
                self._sftp.posix_rename(f"{target}.part", target)

            self._cluster.persistently(send)

    def write(self, target: str, content: bytes) -> None:
        """Write a small file."""

        def write() -> None:
            with self._sftp.open(target, "wb") as file:
                file.write(content)

        with self.telling("nothing can be written to", target):
            self._cluster.persistently(write)

    # ---- what goes wrong ----------------------------------------------------------------------

    def _persistently(self, path: str, action: Callable[[], T]) -> T:
        """Read something, again if the connection is lost."""
        with self.telling("nothing can be read of", path, FileNotFoundError, ConfigurationError):
            return self._cluster.persistently(action)

    @contextmanager
    def telling(self, what: str, path: str, *expected: type[Exception]) -> Iterator[None]:
        """Explain errors, as servers just say "Failure" for most: which file, where, what to do."""
        host = str(self._cluster.address)
        try:
            yield
        except expected:
            raise
        except LOST as error:
            if isinstance(error, ClusterError):
                raise
            raise ClusterError(
                f"The connection to {host} was lost: {error or type(error).__name__}",
                transient=True,
            ) from error
        except OSError as error:
            raise TransferError(
                f"{what} {host}, {path}: {error or type(error).__name__}{advice(error, path)}",
                path=path, host=host, reason=str(error),
            ) from error  # fmt: skip


def _quiet(file: paramiko.SFTPFile) -> paramiko.SFTPFile:
    """Prevent the thread that sends requests from printing a traceback if the connection is lost."""
    ask: Callable[..., None] = getattr(file, _ASKING, lambda *_: None)

    def ask_quietly(*arguments: object) -> None:
        with suppress(OSError, *LOST):  # reported when the answers are read
            ask(*arguments)

    setattr(file, _ASKING, ask_quietly)
    return file


def advice(error: OSError, path: str) -> str:
    """Return what to look at on the cluster; empty if the error says what is wrong."""
    if error.errno is not None or isinstance(error, FileExistsError):
        return ""
    place = shlex.quote(str(PurePosixPath(path).parent))
    return (
        " (is there no space left, no inode, or a quota reached? Ask there: "
        f"df -h {place}; df -i {place}; quota -s)"
    )
