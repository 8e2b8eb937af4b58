"""Records of what tasks returned, raised, or died of, which a worker sends back.

A record is a plain tuple ``(kind, index, ...)``. Workers send them in frames, through a socket or into a
file, so that what has ended before a crash is known after it. The memory of large arrays among the
results is not pickled: it goes behind the pickle as it is, so that neither side holds it twice.
"""

from __future__ import annotations

import _pickle as pickle  # the C part alone: pickle itself doubles the start of a worker
import os

TYPE_CHECKING = False  # a worker has to start fast
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

    from pyhrf_parallel.outcomes import Ledger, Outcomes

    Record = tuple[Any, ...]

_LARGE = 1 << 16  # bytes from which on the memory of an array is sent as it is
# Values of these types travel together; any other is pickled alone, so that it fails alone.
_PLAIN = frozenset({int, float, complex, bool, str, bytes, type(None)})


def returned(start: int, values: list[Any]) -> list[Record]:
    """Return the records of consecutive tasks that have returned."""
    if set(map(type, values)) <= _PLAIN:
        return [("plain", start, values)]
    return [_returned_one(index, value) for index, value in enumerate(values, start)]


def _returned_one(index: int, value: Any) -> Record:
    try:
        buffers: list[pickle.PickleBuffer] = []
        content = _dumps(value, buffers)
    except Exception as error:
        kind = type(value).__name__
        refusal = TypeError(
            f"The result, a {kind}, cannot travel back: {type(error).__name__}: {error}"
        )
        return raised(index, refusal)
    return ("pickled", index, content, *buffers)


def raised(index: int, error: BaseException, log_tail: str = "") -> Record:
    """Return the record of a task that has raised."""
    import traceback

    # Without the frame of the worker's own loop.
    inner = error.__traceback__.tb_next if error.__traceback__ else None
    text = "".join(traceback.format_exception(type(error), error, inner))
    return ("raised", index, _dump_exception(error), text, log_tail, os.uname().nodename)


def lost(index: int, reason: str, log_tail: str = "") -> Record:
    """Return the record of a task whose process died."""
    return ("lost", index, reason, log_tail, os.uname().nodename)


def timed_out(index: int, timeout: float, log_tail: str = "") -> Record:
    """Return the record of a task that was stopped."""
    error = TimeoutError(f"the task was stopped after timeout={timeout:g} s")
    return ("raised", index, _dump_exception(error), "", log_tail, os.uname().nodename)


def never_began(index: int, limit: float) -> Record:
    """Return the record of a task whose function or arguments could not be loaded in time."""
    error = TimeoutError(
        f"the task had not begun after {limit:g} s: its worker was still starting, importing what the "
        "function needs, or loading the arguments"
    )
    return ("raised", index, _dump_exception(error), "", "", os.uname().nodename)


def with_log(record: Record, log_tail: str) -> Record:
    """Add the end of the process's output to the record of a task that was stopped."""
    kind, index, content, text, _, host = record
    return (kind, index, content, text, log_tail, host)


def _dumps(value: Any, aside: list[pickle.PickleBuffer] | None = None) -> bytes:
    """Pickle a value; put large buffers aside, for `pickle.loads` to get them beside the pickle."""

    def keep(buffer: pickle.PickleBuffer) -> bool:
        if aside is None or buffer.raw().nbytes < _LARGE:
            return True  # in the pickle
        aside.append(buffer)
        return False

    try:
        return pickle.dumps(value, 5, buffer_callback=keep)
    except Exception:  # what a notebook or __main__ defines
        import cloudpickle

        if aside:
            aside.clear()
        dumped: bytes = cloudpickle.dumps(value, 5, buffer_callback=keep)
        return dumped


def _dump_exception(error: BaseException) -> bytes | None:
    try:
        dumped = _dumps(error)
        if type(pickle.loads(dumped)) is type(error):
            return dumped
    except Exception:  # noqa: S110  (an __init__ with other parameters than args: the usual case)
        pass
    try:
        return _dumps(_ExceptionParts(type(error), error.args, error.__dict__))
    except Exception:
        return None  # the traceback as text has to do


class _ExceptionParts:
    """An exception that is rebuilt without calling its `__init__`."""

    def __init__(
        self, kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
    ) -> None:
        self._parts = (kind, args, state)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_exception, self._parts


def _rebuild_exception(
    kind: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


_RETURNED = ("plain", "pickled")


def note(records: Iterable[Record], ledger: Ledger) -> None:
    """Enter which tasks have ended, without unpickling what they returned or raised."""
    for kind, index, *rest in records:
        if _is_old(kind, index, ledger):
            continue
        if kind == "plain":
            ledger.note_returned(index, len(rest[0]))
        elif kind == "pickled":
            ledger.note_returned(index)
        else:
            ledger.note_failed(index)


def is_return(record: Record) -> bool:
    """Whether a record is of tasks that have returned."""
    return record[0] in _RETURNED


def _is_old(kind: str, index: int, ledger: Ledger) -> bool:
    """Whether a record says nothing new: a task that failed may still return in another attempt."""
    return ledger.has_returned(index) if kind in _RETURNED else ledger.is_settled(index)


def absorb(records: Iterable[Record], outcomes: Outcomes) -> None:
    """Enter records into the outcomes of a map, except those of tasks already settled."""
    for kind, index, *rest in records:
        if _is_old(kind, index, outcomes):
            continue
        if kind == "plain":
            outcomes.succeed(index, rest[0])
        elif kind == "pickled":
            _absorb_pickled(index, rest[0], rest[1:], outcomes)
        else:
            outcomes.fail(_failure(kind, index, *rest))


def _absorb_pickled(index: int, content: bytes, buffers: Sequence[Any], outcomes: Outcomes) -> None:
    try:
        value = pickle.loads(content, buffers=buffers)
    except KeyboardInterrupt:
        raise
    except (
        BaseException
    ) as error:  # sys.exit, too, may be among what a result runs when it is loaded
        outcomes.fail(
            _failure(
                "raised",
                index,
                pickle.dumps(
                    TypeError(
                        f"The result arrived but cannot be loaded here: {type(error).__name__}: {error}"
                    )
                ),
                "",
                "",
                "",
            )
        )
        return
    outcomes.succeed(index, [value])


def _failure(kind: str, index: int, *rest: Any) -> Any:
    from pyhrf_parallel.errors import RemoteException, TaskLostError

    if kind == "lost":
        reason, log_tail, host = rest
        return TaskLostError(
            f"Task {index} was lost: {reason}", index=index, host=host, log_tail=log_tail
        )
    content, text, log_tail, host = rest
    return RemoteException(
        f"Task {index} failed",
        _load_exception(content),
        index=index,
        remote_traceback=text,
        log_tail=log_tail,
        host=host,
    )


def _load_exception(content: bytes | None) -> BaseException | None:
    if content is None:
        return None
    try:
        error = pickle.loads(content)
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None
