"""pyhrf itself, unmodified, on Python 2.7: its XML configurations run as treatments."""

from __future__ import annotations

from pyhrf_parallel.lazy import attributes

TYPE_CHECKING = bool()  # noqa: UP018  (False, and editors do not look at what that leaves out)
if TYPE_CHECKING:
    from pyhrf_parallel.pyhrf27.results import load_results
    from pyhrf_parallel.pyhrf27.treatment import PyhrfTreatment

__all__ = ["PyhrfTreatment", "load_results"]

if not TYPE_CHECKING:  # to type checkers, any other name is an error
    __getattr__, __dir__ = attributes(
        __name__,
        {
            "PyhrfTreatment": "pyhrf27.treatment",
            "load_results": "pyhrf27.results",
        },
    )
