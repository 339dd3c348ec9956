import numpy as np
import pytest

from prune2drive.errors import InputError
from prune2drive.pruning import Adaptive, PerCamera, RatioPolicy, Uniform
from prune2drive.pruning.ratios import as_policy

CAMERAS = ("CAM_FRONT", "CAM_BACK")


def test_what_stands_for_a_policy():
    assert as_policy(0.2).ratios(CAMERAS) == {"CAM_FRONT": 0.2, "CAM_BACK": 0.2}
    assert as_policy({"CAM_BACK": 1, "CAM_FRONT": 0.5}).ratios(CAMERAS) == {"CAM_FRONT": 0.5, "CAM_BACK": 1.0}
    assert as_policy(np.float32(0.5)).ratios(CAMERAS) == {"CAM_FRONT": 0.5, "CAM_BACK": 0.5}
    policy = Uniform(0.3)
    assert as_policy(policy) is policy and isinstance(policy, RatioPolicy)


@pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, 10, float("nan"), float("inf"), "0.1", None, True])
def test_bad_ratios(ratio):
    with pytest.raises(InputError, match=r"\(0, 1\].*e\.g\. 0\.1"):
        Uniform(ratio)
    with pytest.raises(InputError, match=r"CAM_BACK.*\(0, 1\]"):
        PerCamera({"CAM_FRONT": 0.1, "CAM_BACK": ratio})


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"CAM_FRONT": 0.1, "CAM_BACK": 0.1, "CAM_BAKC": 0.1}, "unknown camera CAM_BAKC.*CAM_FRONT, CAM_BACK"),
        ({"CAM_FRONT": 0.1}, "no keep ratio for camera CAM_BACK"),
        ({}, "no keep ratio for camera CAM_FRONT"),
    ],
)
def test_every_camera_has_one_ratio(keep, message):
    with pytest.raises(InputError, match=message):
        PerCamera(keep).ratios(CAMERAS)


def test_a_cameras_ratio_holds_at_all_times_but_for_views_that_have_their_own():
    views = ("CAM_FRONT@0", "CAM_FRONT@1", "CAM_BACK@0", "CAM_BACK@1")
    keep = PerCamera({"CAM_FRONT": 0.1, "CAM_FRONT@1": 0.5, "CAM_BACK@0": 0.2, "CAM_BACK@1": 0.3})
    assert keep.ratios(views) == dict(zip(views, (0.1, 0.5, 0.2, 0.3), strict=True))
    for wrong in ("CAM_FRONT@2", "CAM_LEFT", "CAM_LEFT@0"):
        with pytest.raises(InputError, match=f"unknown camera {wrong}: the cameras here are CAM_FRONT@0, CAM_FRONT@1"):
            PerCamera({"CAM_FRONT": 0.1, "CAM_BACK": 0.1, wrong: 0.1}).ratios(views)
    with pytest.raises(InputError, match="no keep ratio for camera CAM_BACK@1"):
        PerCamera({"CAM_FRONT": 0.1, "CAM_BACK@0": 0.1}).ratios(views)
    with pytest.raises(InputError, match="unknown camera CAM_FRONT@0"):
        PerCamera({"CAM_FRONT": 0.1, "CAM_BACK": 0.1, "CAM_FRONT@0": 0.1}).ratios(CAMERAS)


def adaptive(tmp_path, text, command="python run.py -m search"):
    file = tmp_path / "ratios.yaml"
    if text is not None:
        file.write_text(text)
    return Adaptive(str(file), command)


def test_searched_ratios_and_their_provenance(tmp_path):
    policy = adaptive(tmp_path, "ratios: {CAM_FRONT: 0.3, CAM_BACK: 0.05}\nprovenance: {study: tpe, trials: 100}\n")
    assert policy.ratios(CAMERAS[::-1]) == {"CAM_BACK": 0.05, "CAM_FRONT": 0.3}
    assert policy.provenance == {"study": "tpe", "trials": 100}
    assert isinstance(policy, RatioPolicy)


@pytest.mark.parametrize("provenance", ["", "provenance:\n"])
def test_provenance_may_be_missing(tmp_path, provenance):
    assert adaptive(tmp_path, f"ratios: {{CAM_FRONT: 0.3}}\n{provenance}").provenance == {}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (None, ["missing", "`python run.py -m search`", "ratios=uniform"]),
        ("", ["`ratios`"]),
        ("[0.1, 0.2]", ["`ratios`"]),
        ("ratios: [0.1, 0.2]", ["`ratios`"]),
        ("CAM_FRONT: 0.1", ["`ratios`"]),
        ("ratios: {CAM_FRONT: [0.1", ["not readable as YAML"]),
        ("ratios: {CAM_FRONT: 1.5}", ["CAM_FRONT", "(0, 1]"]),
        ("ratios: {CAM_FRONT: much}", ["CAM_FRONT", "(0, 1]"]),
        ("ratios:\n  CAM_FRONT: ${nothing}", ["nothing", "(0, 1]"]),
        ("ratios: {CAM_FRONT: 0.1}\nprovenance: by hand", ["`provenance`"]),
        ("ratios: {0: 0.1}", ["camera 0"]),
        (b"\xff\xfe\x00", ["not readable"]),
    ],
)
def test_bad_files_are_named(tmp_path, text, parts):
    if isinstance(text, bytes):
        (tmp_path / "ratios.yaml").write_bytes(text)
        text = None
    with pytest.raises(InputError) as error:
        adaptive(tmp_path, text).ratios(CAMERAS)
    assert "\n" not in str(error.value) and str(tmp_path / "ratios.yaml") in str(error.value)
    assert all(part in str(error.value) for part in parts)


def test_a_file_for_other_cameras_is_named(tmp_path):
    policy = adaptive(tmp_path, "ratios: {CAM_FRONT: 0.3}\n")
    with pytest.raises(InputError, match=r"ratios\.yaml: no keep ratio for camera CAM_BACK"):
        policy.ratios(CAMERAS)
