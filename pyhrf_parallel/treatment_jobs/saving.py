"""Writing a treatment for machines that know it by a file only."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from pyhrf_parallel.errors import NotShippableError
from pyhrf_parallel.files import write_then_rename
from pyhrf_parallel.treatment_jobs.treatment import WritesItself


def save_treatment(t: Any, f: str | os.PathLike[str]) -> None:
    """Write a treatment as XML, which the command of the estimation reads.

    Parameters
    ----------
    t : Treatment
        One that knows how to write itself (`to_xml`), as `ROITreatment` does; or one of pyhrf's, in a
        process that has pyhrf.
    f : path
        The file; replaced if there is one.

    Raises
    ------
    NotShippableError
        If it cannot be written, before a file is touched.
    """
    write_then_rename(Path(f), to_text(t).encode())


def to_text(t: Any) -> str:
    """Return what `save_treatment` writes.

    Raises
    ------
    NotShippableError
        If the treatment cannot be written.
    """
    if isinstance(t, WritesItself):
        return t.to_xml()
    xmlio = sys.modules.get("pyhrf.xmlio")
    if type(t).__module__.startswith("pyhrf.") and xmlio is not None:
        text: str = xmlio.to_xml(t, "fMRI_treatment")
        return text
    raise NotShippableError(
        f"a {type(t).__name__} cannot be written: it has no method to_xml() that returns a text"
    )
