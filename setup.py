"""Puts configs/ into the built package, as prune2drive/configs; everything else is said in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            shutil.copytree("configs", Path(self.build_lib, "prune2drive", "configs"), dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConfigs})
