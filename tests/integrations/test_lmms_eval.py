"""lmms-eval answers with a pruned model as the library does alone. `make test-lmms` makes an environment for this file.

lmms-eval and the framework's own dependencies exclude each other, so nothing of the framework is imported here.
"""

import json
import subprocess
import sys

import pytest

pytest.importorskip("lmms_eval", reason="lmms-eval has an environment of its own: make test-lmms")

from helpers import lmms_tasks, stock
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

from prune2drive import prune
from prune2drive.integrations.named_pruner import build_pruner
from prune2drive.minidrive.model import packaged
from prune2drive.models.find import adapter_of
from prune2drive.sample import IMAGE_MARKER, Sample

ONE, SIX, WORDS = "pictures", "cameras", "words"
GREEDY = {"max_new_tokens": 16, "do_sample": False}
FAMILIES = ("qwen2_5_vl", "internvl", "llava", "llava_onevision", "qwen3_vl", "smolvlm")


@pytest.fixture(scope="module", autouse=True)
def offline():
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HF_HUB_OFFLINE", "1")
        patched.setenv("HF_DATASETS_OFFLINE", "1")
        yield


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Twenty questions about one picture each, twenty about six cameras, and one without any picture."""
    folder = tmp_path_factory.mktemp("tasks")
    lmms_tasks.write(folder, ONE, lmms_tasks.samples("CAM_FRONT"), asks_as_minidrive=False)
    lmms_tasks.write(folder, SIX, lmms_tasks.samples(), asks_as_minidrive=True)
    lmms_tasks.write(folder, WORDS, [Sample("words", {}, "what ?", "what ?", "a car")], asks_as_minidrive=False)
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The packaged checkpoint, and tiny random ones of every family."""
    root = tmp_path_factory.mktemp("stock")
    for family in FAMILIES:
        stock.save(family, root / family)
    return {family: root / family for family in FAMILIES} | {"minidrive": packaged()}


def evaluated(tasks, checkpoint, batch_size, names, **options):
    arguments = {"pretrained": checkpoint, "dtype": "float32", "device": "cpu", **options}
    return simple_evaluate(
        model="prune2drive",
        model_args=",".join(f"{name}={value}" for name, value in arguments.items()),
        tasks=list(names),
        batch_size=batch_size,
        task_manager=TaskManager("ERROR", str(tasks), include_defaults=False),
        process_docs_parallel=1,
    )


def said(results, name):
    """The answers and token counts of a task, in the order of its questions."""
    rows = sorted(results["samples"][name], key=lambda row: row["doc_id"])
    return [row["filtered_resps"][0] for row in rows], [row["token_counts"][0] for row in rows]


def alone(checkpoint, shown, pruner, keep, prompt_of):
    """What the library answers, one question at a time, and its visual tokens before and after."""
    adapter = adapter_of(str(checkpoint))(str(checkpoint), dtype="float32")
    answers, counts = [], []
    for index, sample in enumerate(shown):
        asked = Sample(f"{index}", sample.images, sample.question, prompt_of(sample))
        prompts = adapter.collate([asked])
        with prune(adapter.model, build_pruner(pruner), keep, token_map=prompts.token_maps) as trace:
            answers += [answer.text for answer in adapter.generate(prompts, **GREEDY)]
        counts.append((trace.full_tokens[0], trace.kept_tokens[0]))
    return answers, counts


def compare(results, name, expected):
    answers, counts = said(results, name)
    assert len(answers) == 20 and answers == expected[0]
    assert [(row["visual_tokens"], row["kept_visual_tokens"]) for row in counts] == expected[1]


@pytest.mark.parametrize(("pruner", "keep"), [("none", 1.0), ("tfps", 0.25), ("tfps", 0.1)])
def test_twenty_pictures_and_twenty_frames_are_answered_as_by_the_library(pruner, keep, tasks, checkpoints):
    shown = {ONE: lmms_tasks.samples("CAM_FRONT"), SIX: lmms_tasks.samples()}
    prompts = {ONE: lambda sample: IMAGE_MARKER + sample.question, SIX: lambda sample: sample.prompt}
    expected = {name: alone(packaged(), shown[name], pruner, keep, prompts[name]) for name in shown}
    for batch_size in (1, 4):
        results = evaluated(tasks, packaged(), batch_size, shown, pruner=pruner, keep=keep)
        for name in shown:
            compare(results, name, expected[name])
        shares = [kept / full for _, counts in expected.values() for full, kept in counts]
        assert results["throughput"]["avg_kept_share"] == pytest.approx(sum(shares) / len(shares))
        assert results["throughput"]["avg_prompts_with_images"] == 40
        right = [said == sample.reference for said, sample in zip(expected[SIX][0], shown[SIX], strict=True)]
        assert results["results"][SIX]["exact_match,none"] == pytest.approx(sum(right) / 20)
    assert sum(right) >= 14  # the model is trained on such frames
    assert shares[0] == pytest.approx(keep, abs=0.01)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("pruner", "keep"), [("none", 1.0), ("tfps", 0.25), ("fastv", 0.5)])
def test_every_family_is_answered_as_by_the_library(family, pruner, keep, tasks, checkpoints):
    shown = lmms_tasks.samples("CAM_FRONT")
    expected = alone(checkpoints[family], shown, pruner, keep, lambda sample: IMAGE_MARKER + sample.question)
    for batch_size in (1, 4):
        compare(evaluated(tasks, checkpoints[family], batch_size, [ONE], pruner=pruner, keep=keep), ONE, expected)


def test_a_question_without_pictures_is_answered(tasks):
    results = evaluated(tasks, packaged(), 4, [WORDS, ONE], pruner="tfps", keep=0.1)
    (_,), (counts,) = said(results, WORDS)
    assert (counts["visual_tokens"], counts["kept_visual_tokens"]) == (0, 0) and counts["input_tokens"] > 0
    assert results["throughput"]["avg_prompts_with_images"] == 20


def lmms_eval(*arguments):
    command = [sys.executable, "-m", "lmms_eval", "--model", "prune2drive", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_command_line_logs_kept_shares_and_saves_them_beside_the_answers(tasks, tmp_path):
    arguments = f"pretrained={packaged()},dtype=float32,device=cpu,pruner=tfps,keep=0.1,layer=2,positions=keep"
    files = ("--include_path", tasks, "--output_path", tmp_path, "--log_samples", "--limit", 5)
    done = lmms_eval("--model_args", arguments, "--tasks", SIX, "--batch_size", 2, *files)
    assert done.returncode == 0, done.stderr
    assert f"{SIX}: kept 36.0 of 384.0 visual tokens a prompt, a share of 0.0938 (means, n = 5)" in done.stdout
    (samples,) = tmp_path.rglob(f"*_samples_{SIX}.jsonl")
    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    assert [row["token_counts"][0]["kept_visual_tokens"] for row in rows] == [36] * 5
    (results,) = tmp_path.rglob("*_results.json")
    assert json.loads(results.read_text())["throughput"]["avg_kept_share"] == pytest.approx(36 / 384)


def test_a_wrong_argument_ends_in_one_line(tasks):
    arguments = f"pretrained={packaged()},pruner=tfsp"
    done = lmms_eval("--model_args", arguments, "--tasks", ONE, "--include_path", tasks)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "Loading weights" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith("error: pruner=tfsp: no such choice") and line.endswith("did you mean tfps?")
