"""pyhrf's XML, read without unpickling anything in it, and without anything that pyhrf must not run.

An element is a value; its attributes say of what type, as pickles of protocol 0 in which ``##`` stands for a
new line. Here they are taken apart, opcode by opcode, and never run. pyhrf does run them, imports what they
name, calls it, and evaluates contrasts as Python: all that is checked before pyhrf gets to see it.
"""

from __future__ import annotations

import pickletools
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from typing import Any, NoReturn
from xml.parsers import expat

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.pyhrf27.names import CLASSES, KINDS, METHODS, TYPES

#: The type of a truth value.
BOOL = "c__builtin__##bool##p0##."
_NEWLINE = "##"
_TYPE, _INIT = "pickled_type", "pickled_init_obj"
_ATTRIBUTES = {_TYPE, _INIT, "dtype", "shape"}
_OBJECT = "Initable"
_BUILTIN = "__builtin__ "
_CONTRASTS = "contrasts"
#: The beginning of the names of what pyhrf writes; of a file of such a name, it reads XML.
_PREFIX = "outputPrefix"
_ENCODINGS = {"utf-8", "ascii", "us-ascii", "iso-8859-1"}
#: Numbers, names and operators; and what would be a call of something.
_SUM = re.compile(
    r"(?:[ \t]|[A-Za-z_]\w*+|(?:\d++\.?+\d*+|\.\d++)(?:[eE][-+]?\d++)?+|[-+*/()])*+", re.ASCII
)
_CALL = re.compile(r"[\w).][ \t]*\(")
#: An image, read in the course of an analysis; what its header says is run.
_UNREAD = "rescale_factor_file"

_PUT = r"p\d+\n"
_NAME = r"([\w.]+)\n(\w+)\n"
#: How pyhrf pickles words, types and classes; a static method of a class, and a class method.
_WORD = re.compile(rf"S'(\w+)'\n{_PUT}\.", re.ASCII)
_GLOBAL = re.compile(rf"c{_NAME}{_PUT}\.", re.ASCII)
_STATIC_METHOD = re.compile(
    rf"ccopy_reg\n_reconstructor\n{_PUT}\(cpyhrf\.tools\.misc\nPickleableStaticMethod\n{_PUT}"
    rf"c__builtin__\nobject\n{_PUT}Nt{_PUT}R{_PUT}\(c{_NAME}{_PUT}S'(\w+)'\n{_PUT}t{_PUT}b\.",
    re.ASCII,
)
_CLASS_METHOD = re.compile(
    rf"cpyhrf\.core\n_unpickle_method\n{_PUT}\(S'(\w+)'\n{_PUT}c{_NAME}{_PUT}c__builtin__\ntype\n{_PUT}"
    rf"t{_PUT}R{_PUT}\.",
    re.ASCII,
)


def parse(text: str) -> ET.Element:
    """Read a text.

    Raises
    ------
    TreatmentDataError
        If it is no XML, or declares entities or anything outside of it.
    """
    try:
        _refuse_declarations(text)
        return ET.fromstring(text)  # noqa: S314  (without declarations there are no entities)
    except (ET.ParseError, expat.ExpatError, ValueError) as error:
        raise TreatmentDataError(f"this is no XML of pyhrf: {error}") from error


def _refuse_declarations(text: str) -> None:
    def refuse(*_: object) -> NoReturn:
        raise TreatmentDataError("XML of pyhrf has no declarations: this has some, and is not read")

    def check_encoding(_version: str, encoding: str | None, _standalone: int) -> None:
        # Python 2 decodes what follows by any codec of its own, rot13 among them.
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise TreatmentDataError(f"XML of pyhrf is ASCII, and this is said to be {encoding}")

    parser = expat.ParserCreate("utf-8")
    parser.XmlDeclHandler = check_encoding
    parser.StartDoctypeDeclHandler = refuse
    parser.Parse(text.encode(), True)


