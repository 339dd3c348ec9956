import json

import pytest

from prune2drive.cameras import CAMERAS
from prune2drive.data.drivelm import DriveLM
from prune2drive.minidrive.__main__ import main
from prune2drive.minidrive.dataset import MiniDrive


def test_export_gives_the_same_samples(tmp_path, capsys):
    main(["--export", str(tmp_path), "--split", "val", "--size", "35", "--version", "1"])
    assert "35 questions" in capsys.readouterr().out
    drawn, read = MiniDrive("val", size=35, version=1), DriveLM(tmp_path)
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


@pytest.mark.parametrize("chosen", [{"sample": 15, "seed": 4, "version": 1}, {"size": 36}], ids=["sample", "latest"])
def test_export_with_other_ids_asks_the_same(chosen, tmp_path):
    drawn = MiniDrive("val", resolution=28, **chosen)
    drawn.export(tmp_path)
    read = DriveLM(tmp_path)
    theirs, ours = (
        sorted((each.frame(at), each.question(at), each[at].reference) for at in range(len(each)))
        for each in (read, drawn)
    )
    assert theirs == ours


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
