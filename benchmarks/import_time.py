"""How much longer `import prune2drive` takes than `import torch, transformers`, in alternating runs.

python -m benchmarks.import_time --runs 7
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from statistics import median

TIMED = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def seconds(modules: str) -> float:
    """Returns the time of an import in a new process."""
    code = TIMED.format(modules)
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Prints the medians of both imports and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="runs of each import")
    runs = [(seconds("torch, transformers"), seconds("prune2drive")) for _ in range(parser.parse_args().runs)]
    base, ours = (median(column) for column in zip(*runs, strict=True))
    print(f"torch, transformers {base:.2f} s   prune2drive {ours:.2f} s   ratio {ours / base:.2f}")


if __name__ == "__main__":
    main()
