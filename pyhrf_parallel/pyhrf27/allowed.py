"""Refusing XML that would make pyhrf run foreign code.

pyhrf loads the pickles in it, imports and calls what they name, and evaluates contrasts as Python. All of them
are checked against lists of what is allowed, before pyhrf sees the file.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from typing import NoReturn

from pyhrf_parallel.errors import TreatmentDataError
from pyhrf_parallel.pyhrf27.names import CLASSES, KINDS, METHODS, TYPES
from pyhrf_parallel.pyhrf27.xml_tree import INIT, TYPE, kind, named_in, pickle_of

_ATTRIBUTES = {TYPE, INIT, "dtype", "shape"}
_OBJECT = "Initable"
_CONTRASTS = "contrasts"
#: The beginning of the names of what pyhrf writes; of a file of such a name, it reads XML.
_PREFIX = "outputPrefix"
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


def check(root: ET.Element) -> None:
    """Refuse elements that would run anything but analyses of pyhrf.

    Raises
    ------
    TreatmentDataError
        If there is one; the message names it.
    """
    for element in root.iter():
        unknown = [name for name in element.attrib if name not in _ATTRIBUTES]
        if unknown:
            raise TreatmentDataError(
                f"<{element.tag}> has an attribute {unknown[0]!r}, unknown to pyhrf"
            )
        _check_type(element)
        if element.get(INIT) is not None:
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
    """Refuse text that is not ASCII, which pyhrf cannot read.

    Raises
    ------
    TreatmentDataError
        If there is such text; the message names the element.
    """
    for element in root.iter():
        for text in (element.tag, element.text or "", *element.attrib.values()):
            if not text.isascii():
                raise TreatmentDataError(
                    f"<{element.tag}>: pyhrf reads ASCII only, and not {text.strip()[:60]!r}"
                )


def _check_type(element: ET.Element) -> None:
    pickled = pickle_of(element, TYPE)
    if not pickled:
        raise TreatmentDataError(f"<{element.tag}> does not say what it is: no XML of pyhrf?")
    if word := _WORD.fullmatch(pickled):
        if word[1] == _OBJECT and not pickle_of(element, INIT):
            raise TreatmentDataError(
                f"<{element.tag}> is an object, and does not say of which class"
            )
        is_known = word[1] in KINDS
    else:
        name = _GLOBAL.fullmatch(pickled)
        is_known = name is not None and f"{name[1]}.{name[2]}" in TYPES
    if not is_known:
        _refuse(element, TYPE)


def _check_maker(element: ET.Element) -> None:
    pickled = pickle_of(element, INIT)
    if name := _GLOBAL.fullmatch(pickled):
        is_known = f"{name[1]}.{name[2]}" in CLASSES
    elif method := _STATIC_METHOD.fullmatch(pickled):
        is_known = f"{method[1]}.{method[2]}.{method[3]}" in METHODS
    elif method := _CLASS_METHOD.fullmatch(pickled):
        is_known = f"{method[2]}.{method[3]}.{method[1]}" in METHODS
    else:
        is_known = False
    if not is_known:
        _refuse(element, INIT)


def _check_contrast(element: ET.Element) -> None:
    text = element.text or ""
    if not _SUM.fullmatch(text.strip()) or _CALL.search(text):
        raise TreatmentDataError(
            f"the contrast {element.tag!r} is no sum of conditions: {text.strip()[:60]!r}; pyhrf would run it as Python"
        )


def _refuse(element: ET.Element, attribute: str) -> NoReturn:
    named = ", ".join(name.replace(" ", ".") for name in named_in(element, attribute))
    raise TreatmentDataError(
        f"<{element.tag}> asks for {named or 'nothing'}, and pyhrf would import and call that: only pyhrf's own "
        "classes and plain types may be named"
    )
