"""Resources of ``~/.soma-workflow.cfg``: read, never written."""

from __future__ import annotations

import configparser
import os
import shlex
from dataclasses import replace
from pathlib import Path

from pyhrf_parallel.account import home
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ConfigurationError


def with_resource(settings: Configuration) -> Configuration:
    """Fill in settings that are not set from soma-workflow's resource `server_id`.

    Raises
    ------
    ConfigurationError
        If there is no such resource, or it names no server.
    """
    if not settings.server_id:
        return settings
    path = Path(os.environ.get("SOMA_WORKFLOW_CONFIG") or home() / ".soma-workflow.cfg")
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), source=str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        if settings.server:  # the resource's name is all that is missing
            return settings
        raise ConfigurationError(
            f"server_id is {settings.server_id!r}, and {path} cannot be read: {error}"
        ) from error
    if not parser.has_section(settings.server_id):
        if settings.server:
            return settings
        raise ConfigurationError(
            f"server_id is {settings.server_id!r}, and {path} has only the resources "
            f"{', '.join(parser.sections()) or '(none)'}"
        )
    return _merge(settings, parser[settings.server_id], path)


def with_server(
    settings: Configuration, server: str | None, user: str | None, server_id: str | None = None
) -> Configuration:
    """Return a configuration of another cluster, where one is named."""
    if not (server or server_id):
        return settings
    same = server in (None, settings.server)
    return replace(
        settings,
        server=server or (None if server_id else settings.server),
        server_id=server_id or (settings.server_id if same else None),
        user=user or (settings.user if same else None),
    )


def _merge(
    settings: Configuration, resource: configparser.SectionProxy, path: Path
) -> Configuration:
    server = settings.server or resource.get("SUBMITTING_MACHINES", "").split(" ")[0]
    server = server or resource.get("CLUSTER_ADDRESS", "")
    if not server:
        raise ConfigurationError(
            f"{path}, [{settings.server_id}] names no SUBMITTING_MACHINES: set server of "
            "[parallel-cluster]"
        )
    default = Configuration()
    python = settings.remote_python
    if python == default.remote_python and resource.get("PYTHON_COMMAND"):
        # Its words may set variables for soma-workflow's own launcher before the interpreter.
        words = [w for w in shlex.split(resource["PYTHON_COMMAND"]) if "=" not in w]
        python = words[0] if words else python
    scheduler = settings.scheduler
    if scheduler == default.scheduler:
        scheduler = resource.get("SCHEDULER_TYPE", scheduler)
    return replace(
        settings,
        server=server,
        user=settings.user or resource.get("LOGIN"),
        remote_python=python,
        scheduler=scheduler,
    )
