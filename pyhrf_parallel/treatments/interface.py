"""What a treatment has to offer, so that its regions can be analysed elsewhere."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Treatment(Protocol):
    """One subject's analysis, as ``pyhrf.parallel`` uses it.

    pyhrf's own ``FMRITreatment`` has this interface, and so has
    `pyhrf_parallel.treatments.ROITreatment`.

    Attributes
    ----------
    result_dump_file : str or None
        Where the merged result is wanted, besides the place that the caller names.
    """

    result_dump_file: str | None

    def dump_roi_datasets(
        self, dry: bool = False, output_dir: str | None = None
    ) -> tuple[list[str], list[int]]:
        """Split the data into regions, the biggest first.

        Parameters
        ----------
        dry : bool
            Write nothing.
        output_dir : str, optional
            Where the files go; the current directory by default.

        Returns
        -------
        files : list of str
            Absolute paths ``roidata_0000.pck``, ..., one for each region.
        roi_ids : list of int
            The labels of the regions, in the same order.
        """

    def get_data_files(self) -> list[str]:
        """Return the files that the analysis reads."""

    def replace_data_dir(self, d: str) -> None:
        """Look for all data files in another directory, under their own names."""

    def set_init_param(self, name: str, value: Any) -> None:
        """Change a parameter of the treatment's constructor."""
