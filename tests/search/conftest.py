import pytest
from helpers.made_up_runs import Launcher
from hydra.core.plugins import Plugins

from prune2drive.minidrive.tiny import Tiny


@pytest.fixture
def launcher(monkeypatch):
    fake = Launcher()
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: fake)
    monkeypatch.setattr(Tiny, "load", lambda self: pytest.fail("a model was loaded"))
    return fake
