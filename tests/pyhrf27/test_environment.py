"""Where the tests keep what they run again later: nobody else can have put it there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.pyhrf27.environment import CannotBuildError, cache_directory, check_own


def test_it_is_in_no_directory_of_everybodys() -> None:
    place = cache_directory()
    for directory in (place, *place.parents):
        if directory == ROOT:
            break
        found = directory.lstat()
        assert (found.st_uid in (0, os.getuid()), found.st_mode & 0o22) == (True, 0), directory
    assert not place.is_relative_to(tempfile.gettempdir())


def test_what_others_can_write_to_is_refused(tmp_path: Path) -> None:
    place = (
        ROOT / ".venv-tests-of-others"
    )  # in a directory of everybody's, it would be refused for that
    place.mkdir(mode=0o755)
    try:
        check_own(place)
        place.chmod(0o775)
        with pytest.raises(CannotBuildError, match="others may write to it"):
            check_own(place)
        if os.getuid() == 0:
            place.chmod(0o755)
            os.chown(place, 4321, 4321)
            with pytest.raises(CannotBuildError, match="belongs to another account"):
                check_own(place)
    finally:
        place.rmdir()
    with pytest.raises(CannotBuildError):
        check_own(tmp_path)
