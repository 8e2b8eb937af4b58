"""Recognise the ``~/.pyhrf/config.cfg`` that pyhrf 0.5 writes when it is imported: nobody chose its values."""

from __future__ import annotations

from collections.abc import Mapping

_LOCAL, _CLUSTER, _HOSTS = "parallel-local", "parallel-cluster", "hosts"
_DEFAULTS = {
    "global": {
        "verbosity": "0",
        "use_mode": "end_user",
        "tmp_prefix": "pyhrftmp",
        "tmp_path": "/tmp/",  # noqa: S108  (compared with, not used)
        "spm_path": "None",
        "write_texture_minf": "False",
        "numpy_floating_point_error": "warn",
    },
    "log": {"level": "WARNING", "log_to_file": "False"},
    "parallel-LAN": {
        "user": "None",
        "remote_host": "None",
        _HOSTS: "hosts_LAN",  # in the directory of the file
        "remote_path": "None",
        "niceness": "10",
        "enable_unit_test": "0",
    },
    _LOCAL: {"niceness": "10", "nb_procs": "1"},
    "treatment-default": {"save_result_dump": "0"},
}


def without_defaults(sections: Mapping[str, Mapping[str, str]]) -> dict[str, Mapping[str, str]]:
    """Return the sections of a file, without ``[parallel-local]`` if its values are pyhrf's and not the user's.

    They are if the whole file is as pyhrf writes it, but for ``[parallel-cluster]``: a user who sets up a
    cluster does not thereby ask for a single process here.
    """
    others = {name: keys for name, keys in sections.items() if name != _CLUSTER}
    written_by_pyhrf = others.keys() == _DEFAULTS.keys() and all(
        dict(keys) | {key: _base(keys[key]) for key in keys if key == _HOSTS} == _DEFAULTS[name]
        for name, keys in others.items()
    )
    return {
        name: keys for name, keys in sections.items() if not (written_by_pyhrf and name == _LOCAL)
    }


def _base(path: str) -> str:
    return path.rpartition("/")[2]
