"""Another account of the same machine, which may write to a directory on the way to a pickle."""

from __future__ import annotations

import grp
import json
import os
import pickle
import pwd
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pyhrf_parallel import ConfigurationError, MapRun, remote_map, submit_map, submit_treatments
from pyhrf_parallel.commands.main import main
from pyhrf_parallel.configuration import Configuration
from pyhrf_parallel.files import private_directory, write_then_rename
from pyhrf_parallel.places import check_place, make_private
from pyhrf_parallel.runs.manifests import Manifest, list_runs, remember
from pyhrf_parallel.worker.record_files import RecordFile
from pyhrf_parallel.worker.records import returned
from tests.conftest import missing
from tests.treatment_jobs.conftest import ESTIMATE, SPLIT, table

OTHER = f"pyhrfother{os.getpid()}"


@pytest.fixture(scope="module")
def other() -> Iterator[pwd.struct_passwd]:
    """A second account, with a group of its own name that we are no member of."""
    if os.getuid() != 0 or not shutil.which("useradd", path="/usr/sbin:/sbin"):
        missing("cluster", "other accounts are made by root, with useradd")
    subprocess.run(["/usr/sbin/useradd", "--no-create-home", "--user-group", OTHER], check=True)
    yield pwd.getpwnam(OTHER)
    subprocess.run(["/usr/sbin/userdel", OTHER], check=True)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A place that others can get to, with a HOME in it; new files are for the group, too."""
    place = Path(tempfile.mkdtemp(prefix="pyhrf_parallel-tests-", dir="/tmp"))
    place.chmod(0o755)
    (place / "home").mkdir(mode=0o755)
    monkeypatch.setenv("HOME", str(place / "home"))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    before = os.umask(0o002)
    yield place
    os.umask(before)
    shutil.rmtree(place)


def as_other(other: pwd.struct_passwd, *argv: object) -> None:
    subprocess.run(
        list(map(str, argv)), user=other.pw_uid, group=other.pw_gid, extra_groups=[], check=True
    )


def share(directory: Path, other: pwd.struct_passwd) -> None:
    """Let another account write there, as one of a group that shares a project."""
    os.chown(directory, -1, other.pw_gid)
    directory.chmod(0o2775)


def open_up(world: Path, directory: Path) -> None:
    """Let others enter a directory, and those above."""
    for place in (directory, *directory.parents):
        if world in place.parents:
            place.chmod(0o755)


def manifest_of(run_id: str, directory: Path) -> Manifest:
    options = {"on_error": "raise", "timeout": None, "retries": 0}
    return Manifest(
        run_id, "f", 1, "2026-01-01T00:00:00+0000", str(directory), asdict(Configuration()), options,
        {}, "me@here", here=True,
    )  # fmt: skip


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


def a_run_of_theirs(other: pwd.struct_passwd, world: Path, mark: Path) -> Path:
    """Return a directory of the other account's that looks like that of a run which has ended."""
    place = world / "theirs"
    place.mkdir()
    records = RecordFile(str(place / "job.records"))
    records.write([*returned(0, [1]), ("pickled", 0, pickle.dumps(Evil(mark)))])
    records.write([("raised", 0, pickle.dumps(Evil(mark)), "", "", "")])
    records.finish()
    state = {"phase": "done", "pid": 1, "host": "h", "settled": 1, "failed": 0, "jobs": []}
    (place / "state.json").write_text(json.dumps(state))
    for path in (place, *place.iterdir()):
        os.chown(path, other.pw_uid, other.pw_gid)
        path.chmod(0o755 if path.is_dir() else 0o644)
    return place


