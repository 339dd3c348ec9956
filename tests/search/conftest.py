import pytest
from hydra.core.plugins import Plugins
from made_up_runs import Launcher

from prune2drive.models.tiny import Tiny


@pytest.fixture
def launcher(monkeypatch):
    fake = Launcher()
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: fake)
    monkeypatch.setattr(Tiny, "load", lambda self: pytest.fail("a model was loaded"))
    return fake
