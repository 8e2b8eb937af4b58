"""All exceptions of the package."""

from __future__ import annotations

from typing import Any


class ParallelError(Exception):
    """Base class of all errors of this package."""


class ArgumentError(ParallelError, TypeError, ValueError, AssertionError):
    """The function, or a list of arguments, is not as documented (an AssertionError in pyhrf)."""


class ConfigurationError(ParallelError, ValueError):
    """A mode, an option or a setting cannot be used: of a call, of a configuration file, or of the account.

    That a directory can be written to by others is an error of this kind, too: nothing is loaded from there.
    """


class NotShippableError(ParallelError, TypeError):
    """The function or an argument cannot travel to a worker process."""


class BackendUnavailableError(ParallelError, ImportError):
    """An optional dependency of the chosen mode is not installed."""


class ClusterError(ParallelError):
    """Jobs cannot be run: the cluster, or the engine on this machine, cannot be reached or does not do it.

    Attributes
    ----------
    transient : bool
        Whether the connection is what failed: trying again can help, and a run that was submitted goes on.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class TransferError(ClusterError):
    """A file could not be written, is damaged, or did not get to the cluster or back.

    Attributes
    ----------
    path, host, reason : str
        What, where, and why.
    """

    def __init__(self, message: str, *, path: str = "", host: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.path = path
        self.host = host
        self.reason = reason


class RunNotFoundError(ParallelError, LookupError):
    """There is no run of that name."""


class TreatmentError(ParallelError):
    """A treatment failed.

    The message names the treatment, its regions or jobs that failed, and what was not run because of it;
    ``__cause__`` is the first failure.
    """


class TreatmentDataError(TreatmentError, ValueError):
    """The data of a treatment cannot be analysed as they are; the message names the file."""


class RemoteException(ParallelError):  # noqa: N818  (the original's name)
    """A task failed in a worker.

    Parameters
    ----------
    message : str
        What failed, ``'Task 3 failed'``.
    cause : BaseException, optional
        The exception that the task raised, when it could travel back. It is also ``__cause__``.
    index : int, optional
        The position of the task in the argument lists.
    call : str
        A short repr of the call, ``'foo(2, b=5)'``.
    remote_traceback : str
        The traceback in the worker, as text.
    host : str
        The name of the machine that ran the task.
    log_tail : str
        The end of what the worker process wrote to stdout and stderr.
    failures : tuple of RemoteException
        Every task known to have failed, by index; this one is among them.

    Notes
    -----
    ``args == (message, cause)``, as in pyhrf. Like pyhrf's, it accepts any arguments.
    """

    index: int | None = None
    call: str = ""
    remote_traceback: str = ""
    host: str = ""
    log_tail: str = ""
    failures: tuple[RemoteException, ...] = ()
    #: What to do about it.
    advice: str = ""

    def __init__(
        self,
        *args: Any,
        index: int | None = None,
        call: str = "",
        remote_traceback: str = "",
        host: str = "",
        log_tail: str = "",
        failures: tuple[RemoteException, ...] = (),
    ) -> None:
        super().__init__(*args)
        self.index = index
        self.call = call
        self.remote_traceback = remote_traceback
        self.host = host
        self.log_tail = log_tail
        self.failures = failures or (self,)
        self.__cause__: BaseException | None = _cause_among(args)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle `args` first and the attributes after: `failures` refers back to this exception."""
        return _rebuild, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        """Return what failed, where, why, and the remote traceback and output."""
        cause = _cause_among(self.args)
        plain = len(self.args) == 2 and (cause or self.args[1] is None)  # noqa: PLR2004
        message = str(self.args[0]) if plain else super().__str__()
        lines = [f"{message}{f' on {self.host}' if self.host else ''}"]
        if self.call:
            lines[0] += f": {self.call}"
        if cause is not None:
            lines.append(_describe(cause))
        if self.advice:
            lines.append(self.advice)
        if self.remote_traceback:
            lines += ["--- traceback in the worker ---", self.remote_traceback.rstrip()]
        if self.log_tail:
            lines += ["--- end of the worker's output ---", self.log_tail.rstrip()]
        others = [str(f.index) for f in self.failures if f.index != self.index]
        if others:
            shown = ", ".join(others[:10]) + (", ..." if len(others) > 10 else "")  # noqa: PLR2004
            lines.append(f"Also failed: {len(others)} other task(s), index {shown} (see .failures)")
        return "\n".join(lines)


def _cause_among(args: tuple[Any, ...]) -> BaseException | None:
    """Return the second of the arguments if it is an exception."""
    return args[1] if len(args) > 1 and isinstance(args[1], BaseException) else None


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # the __str__ of a user's class; the report must not fail with it
        return f"{type(error).__name__}, whose message cannot be shown"


class TaskLostError(RemoteException):
    """The process that ran the task died before the task returned.

    The first argument says how: the signal or the exit status. See `RemoteException` for the
    attributes.
    """


def _rebuild(cls: type[RemoteException], args: tuple[Any, ...]) -> RemoteException:
    # Without __init__, which takes other arguments in a class of a user's.
    error = cls.__new__(cls, *args)
    error.args = args
    error.__cause__ = _cause_among(args)
    return error
