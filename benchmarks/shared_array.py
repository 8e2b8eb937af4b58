"""Map over tasks that share one large array: the process that `watching` watches.

Started with a mode of `remote_map`, or with ``joblib`` for joblib alone.
"""

from __future__ import annotations

import sys

import joblib
import numpy as np
from work import mean

from pyhrf_parallel import remote_map

BYTES = 200_000_000
TASKS = 100


def main() -> None:
    """Say that the array is there, wait for a line, run the map."""
    how = sys.argv[1]
    array = np.arange(BYTES // 8, dtype=np.float64)
    arguments = [(array, i) for i in range(TASKS)]
    print("ready", flush=True)
    sys.stdin.readline()
    if how == "joblib":
        results = joblib.Parallel(2)(joblib.delayed(mean)(*each) for each in arguments)
    else:
        results = remote_map(mean, arguments, mode=how, n_jobs=2, progress=False)
    expected = float(array.mean())
    assert results == [expected + i for i in range(TASKS)]


if __name__ == "__main__":
    main()
