"""Composes configurations as Hydra does, but reads no file and makes no composition twice in a process."""

from __future__ import annotations

import copy
import os
import pickle
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import hydra
import omegaconf.base
import pytest
from hydra._internal import config_loader_impl, defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobRuntime
from omegaconf import DictConfig, OmegaConf

from helpers.runs import CONFIGS

FOLDERS = ("folder=", "resume=/")  # options that differ from test to test and decide nothing else


@contextmanager
def remembered() -> Iterator[None]:
    """Remembers parsed options, parsed files of ours and Hydra's, and compositions of these; it hands out copies."""
    load, compose, known = OmegaConf.load, hydra.compose, {}
    choose = config_loader_impl.create_defaults_list
    parse, options = OverridesParser.parse_rule, {}
    merge, load_whole = ConfigLoaderImpl._compose_config_from_defaults_list, ConfigLoaderImpl._load_configuration_impl
    parse_value, trees = omegaconf.base.parse, {}
    map_choices, copy_node = defaults_list._create_interpolation_map, DictConfig.__deepcopy__

    def once(key: Hashable, make: Callable[[], Any]) -> Any:
        if key not in known:
            known[key] = pickle.dumps(make())
        return pickle.loads(known[key])

    def read_option(self, text, rule):
        if (text, rule) not in options:
            options[text, rule] = parse(self, text, rule)
        return copy.copy(options[text, rule])

    def parsed(file):
        name = str(getattr(file, "name", file))
        is_kept = name.startswith((str(CONFIGS), sys.prefix))
        return once(name, lambda: load(file)) if is_kept else load(file)

    def parsed_value(text):
        """A tree is only read."""
        if text not in trees:
            trees[text] = parse_value(text)
        return trees[text]

    def mapped(overrides, defaults, self_added):
        """Only choices that name others are looked up in the map."""
        return map_choices(overrides, defaults, self_added) if any(d.is_interpolation() for d in defaults) else None

    def copied(self, memo):
        """Pickling copies a whole configuration in a quarter of the time."""
        try:
            return pickle.loads(pickle.dumps(self)) if self._get_parent() is None else copy_node(self, memo)
        except (AttributeError, TypeError, pickle.PicklingError):  # it holds what cannot be pickled
            return copy_node(self, memo)

    def shallow(self, delegate):
        """Hydra makes a deep copy, but all that it changes there is which list holds the sources."""
        self.delegate, self.cache = copy.copy(delegate), {}

    def chosen(repo, config_name, overrides_list, **options):
        """Only options that choose a file decide which files are read."""
        single = [each for each in overrides_list if not each.is_sweep_override()]
        choices = [
            each for each in single if repo.group_exists(each.key_or_group) and not isinstance(each.value(), dict)
        ]
        if not _ours(source.full_path() for source in repo.get_sources()):
            return choose(repo, config_name, overrides_list, **options)
        key = (config_name, *(each.input_line for each in choices), *options.items(), "choices")
        found = once(key, lambda: choose(repo, config_name, choices, **options))
        found.config_overrides = [each for each in single if each not in choices]
        return found

    def merged(self, defaults, repo):
        key = tuple((each.config_path, each.package, each.is_self) for each in defaults)
        is_kept = _ours(source.full_path() for source in repo.get_sources())
        return once(key, lambda: merge(self, defaults, repo)) if is_kept else merge(self, defaults, repo)

    def loaded(self, config_name, overrides, **options):
        paths = [str(element.path) for element in self.config_search_path.get_path()]
        if not _ours(paths) or any("searchpath" in each for each in overrides):
            return load_whole(self, config_name, overrides, **options)
        key = (config_name, *overrides, *options.items(), str(JobRuntime.instance().conf))
        whole = once(key, lambda: load_whole(self, config_name, overrides, **options))
        whole.hydra.runtime.cwd = os.getcwd()
        return whole

    def composed(name, overrides, **options):
        whole = compose(name, [each for each in overrides if not each.startswith(FOLDERS)], **options)
        for each in overrides:
            if each.startswith(FOLDERS):
                option, _, folder = each.partition("=")
                whole[option] = folder
        return whole

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OverridesParser, "parse_rule", read_option)
        patched.setattr(OmegaConf, "load", staticmethod(parsed))
        patched.setattr(DictConfig, "__deepcopy__", copied)
        patched.setattr(omegaconf.base, "parse", parsed_value)
        patched.setattr(omegaconf._utils, "parse", parsed_value)
        patched.setattr(defaults_list, "_create_interpolation_map", mapped)
        patched.setattr(CachingConfigRepository, "__init__", shallow)
        patched.setattr(config_loader_impl, "create_defaults_list", chosen)
        patched.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", merged)
        patched.setattr(ConfigLoaderImpl, "_load_configuration_impl", loaded)
        patched.setattr(hydra, "compose", composed)
        yield


def _ours(paths: Iterable[str]) -> bool:
    return all(path == f"file://{CONFIGS}" for path in paths if path.startswith("file://"))
