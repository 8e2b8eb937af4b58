"""pyhrf itself, unmodified, on Python 2.7: its XML configurations run as treatments."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyhrf_parallel.pyhrf27.results import load_results
    from pyhrf_parallel.pyhrf27.treatment import PyhrfTreatment

__all__ = ["PyhrfTreatment", "load_results"]

_HOMES = {"PyhrfTreatment": "treatment", "load_results": "results"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
