"""Analysers of a user's, importable on workers."""

from __future__ import annotations

import os
import signal

from pyhrf_parallel.treatments import Estimates, ROIData


def mean_signal(roi: ROIData) -> Estimates:
    return Estimates({"mean": roi.signals[0].mean(axis=0)})


def fail_in_2(roi: ROIData) -> Estimates:
    if roi.roi_id == 2:
        raise ValueError("no HRF fits")
    return mean_signal(roi)


def die_in_2(roi: ROIData) -> Estimates:
    if roi.roi_id == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return mean_signal(roi)
