"""Imports every other module and answers DriveLM questions where `prune2drive.minidrive` cannot be imported."""

import os
import pkgutil
import sys
from importlib import import_module
from importlib.abc import MetaPathFinder
from pathlib import Path

REMOVED = "prune2drive.minidrive"


class Removed(MetaPathFinder):
    """Finds no module of the removed folder, though it is there."""

    def find_spec(self, name, path=None, target=None):
        if name == REMOVED or name.startswith(f"{REMOVED}."):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def main(folder: Path) -> None:
    """Forgets what is imported of ours and imports it again: call it in a process of its own."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("prune2drive", "helpers")]:
        del sys.modules[name]
    sys.meta_path.insert(0, Removed())
    os.environ["PATH"] = ""  # no Java
    package = import_module("prune2drive")
    names = [module.name for module in pkgutil.walk_packages(package.__path__, "prune2drive.", onerror=lambda _: None)]
    others = [name for name in names if not name.startswith(REMOVED) and not name.endswith("__main__")]
    for name in others:
        try:
            import_module(name)
        except ModuleNotFoundError as missing:
            if missing.name != "lmms_eval":  # has an environment of its own
                raise
    assert len(others) > 100

    from helpers import drivelm_files, stock
    from prune2drive.tasks import config, evaluate

    frame = drivelm_files.key_frame(
        perception=[drivelm_files.ask("What is near?", tag=[0]), "What is far?"], planning=["What now?"]
    )
    drivelm_files.draw(drivelm_files.write(folder, drivelm_files.scenes(f=frame)))
    stock.save("llava_onevision", folder / "checkpoint")
    options = [
        "dataset=drivelm",
        f"dataset.root={folder}",
        f"folder={folder}/run",
        "logger=none",
        "latency.questions=0",
    ]
    options += ["model=llava_onevision", f"model.checkpoint={folder}/checkpoint", "generation.max_new_tokens=3"]
    evaluate.run(config.compose([*options, "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]))
    assert REMOVED not in sys.modules
