"""Treatments for machines that know them by a file only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pyhrf_parallel.errors import NotShippableError
from pyhrf_parallel.files import write_then_rename


def save_treatment(t: Any, f: str | os.PathLike[str]) -> None:
    """Write a treatment as XML, which the command of the estimation reads.

    Parameters
    ----------
    t : Treatment
        One that knows how to write itself (`to_xml`), as `ROITreatment` does.
    f : path
        The file; replaced if there is one.

    Raises
    ------
    NotShippableError
        If it does not know, before a file is touched.
    """
    if not callable(getattr(t, "to_xml", None)):
        raise NotShippableError(
            f"a {type(t).__name__} cannot be written: it has no method to_xml() that returns a text"
        )
    write_then_rename(Path(f), t.to_xml().encode())
