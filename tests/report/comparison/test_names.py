"""What runs are called."""

import random

from helpers.run_folders import run_folder

from prune2drive.report.comparison.findings import find


def answers(share):
    return [random.Random(number).random() < share for number in range(60)]


def test_a_run_with_all_tokens_is_called_so_by_whichever_method(tmp_path):
    for name, model, keep in (("none", "a", 1.0), ("tfps", "b", 1.0), ("tfps", "b", 0.5)):
        options = [f"model={model}", f"pruner={name}", f"ratios.keep={keep}"]
        run_folder(tmp_path / f"{model} {keep}", name, answers(0.9), keep, overrides=options)
    found = find([tmp_path])
    assert [run.label for run in found.runs] == ["a all tokens", "b all tokens", "b tfps keep=0.5"]
    assert [run.series for run in found.runs] == ["a all tokens", "b all tokens", "b tfps"]
    assert [run.options["pruner"] for run in found.runs] == ["none", "tfps", "tfps"]
    assert found.runs[0].goes_by("model=a pruner=none")


def test_a_run_that_sees_nothing_is_not_called_one_with_all_tokens(tmp_path):
    for images, share in (("shown", 0.9), ("grey", 0.3)):
        options = ["pruner=none", f"images={images}"]
        run_folder(tmp_path / images, "none", answers(share), overrides=options, config={"images": images})
    found = find([tmp_path])
    assert [run.label for run in found.runs] == ["shown all tokens", "grey"] and found.baseline is found.runs[0]
