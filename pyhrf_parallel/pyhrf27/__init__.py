"""Running XML configurations of pyhrf as treatments, by the unmodified pyhrf on Python 2.7."""

from __future__ import annotations

from pyhrf_parallel.lazy import attributes

TYPE_CHECKING = bool()  # noqa: UP018  (False, and editors do not look at what that leaves out)
if TYPE_CHECKING:
    from pyhrf_parallel.pyhrf27.pyhrf_treatment import PyhrfTreatment

__all__ = ["PyhrfTreatment"]

if not TYPE_CHECKING:  # to type checkers, any other name is an error
    __getattr__, __dir__ = attributes(__name__, {"PyhrfTreatment": "pyhrf27.pyhrf_treatment"})
