"""The settings of ``~/.pyhrf/config.cfg`` that this package uses: read when asked, never written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from pyhrf_parallel.account import home
from pyhrf_parallel.amounts import READERS, read_options, read_positive
from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.pyhrf_defaults import without_defaults

#: The environment variable that names another configuration file.
ENVIRONMENT_VARIABLE = "PYHRF_PARALLEL_CONFIG"

#: What ``config=`` of the public functions takes.
ConfigSource: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, Mapping[str, Any]] | Configuration | None"
)


@dataclass(frozen=True)
class Configuration:
    """The settings, with the defaults of a machine without a configuration file.

    Attributes
    ----------
    nb_procs : int or None
        ``[parallel-local]``: simultaneous tasks, negative as in joblib; None for all CPUs. In a file that pyhrf
        has written by itself, and nobody has changed but for ``[parallel-cluster]``, its 1 does not count.
    niceness : int
        ``[parallel-local]``: scheduling priority of the processes of mode 'local', 0 (as usual) to 19
        (last).
    server : str or None
        ``[parallel-cluster]``: the cluster's login node, a name of ``~/.ssh/config`` or of the network.
        Without it (and without `server_id`) jobs run on this machine.
    server_id : str or None
        A resource of ``~/.soma-workflow.cfg`` to take address, login, scheduler and Python from.
    user : str or None
        The login; by default what ``~/.ssh/config`` says, else the name on this machine.
    port : int or None
        Of the SSH server; by default what ``~/.ssh/config`` says, else 22.
    identity_file : str or None
        A private key; by default the agent's and those of ``~/.ssh``.
    remote_path : str
        A directory that login and compute nodes share; runs get a directory of their own in it.
    remote_python : str
        The interpreter on the cluster that has this package, of the same minor version as here.
    scheduler : str
        soma-workflow's name of it: ``slurm``, ``local_basic`` (the login node itself), or one that is
        untested here (``pbspro``, ``drmaa``).
    queue : str or None
        The partition or queue; the scheduler's default by default.
    native_specification : str or None
        More options for the scheduler, as its command line takes them.
    max_jobs : int
        How many jobs share the tasks at most, where `n_jobs` does not say.
    mem, time, cpus : str, str, int or None
        What a job asks for (``4G``, ``01:00:00``, ``2``); the scheduler's defaults by default.
    setup : str or None
        Lines of shell (bash) that run before anything of this package on the login node and in each job,
        for example ``module load slurm python/3.11``.
    """

    nb_procs: int | None = None
    niceness: int = 0
    server: str | None = None
    server_id: str | None = None
    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    remote_path: str = "~"
    remote_python: str = "~/pyhrf_parallel_venv/bin/python"
    scheduler: str = "slurm"
    queue: str | None = None
    native_specification: str | None = None
    max_jobs: int = 16
    mem: str | None = None
    time: str | None = None
    cpus: int | None = None
    setup: str | None = None

    @property
    def has_cluster(self) -> bool:
        """Whether a cluster is named; without one, jobs run on this machine."""
        return bool(self.server or self.server_id)


def _integer(text: str) -> int:
    return int(text)


def _processes(text: str) -> int:
    value = int(text)
    if value == 0:
        raise ValueError
    return value


def _niceness(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 19:  # noqa: PLR2004
        raise ValueError
    return value


_INTEGER = "an integer but 0, or None for all CPUs (negative as in joblib: -1 all, -2 all but one)"
_TEXT = "a text, or None"

# section -> key -> (field of Configuration, reader, accepted values)
_SETTINGS: dict[str, dict[str, tuple[str, Callable[[str], Any], str]]] = {
    "parallel-local": {
        "nb_procs": ("nb_procs", _processes, _INTEGER),
        "niceness": ("niceness", _niceness, "an integer from 0 to 19"),
    },
    "parallel-cluster": {
        "server": ("server", str, _TEXT),
        "server_id": ("server_id", str, _TEXT),
        "user": ("user", str, _TEXT),
        "port": ("port", read_positive, "the number of a port"),
        "identity_file": ("identity_file", str, _TEXT),
        "remote_path": ("remote_path", str, _TEXT),
        "remote_python": ("remote_python", str, _TEXT),
        "scheduler": ("scheduler", str, "soma-workflow's name of a scheduler"),
        "native_specification": ("native_specification", read_options, "options, in one line"),
        "max_jobs": ("max_jobs", read_positive, "an integer from 1 on"),
        **{key: (key, *reader) for key, reader in READERS.items()},
        "setup": ("setup", str, "lines of shell"),
        # of pyhrf's own unit tests: accepted, unused
        "enable_unit_test": ("", _integer, "an integer"),
    },
}


def load_configuration(source: ConfigSource = None) -> Configuration:
    """Read the settings.

    Parameters
    ----------
    source : path, mapping or Configuration, optional
        A file, or a mapping of sections to mappings of keys; settings that were read are returned. By default the file that the
        environment variable ``PYHRF_PARALLEL_CONFIG`` names, else ``~/.pyhrf/config.cfg``; without
        such a file, the defaults.

    Returns
    -------
    Configuration

    Raises
    ------
    ConfigurationError
        For a file that cannot be read, or an unknown key or a bad value in one of this package's
        two sections. Other sections are pyhrf's and left alone.
    """
    if isinstance(source, Configuration):
        return source
    if isinstance(source, Mapping):
        return _interpret("config=", source)
    named = source if source is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    path = Path(named).expanduser() if named else default_path()
    if path is None:
        return Configuration()
    return _interpret(str(path), without_defaults(_read_file(path)))


def default_path() -> Path | None:
    """Return the path of the user's own configuration file, None if there is none."""
    try:
        path = home() / ".pyhrf" / "config.cfg"
        return path if path.exists() else None
    except (ConfigurationError, PermissionError):  # no home, or one that this account may not enter
        return None


def _read_file(path: Path) -> dict[str, dict[str, str]]:
    import configparser

    # pyhrf writes values with bare percent signs, which interpolation would refuse.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except OSError as error:
        raise ConfigurationError(
            f"The configuration file {path} cannot be read: {error.strerror or error}"
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"The configuration file {path} is not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except configparser.Error as error:
        raise ConfigurationError(f"The configuration file {path}: {error}") from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _interpret(origin: str, sections: Mapping[str, Mapping[str, Any]]) -> Configuration:
    configuration = Configuration()
    for section, settings in _SETTINGS.items():
        given = sections.get(section, {})
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"{origin}, [{section}]: expected keys and values, got {given!r}"
            )
        for key, value in given.items():
            if key not in settings:
                raise ConfigurationError(
                    f"{origin}, [{section}]: unknown key {key!r}; accepted: {', '.join(settings)}"
                )
            configuration = _set(
                configuration, f"{origin}, [{section}] {key}", settings[key], value
            )
    return configuration


def _set(
    configuration: Configuration,
    where: str,
    setting: tuple[str, Callable[[str], Any], str],
    value: object,
) -> Configuration:
    field, reader, accepted = setting
    text = str(value).strip()
    if not field or text in ("None", ""):
        return configuration
    try:
        return replace(configuration, **{field: reader(text)})
    except ValueError:
        raise ConfigurationError(f"{where}: {text!r} is not accepted; use {accepted}") from None
