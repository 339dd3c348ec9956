import pytest
from helpers import originals


@pytest.fixture(scope="session")
def llava(tmp_path_factory):
    """A folder in LLaVA-NeXT's format, and its model."""
    folder = tmp_path_factory.mktemp("llava") / "DriveMM"
    return folder, originals.drivemm(folder)


@pytest.fixture(scope="session")
def chats(tmp_path_factory):
    """Folders in InternVL's format, without adapters and with them in each style, and their weights."""
    root = tmp_path_factory.mktemp("chats")
    styles = (None, "new", "old", "merged")
    return {style: (root / str(style), originals.internvl_chat(root / str(style), lora=style)) for style in styles}
