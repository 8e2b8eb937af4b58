"""What a job may ask for: refused before anything is sent, wherever it was said."""

from __future__ import annotations

import pytest

from pyhrf_parallel import ConfigurationError, submit_map
from pyhrf_parallel.amounts import read_amount
from pyhrf_parallel.configuration import load_configuration

WRONG = [
    ("mem", "4 gigs"),
    ("mem", "-1"),
    ("mem", "4G\nrm x"),
    ("mem", "4.5G"),
    ("time", "2 hours"),
    ("time", "1:2:3:4"),
    ("time", "01:00:00 --wrap=x"),
    ("cpus", "two"),
    ("cpus", "0"),
    ("cpus", 1.5),
    ("queue", "long\n#SBATCH --wrap"),
    ("queue", "a b"),
]


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_what_no_scheduler_takes(key: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=f"resources, {key}: .* not accepted; use "):
        submit_map(abs, [(1,)], resources={key: value}, dry_run=True)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match=rf"\[parallel-cluster\] {key}: .* not accepted"):
        load_configuration({"parallel-cluster": {key: value}})


@pytest.mark.parametrize(
    ("key", "value", "read"),
    [
        ("mem", "500m", "500M"),
        ("mem", 4000, "4000"),
        ("mem", " 4GB ", "4G"),
        ("time", "01:30:00", "01:30:00"),
        ("time", "2-12", "2-12"),
        ("time", 90, "90"),
        ("cpus", "4", 4),
        ("queue", "long,short", "long,short"),
    ],
)
def test_what_they_take(key: str, value: object, read: object) -> None:
    assert read_amount(key, value) == read
    assert getattr(load_configuration({"parallel-cluster": {key: value}}), key) == read


def test_options_are_one_line() -> None:
    for text in ("--comment='a\nb'", "--comment='"):
        with pytest.raises(ConfigurationError, match=r"native_specification: .*in one line"):
            load_configuration({"parallel-cluster": {"native_specification": text}})
    load_configuration({"parallel-cluster": {"native_specification": "--exclude=a\n  --account=b"}})
