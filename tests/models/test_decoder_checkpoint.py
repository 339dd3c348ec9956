import pytest
import torch
from helpers import families
from transformers import AutoModelForCausalLM

from prune2drive.errors import InputError
from prune2drive.models.decoder_checkpoint import check_decoder_alone, save_decoder
from prune2drive.pruning import RandomPruner, prune
from prune2drive.pruning.surgery.early_exit import stop_at


class Tokenizer:
    """One that leaves a file."""

    @staticmethod
    def save_pretrained(folder):
        (folder / "tokenizer.json").touch()


@pytest.mark.parametrize("name", ["llava_onevision", "llava", "internvl", "smolvlm"])
def test_the_decoder_alone_goes_on_from_pruned_embeddings_as_the_model_does(name, tmp_path):
    family, texts, seen = families.make(name), [[11, 12, 13]], []
    inputs, options = family.inputs(texts), {**family.naming(texts), "positions": "renumber"}
    with torch.inference_mode():
        with prune(family.model, RandomPruner(layer=0), 0.3, **options):
            expected = family.model(**inputs).logits
        with prune(family.model, RandomPruner(layer=0), 0.3, **options), stop_at(family.model, 0, seen):
            family.model(**inputs)
        save_decoder(family.model, Tokenizer, tmp_path / "decoder")
        alone = AutoModelForCausalLM.from_pretrained(tmp_path / "decoder").eval()
        torch.testing.assert_close(alone(inputs_embeds=seen[0]).logits, expected)
    is_tied = family.model.get_output_embeddings().weight is family.model.get_input_embeddings().weight
    assert alone.config.tie_word_embeddings is is_tied  # servers go by it, transformers by the weights
    assert [file.name for file in tmp_path.iterdir()] == ["decoder"] and (tmp_path / "decoder/tokenizer.json").exists()


def test_a_decoder_that_is_no_language_model_of_its_own_is_refused():
    config = families.FAMILIES["qwen2_5_vl"]().model.config.get_text_config()
    with pytest.raises(InputError, match="transformers has no language model for a decoder of this kind alone"):
        check_decoder_alone(config)
