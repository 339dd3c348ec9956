from pathlib import Path

import pytest
from helpers import runs


@pytest.fixture(scope="module")
def whole(request, tmp_path_factory) -> Path:
    """An uninterrupted run with the options of the test's module."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    runs.run(folder, *request.module.OPTIONS)
    return folder
