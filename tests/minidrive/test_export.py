import json

import pytest

from prune2drive.cameras import CAMERAS
from prune2drive.data.drivelm import DriveLM
from prune2drive.minidrive.__main__ import main
from prune2drive.minidrive.dataset import MiniDrive


def test_export_gives_the_same_samples(tmp_path, capsys):
    main(["--export", str(tmp_path), "--split", "val", "--size", "35"])
    assert "35 questions" in capsys.readouterr().out
    drawn, read = MiniDrive("val", size=35), DriveLM(tmp_path)
    read.check()
    assert list(read.ids) == drawn.ids and read.cameras == drawn.cameras
    for index in range(0, 35, 4):
        ours, theirs = drawn[index], read[index]
        assert all(ours.images[camera].tobytes() == theirs.images[camera].tobytes() for camera in CAMERAS)
        for name in ("id", "question", "prompt", "reference", "tags", "scene", "frame", "objects", "image_sizes"):
            assert getattr(ours, name) == getattr(theirs, name), name
    layout = json.loads((tmp_path / "v1_1_train_nus.json").read_text())
    frame = next(iter(next(iter(layout.values()))["key_frames"].values()))
    assert list(frame["QA"]) == ["perception", "prediction", "planning", "behavior"]
    assert frame["QA"]["perception"][0]["tag"] == [2]


def test_export_of_a_random_sample_asks_the_same(tmp_path):
    drawn = MiniDrive("val", resolution=28, sample=15, seed=4)
    drawn.export(tmp_path)
    read = DriveLM(tmp_path)
    assert [read.question(index) for index in range(15)] == [drawn.question(index) for index in range(15)]
    assert [read.frame(index) for index in range(15)] == [drawn.frame(index) for index in range(15)]
    assert [read[index].reference for index in range(15)] == [drawn[index].reference for index in range(15)]


def test_export_refuses_what_the_dataset_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--export", str(tmp_path), "--split", "dev"])
    assert stopped.value.code == 2 and "choose from" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main(["--export", str(tmp_path), "--resolution", "5"])
    assert stopped.value.code == 2 and "resolution=5" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit):
        main(["--export", str(tmp_path / "file"), "--size", "1"])
    assert "cannot be written" in capsys.readouterr().err
