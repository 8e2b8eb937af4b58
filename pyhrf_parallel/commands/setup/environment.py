"""The Python environment on the cluster: planning and making it."""

from __future__ import annotations

import io
import json
import posixpath
import secrets
import shlex
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pyhrf_parallel.commands.setup.identity import PACKAGES, differences, identity
from pyhrf_parallel.commands.setup.interpreters import (
    MINOR,
    Interpreter,
    find_base,
    last_line,
    probe,
)
from pyhrf_parallel.commands.setup.wheels import collect_wheels, pip_wheel
from pyhrf_parallel.errors import ClusterError

if TYPE_CHECKING:
    from pyhrf_parallel.runs.cluster import Cluster

_PATIENCE = 600  # seconds without a word: making an environment on a slow file system
_IDENTITY = "pyhrf_parallel.commands.setup.identity"


@dataclass(frozen=True)
class SetupAction:
    """Something to do on the cluster.

    Attributes
    ----------
    place : str
        Where.
    text : str
        What it does, for a person.
    action : callable
        Does it.
    """

    place: str
    text: str
    action: Callable[[], None]


def identity_there(cluster: Cluster, python: str) -> dict[str, str]:
    """Return what the environment of an interpreter on the cluster holds; empty if it lacks this package.

    Parameters
    ----------
    cluster : Cluster
        Where.
    python : str
        The interpreter.
    """
    done = cluster.connection.run([cluster.path(python), "-P", "-m", _IDENTITY])
    with suppress(ValueError):
        found: dict[str, str] = json.loads(last_line(done.out.decode(errors="replace")))
        return found
    return {}


