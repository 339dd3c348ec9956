import pytest
import torch
from helpers import originals, stock

from prune2drive.errors import InputError
from prune2drive.integrations.settings import Settings, model_options
from prune2drive.minidrive.model import packaged
from prune2drive.models.find import adapter_of, known_adapters
from prune2drive.models.internvl import InternVL
from prune2drive.models.pretrained import Pretrained
from prune2drive.pruning import FastV

GIVEN = {"pretrained": str(packaged()), "device": "cpu"}


@pytest.fixture
def unloadable(monkeypatch):
    """Lets no test load weights."""
    monkeypatch.setattr(Pretrained, "load", None)


@pytest.fixture(scope="module")
def internvl(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stock")
    stock.save("internvl", folder)
    return str(folder)


def test_everything_is_read(unloadable):
    given = {"pruner": "fastv", "keep": 0.25, "positions": "renumber", "batch_size": "4", "layer": 3}
    settings = Settings.read({**GIVEN, **given, "dtype": "float32", "pruner.scope": "per_camera"})
    assert settings.pruner == FastV(layer=3, scope="per_camera")
    assert settings.policy.ratios(["image_0"]) == {"image_0": 0.25}
    assert settings.options == {"positions": "renumber"} and settings.batch_size == 4
    assert settings.adapter.options["dtype"] == "float32" and settings.device == torch.device("cpu")


def test_a_tenth_by_tfps_is_the_default_and_none_keeps_all(unloadable):
    assert Settings.read(GIVEN).pruner.cuts == (1,)
    assert not Settings.read({**GIVEN, "pruner": "none"}).pruner.cuts


def test_options_of_model_and_pruner_are_told_apart(internvl, unloadable):
    given = {"pretrained": internvl, "device": "cpu", "tiles": 2, "model.system": "the view", "dtype": "float32"}
    settings = Settings.read({**given, "pruner.dtype": "float64", "revision": "null"})
    adapter = settings.adapter
    assert isinstance(adapter, InternVL) and (adapter.tiles, adapter.system) == (2, "the view")
    assert (adapter.options["dtype"], settings.pruner.dtype) == ("float32", "float64")
    assert model_options(InternVL)[:1] == ["tiles"] and "dtype" in model_options(InternVL)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pretrained": ""}, "pretrained is not set: name a folder"),
        ({"pretrained": "/no/where"}, "pretrained=/no/where: no such folder"),
        ({"pruner": "tfsp"}, r"pruner=tfsp: no such choice; .*did you mean tfps\?"),
        ({"keep": 1.5}, r"^keep = 1.5 is outside \(0, 1\]"),
        ({"keep": 0}, r"keep = 0 is outside"),
        ({"keep": "many"}, r"keep = many is outside"),
        ({"kep": 0.1}, r"kep: no such option; there are pretrained, pruner, keep, .*did you mean keep\?"),
        ({"pruner.layr": 1}, r"layr: no such option; pruner=tfps has .*did you mean layer\?"),
        ({"model.tiles": 2}, "model.tiles: no such option"),
        ({"layer": 9}, "pruner.layer=9: the model's decoder has layers 0 to 7"),
        ({"layer": "deep"}, "layer=deep must be"),
        ({"positions": "new"}, "positions=new: choose from null, keep, renumber"),
        ({"dtype": "float8"}, "model.dtype=float8: choose from auto"),
        ({"batch_size": "auto"}, "batch_size=auto: use a whole number, 1 or more"),
        ({"batch_size": 0}, "batch_size=0: use a whole number"),
        ({"device": "gpu7"}, "device=gpu7: .*; use cpu"),
        ({"pruner": "cdpruner", "relevance": "clip"}, "CDPruner: relevance=clip with clip=None"),
    ],
)
def test_mistakes_end_in_one_line_before_weights_are_loaded(given, message, unloadable):
    with pytest.raises(InputError, match=message) as caught:
        Settings.read({**GIVEN, **given})
    assert "\n" not in str(caught.value)


def test_a_family_that_is_not_known_is_named(tmp_path, unloadable):
    originals.write_json(tmp_path / "config.json", {"model_type": "phi3_v"})
    with pytest.raises(InputError, match="pretrained=.*: phi3_v models cannot be pruned; known are intern"):
        Settings.read({"pretrained": str(tmp_path)})


def test_a_pruner_that_does_not_fit_the_family_is_refused(internvl, unloadable):
    with pytest.raises(InputError, match="Resize: "):
        Settings.read({"pretrained": internvl, "pruner": "resize"})


def test_every_family_has_its_adapter(tmp_path):
    assert known_adapters().keys() >= {*stock.MODULES, "llava_llama", "internvl_chat"}
    for family in stock.MODULES:
        stock.save(family, tmp_path / family)
        adapter = adapter_of(str(tmp_path / family))
        assert f"{adapter.__module__}.{adapter.__name__}" == stock.target(family)
