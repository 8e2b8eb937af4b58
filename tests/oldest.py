"""Print the oldest versions of what pyproject.toml depends on, as constraints for pip."""

from __future__ import annotations

import tomllib
from pathlib import Path


def main() -> None:
    """Print them: of each the last one that only has fixes beside the version that is named."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    for one in [*project["dependencies"], *(one for extra in extras for one in extra)]:
        name, _, version = one.partition(">=")
        if version:
            print(f"{name}=={version}.*")


if __name__ == "__main__":
    main()
