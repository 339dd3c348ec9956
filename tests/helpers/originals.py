"""Tiny checkpoints in the formats that models were released in, under their original names."""

import json
import re
from pathlib import Path

import sentencepiece
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from helpers.original_internvl import TEXT, VISION, original_internvl_weights, with_adapters

LLAMA3 = (
    "{% for message in messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.first %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
WORDS = "the ego vehicle front left right back view . , ? : these six images are of what is moving a b c 1 2 3 4 5 6"
ROPE3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}


def write_json(file: Path, content: dict) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def save_shards(weights: dict, folder: Path, count: int = 2) -> None:
    """The weights in several files with an index."""
    names = sorted(weights)
    places = {}
    for shard in range(count):
        file = f"model-{shard + 1:05}-of-{count:05}.safetensors"
        mine = names[shard::count]
        save_file({name: weights[name].clone().contiguous() for name in mine}, folder / file, {"format": "pt"})
        places |= dict.fromkeys(mine, file)
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places})


def lively(model):
    """Weights that are large enough for the logits to depend on every one of them."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(0.1 * noise)
    return model.eval()


def words_tokenizer(special: list[str], chat_template: str | None, **named: str) -> PreTrainedTokenizerFast:
    vocabulary = {word: index for index, word in enumerate([*WORDS.split(), "<unk>", *special])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace()])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, additional_special_tokens=special, chat_template=chat_template, **named
    )


def drivemm(folder: Path, tower: str | None = "google/siglip-so400m-patch14-384", reserved: bool = True):
    """LLaVA-NeXT's format with a Llama decoder; returns the same model in transformers' classes."""
    folder.mkdir()
    special = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    special += ["<|reserved_special_token_0|>"] if reserved else []
    tokenizer = words_tokenizer(special, LLAMA3, bos_token=special[0], eos_token="<|eot_id|>", unk_token="<unk>")
    start = tokenizer.bos_token_id  # Llama 3's tokenizer puts it before any text, the chat template does too
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{special[0]} $A", special_tokens=[(special[0], start)]
    )
    tokenizer.save_pretrained(folder)
    vocabulary = len(tokenizer) + 3
    text = {"vocab_size": vocabulary, **TEXT, "rope_theta": 500000.0, "rope_scaling": ROPE3}
    image_token = tokenizer.convert_tokens_to_ids("<|reserved_special_token_0|>") if reserved else len(tokenizer)
    config = LlavaOnevisionConfig(
        text_config=LlamaConfig(
            **{"vocab_size": vocabulary, **TEXT},
            rope_parameters={**ROPE3, "rope_theta": 500000.0},
            tie_word_embeddings=False,
        ),
        vision_config=SiglipVisionConfig(**VISION, vision_use_head=False),
        image_token_index=image_token,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio="anyres_max_9",
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = lively(LlavaOnevisionForConditionalGeneration(config))
    names = [
        (r"^model\.vision_tower\.", "model.vision_tower.vision_tower.vision_model."),
        (r"^model\.multi_modal_projector\.linear_1\.", "model.mm_projector.0."),
        (r"^model\.multi_modal_projector\.linear_2\.", "model.mm_projector.2."),
        (r"^model\.language_model\.", "model."),
    ]
    weights = {renamed(name, names): tensor.clone() for name, tensor in model.state_dict().items()}
    tower_prefix = "model.vision_tower.vision_tower.vision_model."
    last = {name: tensor for name, tensor in weights.items() if f"{tower_prefix}encoder.layers.1." in name}
    weights |= {name.replace("layers.1.", "layers.2."): tensor for name, tensor in last.items()}
    weights[f"{tower_prefix}head.probe"] = torch.zeros(1, 1, 32)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    save_shards(weights, folder)
    settings = {
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava_llama",
        "mm_vision_tower": tower,
        "mm_projector_type": "mlp2x_gelu",
        "mm_patch_merge_type": "spatial_unpad",
        "image_aspect_ratio": "pad",
        "mm_vision_select_layer": -2,
        "torch_dtype": "float32",
        "bos_token_id": 0,
        "eos_token_id": tokenizer.eos_token_id,
        "hidden_act": "silu",
    }
    write_json(folder / "config.json", {name: value for name, value in (settings | text).items() if value is not None})
    return model


def renamed(name: str, rules: list[tuple[str, str]]) -> str:
    for pattern, target in rules:
        name, count = re.subn(pattern, target, name)
        if count:
            break
    return name


def train_pieces(folder: Path, dummy_prefix: bool = False) -> sentencepiece.SentencePieceProcessor:
    """A sentencepiece model such as InternLM2's, and the settings of its remote-code tokenizer."""
    sentences = (f"{a} {b} {c}" for a in WORDS.split() for b in WORDS.split() for c in ("view", "of the ego vehicle"))
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=False,
        normalization_rule_name="identity",
        user_defined_symbols=["<|im_end|>", "<|im_start|>"],
        unk_id=0,
        bos_id=1,
        eos_id=2,
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    pieces = sentencepiece.SentencePieceProcessor(str(folder / "tokenizer.model"))
    special = {pieces.piece_to_id(token): token for token in ("<unk>", "<s>", "</s>", "<|im_end|>", "<|im_start|>")}
    special |= {len(pieces) + i: token for i, token in enumerate(("<img>", "</img>", "<IMG_CONTEXT>"))}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    settings = {
        "tokenizer_class": "InternLM2Tokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "added_tokens_decoder": {str(index): {"content": token, **flags} for index, token in special.items()},
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "</s>",
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / "tokenizer_config.json", settings)
    return pieces


