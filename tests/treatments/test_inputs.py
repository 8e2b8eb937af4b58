"""What users have: tables, parcellations, images and paths of many kinds."""

from __future__ import annotations

import gzip
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from pyhrf_parallel import NotShippableError, TreatmentDataError, TreatmentError
from pyhrf_parallel.backends import Mode
from pyhrf_parallel.treatments import FmriData, GLMAnalyser, ROITreatment
from tests.conftest import ROOT
from tests.treatments import analyses
from tests.treatments.conftest import AFFINE, N_SCANS, TR, Subject

LINES = ["onset\tduration\ttrial_type", "3.5\t1\taudio", "9\t0.5\tvideo now"]


class TestEvents:
    @pytest.mark.parametrize(
        ("name", "separator"),
        [("e.txt", "\t"), ("e.tsv.gz", "\t"), ("e.csv", "\t"), ("e.csv", ","), ("e.csv", ";"),
         ("e.csv", ", "), ("e.txt.gz", ","), ("e.dat", "\t")],
    )  # fmt: skip
    @pytest.mark.parametrize("newline", ["\n", "\r\n"])
    def test_tables_with_a_heading(
        self, name: str, separator: str, newline: str, subject: Subject
    ) -> None:
        text = ("\ufeff" + newline.join(LINES).replace("\t", separator)).encode()
        path = subject.place / name
        path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
        table = subject.data(events=[path, path]).design_tables[0][1]
        assert table["onset"].tolist() == [3.5, 9.0]
        assert table["trial_type"].tolist() == ["audio", "video now"]

    @pytest.mark.parametrize("name", ["p.csv", "p.txt"])
    def test_paradigms(self, name: str, subject: Subject) -> None:
        path = subject.place / name
        path.write_text('0 "audio now" 15.0 0.0\n1 "video" 3.5 0.0\n')
        tables = subject.data(events=path).design_tables[0]
        assert [table["trial_type"].tolist() for table in tables] == [["audio now"], ["video"]]

    def test_a_file_of_fsl(self, subject: Subject) -> None:
        path = subject.place / "audio.txt"
        path.write_text("0 1 1\n12.5 1 1\n")
        with pytest.raises(TreatmentDataError, match=r"as FSL's files of one condition: give one"):
            subject.data(events=[path, path]).check()

    @pytest.mark.parametrize("text", ["0 1 15\n0 2 30.5\n1 1 3.5\n", '0 "1" 15\n1 "1" 3.5\n'])
    def test_trial_types_that_are_numbers(self, text: str, subject: Subject) -> None:
        path = subject.place / "paradigm.csv"
        path.write_text(text)
        first, second = subject.data(events=path).design_tables[0]
        assert first["trial_type"].tolist() == ["1", "2"][: len(first)]
        assert (first["onset"][0], second["onset"].tolist()) == (15, [3.5])

    def test_a_heading_with_sessions(self, subject: Subject) -> None:
        path = subject.place / "e.csv"
        path.write_text("session,onset,duration,trial_type\n0,15,1,a\n0,30,1,b\n1,3.5,1,a\n")
        first, second = subject.data(events=path).design_tables[0]
        assert (first["onset"].tolist(), second["onset"].tolist()) == ([15, 30], [3.5])
        with pytest.raises(TreatmentDataError, match="2 sessions for 1 BOLD runs"):
            subject.data(events=[path, path]).check()

    def test_events_long_before_the_scans(self, subject: Subject) -> None:
        path = subject.place / "e.tsv"
        path.write_text("onset\tduration\ttrial_type\n-90\t1\ta\n-20\t1\ta\n5\t1\ta\n")
        with pytest.warns(UserWarning, match=r"1 from before -24 s are left out, 1 began"):
            tables, _ = subject.data(events=[path, path]).design_tables
        assert tables[0]["onset"].tolist() == [-20.0, 5.0]

    def test_a_damaged_file(self, subject: Subject) -> None:
        path = subject.place / "e.tsv.gz"
        path.write_bytes(gzip.compress(b"x" * 10_000)[:20])
        with pytest.raises(TreatmentDataError, match=r"e\.tsv\.gz cannot be read"):
            subject.data(events=[path, path]).check()

    def test_one_table_for_several_runs(self, subject: Subject) -> None:
        one = subject.events(0)
        with pytest.raises(
            TreatmentDataError, match=r"of one run, and there are 2: .* the same one again if"
        ):
            subject.data(events=one).check()
        first, second = subject.data(events=[one, one]).design_tables[0]
        assert first.equals(second)

    def test_events_outside_of_the_scans_are_told(self, subject: Subject) -> None:
        path = subject.place / "e.tsv"
        path.write_text("onset\tduration\ttrial_type\n-3\t1\ta\n5\t1\ta\n180\t1\ta\n500\t1\tb\n")
        with pytest.warns(
            UserWarning, match=r"e\.tsv: onsets from -3 to 500 s.*2 events after.*1 began"
        ):
            tables, _ = subject.data(events=[path, path]).design_tables
        assert tables[0]["onset"].tolist() == [-3.0, 5.0]


