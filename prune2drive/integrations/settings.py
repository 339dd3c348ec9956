"""Reads the arguments that an evaluation program gives a model: a checkpoint, a pruner and how they are used."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import yaml

from prune2drive.errors import InputError, check_whole
from prune2drive.integrations.named_pruner import build_pruner, meant, option_names, pruner_settings
from prune2drive.models.find import adapter_of
from prune2drive.models.pretrained import Pretrained
from prune2drive.pruning import Pruner, RatioPolicy, Uniform
from prune2drive.pruning.surgery.checks import validate

PRUNE_OPTIONS = ("positions", "rounding", "budget_axis")
OWN = ("pretrained", "pruner", "keep", *PRUNE_OPTIONS, "device", "batch_size")


@dataclass
class Settings:
    """Holds a model and how it is pruned; the model's weights are loaded by `load`.

    Args:
        adapter: the checkpoint behind its adapter.
        pruner: the method, with its cuts as layers of this model.
        policy: the keep ratio.
        options: other options of `prune`.
        batch_size: largest number of prompts in a batch.
        device: where the model runs.
    """

    adapter: Pretrained
    pruner: Pruner
    policy: RatioPolicy
    options: dict[str, Any]
    batch_size: int
    device: torch.device

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Settings:
        """Reads and checks arguments, as far as is possible without the model's weights.

        Args:
            given: `pretrained`, a folder or an id on the hub; `pruner` and `keep`; `positions`, `rounding` and
                `budget_axis` of `prune`; `device` and `batch_size`; options of the model and of the pruner, with the
                names of the command line, as `tiles` or `model.tiles`, `layer` or `pruner.layer`. A name that both
                have is the model's.

        Raises:
            InputError: an argument is unknown, missing or wrong, or the model cannot be pruned so.
        """
        if not given.get("pretrained"):
            raise InputError("pretrained is not set: name a folder or an id on the hub, as pretrained=FOLDER")
        own = {name: parsed(value) for name, value in given.items() if name in OWN}
        checkpoint, name = str(given["pretrained"]), str(own.get("pruner", "tfps"))
        batch_size = own.get("batch_size", 1)
        check_whole("batch_size", batch_size)
        others = {name: parsed(value) for name, value in given.items() if name not in OWN}
        try:
            policy, adapter_class = Uniform(own.get("keep", 0.1)), adapter_of(checkpoint, others.get("revision"))
            of_model, of_pruner = divided(others, adapter_class, name)
            pruner, adapter = build_pruner(name, of_pruner), adapter_class(checkpoint, **of_model)
        except InputError as error:
            raise InputError(str(error).replace("model.checkpoint=", "pretrained=").replace("ratios.", "")) from error
        options = {option: own[option] for option in PRUNE_OPTIONS if option in own}
        pruner = validate(pruner, policy, adapter.config, **options)
        return cls(adapter, pruner, policy, options, batch_size, usable_device(own.get("device")))

    def load(self) -> None:
        """Loads the model's weights, onto the device unless they are spread over several.

        Raises:
            InputError: weights are missing or damaged.
        """
        model = self.adapter.model
        if getattr(model, "hf_device_map", None) is None:
            model.to(self.device)


def divided(
    given: Mapping[str, Any], adapter_class: type[Pretrained], pruner: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divides options between a model and a pruner.

    Args:
        given: options, with the prefix `model.` or `pruner.` or without.
        adapter_class: the model's adapter.
        pruner: the pruner's name.

    Raises:
        InputError: neither has the option.
    """
    names, pruners = model_options(adapter_class), option_names(pruner_settings(pruner))
    of_model, of_pruner = {}, {}
    for option, value in given.items():
        room, _, rest = option.partition(".")
        if room == "model" and rest in names:
            of_model[rest] = value
        elif option in names:
            of_model[option] = value
        elif room == "pruner" and rest:
            of_pruner[rest] = value
        elif room in pruners:
            of_pruner[option] = value
        else:
            known = [*OWN, *names, *(each for each in pruners if each not in names)]
            raise InputError(f"{option}: no such option; there are {', '.join(known)}{meant(option, known)}")
    return of_model, of_pruner


def model_options(adapter_class: type[Pretrained]) -> list[str]:
    """Returns the options that a checkpoint of a family can be read with."""
    parents = [each for each in adapter_class.__mro__ if issubclass(each, Pretrained)]
    found = [inspect.signature(each.__init__).parameters.values() for each in parents if "__init__" in vars(each)]
    named = [each.name for parameters in found for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    return [name for name in dict.fromkeys(named) if name not in ("self", "checkpoint", "published")]


def parsed(value: Any) -> Any:
    """Returns what a text stands for where it is written as YAML, such as null or [1, 3]."""
    if not isinstance(value, str):
        return value
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value


def usable_device(name: str | None) -> torch.device:
    """Returns a device by its name; by default a GPU, where there is one.

    Raises:
        InputError: there is no such device.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"device={name}: {str(error).splitlines()[0]}; use cpu, or the name of a GPU there is"
        ) from None
    return device