class Environment:
    """The Python environment of runs on the cluster.

    Parameters
    ----------
    cluster : Cluster
        The cluster; its settings have the `remote_python` to make.
    base_python : str, optional
        The interpreter to make it with.
    online : bool
        Whether pip on the cluster may use its package index.
    packages : sequence of str
        Further packages to install, as pip takes them.
    """

    def __init__(
        self,
        cluster: Cluster,
        base_python: str | None,
        *,
        online: bool = False,
        packages: Sequence[str] = (),
    ) -> None:
        self._cluster = cluster
        self._base = base_python
        self._online = online or bool(packages)
        self._packages = packages
        self._python = cluster.settings.remote_python
        # In the home: /tmp may be small, or forbid to run things.
        self._box = cluster.path(f"~/.pyhrf_parallel_setup_{secrets.token_hex(4)}")

    def actions(self) -> list[SetupAction]:
        """Return the actions that are needed.

        Raises
        ------
        ClusterError
            If the environment cannot be made.
        """
        found = probe(self._cluster, self._python)
        if not found.version:
            return [self._making(), *self._installing(there={})]
        if not found.fits:
            raise ClusterError(
                f"{self._python} on {self._host} is Python {found.version}, and here runs {MINOR}: choose "
                f"another place, for example --remote-python ~/pyhrf_parallel_venv_{MINOR}/bin/python"
            )
        self._check_base(found)
        there = identity_there(self._cluster, self._python)
        if there.items() >= (identity() | {"python": found.version}).items() and not self._packages:
            return []
        if not found.is_environment:
            raise ClusterError(
                f"{self._python} on {self._host} belongs to the system, and nothing is installed there: "
                "leave --remote-python out, or name an interpreter in an environment of your own"
            )
        return self._installing(there)

    def _check_base(self, found: Interpreter) -> None:
        """Refuse a base interpreter that is not the one the environment was made with."""
        if self._base is None:
            return
        wanted = probe(self._cluster, self._base)
        if (wanted.base, wanted.version) != (found.base, found.version):
            raise ClusterError(
                f"{self._python} on {self._host} is there already, of the Python {found.version} in {found.base}, "
                f"and --base-python is {wanted}. Leave that out, remove the environment, or make another one "
                "with --remote-python ~/other_environment/bin/python"
            )

    @property
    def _host(self) -> str:
        return str(self._cluster.address)

    @property
    def _place(self) -> str:
        """The directory of the virtual environment."""
        directory, name = posixpath.split(self._cluster.path(self._python))
        if posixpath.basename(directory) != "bin" or not name.startswith("python"):
            raise ClusterError(
                f"--remote-python has to be .../bin/python, in an environment that exists or can be "
                f"made: {self._python!r}"
            )
        return posixpath.dirname(directory)

    def _making(self) -> SetupAction:
        listing = self._list(self._place)
        if listing and "pyvenv.cfg" not in listing:
            raise ClusterError(
                f"{self._place} on {self._host} exists and is no virtual environment: name another place "
                "with --remote-python"
            )
        base = self._cluster.path(find_base(self._cluster, self._base))
        # One whose interpreter does not run any more is made anew. Pip comes later: many systems lack the
        # package that brings it.
        options = ["--without-pip", *(["--clear"] if listing else [])]
        return self._running([base, "-m", "venv", *options, self._place])

    def _list(self, directory: str) -> list[str]:
        try:
            return self._cluster.connection.sftp.listdir(directory)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ClusterError(f"{directory} on {self._host}: {error}") from error

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return collect_wheels() | dict([pip_wheel()])

    def _installing(self, there: dict[str, str]) -> list[SetupAction]:
        versions = identity()
        ours = f"{self._box}/{next(iter(self._files))}"
        wanted = [ours, *(f"{name}=={versions[name]}" for name in PACKAGES), "pip"]
        actions = [self._sending(), self._running([*self._pip(), *wanted, *self._packages])]
        if there.get("pyhrf_parallel") == versions["pyhrf_parallel"]:
            # The same version with other sources: it is not released yet.
            forced = ["--no-deps", "--force-reinstall", ours]
            actions.append(self._running([*self._pip(), *forced]))
        question = " ".join([self._short(self._cluster.path(self._python)), "-m", _IDENTITY])
        return [*actions, SetupAction(self._host, question, self._check)]

    def _sending(self) -> SetupAction:
        size = sum(map(len, self._files.values())) / 1e6
        names = ", ".join(" ".join(name.split("-")[:2]) for name in self._files)
        text = f"send wheels ({size:.1f} MB) to {self._short(self._box)}: {names}"
        return SetupAction(self._host, text, self._send)

    def _pip(self) -> list[str]:
        """Return the command that installs the wheels that were sent, with the pip among them."""
        return [
            self._cluster.path(self._python),
            f"{self._box}/{list(self._files)[-1]}/pip",
            *([] if self._online else ["--isolated"]),
            "install",
            "--quiet",
            "--no-input",
            "--no-warn-script-location",
            "--disable-pip-version-check",
            *([] if self._online else ["--no-index"]),
            f"--find-links={self._box}",
        ]

    def _running(self, argv: list[str]) -> SetupAction:
        return SetupAction(self._host, " ".join(map(self._short, argv)), lambda: self._run(argv))

    def _short(self, word: str) -> str:
        """Return a word of a command as a person would type it."""
        name, sign, path = word.rpartition("=") if word.startswith("--") else ("", "", word)
        home = self._cluster.path("~/")
        return (
            f"{name}{sign}~/{shlex.quote(path.removeprefix(home))}"
            if path.startswith(home)
            else shlex.quote(word)
        )

    def _run(self, argv: list[str]) -> None:
        done = self._cluster.connection.run(argv, timeout=_PATIENCE)
        if done.status:
            said = (done.out.decode(errors="replace") + done.err).strip().splitlines()[-15:]
            what = f"On {self._host} this ended with status {done.status}:"
            raise ClusterError("\n".join([what, " ".join(map(self._short, argv)), *said]))

    def _send(self) -> None:
        from pyhrf_parallel.runs.sftp import SFTPFiles

        sftp, files = self._cluster.connection.sftp, SFTPFiles(self._cluster)
        with files.telling("packages did not get to", self._box):
            sftp.mkdir(self._box, 0o700)
        for name, content in self._files.items():
            path = f"{self._box}/{name}"
            with files.telling("a package did not get to", path):
                sftp.putfo(io.BytesIO(content), path)

    def clear(self) -> None:
        """Remove the wheels that were sent."""
        sftp = self._cluster.connection.sftp
        with suppress(Exception):  # also after an error, which is the one to be seen
            for name in sftp.listdir(self._box):
                sftp.remove(f"{self._box}/{name}")
            sftp.rmdir(self._box)

    def verify(self) -> dict[str, str]:
        """Return what the environment holds.

        Raises
        ------
        ClusterError
            If something that is needed is missing.
        """
        there = identity_there(self._cluster, self._python)
        wrong = differences(identity(), there)
        if wrong:
            raise ClusterError(
                f"{self._python} on {self._host} does not work: {'; '.join(wrong)}. Look at it with: "
                f"ssh {self._cluster.address.alias} {shlex.quote(self._python)} -m {_IDENTITY}"
            )
        return there

    def _check(self) -> None:
        self.verify()
