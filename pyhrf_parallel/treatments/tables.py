"""Events and confounds: tables in text files."""

from __future__ import annotations

import gzip
import re
import warnings
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from pyhrf_parallel.errors import TreatmentDataError

_EARLIEST = -24.0  # seconds; nilearn models no event that began earlier before the first scan
_COLUMNS = ["onset", "duration", "trial_type"]
_MODULATION = "modulation"
_PARADIGM = ["session", "trial_type", "onset", "duration", _MODULATION]


def read_events(path: Path, run: int, n_runs: int) -> pd.DataFrame:
    """Read the events of one run.

    Parameters
    ----------
    path : Path
        A table of the run with a heading, as a BIDS ``events.tsv``: tabs, commas, semicolons or blanks
        between the columns, and compressed if the name ends in ``.gz``. Or a paradigm ``.csv`` of pyhrf,
        which has no heading and the columns session, trial type, onset and, if wanted, duration and
        amplitude (its word for modulation). A column ``session`` of a heading tells the sessions too.
    run : int
        Its number, from 0 on: the session of a paradigm that has several.
    n_runs : int
        How many there are.

    Returns
    -------
    DataFrame
        With the columns ``onset`` and ``duration`` (seconds) and ``trial_type``, and ``modulation`` if the
        file has it. A warning names columns that are not used.

    Raises
    ------
    TreatmentDataError
        If the file is not of either kind, or has events without an onset.
    """
    separator = _separator(path)
    if separator is None and ".tsv" not in path.suffixes:
        table = _read_paradigm(path, run, n_runs)
    else:
        table = _read(path, separator or "\t")
        if "session" in table:
            table = _of_session(path, table, run, n_runs)
    missing = [name for name in _COLUMNS if name not in table]
    if missing:
        raise TreatmentDataError(f"{path}: no column {', '.join(missing)}; found {list(table)}")
    used = [*_COLUMNS, _MODULATION] if _MODULATION in table else _COLUMNS
    _tell_unused(path, [str(name) for name in table if name not in {*used, "session"}])
    events: pd.DataFrame = table[used].copy()
    numbers = [name for name in used if name != "trial_type"]
    for name in numbers:
        events[name] = pd.to_numeric(events[name], errors="coerce")
    if events.empty:
        raise TreatmentDataError(f"{path}: no event of run {run}")
    infinite = ~np.isfinite(events[numbers].to_numpy(np.float64)).all(axis=1)
    wrong = infinite | events["trial_type"].isna().to_numpy() | (events["duration"] < 0).to_numpy()
    if wrong.any():
        line = int(np.flatnonzero(wrong)[0])
        modulation = ", and a modulation (1: as it is)" if _MODULATION in used else ""
        raise TreatmentDataError(
            f"{path}: event {line} needs an onset and a duration >= 0 in seconds and a trial_type"
            f"{modulation}, and is {table.iloc[line].to_dict()}"
        )
    events["trial_type"] = events["trial_type"].astype(str)
    return events.reset_index(drop=True)


def has_sessions(path: Path) -> bool:
    """Whether a file of events has sessions: a paradigm of pyhrf, or a table with such a column."""
    separator = _separator(path)
    if separator is None and ".tsv" not in path.suffixes:
        return True
    return "session" in _read(path, separator or "\t")


def _separator(path: Path) -> str | None:
    """Return the separator of a table whose first line names its columns; None for other files."""
    heading = next((line for line in _text(path).splitlines() if line.strip()), "").strip()
    for separator in ("\t", ",", ";", r"\s+"):
        names = [name.strip().strip('"') for name in re.split(separator, heading)]
        if "onset" in names:
            return separator
    return None


def _text(path: Path) -> str:
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            return str(file.read())
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise TreatmentDataError(f"{path} cannot be read: {error}") from error


def _tell_unused(path: Path, names: list[str]) -> None:
    if names:
        warnings.warn(
            f"{path}: the analysis does not use the columns {', '.join(names)}; it uses "
            f"{', '.join(_COLUMNS)} and {_MODULATION}",
            stacklevel=2,
        )