class TestRuns:
    def test_all_that_is_made_is_private_whatever_the_umask(self, world: Path) -> None:
        with submit_treatments(
            {"one": table(world / "data")},
            {"one": world / "out"},
            exec_cmd=ESTIMATE,
            split_cmd=SPLIT,
        ) as run:
            run.result()  # what the engine makes is there, too
            made = [world / "home" / ".local", *(world / "home" / ".local").rglob("*")]
            modes = {stat.S_IMODE(p.stat().st_mode) for p in made if p.is_dir()}
            run.clean()
        assert modes == {0o700}

    def test_a_group_of_many_and_its_umask(
        self, other: pwd.struct_passwd, world: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Files are for the group then, in directories that it cannot enter."""
        before = os.getegid()
        os.setegid(other.pw_gid)
        try:
            run_id = submit_map(abs, [(-1,)]).run_id
            kept = world / "home/.local/state/pyhrf_parallel/runs" / run_id / "manifest.json"
            assert kept.stat().st_gid == other.pw_gid
            assert kept.stat().st_mode & stat.S_IWGRP
            assert main(["collect", "last", "-o", str(world / "results")]) == 0
        finally:
            os.setegid(before)
        assert capsys.readouterr().err == ""

    def test_a_member_of_the_group_replaces_all_runs(
        self, other: pwd.struct_passwd, world: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        remember(manifest_of("20260101-mine", world / "nowhere"))
        state = world / "home" / ".local" / "state" / "pyhrf_parallel"
        share(state, other)  # as it was made with this umask once
        open_up(world, state.parent)

        mark = world / "executed"
        forged = manifest_of("20260101-z", a_run_of_theirs(other, world, mark))
        (world / "theirs" / "manifest.json").write_text(json.dumps(asdict(forged)))
        as_other(other, "mv", state / "runs", state / "gone")
        as_other(other, "mkdir", "-p", state / "runs" / "20260101-z")
        as_other(
            other, "cp", world / "theirs" / "manifest.json", state / "runs" / "20260101-z" / "manifest.json"
        )  # fmt: skip
        assert main(["collect", "last", "-o", str(world / "results.pickle")]) == 1
        assert "belongs to another user" in capsys.readouterr().err
        with pytest.raises(ConfigurationError):
            list_runs()
        assert not mark.exists()

    def test_a_directory_that_others_could_write_to_is_named_with_the_way_out(
        self, other: pwd.struct_passwd, world: Path
    ) -> None:
        remember(manifest_of("20260101-mine", world / "nowhere"))
        places = [world / "home" / ".local" / name for name in ("state", "state/pyhrf_parallel")]
        open_up(world, places[0])
        for place in places:
            share(place, other)
        with pytest.raises(ConfigurationError, match="others than this account may write") as told:
            list_runs()
        command = str(told.value).partition("chmod go-w ")[2].partition(";")[0]
        assert command == " ".join(map(str, places))
        assert "XDG_STATE_HOME" in str(told.value)
        subprocess.run(["chmod", "go-w", *command.split()], check=True)
        assert [run.run_id for run in list_runs()] == ["20260101-mine"]

    @pytest.mark.parametrize("name", ["manifest.json", "."])
    def test_a_manifest_that_others_could_have_written(
        self, name: str, other: pwd.struct_passwd, world: Path
    ) -> None:
        remember(manifest_of("20260101-mine", world / "nowhere"))
        path = world / "home/.local/state/pyhrf_parallel/runs/20260101-mine" / name
        open_up(world, path.parent)
        path.chmod(0o777)
        with pytest.raises(ConfigurationError, match="20260101-mine"):
            MapRun.load("20260101-mine")
        os.chown(path, other.pw_uid, -1)
        with pytest.raises(ConfigurationError, match="belongs to another user"):
            list_runs()

    def test_the_directory_of_a_run_is_another_account_s(
        self, other: pwd.struct_passwd, world: Path
    ) -> None:
        mark = world / "executed"
        remember(manifest_of("20260101-mine", a_run_of_theirs(other, world, mark)))
        run = MapRun.load("20260101-mine")
        for _ in range(2):  # nor is it forgotten
            with pytest.raises(ConfigurationError, match="theirs belongs to another user"):
                run.result()
        assert not mark.exists()

    def test_nothing_is_submitted_that_could_not_be_trusted_later(
        self, other: pwd.struct_passwd, world: Path, tmp_path: Path
    ) -> None:
        share(world / "home", other)
        with pytest.raises(ConfigurationError, match="chmod go-w"):
            submit_treatments(
                {"one": table(tmp_path)}, {"one": tmp_path}, exec_cmd=ESTIMATE, split_cmd=SPLIT
            )
        assert list((world / "home").iterdir()) == []

    def test_a_relative_state_home_is_ignored(
        self, world: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(world)
        monkeypatch.setenv("XDG_STATE_HOME", "state")
        remember(manifest_of("20260101-mine", world))
        assert not (world / "state").exists()


class TestPlaces:
    def test_a_group_of_ones_own(self, other: pwd.struct_passwd, world: Path) -> None:
        """Many systems give each user a group, and a umask that lets it write."""
        (world / "mine").mkdir()
        assert (world / "mine").stat().st_mode & stat.S_IWGRP
        check_place(world / "mine")
        assert grp.getgrgid(other.pw_gid).gr_name == OTHER
        share(world / "mine", other)
        with pytest.raises(ConfigurationError, match="mine"):
            check_place(world / "mine")

    def test_a_group_of_ones_own_that_has_members(
        self, other: pwd.struct_passwd, world: Path
    ) -> None:
        subprocess.run(["/usr/sbin/usermod", "-a", "-G", "root", OTHER], check=True)
        try:
            (world / "mine").mkdir()
            with pytest.raises(ConfigurationError, match="mine"):
                check_place(world / "mine")
        finally:
            subprocess.run(["/usr/bin/gpasswd", "-d", OTHER, "root"], check=True)

    def test_below_what_nobody_else_may_enter(self, other: pwd.struct_passwd, world: Path) -> None:
        for name in ("mine", "mine/a", "mine/a/b"):
            (world / name).mkdir()
        share(world / "mine" / "a", other)
        (world / "mine").chmod(0o700)
        check_place(world / "mine" / "a" / "b")
        (world / "mine").chmod(0o710)
        with pytest.raises(ConfigurationError, match="mine/a"):
            check_place(world / "mine" / "a" / "b")
        (world / "mine").chmod(0o700)
        (world / "way").symlink_to(world / "mine" / "a")
        check_place(world / "way" / "b")
        (world / "mine" / "out").symlink_to(world / "shared")
        (world / "shared").mkdir()
        share(world / "shared", other)
        with pytest.raises(ConfigurationError, match="shared"):
            check_place(world / "mine" / "out")

    def test_links_are_followed(self, other: pwd.struct_passwd, world: Path) -> None:
        for name in ("mine", "theirs", "mine/a"):
            (world / name).mkdir(mode=0o700)
        (world / "ours").symlink_to("mine/../mine")
        check_place(world / "ours" / "a")
        os.chown(world / "theirs", other.pw_uid, other.pw_gid)
        (world / "ours").unlink()
        (world / "ours").symlink_to(world / "theirs")
        with pytest.raises(ConfigurationError, match="theirs belongs to"):
            check_place(world / "ours")
        (world / "link").symlink_to(world / "mine")
        os.chown(world / "link", other.pw_uid, -1, follow_symlinks=False)
        with pytest.raises(ConfigurationError, match="link belongs to"):
            check_place(world / "link" / "a")
        (world / "loop").symlink_to("loop")
        with pytest.raises(OSError, match="symbolic links"):
            check_place(world / "loop")

    def test_where_everybody_writes(self, other: pwd.struct_passwd, world: Path) -> None:
        (world / "all").mkdir()
        (world / "all").chmod(0o1777)
        make_private(world / "all" / "a" / "b")
        check_place(world / "all" / "a" / "b")
        os.chown(world / "all" / "a", other.pw_uid, -1)
        with pytest.raises(ConfigurationError, match="a belongs to another user"):
            check_place(world / "all" / "a" / "b")
        (world / "all").chmod(0o777)
        with pytest.raises(ConfigurationError, match=r"may write to .*all"):
            make_private(world / "all" / "c")
        assert not (world / "all" / "c").exists()

    def test_in_a_container_that_does_not_know_root(self, world: Path) -> None:
        """As with containers for users: all that is not theirs belongs to nobody."""
        script = world / "script.py"
        script.write_text(
            "import os, sys; sys.path.insert(0, sys.argv[1])\n"
            "from pyhrf_parallel.places import check_place\n"
            "assert os.stat('/').st_uid == 65534\n"
            "check_place(sys.argv[2])\n"
        )
        (world / "mine").mkdir(mode=0o700)
        os.chown(world / "mine", 12345, 12345)
        package = Path(check_place.__code__.co_filename).parent
        shutil.copytree(package, world / "lib" / "pyhrf_parallel")
        argv: list[str | Path] = [
            "unshare",
            "--user",
            "--map-user=12345",
            "/usr/bin/python3",
            script,
            world / "lib",
        ]

        def look() -> str:
            done: subprocess.CompletedProcess[str] = subprocess.run(
                [*argv, world / "mine"], user=12345, group=12345, extra_groups=[],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if "unshare" in done.stderr:
                missing("cluster", done.stderr)
            return done.stderr

        assert "belongs to another user" in look()  # in /tmp, it may be anybody's
        os.chown(world, 12345, -1)
        assert look() == ""

    def test_temporary_files_that_others_could_replace(
        self, other: pwd.struct_passwd, world: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (world / "scratch").mkdir()
        share(world / "scratch", other)
        monkeypatch.setenv("TMPDIR", str(world / "scratch"))
        monkeypatch.setattr(tempfile, "tempdir", None)
        for mode in ("local", "local_with_dumps", "remote_cluster"):
            with pytest.raises(ConfigurationError, match="TMPDIR"):
                remote_map(abs, [(1,)], mode=mode)
        assert list((world / "scratch").iterdir()) == []
        (world / "scratch").chmod(0o3775)  # whoever made a file there is the one who may replace it
        with private_directory():
            pass

    def test_no_file_is_written_through_somebody_s_link(self, world: Path) -> None:
        (world / "precious").write_text("mine")
        for guess in (f".x.{os.getpid()}.part", f".x.{os.getpid()}-0.part"):
            (world / guess).symlink_to("precious")
        write_then_rename(world / "x", b"new")
        assert (world / "precious").read_text() == "mine"
        assert (world / "x").read_bytes() == b"new"
