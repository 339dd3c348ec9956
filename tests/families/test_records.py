"""What the files of families say, beside the stock models of transformers."""

import pytest
from helpers import families
from transformers import GemmaConfig, Qwen3VLMoeConfig, Qwen3VLMoeTextConfig

from prune2drive.errors import InputError
from prune2drive.families import decoder_of, family_of, known_decoders, known_families

MODELS = ("llava", "llava_onevision", "internvl", "smolvlm", "qwen2_5_vl", "qwen3_vl")


@pytest.fixture(scope="module", params=MODELS)
def stock(request):
    """A tiny model and inputs of one prompt."""
    family = getattr(families, request.param)()
    return family.model, family.inputs([[11, 12]])


def test_a_family_file_is_found_by_the_model_type(stock):
    model, _ = stock
    assert known_families()[model.config.model_type] is family_of(model.config)
    with pytest.raises(InputError, match="'gemma' models .*only for internvl, llava, .*: pass token_map="):
        family_of(GemmaConfig())


def test_vision_modules_are_all_that_is_no_decoder(stock):
    model, _ = stock
    children = {name for name, _ in model.base_model.named_children()}
    assert children - set(family_of(model.config).vision_modules) in ({"language_model"}, {"text_model"})


def test_pixel_inputs_are_all_that_hold_pixels(stock):
    model, inputs = stock
    floats = {name for name, value in inputs.items() if value.is_floating_point()}
    assert floats <= set(family_of(model.config).pixel_inputs)


def test_the_feature_layer_is_the_one_the_config_chooses(stock):
    model, _ = stock
    family, config = family_of(model.config), model.config
    if family.tower_layers is None:
        assert config.model_type.startswith("qwen")
        return
    layers = list(model.base_model.get_submodule(family.tower_layers))
    chosen = getattr(config, "vision_feature_layer", None)
    try:
        for given, expected in ((-1, 1), (-2, 0), (1, 0), (2, 1)):
            config.vision_feature_layer = given
            assert family.feature_layer(model) is layers[expected]
    finally:
        config.vision_feature_layer = chosen if chosen is not None else -1


def test_a_decoder_is_found_through_the_whole_model(stock):
    model, _ = stock
    decoder, record = model.get_decoder(), decoder_of(model.config)
    assert record is decoder_of(decoder.config) is known_decoders()[decoder.config.model_type]
    assert record.has_gated_mlp
    assert (record.rope_axes == 3) == ("mrope_section" in decoder.config.rope_parameters)
    assert (record.adds_features is not None) == hasattr(decoder, "_deepstack_process")
    assert record.adds_features is None or hasattr(decoder, record.adds_features)


def test_a_decoder_of_experts_has_no_gated_mlp():
    assert not decoder_of(Qwen3VLMoeConfig()).has_gated_mlp and decoder_of(Qwen3VLMoeTextConfig()).rope_axes == 3


def test_an_unknown_decoder_shows_its_axes_itself():
    plain = GemmaConfig()
    assert decoder_of(plain).rope_axes == 1 and not decoder_of(plain).has_gated_mlp
    plain.rope_parameters = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    assert decoder_of(plain).rope_axes == 3
