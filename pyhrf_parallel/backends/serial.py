"""Mode ``'serial'``: a loop in this process."""

from __future__ import annotations

import os
import traceback
from typing import Any

from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.errors import OptionError, RemoteException
from pyhrf_parallel.tasks import Outcomes, Work


class SerialBackend:
    """Calls the function for one task after the other."""

    raises_original = True

    def run(self, work: Work, outcomes: Outcomes, configuration: Configuration) -> None:  # noqa: ARG002
        """Run the tasks; see `Backend`."""
        if work.options.timeout is not None:
            raise OptionError(
                "timeout= cannot be honoured in mode='serial': a task of this very process cannot be "
                "stopped; use another mode"
            )
        while not outcomes.complete:
            if outcomes.on_progress is None:
                _run_all(work, outcomes)
            else:
                _run_one(work, outcomes)


def _run_all(work: Work, outcomes: Outcomes) -> None:
    """Run tasks until one fails: a loop that costs hardly more than the calls."""
    (start, stop), *_ = outcomes.pending()
    func = work.func
    values: list[Any] = []
    keep = values.append
    try:
        for args, kwargs in zip(work.largs[start:stop], work.lkwargs[start:stop], strict=True):
            keep(func(*args, **kwargs))
    except Exception as error:
        _fail(start + len(values), error, outcomes)
    outcomes.succeed(start, values)


def _run_one(work: Work, outcomes: Outcomes) -> None:
    (index, _), *_ = outcomes.pending()
    try:
        value = work.func(*work.largs[index], **work.lkwargs[index])
    except Exception as error:
        _fail(index, error, outcomes)
    else:
        outcomes.succeed(index, [value])


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


BACKEND = SerialBackend()