def read_confounds(path: Path, n_scans: int) -> pd.DataFrame:
    """Read the confounds of one run: a tsv with a heading and a row for each scan.

    Missing values (as in the first row of a derivative) become the column's mean.

    Raises
    ------
    TreatmentDataError
        If there are not as many rows as scans, or a column is not of numbers.
    """
    table = _read(path)
    if len(table) != n_scans:
        raise TreatmentDataError(f"{path}: {len(table)} rows for a run of {n_scans} scans")
    numbers = table.apply(pd.to_numeric, errors="coerce")
    empty = [str(name) for name in numbers if numbers[name].isna().all()]
    if empty:
        raise TreatmentDataError(f"{path}: no numbers in the column {empty[0]!r}")
    filled: pd.DataFrame = numbers.fillna(numbers.mean())
    return filled


def _read(path: Path, separator: str = "\t", header: int | None = 0) -> pd.DataFrame:
    try:
        table: pd.DataFrame = pd.read_csv(
            path,
            sep=separator,
            header=header,
            keep_default_na=False,
            na_values=["n/a", ""],
            encoding="utf-8-sig",
            skipinitialspace=separator == ",",
        )
    except (OSError, ValueError) as error:  # pandas' errors of parsing are ValueErrors
        raise TreatmentDataError(f"{path} cannot be read: {error}") from error
    return table


def _read_paradigm(path: Path, run: int, n_runs: int) -> pd.DataFrame:
    table = _read(path, r"\s+", None)
    found = table.shape[1]
    if found == 3 and _may_be_of_fsl(path, table):  # noqa: PLR2004
        raise TreatmentDataError(
            f"{path} has three columns of numbers, as FSL's files of one condition: give one table with a "
            "heading, and the columns onset, duration, trial_type and perhaps modulation; or, if they are "
            'session, trial type and onset, put the trial types in quotes, as in 0 "1" 12.5'
        )
    if not 3 <= found <= len(_PARADIGM):  # noqa: PLR2004  (onsets alone are enough)
        raise TreatmentDataError(
            f"{path}: {found} columns, and a paradigm has {', '.join(_PARADIGM)}"
        )
    table.columns = pd.Index(_PARADIGM[:found])
    session = _of_session(path, table, run, n_runs)
    return session if "duration" in session else session.assign(duration=0.0)


def _may_be_of_fsl(path: Path, table: pd.DataFrame) -> bool:
    """Whether three columns may be onset, duration and weight instead of session, trial type and onset."""
    if any(kind.kind not in "iuf" for kind in table.dtypes):
        return False
    if table.dtypes[0].kind == "f":  # no session is a fraction
        return True
    # No condition has two events at once, but sessions have several events.
    return '"' not in _text(path) and not table[0].duplicated().any()


def _of_session(path: Path, table: pd.DataFrame, run: int, n_runs: int) -> pd.DataFrame:
    """Return the events of one run; the sessions, in their order, are the runs."""
    if table["session"].isna().any():
        raise TreatmentDataError(f"{path}: an event has no session")
    sessions = sorted(set(table["session"]))
    if len(sessions) != n_runs:
        raise TreatmentDataError(
            f"{path}: {len(sessions)} sessions for {n_runs} BOLD runs; give one file for each run, or one "
            "alone that has a session for each"
        )
    session: pd.DataFrame = table[table["session"] == sessions[run]]
    return session


def events_within(path: str, events: pd.DataFrame, end: float) -> pd.DataFrame:
    """Return the events that can have an effect on the scans; warn of others."""
    late = events["onset"] >= end
    early = events["onset"] < 0
    too_early = events["onset"] < _EARLIEST
    if not (late | early).any():
        return events
    told = (
        f"onsets from {events['onset'].min():g} to {events['onset'].max():g} s, and the scans are from 0 to "
        f"{end:g} s"
    )
    if (late | too_early | (events["onset"] + events["duration"] < 0)).all():
        raise TreatmentDataError(f"{path}: {told}")
    warnings.warn(
        f"{path}: {told}; {int(late.sum())} events after their end and {int(too_early.sum())} from before "
        f"{_EARLIEST:g} s are left out, {int((early & ~too_early).sum())} began in the time just before",
        stacklevel=2,
    )
    return events[~(late | too_early)].reset_index(drop=True)
