"""The settings of ``~/.pyhrf/config.cfg`` that this package uses; the file is read at each call and never written."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from pyhrf_parallel.account import home
from pyhrf_parallel.amounts import READERS, read_options, read_positive
from pyhrf_parallel.errors import ConfigurationError
from pyhrf_parallel.pyhrf_defaults import without_defaults

#: The environment variable that names another configuration file.
ENVIRONMENT_VARIABLE = "PYHRF_PARALLEL_CONFIG"

#: The values that ``config=`` of the public functions accepts.
ConfigSource: TypeAlias = (
    "str | os.PathLike[str] | Mapping[str, Mapping[str, Any]] | Configuration | None"
)


def _setting(
    section: str,
    default: object,
    read: Callable[[str], object],
    accepted: str,
    *,
    of_one_cluster: bool = True,
) -> Any:
    """Return the field of a setting: its section, what reads its text, and the text that is accepted."""
    return field(
        default=default,
        metadata={
            "section": section,
            "read": read,
            "accepted": accepted,
            "of_one_cluster": of_one_cluster,
        },
    )


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


_local = partial(_setting, "parallel-local", of_one_cluster=False)
_cluster = partial(_setting, "parallel-cluster")
_INTEGER = "an integer but 0, or None for all CPUs (negative as in joblib: -1 all, -2 all but one)"
_TEXT = "a text, or None"


@dataclass(frozen=True)
class Configuration:
    """The settings, with the defaults of a machine without a configuration file.

    Attributes
    ----------
    nb_procs : int or None
        ``[parallel-local]``: simultaneous tasks, negative as in joblib; None for all CPUs. The 1 in a file
        that pyhrf wrote, and in which only ``[parallel-cluster]`` was edited, is ignored.
    niceness : int
        ``[parallel-local]``: scheduling priority of the processes of mode 'local', 0 (as usual) to 19
        (last).
    server : str or None
        ``[parallel-cluster]``: the cluster's login node, a name of ``~/.ssh/config`` or of the network.
        Without it (and without `server_id`) jobs run on this machine.
    server_id : str or None
        A resource of ``~/.soma-workflow.cfg`` to take address, login, scheduler and Python from.
    user : str or None
        The login; by default that of ``~/.ssh/config``, else the name on this machine.
    port : int or None
        The port of the SSH server; by default that of ``~/.ssh/config``, else 22.
    identity_file : str or None
        A private key; by default the agent's and those of ``~/.ssh``.
    remote_path : str
        A directory that login and compute nodes share; each run gets a directory of its own in it.
    remote_python : str
        The interpreter on the cluster that has this package, of the same minor version as here.
    scheduler : str
        soma-workflow's name for the scheduler: ``slurm``, ``local_basic`` (the login node itself), or one
        that is untested here (``pbspro``, ``drmaa``).
    queue : str or None
        The partition or queue; the scheduler's default by default.
    native_specification : str or None
        More options for the scheduler, as on its command line.
    max_jobs : int
        How many jobs share the tasks at most, if `n_jobs` is not given.
    mem, time, cpus : str, str, int or None
        What a job asks for (``4G``, ``01:00:00``, ``2``); the scheduler's defaults by default.
    setup : str or None
        Lines of shell (bash) that run before anything of this package on the login node and in each job,
        for example ``module load slurm python/3.11``.
    """

    nb_procs: int | None = _local(None, _processes, _INTEGER)
    niceness: int = _local(0, _niceness, "an integer from 0 to 19")
    server: str | None = _cluster(None, str, _TEXT)
    server_id: str | None = _cluster(None, str, _TEXT)
    user: str | None = _cluster(None, str, _TEXT)
    port: int | None = _cluster(None, read_positive, "the number of a port")
    identity_file: str | None = _cluster(None, str, _TEXT)
    remote_path: str = _cluster("~", str, _TEXT)
    remote_python: str = _cluster("~/pyhrf_parallel_venv/bin/python", str, _TEXT)
    scheduler: str = _cluster("slurm", str, "soma-workflow's name of a scheduler")
    queue: str | None = _cluster(None, *READERS["queue"])
    native_specification: str | None = _cluster(None, read_options, "options, in one line")
    max_jobs: int = _cluster(16, read_positive, "an integer from 1 on", of_one_cluster=False)
    mem: str | None = _cluster(None, *READERS["mem"], of_one_cluster=False)
    time: str | None = _cluster(None, *READERS["time"], of_one_cluster=False)
    cpus: int | None = _cluster(None, *READERS["cpus"], of_one_cluster=False)
    setup: str | None = _cluster(None, str, "lines of shell")

    @property
    def has_cluster(self) -> bool:
        """Whether a cluster is named; without one, jobs run on this machine."""
        return bool(self.server or self.server_id)


#: The sections that are read, with the keys of pyhrf's that are accepted there and not used.
SECTIONS: dict[str, tuple[str, ...]] = {
    "parallel-local": (),
    "parallel-cluster": ("enable_unit_test",),
}


def settings_of(section: str) -> dict[str, Mapping[str, Any]]:
    """Return the settings of a section by their keys, each with the metadata of its field."""
    return {f.name: f.metadata for f in fields(Configuration) if f.metadata["section"] == section}


def load_configuration(source: ConfigSource = None) -> Configuration:
    """Read the settings.

    Parameters
    ----------
    source : path, mapping or Configuration, optional
        A file, a mapping of sections to mappings of keys, or settings that have been read. By default
        the file that the environment variable ``PYHRF_PARALLEL_CONFIG`` names, else
        ``~/.pyhrf/config.cfg``; without such a file, the defaults.

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
    values: dict[str, Any] = {}
    for section, unused in SECTIONS.items():
        given = sections.get(section, {})
        if not isinstance(given, Mapping):
            raise ConfigurationError(
                f"{origin}, [{section}]: expected keys and values, got {given!r}"
            )
        settings = settings_of(section)
        for key, value in given.items():
            if key in settings:
                values |= _read(f"{origin}, [{section}] {key}", key, settings[key], value)
            elif key not in unused:
                raise ConfigurationError(
                    f"{origin}, [{section}]: unknown key {key!r}; accepted: {', '.join(settings)}"
                )
    return Configuration(**values)


def _read(where: str, key: str, setting: Mapping[str, Any], value: object) -> dict[str, Any]:
    """Return the value of a setting by its key; nothing if the text stands for the default."""
    text = str(value).strip()
    if text in ("None", ""):
        return {}
    try:
        return {key: setting["read"](text)}
    except ValueError:
        raise ConfigurationError(
            f"{where}: {text!r} is not accepted; use {setting['accepted']}"
        ) from None
