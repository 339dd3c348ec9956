import pytest
import torch

from prune2drive.errors import InputError
from prune2drive.minidrive.tiny import Tiny


def weights(**options):
    return Tiny(**options).model.state_dict()


def test_the_seed_makes_the_weights():
    first, again, other = weights(), weights(seed=0), weights(seed=1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [name for name in first if first[name].ndim > 1]
    assert len(drawn) > 20 and not any(torch.equal(first[name], other[name]) for name in drawn)


def test_the_weights_leave_the_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    before = weights()
    assert torch.rand(3).equal(expected)
    assert all(torch.equal(before[name], after) for name, after in weights().items()), "nor do they depend on it"


def test_it_says_that_its_answers_are_noise(caplog):
    adapter = Tiny()
    assert adapter.is_noise and not caplog.records
    assert adapter.model is adapter.model and not adapter.model.training
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "its answers are noise" in caplog.text


def test_it_is_small():
    assert sum(value.numel() * value.element_size() for value in weights().values()) < 10e6


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention(attention):
    model = Tiny(attention=attention).model
    assert model.config.get_text_config()._attn_implementation == attention


def test_other_sizes():
    adapter = Tiny(sizes={"resolution": 56, "layers": 2})
    assert adapter.processor.num_image_tokens == 16 and adapter.text_config.num_hidden_layers == 2
    assert adapter.text_config.hidden_size == Tiny().text_config.hidden_size, "others stay small"


@pytest.mark.parametrize("sizes", [{"vision_width": 100}, {"width": 130}])
def test_channels_that_heads_do_not_share_are_refused_before_the_weights_are_drawn(sizes):
    ((name, width),) = sizes.items()
    with pytest.raises(InputError, match=rf"^{name}={width}: use a multiple of (vision_)?heads=\d$"):
        Tiny(sizes=sizes)


def test_unknown_attention():
    with pytest.raises(InputError, match="model.attention=foo: choose from sdpa, eager"):
        Tiny(attention="foo")


def test_the_config_is_there_before_the_weights():
    adapter = Tiny()
    assert adapter.text_config.num_hidden_layers == len(adapter.model.get_decoder().layers)
    assert adapter.config.to_dict() == adapter.model.config.to_dict()
