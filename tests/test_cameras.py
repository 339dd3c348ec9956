"""Names of views: a camera at a time."""

from hypothesis import given
from hypothesis import strategies as st

from prune2drive.cameras import CAMERAS, arranged, camera_of, clip_views, time_of, view_name


@given(st.text(min_size=1), st.integers(0, 10**6))
def test_a_view_says_its_camera_and_time(camera, time):
    view = view_name(camera, time)
    assert (camera_of(view), time_of(view)) == (camera, time)


def test_a_camera_that_is_shown_once_has_no_time():
    for name in (*CAMERAS, "roof@left", "@1", "a@", "a@01", "a@-1", "a@\N{ARABIC-INDIC DIGIT ONE}", ""):
        assert (camera_of(name), time_of(name)) == (name, None)
    assert clip_views(("a", "b"), 1) == ("a", "b")
    assert clip_views(("a", "b"), 2) == ("a@0", "a@1", "b@0", "b@1")


def test_pages_show_the_rig_time_after_time():
    around = ["CAM_FRONT_LEFT", "CAM_FRONT", "CAM_FRONT_RIGHT", "CAM_BACK_RIGHT", "CAM_BACK", "CAM_BACK_LEFT"]
    assert arranged(CAMERAS) == (around, 3)
    both = [f"{camera}@{time}" for time in range(2) for camera in around]
    assert arranged(clip_views(CAMERAS, 2)) == (both, 3)
    assert arranged(["roof", "CAM_BACK", "CAM_FRONT", "side", "top"]) == (
        ["CAM_FRONT", "CAM_BACK", "roof", "side", "top"],
        3,
    )
    assert arranged(["b", "a"]) == (["b", "a"], 2)
