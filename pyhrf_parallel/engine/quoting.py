"""Quoting of commands, so that every login shell passes them on unchanged."""

from __future__ import annotations

import os
import shlex
import string
from collections.abc import Sequence

# Within single quotes these mean nothing to any shell; "!", a newline and a quote do to csh.
_PLAIN = frozenset((string.ascii_letters + string.digits + " _@%+=:,./-~").encode())


def remote_command(words: Sequence[str], setup: str = "") -> str:
    """Return the text that runs a command in whatever shell an account has: sh, bash, csh, tcsh.

    Parameters
    ----------
    words : sequence of str
        The program and its arguments, which arrive as they are.
    setup : str
        Lines of bash to run before it, from the user's own configuration; what they print goes to stderr.
    """
    script, shell = f"exec {shlex.join(words)}", "sh"
    if setup:
        script, shell = f"{in_braces(setup)}\n{script}", "bash"
    coded = "".join(chr(b) if b in _PLAIN else f"\\0{b:03o}" for b in os.fsencode(script))
    return f"exec /bin/{shell} -c 'eval \"`printf %b \"$1\"`\"' {shell} '{coded}'"


def in_braces(setup: str) -> str:
    """Return lines of shell that print to stderr, and whose settings stay in effect."""
    return f"{{\n{setup}\n}} >&2"
