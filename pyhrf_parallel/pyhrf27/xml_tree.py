"""pyhrf's XML, read without unpickling anything in it.

An element is a value; its attributes say of what type, as pickles of protocol 0 in which ``##`` stands for a
new line. Here they are taken apart, opcode by opcode, and never run.
"""

from __future__ import annotations

import pickletools
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any

from pyhrf_parallel.errors import TreatmentDataError

#: The type of a truth value.
BOOL = "c__builtin__##bool##p0##."
_NEWLINE = "##"
_TYPE, _INIT = "pickled_type", "pickled_init_obj"
_OBJECT = "Initable"
_BUILTIN = "__builtin__ "


def parse(text: str) -> ET.Element:
    """Read a text.

    Raises
    ------
    TreatmentDataError
        If it is no XML, or declares entities or anything outside of it.
    """
    if "<!" in text:
        raise TreatmentDataError("XML of pyhrf has no declarations: this has some, and is not read")
    try:
        return ET.fromstring(text)  # noqa: S314  (without declarations there are no entities)
    except (ET.ParseError, ValueError) as error:
        raise TreatmentDataError(f"this is no XML of pyhrf: {error}") from error


def kind(element: ET.Element) -> str:
    """Return the type of an element: ``'int'``, ``'str'``, ``'None'``, ``'list'``, ``'Initable'``, ...

    Raises
    ------
    TreatmentDataError
        If it does not say one.
    """
    names = list(_strings(element, _TYPE))
    if not names:
        raise TreatmentDataError(f"<{element.tag}> does not say what it is: no XML of pyhrf?")
    return names[0].removeprefix(_BUILTIN)


def made_by(element: ET.Element) -> list[str]:
    """Return the names of the classes and methods that an object is made with."""
    return [name.replace(" ", ".") for name in _strings(element, _INIT)]


def _strings(element: ET.Element, attribute: str) -> Iterator[str]:
    """Give what an attribute's pickle names: classes as ``'module name'``, and texts."""
    value = element.get(attribute, "")
    if not value:
        return
    try:
        content = value.replace(_NEWLINE, "\n").encode("ascii")
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in ("GLOBAL", "STRING", "UNICODE"):
                yield str(argument)
    except Exception as error:  # whatever a damaged pickle makes of its parser
        raise TreatmentDataError(
            f"<{element.tag}> has a damaged attribute {attribute}: {error}"
        ) from error


def value(element: ET.Element) -> Any:
    """Return the value of a plain element, or of a list of such; None for anything else.

    Raises
    ------
    TreatmentDataError
        If its text is not of its type.
    """
    name, text = kind(element), element.text or ""
    try:
        if name in ("int", "long"):
            return int(text)
        if name == "float":
            return float(text)
        if name == "bool":
            return text.strip() == "True"
        if name in ("str", "unicode"):
            return text
        if name in ("list", "tuple"):
            return [value(child) for child in element]
    except ValueError as error:
        raise TreatmentDataError(f"<{element.tag}> is no {name}: {text[:40]!r}") from error
    return None


def texts(element: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    """Give all elements below that are texts, in their order, with their names: in a list, the list's."""
    for parent in element.iter():
        for one in parent:
            if one.get(_TYPE) and kind(one) in ("str", "unicode"):
                yield (parent.tag if one.tag.startswith("item") else one.tag), one
