"""Scores DriveLM answers in the challenge's own files: `python -m prune2drive.metrics.drivelm`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prune2drive.errors import InputError
from prune2drive.metrics.drivelm.files import score_files
from prune2drive.metrics.drivelm.rating import RATING
from prune2drive.metrics.judge.chat import ChatJudge

EXAMPLE = """examples:
  python -m prune2drive.metrics.drivelm --predictions output.json --references test_eval.json
  python -m prune2drive.metrics.drivelm --predictions output.json --references test_eval.json \\
      --judge-base-url https://api.openai.com/v1 --judge-model gpt-4o-mini

prints {"accuracy": 0.81, "accuracy_n": 350, "accuracy_stderr": 0.02, ..., "final_offline": 0.52, ...}: each mean with
its sample count (_n) and standard error (_stderr), in [0, 1] but cider in [0, 10]. final_offline is (language +
match_f1 + accuracy) / 3; a judge adds the official final. skipped_by_graph counts the answers that the challenge does
not score because the first answer of their frame misses an object that their question is about."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m prune2drive.metrics.drivelm",
        description="Score DriveLM answers as the challenge does and print the metrics as JSON.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--predictions", type=Path, required=True, help="output.json, submission.json, predictions.jsonl"
    )
    parser.add_argument("--references", type=Path, required=True, help="test_eval.json, with answers and tags")
    parser.add_argument("--allow-missing", action="store_true", help="leave out references that have no answer")
    judge = parser.add_argument_group("the challenge's judge, behind an OpenAI-compatible endpoint")
    judge.add_argument("--judge-base-url", metavar="URL", help="up to and without /chat/completions")
    judge.add_argument("--judge-model", metavar="NAME", help="as the endpoint calls it")
    judge.add_argument("--judge-api-key-env", metavar="NAME", default="OPENAI_API_KEY", help="variable with the key")
    judge.add_argument("--judge-prompt-file", metavar="FILE", help="a prompt with {reference} and {answer}")
    judge.add_argument("--judge-cache", metavar="DIR", default="outputs/judge_cache", help="where replies are kept")
    try:
        given = vars(parser.parse_args(argv))
        settings = {name.removeprefix("judge_"): given.pop(name) for name in list(given) if name.startswith("judge_")}
        metrics = score_files(**given, judge=_chat_judge(**settings))
        if missing := metrics.get("judge_missing"):
            count = f"{missing} of {metrics['judge_asked']} answers are not judged"
            raise InputError(f"{count}; the same command goes on with them")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(metrics, indent=2))
    return 0


def _chat_judge(base_url: str | None, model: str | None, **settings: Any) -> ChatJudge | None:
    if not base_url and not model:
        return None
    if not base_url or not model:
        raise InputError("a judge needs --judge-base-url and --judge-model; give both or neither")
    judge = ChatJudge(base_url, model, **settings)
    judge.identity(RATING)  # refuses a prompt file that cannot be used
    return judge


if __name__ == "__main__":
    sys.exit(main())
