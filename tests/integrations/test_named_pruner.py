import pytest
from helpers import families

from prune2drive.errors import InputError
from prune2drive.integrations.named_pruner import build_pruner
from prune2drive.pruning import FastV, SparseVLM, Staged
from prune2drive.tasks.components import build
from prune2drive.tasks.config import compose

NAMES = [file.stem for file in families.PRUNERS]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_means_what_it_means_on_the_command_line(name):
    assert build_pruner(name) == build(compose([f"pruner={name}"]).pruner)


def test_options_are_set():
    assert build_pruner("tfps", {"layer": 3, "scope": "global"}) == build(
        compose(["pruner=tfps", "pruner.layer=3", "pruner.scope=global"]).pruner
    )
    assert build_pruner("sparsevlm", {"layers": [1, 2, 3]}) == SparseVLM(layers=[1, 2, 3], scope="global")


def test_a_pruner_inside_is_named_and_has_options():
    assert build_pruner("staged", {"pruner.metric": "l2"}).pruner.metric == "l2"
    inside = build_pruner("staged", {"pruner.scope": "per_camera", "pruner": "fastv", "layers": [1, 2]})
    assert inside == Staged(layers=[1, 2], pruner=FastV(scope="per_camera"))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tfsp", {}, r"pruner=tfsp: no such choice; pruner has cdpruner, .*; did you mean tfps\?"),
        ("tfps", {"layr": 1}, r"layr: no such option; pruner=tfps has layer, .*; did you mean layer\?"),
        ("tfps", {"layer.x": 1}, "layer.x: no such option"),
        ("none", {"layer": 1}, "pruner=none has no options"),
        ("staged", {"pruner.metrik": "l2"}, "metrik: no such option; pruner=staged pruner has scope, metric"),
        ("tfps", {"layer": -1}, "layer=-1 must be"),
        ("tfps", {"metric": "l3"}, "metric=l3"),
        ("fastv", {"layer": 0}, "layer=0 has no attention"),
        ("tfps", {"strength": "much"}, "TFPS: "),
    ],
)
def test_mistakes_end_in_one_line(name, options, message):
    with pytest.raises(InputError, match=message) as caught:
        build_pruner(name, options)
    assert "\n" not in str(caught.value)
