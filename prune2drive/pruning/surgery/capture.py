"""What passes by on the way to a cut, kept for methods that look at it.

Shape suffixes: B batch rows, P prompt positions (padded), D channels.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from prune2drive.errors import InputError
from prune2drive.pruning.attention import LayerView
from prune2drive.pruning.context import Context
from prune2drive.pruning.surgery.cut import Cut, gather
from prune2drive.pruning.surgery.prompt import Prompt
from prune2drive.pruning.vision import Seen, VisionTokens


class Looks:
    """The latest prompt's embeddings, the layer before its next cut, and what the vision tower saw.

    Args:
        model: the whole model.
        method: its name, for messages.
    """

    def __init__(self, model: Any, method: str) -> None:
        self.model, self.method = model, method
        self.embeddings: Tensor | None = None
        self.before: LayerView | None = None
        self.notes: dict[Any, Any] = {}
        self._encoded: list[Seen] = []
        self._vision: list[Seen] = []

    def begin(self) -> None:
        """A new prompt: what the tower has encoded since the last one belongs to it."""
        self.embeddings = self.before = None
        self.notes = {}
        self._vision, self._encoded = self._encoded, []

    def watch(self, layer: nn.Module, undo: ExitStack) -> None:
        """Looks at every call of the vision tower's feature layer, until `undo`."""
        attention, *gives = Seen.attention_of(layer)
        passed: dict[nn.Module, Tensor] = {}

        def on_given(module: nn.Module, args: tuple, output: Tensor) -> None:
            passed[module] = output

        def on_layer(module: nn.Module, args: tuple, output: Any) -> None:
            query_ITD, keys_ITD = (passed.pop(part) for part in gives)
            self._encoded.append(
                Seen(attention, query_ITD, keys_ITD, output if isinstance(output, Tensor) else output[0])
            )

        for part in gives:
            undo.callback(part.register_forward_hook(on_given).remove)
        undo.callback(layer.register_forward_hook(on_layer).remove)

    def on_layer_before(
        self, index: int, module: nn.Module, args: tuple, kwargs: dict[str, Any], real_BP: Tensor | None
    ) -> None:
        """Remembers the layer before a cut; its keys are read only if they are asked for."""
        cache = kwargs.get("past_key_values")

        def keys() -> Tensor | None:
            return None if cache is None else cache.layers[index].keys

        self.before = LayerView(module, args[0], kwargs["position_embeddings"], real_BP, keys)

    def context(self, at: LayerView, prompt: Prompt, cut: Cut | None) -> Context:
        """All of it, in the positions that an earlier cut left; the pools are still to be named."""
        assert self.embeddings is not None
        device = at.hidden_BPD.device
        question_BP, embeddings_BPD = prompt.question.to(device), self.embeddings
        if cut is not None:
            question_BP = question_BP.gather(1, cut.kept_BK.to(device)) & cut.real_BK.to(device)
            embeddings_BPD = gather(embeddings_BPD, cut.kept_BK)
        norm = self.model.get_decoder().norm
        return Context(
            pools=(),
            before=self.before,
            at=at,
            embeddings_BPD=embeddings_BPD,
            prompt_BPD=self.embeddings,
            norm=norm,
            question_BP=question_BP,
            vision=lambda: self._tokens(prompt),
            questions=prompt.questions,
            notes=self.notes,
        )

    def _tokens(self, prompt: Prompt) -> VisionTokens:
        if len(self._vision) != 1:
            raise InputError(
                f"{self.method} needs the images with the prompt, encoded at once; they were encoded in "
                f"{len(self._vision)} calls inside this context"
            )
        return VisionTokens.of(self._vision[0], prompt.maps, self.model.config)
