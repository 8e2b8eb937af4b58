"""A port of pyhrf to Python 3, as far as its cluster mode needs one: the interface, call by call."""

from __future__ import annotations

from typing import Any

cfg: dict[str, dict[str, Any]] = {
    "parallel-cluster": {"server_id": None, "server": None, "user": None, "remote_path": None}
}
