"""Names of conditions, contrasts and maps: as names of files, and as texts of figures."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable

_LONGEST = 80  # bytes of a name of a file, without what kind of file it is
_KIND = 16  # characters of a last part, as in audio_effect, that stays as it is
_SHOWN = 40  # characters of a name in a figure
_HARMLESS = frozenset("_-+.=@,")


def file_names(names: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """Return for each name one that is safe for a file, without a suffix.

    Letters and digits of any language and some signs stay. Where anything is changed a checksum of the
    name is added, and where two names, or one and a taken one, would be the same to a file system that
    does not know small letters from capitals; what follows the last underscore stays at the end.

    Parameters
    ----------
    names : iterable of str
        Different ones.
    taken : iterable of str
        Names that may not be used.
    """
    used = {_folded(name) for name in taken}
    found: dict[str, str] = {}
    for name in sorted(set(names)):
        own = _safe(name)
        if own != name or not own or len(own.encode()) > _LONGEST:
            own = _marked(name)
        for number in range(1, 99):
            if _folded(own) not in used:
                break
            own = _marked(name, str(number))
        used.add(_folded(own))
        found[name] = own
    return found


def shown(name: str) -> str:
    """Return a name as a text that matplotlib draws as it is: no formula, not hidden, not too long."""
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    if len(text) > _SHOWN:
        text = f"{text[: _SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"
    if text.startswith("_"):  # a legend leaves those out
        text = f" {text}"
    return text.replace("$", r"\$")


def _marked(name: str, salt: str = "") -> str:
    """Return a short name with a checksum of the whole."""
    base, separator, kind = name.rpartition("_")
    if not base or len(kind) > _KIND or _safe(kind) != kind:
        base, separator, kind = name, "", ""
    digits = hashlib.sha256((base + salt).encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{_cut(_safe(base), _LONGEST // 2) or '_'}-{digits}{separator}{kind}"


def _safe(name: str) -> str:
    normal = unicodedata.normalize("NFC", name)
    safe = "".join(c if c.isalnum() or c in _HARMLESS else "_" for c in normal)
    return f"_{safe[1:]}" if safe[:1] in {".", "-"} else safe


def _cut(text: str, n_bytes: int) -> str:
    return text.encode()[:n_bytes].decode(errors="ignore")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
