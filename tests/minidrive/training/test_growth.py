"""A deep model that starts from a shallower one computes what that one does, until its new layers have learned."""

import pytest
import torch

from prune2drive.errors import InputError
from prune2drive.minidrive.architecture import Architecture, build_model
from prune2drive.minidrive.training.growth import grow

SMALL = {"resolution": 28, "vision_width": 32, "vision_layers": 1, "vision_heads": 1, "heads": 2, "mlp": 32}


def model(layers, width=32):
    torch.manual_seed(layers)
    return build_model(Architecture(layers=layers, width=width, **SMALL)).eval()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    shallow = model(3)
    shallow.save_pretrained(folder)
    return shallow, folder


@torch.no_grad()
@pytest.mark.parametrize("layers", [3, 4, 5, 6])
def test_a_grown_model_computes_the_same_at_first(trained, layers):
    shallow, folder = trained
    deep = model(layers)
    grow(deep, folder)
    ids = torch.arange(5, 25)[None]
    torch.testing.assert_close(deep(input_ids=ids).logits, shallow(input_ids=ids).logits, atol=1e-5, rtol=1e-5)


def test_new_layers_follow_the_first_trained_ones(trained):
    shallow, folder = trained
    deep = model(5)
    grow(deep, folder)
    old, new = ([layer.self_attn.o_proj.weight for layer in each.get_decoder().layers] for each in (shallow, deep))
    assert [bool(weight.any()) for weight in new] == [True, False, True, False, True]
    assert all(torch.equal(new[2 * at], weight) for at, weight in enumerate(old))


def test_every_new_layer_learns(trained):
    deep = model(5)
    grow(deep, trained[1])
    deep(input_ids=torch.arange(5, 25)[None]).logits.square().mean().backward()
    for layer in deep.get_decoder().layers:
        assert layer.self_attn.o_proj.weight.grad.any() and layer.mlp.down_proj.weight.grad.any()


@pytest.mark.parametrize(
    ("layers", "width", "message"),
    [(2, 32, "layers=2: .* has 3; use 3 to 6"), (7, 32, "has 3; use 3 to 6"), (4, 64, "another shape")],
)
def test_sizes_that_do_not_fit_are_named(trained, layers, width, message):
    with pytest.raises(InputError, match=message):
        grow(model(layers, width), trained[1])


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match="holds no trained MiniDrive model"):
        grow(model(3), tmp_path)