def check(root: ET.Element) -> None:
    """Refuse what pyhrf would run beyond its own analyses.

    Raises
    ------
    TreatmentDataError
        Naming the element, and what it asks for.
    """
    for element in root.iter():
        unknown = [name for name in element.attrib if name not in _ATTRIBUTES]
        if unknown:
            raise TreatmentDataError(
                f"<{element.tag}> has an attribute {unknown[0]!r}, unknown to pyhrf"
            )
        _check_type(element)
        if element.get(_INIT) is not None:
            _check_maker(element)
    for contrasts in root.iter(_CONTRASTS):
        for element in contrasts.iter():
            _check_contrast(element)
    for element in root.iter(_PREFIX):
        if "/" in (element.text or ""):
            raise TreatmentDataError(
                f"<{_PREFIX}> is the beginning of names, and not of a path: {element.text!r}"
            )
    for element in root.iter(_UNREAD):
        if kind(element) != "None":
            raise TreatmentDataError(
                f"<{_UNREAD}> names an image that is not sent; multiply the BOLD images before the analysis"
            )


def check_ascii(root: ET.Element) -> None:
    """Refuse what pyhrf's reader cannot read.

    Raises
    ------
    TreatmentDataError
        Naming the element.
    """
    for element in root.iter():
        for text in (element.tag, element.text or "", *element.attrib.values()):
            if not text.isascii():
                raise TreatmentDataError(
                    f"<{element.tag}>: pyhrf reads ASCII only, and not {text.strip()[:60]!r}"
                )


def _check_type(element: ET.Element) -> None:
    pickled = _pickle(element, _TYPE)
    if not pickled:
        raise TreatmentDataError(f"<{element.tag}> does not say what it is: no XML of pyhrf?")
    if word := _WORD.fullmatch(pickled):
        if word[1] == _OBJECT and not _pickle(element, _INIT):
            raise TreatmentDataError(
                f"<{element.tag}> is an object, and does not say of which class"
            )
        is_known = word[1] in KINDS
    else:
        name = _GLOBAL.fullmatch(pickled)
        is_known = name is not None and f"{name[1]}.{name[2]}" in TYPES
    if not is_known:
        _refuse(element, _TYPE)


def _check_maker(element: ET.Element) -> None:
    pickled = _pickle(element, _INIT)
    if name := _GLOBAL.fullmatch(pickled):
        is_known = f"{name[1]}.{name[2]}" in CLASSES
    elif method := _STATIC_METHOD.fullmatch(pickled):
        is_known = f"{method[1]}.{method[2]}.{method[3]}" in METHODS
    elif method := _CLASS_METHOD.fullmatch(pickled):
        is_known = f"{method[2]}.{method[3]}.{method[1]}" in METHODS
    else:
        is_known = False
    if not is_known:
        _refuse(element, _INIT)


def _check_contrast(element: ET.Element) -> None:
    text = element.text or ""
    if not _SUM.fullmatch(text.strip()) or _CALL.search(text):
        raise TreatmentDataError(
            f"the contrast {element.tag!r} is no sum of conditions: {text.strip()[:60]!r}; pyhrf would run it as Python"
        )


def _refuse(element: ET.Element, attribute: str) -> NoReturn:
    named = ", ".join(name.replace(" ", ".") for name in _strings(element, attribute))
    raise TreatmentDataError(
        f"<{element.tag}> asks for {named or 'nothing'}, and pyhrf would import and call that: only pyhrf's own "
        "classes and plain types may be named"
    )


def _pickle(element: ET.Element, attribute: str) -> str:
    return element.get(attribute, "").replace(_NEWLINE, "\n")


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
    """Return the names of the classes and methods that an object, and those in it, are made with."""
    return [name.replace(" ", ".") for one in element.iter() for name in _strings(one, _INIT)]


def _strings(element: ET.Element, attribute: str) -> Iterator[str]:
    """Give what an attribute's pickle names: classes as ``'module name'``, and texts."""
    value = _pickle(element, attribute)
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
    """Give all elements below that are texts, in their order, with their names: in a list, the list's."""
    for parent in element.iter():
        for one in parent:
            if one.get(_TYPE) and kind(one) in ("str", "unicode"):
                yield (parent.tag if one.tag.startswith("item") else one.tag), one
