"""What tests of pages share."""

import pytest
from helpers import browser as browsers


@pytest.fixture(scope="module")  # while it runs, the process cannot start an event loop of its own
def browser():
    """A headless browser; tests that ask for it skip where none is installed."""
    with browsers.started() as started:
        yield started
