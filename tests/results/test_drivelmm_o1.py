import json

import pytest

from prune2drive.results.drivelmm_o1 import RESULTS, main
from prune2drive.results.run_folder import RunFolder
from prune2drive.sample import Prediction


def test_results_are_what_the_benchmark_reads(tmp_path, capsys):
    RunFolder(tmp_path).append(
        [
            Prediction("s_f_2", "Where?", "Final Answer: B) left", "B) left"),
            Prediction("s_f_9", "Who?", error="no such image"),
            Prediction("s_g_1", "Why?", "“Because”", None),
        ]
    )
    main([str(tmp_path)])
    results = json.loads((tmp_path / RESULTS).read_text(encoding="utf-8"))
    # Their evaluation script reads these three of each item, and no others.
    assert [(row["idx"], row["question"], row["llm-response"]) for row in results] == [
        ("s_f_2", "Where?", "Final Answer: B) left"),
        ("s_g_1", "Why?", "“Because”"),
    ]
    # Their inference writes these.
    assert [(row["id"], row["answer"], row["gt_answers"]) for row in results] == [
        ("s_f_2", "Final Answer: B) left", "B) left"),
        ("s_g_1", "“Because”", None),
    ]
    assert "2 answers; 1 failed questions are left out" in capsys.readouterr().out


def test_another_file(tmp_path):
    RunFolder(tmp_path / "run").append([Prediction("a", "Q?", "A")])
    main([str(tmp_path / "run"), "--to", str(tmp_path / "mine.json")])
    assert len(json.loads((tmp_path / "mine.json").read_text())) == 1


def test_no_run(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path / "nowhere")])
    assert stop.value.code == 2 and "no predictions.jsonl there" in capsys.readouterr().err
    assert not (tmp_path / "nowhere").exists()