class TestParcellations:
    @pytest.mark.parametrize("outside", [np.nan, -1.0])
    def test_no_region(self, outside: float, subject: Subject) -> None:
        subject.labels = np.where(subject.labels == 30, outside, subject.labels).astype(np.float32)
        assert subject.data().roi_ids == [7, 2]

    def test_two_kinds_of_no_region(self, subject: Subject) -> None:
        subject.labels[5], subject.labels[4] = -1, 0
        with pytest.warns(UserWarning, match="of 0 and of -1: both are taken for no region"):
            assert subject.data().roi_ids == [7, 2]

    def test_labels_that_were_scaled(self, subject: Subject) -> None:
        subject.labels = subject.labels * np.float32(1.0000002)
        assert subject.data().roi_ids == [7, 2, 30]

    def test_labels_that_were_interpolated(self, subject: Subject) -> None:
        subject.labels = subject.labels.astype(np.float32)
        subject.labels[0, 0, 0] = 4.5
        with pytest.raises(TreatmentDataError, match="resampled other than by the nearest"):
            subject.data().check()

    def test_one_volume_in_four_dimensions(self, subject: Subject, tmp_path: Path) -> None:
        subject.labels = subject.labels[..., np.newaxis]
        data = subject.data()
        assert data.roi_ids == [7, 2, 30]
        ROITreatment(data, analyses.mean_signal, tmp_path / "out").run()

    def test_two_volumes(self, subject: Subject) -> None:
        subject.labels = np.stack([subject.labels] * 2, axis=3)
        with pytest.raises(TreatmentDataError, match="3 dimensions are expected"):
            subject.data().check()


def in_memory(subject: Subject) -> dict[str, Any]:
    data = subject.data()
    return {
        "bold": [nib.Nifti1Image(nib.load(path).get_fdata(), AFFINE) for path in data.bold],
        "parcellation": nib.Nifti1Image(subject.labels, AFFINE),
        "events": [pd.read_csv(path, sep="\t") for path in data.events],
        "confounds": [pd.DataFrame({"x": np.arange(N_SCANS) % 7})] * 2,
        "tr": TR,
    }


