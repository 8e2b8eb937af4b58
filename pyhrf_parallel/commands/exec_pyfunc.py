"""``pyhrf_exec_pyfunc MODULE MODULE.FUNC PARAMS OUT``: call a function with pickled arguments."""

from __future__ import annotations

import argparse
import importlib
import operator
import pickle
import sys
import traceback
from pathlib import Path
from typing import Any

from pyhrf_parallel.files import write_then_rename


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status: 0, or 1 if the function raised, 2 for wrong use."""
    parser = argparse.ArgumentParser(
        prog="pyhrf_exec_pyfunc",
        description="Call FUNC(*args, **kwargs), where PARAMS is a pickle of (args, kwargs), and pickle "
        "the value that it returns, or the exception that it raises, to OUT. PARAMS is executed in "
        "reading: use only files of your own.",
    )
    parser.add_argument("module", metavar="MODULE", help="the module to import, 'package.module'")
    parser.add_argument(
        "function", metavar="MODULE.FUNC", help="the function in it, with its module"
    )
    parser.add_argument("params", metavar="PARAMS", type=Path, help="pickle of (args, kwargs)")
    parser.add_argument("out", metavar="OUT", type=Path, help="the pickle to write")
    options = parser.parse_args(argv)
    # As with `python -m`: functions beside the caller are found. A console script lacks that.
    sys.path.insert(0, "")
    if not options.out.parent.is_dir():
        parser.error(f"{options.out.parent} is no directory to write to")
    try:
        func = _find(options.module, options.function)
        args, kwargs = pickle.loads(options.params.read_bytes())
    except Exception as error:
        parser.error(f"{type(error).__name__}: {error}")
    try:
        value, status = func(*args, **kwargs), 0
    except Exception as error:
        traceback.print_exc()
        value, status = error, 1
    content = _dumps(value)
    if content is None:
        refusal = f"the result, a {type(value).__name__}, cannot be pickled"
        print(f"pyhrf_exec_pyfunc: {refusal}", file=sys.stderr)
        content, status = pickle.dumps(TypeError(refusal)), 1
    write_then_rename(options.out, content)
    return status


def _find(module_name: str, function: str) -> Any:
    module = importlib.import_module(module_name)
    return operator.attrgetter(function.removeprefix(f"{module_name}."))(module)


def _dumps(value: object) -> bytes | None:
    try:
        return pickle.dumps(value)
    except Exception:
        return None


if __name__ == "__main__":
    sys.exit(main())
