"""Files of W&B, uploaded to servers that take them, refuse them, hang or go away."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
import wandb
from helpers.wandb_server import environment, serve

from prune2drive.report.wandb import RunLogger, uploading

pytestmark = pytest.mark.slow  # processes of W&B

PATIENCE = {"works": 60, 403: 60, "hangs": 4, "stalls": 4, "dies": 4, "refuses": 4}
UPLOAD = """
import logging, runpy, sys, time
from pathlib import Path

upload = runpy.run_path(sys.argv[3])["upload"]  # without the package, whose import takes seconds
logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
began = time.monotonic()
upload(Path(sys.argv[1]), float(sys.argv[2]))
print(time.monotonic() - began)
"""


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """Mood of the server -> what came of an upload to it; all at once, since most of them wait."""
    folder = tmp_path_factory.mktemp("upload")
    wandb.teardown()
    with pytest.MonkeyPatch.context() as patched, ExitStack() as stack:
        for name in [name for name in os.environ if name.startswith("WANDB_")]:
            patched.delenv(name)
        patched.setenv("WANDB_SILENT", "true")
        logger = RunLogger(str(folder), project="cars", name="seen", id="abc")
        logger.experiment.log({"score": 0.5, "answers": wandb.Table(["answer"], [["a car"]])})
        logger.end()
        wandb.teardown()
        servers = {mood: stack.enter_context(serve("works" if mood == "refuses" else mood)) for mood in PATIENCE}
        servers["refuses"].die()
        started = {}
        for mood, patience in PATIENCE.items():
            files = shutil.copytree(folder / "wandb", folder / str(mood) / "wandb it")
            command = [sys.executable, "-c", UPLOAD, str(files), str(patience), uploading.__file__]
            settings = os.environ | environment(servers[mood]) | {"WANDB_SERVICE": "of-the-run"}
            started[mood] = subprocess.Popen(command, env=settings, stdout=-1, stderr=-1, text=True)
        found = {}
        for mood, process in started.items():
            out, said = process.communicate(timeout=120)
            assert process.returncode == 0, said
            files = folder / str(mood) / "wandb it"
            found[mood] = SimpleNamespace(said=said, seconds=float(out), server=servers[mood], files=files)
        yield found


def test_what_was_logged_arrives(uploads):
    upload = uploads["works"]
    url = upload.said.partition("INFO W&B: ")[2]
    assert url.endswith("/somebody/cars/runs/abc\n") and upload.said.count("\n") == 1
    assert next(given for field, given in upload.server.told if field == "upsertBucket")["displayName"] == "seen"
    assert any('"score\\":0.5' in content.decode() for content in upload.server.streamed)
    assert json.loads(upload.server.put["answers.table.json"])["data"] == [["a car"]]
    assert list(upload.files.glob("*/run-abc.wandb.synced"))


@pytest.mark.parametrize("mood", [mood for mood in PATIENCE if mood != "works"])
def test_a_server_that_does_not_take_it(mood, uploads):
    upload = uploads[mood]
    reason = "returned error 403" if mood == 403 else "not done within 4 s (logger.patience)"
    command = f"wandb sync '{upload.files}'"
    assert upload.said.startswith("WARNING W&B: ") and reason in upload.said and upload.said.count("\n") == 1
    assert upload.said.endswith(f"; the run is in files, to upload with: {command}\n")
    assert upload.seconds < PATIENCE[mood] + 2
    assert not list(upload.files.glob("*/*.synced"))


def test_nothing_is_left_running(uploads):
    for upload in uploads.values():
        left = subprocess.run(["pgrep", "-f", str(upload.files)], capture_output=True, text=True).stdout
        assert left == ""
