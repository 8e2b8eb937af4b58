"""Pickling results, with tables as arrays and plain values: safe to read, and by any version of pandas."""

from __future__ import annotations

import copyreg
import io
import pickle
from collections import ChainMap
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import pandas as pd

_PLAIN = (str, int, float, bool, type(None))


def dumps(value: Any, protocol: int) -> bytes:
    """Pickle a value; objects that only a script knows are pickled by value.

    Raises
    ------
    Exception
        If it cannot be pickled at all.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, protocol).dump(value)
    except Exception:
        import cloudpickle

        class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
            dispatch_table: ClassVar[Any] = ChainMap(_REDUCERS, cloudpickle.Pickler.dispatch_table)

        file = io.BytesIO()
        ByValue(file, protocol).dump(value)
    return file.getvalue()


def make_table(labels: Any, index: Any, columns: list[Any]) -> pd.DataFrame:
    """Rebuild a table that was pickled."""
    table = pd.DataFrame({number: _series(*column) for number, column in enumerate(columns)})
    if labels is not None:
        table.columns = _index(*labels)
    if index is not None:
        table.index = _index(*index)
    return table


def make_series(name: Any, table: pd.DataFrame) -> pd.Series[Any]:
    """Rebuild a column that was pickled."""
    column: pd.Series[Any] = table.iloc[:, 0].rename(name)
    return column


def _series(values: Any, are_objects: bool) -> pd.Series[Any]:
    return pd.Series(values, dtype=object) if are_objects else pd.Series(values)


def _index(name: Any, values: Any, are_objects: bool) -> pd.Index[Any]:
    index: pd.Index[Any] = pd.Index(_series(values, are_objects), name=name)
    return index


def _reduce_table(table: pd.DataFrame) -> Any:
    with suppress(TypeError):
        labels, index = _plain_index(table.columns), _plain_index(table.index)
        arguments = labels, index, [_plain(table.iloc[:, i]) for i in range(table.shape[1])]
        if make_table(*arguments).equals(table) and not table.attrs:
            return make_table, arguments
    return table.__reduce_ex__(4)


def _plain_index(index: pd.Index[Any]) -> Any:
    """Return the name and values of an index; None if it just numbers the rows."""
    if isinstance(index, pd.RangeIndex) and index.identical(pd.RangeIndex(len(index))):
        return None
    if index.nlevels > 1 or not isinstance(index.name, _PLAIN):
        raise TypeError
    return index.name, *_plain(index.to_series())


def _plain(series: pd.Series[Any]) -> tuple[Any, bool]:
    """Return the values of a column as an array or a list, and whether they are objects to pandas.

    Raises
    ------
    TypeError
        If there are any but numbers and texts.
    """
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return series.to_numpy(), False
    values = series.tolist()
    if not all(isinstance(value, _PLAIN) for value in values):
        raise TypeError
    return values, series.dtype == object


def _reduce_series(series: pd.Series[Any]) -> Any:
    if series.attrs or not isinstance(series.name, _PLAIN):
        return series.__reduce_ex__(4)
    return make_series, (series.name, series.to_frame(0))


_REDUCERS: dict[type, Any] = {pd.DataFrame: _reduce_table, pd.Series: _reduce_series}


class _Pickler(pickle.Pickler):
    dispatch_table: Any = ChainMap[Any, Any](_REDUCERS, copyreg.dispatch_table)  # noqa: RUF012
