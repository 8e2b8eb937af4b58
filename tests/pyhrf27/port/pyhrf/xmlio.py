"""Treatments as text, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyhrf.ui.treatment import FMRITreatment


def to_xml(treatment: FMRITreatment, label: str = "anonym") -> str:
    return f"<{label}>{json.dumps(treatment._init_parameters)}</{label}>"


def from_xml(text: str) -> FMRITreatment:
    from pyhrf.ui.treatment import FMRITreatment

    return FMRITreatment(**json.loads(text[text.index(">") + 1 : text.rindex("<")]))
