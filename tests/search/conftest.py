import pytest
from alembic.util import pyfiles
from helpers.made_up_runs import Launcher
from hydra.core.plugins import Plugins

from prune2drive.minidrive.tiny import Tiny


@pytest.fixture(scope="package", autouse=True)
def quick_storages():
    """Optuna reads the history of its tables from a dozen files whenever it opens a database."""
    load, known = pyfiles.load_module_py, {}

    def once(name, path):
        if path not in known:
            known[path] = load(name, path)
        return known[path]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(pyfiles, "load_module_py", once)
        yield


@pytest.fixture
def launcher(monkeypatch, no_charts):
    fake = Launcher()
    monkeypatch.setattr(Plugins, "instantiate_launcher", lambda *_, **__: fake)
    monkeypatch.setattr(Tiny, "load", lambda self: pytest.fail("a model was loaded"))
    return fake
