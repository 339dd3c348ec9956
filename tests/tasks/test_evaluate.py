import json
import math
import subprocess
from pathlib import Path

import pytest
import torch
from helpers import runs
from PIL import Image

from prune2drive.errors import InputError
from prune2drive.minidrive.dataset import MiniDrive
from prune2drive.models.adapter import Adapter
from prune2drive.results.run_folder import RunFolder
from prune2drive.results.selections import Selections, unpack_order
from prune2drive.sample import unpack_indices
from prune2drive.tasks import loop

pytestmark = pytest.mark.slow  # whole runs


CAMERAS = ("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_FRONT_RIGHT", "CAM_BACK", "CAM_BACK_LEFT", "CAM_BACK_RIGHT")
# One of each kind: what all methods are shown to do by themselves, tests/pruning shows.
PRUNERS = ("random", "tfps", "divprune", "fastv", "sparsevlm", "pyramiddrop", "visionzip", "pact", "resize")
SHALLOW = {"pact": ["pruner.layer=3"]}  # it cuts at layer 4, which the tiny decoder has not
TOKENS = 64  # of each camera of the tiny model
FEW = "dataset.size=4"
SCORES = {"score", "exact_match", "accuracy", "accuracy_lenient", "rouge_l", "cider", "language"}
SCORES |= {f"bleu_{n}" for n in (1, 2, 3, 4)}
SCORES |= {"match_f1", "final_offline"}
COSTS = {"tokens/visual_full", "tokens/visual_kept", "tokens/layer_average", "tokens/text"}
COSTS |= {"tokens/nominal", "tokens/stage_1"}
COSTS |= {f"tokens/{camera}/kept" for camera in CAMERAS}
COSTS |= {"flops/prefill_full", "flops/prefill_pruned", "flops/vision", "flops/selection", "memory/kv_cache_mb"}
PHASES = ("time/vision_ms", "time/prefill_ms", "time/decode_ms_per_token")
TIMES = {"time/select_ms", "time/prefill_ratio", *PHASES, *(f"full/{key}" for key in PHASES)}
COVERAGE = {"coverage/objects", *(f"coverage/{camera}" for camera in CAMERAS), "coverage/medium", "coverage/large"}
COVERAGE |= {f"coverage/class/{name}" for name in ("Vehicle", "Pedestrian", "Traffic element")}
SINGLE = {"flops/ratio", "time/samples_per_s", "memory/peak_mb"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run with everything on but W&B; in `score.txt` what it returned."""
    folder = tmp_path_factory.mktemp("run") / "minidrive" / "tiny"
    options = (
        "latency.questions=1",
        "pictures=2",
        "explorer=5",
        "batch_size=3",
        "ratios.keep=0.2",
        "generation.max_new_tokens=4",
    )
    score = runs.run(folder, "metrics=drivelm", *options)
    (folder / "score.txt").write_text(repr(score))
    return folder


# What a run leaves behind


def test_files(finished):
    names = {str(file.relative_to(finished)) for file in finished.rglob("*") if file.is_file()} - {"score.txt"}
    pictures = {name for name in names if name.startswith("pictures/")}
    assert names - pictures == {
        "run.json",
        "metrics.json",
        "latency.json",
        "predictions.jsonl",
        "selections.jsonl",
        "report.html",
    }
    assert len(pictures) == 2


def test_metrics_are_flat_numbers_under_the_names_of_the_contract(finished):
    metrics = runs.read(finished, "metrics.json")
    assert all(type(value) in (int, float) and math.isfinite(value) for value in metrics.values())
    means = (SCORES - {"exact_match"}) | COSTS | TIMES | COVERAGE
    for key in means:
        assert metrics[f"{key}_n"] >= 1 and metrics[f"{key}_stderr"] >= 0, key
    others = {"official_tokenizer", "skipped_by_graph", "frames_without_graph"}
    expected = means | {f"{key}{suffix}" for key in means for suffix in ("_n", "_stderr")} | SINGLE | others
    assert set(metrics) == expected
    assert metrics["tokens/visual_full"] == 6 * TOKENS and metrics["tokens/visual_kept"] == 6 * 13
    assert metrics["tokens/layer_average"] == (6 * TOKENS + 3 * 6 * 13) / 4
    assert 0 < metrics["flops/prefill_pruned"] < metrics["flops/prefill_full"]
    assert metrics["flops/ratio"] == pytest.approx(metrics["flops/prefill_pruned"] / metrics["flops/prefill_full"])
    assert all(metrics[key] > 0 for key in (TIMES | SINGLE))


def test_the_score_is_what_is_returned(finished, tmp_path):
    metrics = runs.read(finished, "metrics.json")
    assert metrics["score"] == metrics["final_offline"] == float((finished / "score.txt").read_text())
    parts = [metrics[key] for key in ("language", "match_f1", "accuracy")]
    assert metrics["final_offline"] == pytest.approx(sum(parts) / 3)


def test_minidrives_score_is_exact_match(tmp_path, monkeypatch):
    """A model that says the references of every other question."""
    told = {sample.prompt: sample.reference for sample in map(MiniDrive(size=8).__getitem__, range(0, 8, 2))}

    def generate(self, prompts, reading=None, **options):
        found = original(self, prompts, reading, **options)
        texts = [told.get(prompt, "no idea") for prompt in self.asked]
        return [type(answer)(text, answer.ids) for answer, text in zip(found, texts, strict=True)]

    def collate(self, samples, **options):
        self.asked = [sample.prompt for sample in samples]
        return collated(self, samples, **options)

    original, collated = Adapter.generate, Adapter.collate
    monkeypatch.setattr(Adapter, "generate", generate)
    monkeypatch.setattr(Adapter, "collate", collate)
    assert runs.run(tmp_path) == 0.5
    metrics = runs.read(tmp_path, "metrics.json")
    assert metrics["score"] == metrics["exact_match"] == 0.5 and metrics["score_n"] == 8
    assert SCORES <= set(metrics)


def test_run_json_tells_what_was_run(finished):
    run = runs.read(finished, "run.json")
    assert run["status"] == "finished" and run["started"] <= run["finished"]
    assert run["counts"] == {"planned": 8, "done": 8, "failed": 0}
    assert run["choices"] == {"model": "tiny", "dataset": "minidrive2", "pruner": "tfps", "ratios": "uniform"}
    config = run["config"]
    assert config["ratios"]["keep"] == 0.2 and config["pruner"]["layer"] == 1 and config["batch_size"] == 3
    assert config["pruner"]["seed"] == config["seed"] == run["seed"] == 0
    assert "${" not in json.dumps(run)
    assert run["dataset"] == {"fingerprint": MiniDrive(size=8).fingerprint, "size": 8}
    assert run["versions"]["torch"] == torch.__version__ and run["versions"]["transformers"]
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=runs.REPOSITORY, capture_output=True, text=True)
    assert run["git"].keys() == {"commit", "dirty"} and run["git"]["commit"] == (git.stdout.strip() or None)
    assert run["command"] and run["device"]


def test_a_shared_budget_is_recorded(tmp_path):
    weights = ",".join(f"{camera}:{4 if camera == 'CAM_FRONT' else 1}" for camera in CAMERAS)
    runs.run(tmp_path, "ratios=dynamic", "ratios.keep=0.2", f"ratios.weights={{{weights}}}")
    run, rows = runs.read(tmp_path, "run.json"), runs.rows(tmp_path)
    halves = dict.fromkeys(CAMERAS, 0.5) | {"CAM_FRONT": 1.0}
    assert run["ratios"] == {"shared": 0.2, "pool": "joint", "weights": halves}
    assert run["ratios_provenance"] is None
    assert {sum(row.kept_counts.values()) for row in rows} == {row.nominal for row in rows} == {6 * 13}
    metrics = runs.read(tmp_path, "metrics.json")
    for camera in CAMERAS:
        kept = [row.kept_counts[camera] for row in rows]
        assert metrics[f"tokens/{camera}/kept"] == pytest.approx(sum(kept) / len(kept))
    assert metrics["tokens/CAM_FRONT/kept"] > 13


def test_a_row_for_each_sample_in_the_datasets_order(finished):
    dataset = MiniDrive(size=8)
    rows = runs.rows(finished)
    assert [row.id for row in rows] == dataset.ids
    for row, sample in zip(rows, map(dataset.__getitem__, range(8)), strict=True):
        assert (row.question, row.reference, row.tags) == (sample.question, sample.reference, sample.tags)
        assert (row.scene, row.frame, row.error) == (sample.scene, sample.frame, None)
        assert row.answer is not None and 1 <= row.new_tokens <= 4
        assert row.text_tokens > 20
        assert row.seconds > 0
        assert row.flops.keys() == {"vision", "selection"} and min(row.flops.values()) > 0
    assert len({row.answer for row in rows}) > 1, "a model whose answers tell samples apart"


def test_the_first_questions_are_drawn(finished):
    for row in runs.rows(finished)[:2]:
        assert Image.open(finished / "pictures" / f"{row.id}.png").size[0] > 600


def test_the_page_explores_what_was_recorded(finished):
    rows, recorded = runs.rows(finished), list(Selections(finished))
    assert [each["id"] for each in recorded] == [row.id for row in rows[:5]]
    for row, selection in zip(rows, recorded, strict=False):
        order = {camera: unpack_order(packed) for camera, packed in selection["order"].items()}
        assert {camera: sorted(picked) for camera, picked in order.items()} == {
            camera: unpack_indices(packed).tolist() for camera, packed in row.kept.items()
        }
        assert len(selection["objects"]) == sum(count for *_, count in row.objects)
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert [name for row in rows if (name := row.id) in page] == [row.id for row in rows[:5]]


# How many tokens are kept, and which


def kept_sets(folder: Path) -> dict[tuple[str, str], list[int]]:
    return {
        (row.id, camera): unpack_indices(packed).tolist()
        for row in runs.rows(folder)
        for camera, packed in row.kept.items()
    }


def check_budgets(folder: Path, keep: float) -> None:
    scope = runs.read(folder, "run.json")["config"]["pruner"].get("scope")
    expected = max(1, math.floor(keep * TOKENS + 0.5))
    for row in runs.rows(folder):
        assert row.full_counts == dict.fromkeys(CAMERAS, TOKENS)
        assert sum(row.kept_counts.values()) == 6 * expected
        if scope != "global":
            assert row.kept_counts == dict.fromkeys(CAMERAS, expected)
        for camera, packed in row.kept.items():
            indices = unpack_indices(packed)
            assert len(indices) == row.kept_counts[camera]
            assert len(indices) == 0 or int(indices.max()) < TOKENS
    metrics = runs.read(folder, "metrics.json")
    assert metrics["tokens/visual_kept"] == 6 * expected
    assert (metrics["flops/ratio"] == 1) == (expected == TOKENS)


@pytest.fixture(scope="module")
def unpruned(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unpruned")
    runs.run(folder, "pruner=none", FEW)
    check_budgets(folder, 1.0)
    return folder


@pytest.mark.parametrize("pruner", PRUNERS)
def test_keeping_everything_is_not_pruning(pruner, unpruned, tmp_path):
    runs.run(tmp_path, f"pruner={pruner}", *SHALLOW.get(pruner, ()), "ratios.keep=1.0", FEW)
    check_budgets(tmp_path, 1.0)
    assert runs.answers(tmp_path) == runs.answers(unpruned)


@pytest.mark.parametrize("pruner", PRUNERS)
def test_budgets_are_exact_and_the_batch_size_changes_nothing(pruner, tmp_path):
    """A full batch and what is left over, each prompt padded as the others need, beside prompts of their own."""
    for size in (1, 3):
        method = (f"pruner={pruner}", *SHALLOW.get(pruner, ()))
        runs.run(tmp_path / str(size), *method, f"batch_size={size}", "ratios.keep=0.25", FEW)
        check_budgets(tmp_path / str(size), 0.25)
    for row in zip(runs.rows(tmp_path / "1"), runs.rows(tmp_path / "3"), strict=True):
        assert len({(each.id, each.answer, each.new_tokens, each.text_tokens) for each in row}) == 1
    assert kept_sets(tmp_path / "1") == kept_sets(tmp_path / "3")


def test_pruning_changes_answers(unpruned, tmp_path):
    runs.run(tmp_path, "pruner=tfps", "ratios.keep=0.1", FEW)
    assert runs.answers(tmp_path) != runs.answers(unpruned)


def test_random_draws_depend_on_the_seed_and_the_sample(tmp_path):
    for seed in (0, 1):
        runs.run(tmp_path / str(seed), "pruner=random", f"seed={seed}", "dataset.size=3", "ratios.keep=0.5")
    first, second = kept_sets(tmp_path / "0"), kept_sets(tmp_path / "1")
    assert first.keys() == second.keys() and all(first[key] != second[key] for key in first)
    assert len({tuple(indices) for indices in first.values()}) == len(first)


@pytest.mark.parametrize(
    ("options", "kept"),  # of 0.2 x 64 = 12.8
    [(("+generation.num_beams=2", "positions=renumber"), 13), (("num_workers=1", "rounding=seed"), 12)],
)
def test_other_settings_run(options, kept, tmp_path):
    runs.run(tmp_path, *options, "dataset.size=3", "ratios.keep=0.2", "batch_size=2")
    assert [row.kept_counts for row in runs.rows(tmp_path)] == [dict.fromkeys(CAMERAS, kept)] * 3


def test_latency_is_neither_recorded_nor_drawn(tmp_path, monkeypatch):
    generated, drawn_after = [], []
    generate, save = Adapter.generate, loop.save_picture
    monkeypatch.setattr(Adapter, "generate", lambda *given, **o: generated.append(1) or generate(*given, **o))
    monkeypatch.setattr(loop, "save_picture", lambda *given: drawn_after.append(len(generated)) or save(*given))
    runs.run(tmp_path, "latency.questions=1", "latency.warm_up=2", "pictures=1", "batch_size=4")
    assert len(generated) == 2 * (2 + 1) + 2 and drawn_after == [2 * (2 + 1) + 1]
    assert len((tmp_path / "predictions.jsonl").read_text().splitlines()) == 8
    assert len(list((tmp_path / "pictures").iterdir())) == 1


def test_another_rank_writes_a_file_of_its_own_and_draws_nothing(tmp_path, monkeypatch):
    files = set()
    append = RunFolder.append
    monkeypatch.setattr(loop.Evaluation, "global_rank", property(lambda self: 1))
    monkeypatch.setattr(RunFolder, "append", lambda self, rows: files.add(self.rows_file.name) or append(self, rows))
    runs.run(tmp_path, "pictures=1", "explorer=3")
    assert files == {"predictions.rank1.jsonl"} and not (tmp_path / "pictures").exists()
    assert [file.name for file in tmp_path.glob("selections*")] == ["selections.rank1.jsonl"]
    assert len(list(Selections(tmp_path))) == 3


# What can be known before


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    before = runs.Lively.loaded
    with pytest.raises(InputError, match="file/run: cannot be written"):
        runs.run(tmp_path / "file" / "run")
    assert runs.Lively.loaded == before


def test_another_runs_folder_is_left_alone(finished):
    before = {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()}
    with pytest.raises(InputError, match=f"{finished} holds another run: go on with resume={finished}"):
        runs.run(finished, "pruner=none")
    assert before == {file: file.read_bytes() for file in finished.rglob("*") if file.is_file()}
