"""Captures what a method may read on the way to a cut: embeddings, the layer before the cut, the vision tower.

Shape suffixes: B batch rows, P prompt positions (padded), D channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from prune2drive.errors import InputError
from prune2drive.families.kv_cache import cache_of
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.context import Context
from prune2drive.pruning.surgery.cut import Cut, gather
from prune2drive.pruning.surgery.patch import Args
from prune2drive.pruning.surgery.prompt import Prompt
from prune2drive.pruning.vision import VisionLayerOutput, VisionTokens
from prune2drive.token_map import TokenMap


class ActivationCapture:
    """Holds the latest prompt's embeddings, the decoder layer before its next cut, and the vision tower's output.

    Args:
        model: the whole model.
        method: the method's name, for messages.
    """

    def __init__(self, model: Any, method: str) -> None:
        self.model, self.method = model, method
        self.embeddings: Tensor | None = None
        self.before: LayerView | None = None
        self.notes: dict[Any, Any] = {}
        self._encoded: list[VisionLayerOutput] = []
        self._vision: list[VisionLayerOutput] = []

    def begin(self) -> None:
        """Starts with a new prompt: what the vision tower has encoded since the last one belongs to it."""
        self.embeddings = self.before = None
        self.notes = {}
        self._vision, self._encoded = self._encoded, []

    def watch_vision(self, layer: nn.Module, undo: ExitStack) -> None:
        """Captures every call of the vision tower's feature layer, until `undo` closes."""
        attention, *projections = VisionLayerOutput.attention_of(layer)
        passed: dict[nn.Module, Tensor] = {}

        def on_projection(module: nn.Module, args: Args, output: Tensor) -> None:
            passed[module] = output

        def on_layer(module: nn.Module, args: Args, output: Any) -> None:
            query_ITD, keys_ITD = (passed.pop(part) for part in projections)
            states = output if isinstance(output, Tensor) else output[0]
            self._encoded.append(VisionLayerOutput(attention, query_ITD, keys_ITD, states))

        for part in projections:
            undo.callback(part.register_forward_hook(on_projection).remove)
        undo.callback(layer.register_forward_hook(on_layer).remove)

    def layer_before(
        self, index: int, module: nn.Module, hidden_BPD: Tensor, kwargs: dict[str, Any], real_BP: Tensor | None
    ) -> None:
        """Captures the input of the layer before a cut; its keys are read only where a method asks for them."""
        cache = cache_of(kwargs)

        def keys() -> Tensor | None:
            return None if cache is None else cache.layers[index].keys

        self.before = LayerView(module, hidden_BPD, kwargs["position_embeddings"], real_BP, keys)

    def context(self, at: LayerView, prompt: Prompt, cut: Cut | None) -> Context:
        """Returns the context of a selection, in the positions that an earlier cut kept, with no pools yet.

        Args:
            at: the layer whose input is cut.
            prompt: the batch of prompts.
            cut: the last cut before; None before any.
        """
        assert self.embeddings is not None
        device = at.hidden_BPD.device
        question_BP, embeddings_BPD = prompt.question_BP.to(device), self.embeddings
        if cut is not None:
            question_BP = question_BP.gather(1, cut.kept_BK.to(device)) & cut.real_BK.to(device)
            embeddings_BPD = gather(embeddings_BPD, cut.kept_BK)
        return Context(
            pools=(),
            before=self.before,
            at=at,
            embeddings_BPD=embeddings_BPD,
            prompt_BPD=self.embeddings,
            norm=self.model.get_decoder().norm,
            question_BP=question_BP,
            vision=lambda: self.vision_tokens(prompt.maps),
            questions=prompt.questions,
            notes=self.notes,
        )

    def vision_tokens(self, maps: Sequence[TokenMap]) -> VisionTokens:
        """Returns what the vision tower made of the latest prompts' images.

        Args:
            maps: where each prompt's visual tokens lie.

        Raises:
            InputError: the images were not encoded with the prompts, or not at once.
        """
        if len(self._vision) != 1:
            raise InputError(
                f"{self.method} needs the images with the prompt, encoded at once; they were encoded in "
                f"{len(self._vision)} calls inside this context"
            )
        return VisionTokens.of(self._vision[0], maps, self.model.config)