class TestInMemory:
    @pytest.mark.parametrize("mode", ["serial", "remote_cluster"])
    def test_images_and_tables(self, mode: Mode, subject: Subject, tmp_path: Path) -> None:
        given = in_memory(subject)
        found = ROITreatment(FmriData.of(**given), GLMAnalyser(), tmp_path / "a").run(mode)
        given["events"][0].to_csv(tmp_path / "0.tsv", sep="\t", index=False)
        given["events"][1].to_csv(tmp_path / "1.tsv", sep="\t", index=False)
        given["confounds"][0].to_csv(tmp_path / "c.tsv", sep="\t", index=False)
        files = subject.data(
            events=[tmp_path / "0.tsv", tmp_path / "1.tsv"], confounds=[tmp_path / "c.tsv"] * 2
        )
        expected = ROITreatment(files, GLMAnalyser(), tmp_path / "b").run()
        for (_, one, _), (_, two, _) in zip(found, expected, strict=True):
            for name in two.maps:
                np.testing.assert_allclose(one.maps[name], two.maps[name], rtol=1e-6)

    def test_an_image_of_a_file_is_that_file(self, subject: Subject) -> None:
        data = subject.data()
        again = subject.data(
            bold=[nib.load(path) for path in data.bold], parcellation=nib.load(data.parcellation)
        )
        assert again == data
        changed = nib.load(data.bold[0])
        changed.get_fdata()[0] = 5
        assert subject.data(bold=[changed, data.bold[1]]).bold[0] != data.bold[0]

    def test_a_changed_header_or_affine_is_analysed(self, subject: Subject) -> None:
        data = subject.data()
        slower = nib.load(data.bold[0])
        slower.header["pixdim"][4] = 2 * TR
        moved = nib.load(data.bold[1])
        moved.affine[0, 3] += 5
        kept = FmriData.of([slower, moved], data.parcellation, data.events, tr=TR).bold
        assert nib.load(kept[0]).header["pixdim"][4] == pytest.approx(2 * TR)
        np.testing.assert_allclose(nib.load(kept[1]).affine, moved.affine)

    def test_what_outlives_the_process_needs_files(self, subject: Subject, tmp_path: Path) -> None:
        treatment = ROITreatment(FmriData.of(**in_memory(subject)), None, tmp_path)
        with pytest.raises(TreatmentError, match=r"in memory.*write them to files"):
            treatment.submit()
        with pytest.raises(NotShippableError, match="give files"):
            treatment.to_xml()

    def test_nothing_is_left(self, tmp_path: Path) -> None:
        code = (
            "import numpy as np, nibabel as nib, os; from pyhrf_parallel.treatments import FmriData\n"
            "image = nib.Nifti1Image(np.ones((2, 2, 2, 9)), np.eye(4))\n"
            "data = FmriData.of(image, image.slicer[..., 0], 'e.tsv', tr=2)\n"
            "assert all(map(os.path.exists, [*data.bold, data.parcellation]))\n"
            "if os.fork() == 0: raise SystemExit\n"
            "os.wait(); assert all(map(os.path.exists, data.bold))\n"
            "print(oct(os.stat(os.path.dirname(data.bold[0])).st_mode & 0o777))"
        )
        environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True,
            check=False, env=environment,
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("0o700\n", "")
        assert list(tmp_path.iterdir()) == []

    def test_anything_else(self) -> None:
        with pytest.raises(TreatmentDataError, match="a int is neither a path, an image"):
            FmriData.of("b.nii", 5, "e.tsv", 2.0)


class TestArguments:
    def test_one_path_is_a_list_of_one(self, subject: Subject) -> None:
        data = subject.data()
        single = FmriData(data.bold[0], data.parcellation, Path(data.events[0]), 2.0)  # type: ignore[arg-type]
        single.check()
        assert single.bold == data.bold[:1]
        assert pickle.loads(pickle.dumps(single)) == single

    def test_the_tr_of_the_header(self, subject: Subject) -> None:
        data = subject.data()
        found = FmriData.of(data.bold, data.parcellation, data.events)
        assert found == data
        subject.runs = subject.runs[:1]
        image = nib.load(data.bold[0])
        image.header.set_zooms((3.0, 3.0, 3.0, 1.0))
        nib.save(image, subject.place / "unknown.nii.gz")
        with pytest.raises(TreatmentDataError, match=r"no TR that can be relied on .*: give tr"):
            FmriData.of(subject.place / "unknown.nii.gz", data.parcellation, data.events)

    @pytest.mark.parametrize("mode", ["serial", "remote_cluster"])
    def test_modes_are_called_as_those_of_maps(
        self, mode: Mode, subject: Subject, tmp_path: Path
    ) -> None:
        assert len(ROITreatment(subject.data(), analyses.mean_signal, tmp_path).run(mode)) == 3
