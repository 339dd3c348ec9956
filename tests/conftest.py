import os
from pathlib import Path

import pytest

from prune2drive import warm

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_from_other_tests():
    warm.forget()


@pytest.fixture(scope="session")
def drivelm_sample() -> Path:
    """The folder of the four-frame DriveLM sample: output.json, test_eval.json, ... and its images."""
    folder = Path(os.environ.get("PRUNE2DRIVE_SAMPLE") or REPOSITORY.parent / "shared/data/drivelm_sample")
    if not (folder / "test_eval.json").is_file():
        reason = f"no DriveLM sample in {folder}; set PRUNE2DRIVE_SAMPLE to the folder of test_eval.json"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    return folder
