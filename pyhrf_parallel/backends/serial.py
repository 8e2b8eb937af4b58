"""Mode ``'serial'``: a loop in this process."""

from __future__ import annotations

import os
import time
import traceback
from typing import Any

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import ConfigurationError, RemoteException
from pyhrf_parallel.outcomes import Outcomes
from pyhrf_parallel.tasks import Work

_STRIDE = 0.01  # seconds of work between two reports of progress

RAISES_ORIGINAL = True


def run(work: Work, outcomes: Outcomes, configuration: Configuration) -> None:  # noqa: ARG001
    """Call the function for one task after the other."""
    if work.options.timeout is not None:
        raise ConfigurationError(
            "timeout= cannot be honoured in mode='serial': a task of this very process cannot be "
            "stopped; use another mode"
        )
    stride = len(work) if outcomes.on_progress is None else 1
    while not outcomes.complete:
        stride = _run_some(work, outcomes, stride)


def _run_some(work: Work, outcomes: Outcomes, stride: int) -> int:
    """Run tasks up to the stride or the first failure; return the stride after which to report progress next."""
    (start, stop), *_ = outcomes.pending()
    part = slice(start, min(stop, start + stride))
    func = work.func
    values: list[Any] = []
    keep = values.append
    began = time.monotonic()
    try:  # kept tight: the loop costs hardly more than the calls
        for args, kwargs in zip(work.largs[part], work.lkwargs[part], strict=True):
            keep(func(*args, **kwargs))
    except Exception as error:
        outcomes.succeed(start, values)
        _fail(start + len(values), error, outcomes)
    else:
        outcomes.succeed(start, values)
    return 2 * stride if time.monotonic() - began < _STRIDE else max(1, stride // 4)


def _fail(index: int, error: Exception, outcomes: Outcomes) -> None:
    outcomes.fail(
        RemoteException(
            f"Task {index} failed",
            error,
            index=index,
            remote_traceback="".join(traceback.format_exception(error)),
            host=os.uname().nodename,
        )
    )
