"""Reading the XML of pyhrf without loading the pickles in it.

An element is a value; its attributes hold its type, as pickles of protocol 0 in which ``##`` stands for a new
line. They are parsed here, opcode by opcode, and never loaded; `allowed` decides which ones pyhrf may load.
"""

from __future__ import annotations

import pickletools
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any, NoReturn
from xml.parsers import expat

from pyhrf_parallel.errors import TreatmentDataError

#: The type of a truth value.
BOOL = "c__builtin__##bool##p0##."
#: Attributes that are pickles: of a type, and of what makes an object.
TYPE, INIT = "pickled_type", "pickled_init_obj"
_NEWLINE = "##"
_BUILTIN = "__builtin__ "
_DEEPEST = 100  # elements in each other: more than any object of pyhrf's has
_ENCODINGS = {"utf-8", "ascii", "us-ascii", "iso-8859-1"}


def parse(text: str) -> ET.Element:
    """Parse the text of an XML.

    Raises
    ------
    TreatmentDataError
        If it is not XML, has declarations, or is nested deeper than pyhrf's own.
    """
    try:
        _refuse_at_sight(text)
        return ET.fromstring(text)  # noqa: S314  (without declarations there are no entities)
    except (ET.ParseError, expat.ExpatError, ValueError) as error:
        raise TreatmentDataError(f"this is no XML of pyhrf: {error}") from error


def _refuse_at_sight(text: str) -> None:
    def refuse(*_: object) -> NoReturn:
        raise TreatmentDataError("XML of pyhrf has no declarations: this has some, and is not read")

    def check_encoding(_version: str, encoding: str | None, _standalone: int) -> None:
        # Python 2 decodes what follows by any codec of its own, rot13 among them.
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise TreatmentDataError(f"XML of pyhrf is ASCII, and this is said to be {encoding}")

    depth = 0

    def enter(*_: object) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise TreatmentDataError(f"XML of pyhrf is not nested deeper than {_DEEPEST} elements")

    def leave(*_: object) -> None:
        nonlocal depth
        depth -= 1

    parser = expat.ParserCreate("utf-8")
    parser.StartElementHandler, parser.EndElementHandler = enter, leave
    parser.XmlDeclHandler = check_encoding
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(text.encode(), True)


def kind(element: ET.Element) -> str:
    """Return the type of an element: ``'int'``, ``'str'``, ``'None'``, ``'list'``, ``'Initable'``, ...

    Raises
    ------
    TreatmentDataError
        If it has none.
    """
    names = list(named_in(element, TYPE))
    if not names:
        raise TreatmentDataError(f"<{element.tag}> does not say what it is: no XML of pyhrf?")
    return names[0].removeprefix(_BUILTIN)


def made_by(element: ET.Element) -> list[str]:
    """Return the names of all classes and methods that build an object and its parts."""
    return [name.replace(" ", ".") for one in element.iter() for name in named_in(one, INIT)]


def pickle_of(element: ET.Element, attribute: str) -> str:
    """Return the pickle in an attribute, as text; empty if there is none."""
    return element.get(attribute, "").replace(_NEWLINE, "\n")


def named_in(element: ET.Element, attribute: str) -> Iterator[str]:
    """Yield the names in an attribute's pickle: classes as ``'module name'``, and texts."""
    value = pickle_of(element, attribute)
    if not value:
        return
    try:
        for opcode, argument, _ in pickletools.genops(value.encode("ascii")):
            if opcode.name in ("GLOBAL", "INST", "STRING", "UNICODE"):
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
    """Yield all text elements below, in order, with their names (of items, the name of their list)."""
    for parent in element.iter():
        for one in parent:
            if one.get(TYPE) and kind(one) in ("str", "unicode"):
                yield (parent.tag if one.tag.startswith("item") else one.tag), one
