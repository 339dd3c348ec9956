"""Relevance of visual tokens to the question by CLIP, for models whose vision tower is CLIP's.

Shape suffixes: C pools, N tokens of a pool, V visual tokens of a prompt, S segments of a text, L positions of one,
D channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from prune2drive.errors import InputError
from prune2drive.pruning.context import Context
from prune2drive.pruning.question_relevance import scaled

FAILURES = (OSError, ValueError, RuntimeError, ImportError, TypeError, KeyError, AttributeError)


@dataclass
class Clip:
    """Compares patches with texts, by CLIP's text tower and projections; loaded when first used.

    Args:
        checkpoint: a folder, or an id on the Hugging Face hub, of a whole CLIP model.
    """

    checkpoint: str

    def unsupported_reason(self, config: Any) -> str:
        """Says why this checkpoint cannot compare a model's patches with texts; empty where it can.

        Args:
            config: the model's configuration.

        Raises:
            InputError: the checkpoint cannot be read.
        """
        vision: Any = getattr(config, "vision_config", None)
        if getattr(vision, "model_type", None) != "clip_vision_model":
            return (
                "relevance=clip compares the question with patches of a CLIP vision tower, which this "
                f"{config.model_type} model does not have: use relevance=text"
            )
        width, ours = vision.hidden_size, self._config.vision_config.hidden_size
        if width != ours:
            return (
                f"clip={self.checkpoint} has patches of width {ours}, the model's tower {width}: "
                "name the CLIP that the tower was taken from, or use relevance=text"
            )
        _ = self._tokenizer  # read now, while there is no model yet
        return ""

    @torch.no_grad()
    def similarity(self, features_VD: Tensor, question: str) -> Tensor:
        """Returns the cosine of each patch with the question, averaged over the segments of a long one; [V].

        Args:
            features_VD: outputs of the tower's feature layer.
            question: the text; cut into segments of the text tower's length, the last one padded with zeros.
        """
        model = self._model.to(features_VD.device)
        ids = torch.tensor(self._tokenizer(question)["input_ids"], device=features_VD.device)
        length = self._config.text_config.max_position_embeddings
        padding = (0, -len(ids) % length)
        ids_SL, mask_SL = (nn.functional.pad(part, padding).view(-1, length) for part in (ids, torch.ones_like(ids)))
        text_SD = model.get_text_features(ids_SL, attention_mask=mask_SL).pooler_output
        patches_VD = model.visual_projection(model.vision_model.post_layernorm(features_VD.float()))
        return (normalize(patches_VD, dim=-1) @ normalize(text_SD, dim=-1).T).mean(dim=1)

    @cached_property
    def _config(self) -> Any:
        from transformers import AutoConfig

        config = self._read(AutoConfig)
        if config.model_type != "clip":
            raise InputError(
                f"clip={self.checkpoint} is a {config.model_type} model: name a whole CLIP, text tower too"
            )
        return config

    @cached_property
    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return self._read(AutoTokenizer)

    @cached_property
    def _model(self) -> Any:
        from transformers import CLIPModel  # a model class: importing prune2drive imports none

        model, info = self._read(CLIPModel, dtype=torch.float32, output_loading_info=True)
        if missing := sorted(info["missing_keys"]):
            raise InputError(f"clip={self.checkpoint}: {len(missing)} weights are missing, first {missing[0]}")
        model.vision_model.encoder = nn.Identity()  # the LLM's own tower has encoded the images
        return model.eval()

    def _read(self, source: Any, **options: Any) -> Any:
        try:
            return source.from_pretrained(self.checkpoint, **options)
        except FAILURES as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"clip={self.checkpoint}: cannot be read as {source.__name__} ({reason}); give a local folder or "
                "download it first with `hf download`"
            ) from error


def clip_relevance(ctx: Context, clip: Clip, over: str = "pool") -> Tensor:
    """Returns minus the cosine of each token's patch with the question, scaled to (0, 1]; [C, N].

    The sign is that of CDPruner's authors.

    Args:
        ctx: the selection's context.
        clip: the CLIP that compares patches with texts.
        over: tokens whose smallest and largest value set the scale: the `pool`, or all cameras of the `sample`.

    Raises:
        InputError: questions were not given.
    """
    if ctx.questions is None:
        raise InputError("relevance=clip reads the question in words: pass questions= to prune()")
    vision = ctx.vision()
    scores = [-clip.similarity(*both) for both in zip(vision.features, ctx.questions, strict=True)]
    own_CN = vision.at_pools(scores, ctx.pools)
    if over == "pool":
        return scaled(own_CN, own_CN)
    return torch.stack([scaled(own_N, scores[pool.row]) for pool, own_N in zip(ctx.pools, own_CN, strict=True)])
