"""Treatments as XML, for commands on another machine. Reading it imports the analyser and executes nothing else."""

from __future__ import annotations

import dataclasses
import importlib
import json
import operator
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from pyhrf_parallel.errors import NotShippableError, TreatmentDataError
from pyhrf_parallel.treatments.fmri_data import FmriData
from pyhrf_parallel.treatments.region_analysis import OUR_ANALYSERS

_ROOT = "roi_treatment"
_ANALYSERS = ("GLMAnalyser", "FIRAnalyser")


def to_xml(parameters: Mapping[str, Any]) -> str:
    """Write a treatment: the arguments of its constructor.

    Raises
    ------
    NotShippableError
        If its analyser is neither one of ours nor a function of a module.
    """
    root = ET.Element(_ROOT)
    values = dict(parameters)
    data = values.pop("fmri_data")
    values["analyser"] = _describe(values["analyser"])
    for name, value in (dataclasses.asdict(data) | values).items():
        ET.SubElement(root, name).text = json.dumps(value)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode") + "\n"


def from_xml(text: str) -> dict[str, Any]:
    """Read what `to_xml` has written: the arguments of a treatment's constructor.

    Raises
    ------
    TreatmentDataError
        If it is anything else.
    """
    if "<!" in text:  # nothing of ours, and what expands without end is written so
        raise TreatmentDataError("the XML of a treatment has no declarations")
    try:
        root = ET.fromstring(text)  # noqa: S314  (without declarations there are no entities)
        if root.tag != _ROOT:
            raise TreatmentDataError(f"<{root.tag}> is not <{_ROOT}>")
        values = {element.tag: json.loads(element.text or "") for element in root}
        data = FmriData(
            tuple(values.pop("bold")), values.pop("parcellation"), tuple(values.pop("events")),
            values.pop("tr"), tuple(values.pop("confounds")), tuple(values.pop("regions")),
            values.pop("mesh"),
        )  # fmt: skip
        return values | {"fmri_data": data, "analyser": _find(values["analyser"])}
    except (ET.ParseError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, TreatmentDataError):
            raise
        raise TreatmentDataError(f"the XML of the treatment is damaged: {error}") from error


def _describe(analyser: Any) -> dict[str, Any] | None:
    if analyser is None:
        return None
    kind = type(analyser).__name__
    if type(analyser).__module__ == OUR_ANALYSERS and kind in _ANALYSERS:
        return {"name": kind, "parameters": dataclasses.asdict(analyser)}
    module, name = getattr(analyser, "__module__", ""), getattr(analyser, "__qualname__", "")
    described = {"module": module, "function": name}
    if module != "__main__" and "<" not in name and name and _find(described) is analyser:
        return described
    raise NotShippableError(
        f"the analyser {analyser!r} cannot be written to a file: take a function of a module"
    )


def _find(described: dict[str, Any] | None) -> Any:
    if described is None:
        return None
    if described.get("name") in _ANALYSERS:
        kind = getattr(importlib.import_module(OUR_ANALYSERS), described["name"])
        return kind(**described["parameters"])
    try:
        module = importlib.import_module(described["module"])
        return operator.attrgetter(described["function"])(module)
    except (ImportError, AttributeError) as error:
        raise TreatmentDataError(f"the analyser cannot be imported: {error}") from error