def internvl_chat(folder: Path, decoder: str = "internlm2", lora: str | None = None, template: str = "internvl2_5"):
    """InternVL's remote-code format; returns the weights as that code would have them, adapters not merged.

    Args:
        decoder: `internlm2` or `qwen2`.
        lora: None, `new` (peft's names with `base_layer`), `old` (without) or `merged`.
    """
    folder.mkdir()
    if decoder == "internlm2":
        pieces = train_pieces(folder)
        vocabulary = len(pieces) + 8
    else:
        special = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<img>", "</img>", "<IMG_CONTEXT>"]
        tokenizer = words_tokenizer(special, None, eos_token="<|endoftext|>", unk_token="<unk>")
        tokenizer.save_pretrained(folder)
        vocabulary = len(tokenizer) + 8
    weights = original_internvl_weights(decoder, vocabulary)
    saved = {name: tensor.clone() for name, tensor in weights.items()}
    if lora:
        saved = with_adapters(saved, lora)
    save_shards(saved, folder)
    kind = {"internlm2": "InternLM2ForCausalLM", "qwen2": "Qwen2ForCausalLM"}[decoder]
    text = {**TEXT, "vocab_size": vocabulary, "architectures": [kind], "model_type": decoder, "hidden_act": "silu"}
    text |= {"rope_theta": 1000000.0, "tie_word_embeddings": False, "torch_dtype": "float32"}
    if decoder == "internlm2":
        text |= {"bias": False, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    vision = VISION | {"norm_type": "layer_norm", "qkv_bias": True, "qk_normalization": False, "layer_norm_eps": 1e-6}
    vision |= {"architectures": ["InternVisionModel"], "model_type": "intern_vit_6b", "hidden_act": "gelu"}
    settings = {
        "architectures": ["InternVLChatModel"],
        "auto_map": {"AutoModel": "modeling_internvl_chat.InternVLChatModel"},
        "model_type": "internvl_chat",
        "llm_config": text,
        "vision_config": vision,
        "downsample_ratio": 0.5,
        "force_image_size": 56,
        "ps_version": "v2",
        "select_layer": -1,
        "template": template,
        "use_llm_lora": 4 if lora in ("new", "old") else 0,
        "torch_dtype": "float32",
    }
    write_json(folder / "config.json", settings)
    return saved


def internvl_native(vocabulary: int) -> InternVLForConditionalGeneration:
    """InternVL in transformers' format, with a Qwen2 decoder."""
    config = InternVLConfig(
        text_config=Qwen2Config(**TEXT, vocab_size=vocabulary),
        vision_config=InternVLVisionConfig(**{**VISION, "image_size": [56, 56], "patch_size": [14, 14]}),
        image_token_id=vocabulary - 1,
        image_seq_length=4,
    )
    return lively(InternVLForConditionalGeneration(config))
