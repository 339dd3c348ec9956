import pytest

from prune2drive.cameras import CAMERAS, LAYOUT, short_name, spoken_name


def test_layout_shows_every_camera_once():
    assert sorted(camera for row in LAYOUT for camera in row) == sorted(CAMERAS)


@pytest.mark.parametrize(
    ("camera", "short", "spoken"),
    [
        ("CAM_FRONT_LEFT", "FRONT_LEFT", "front left"),
        ("cam_back", "back", "back"),
        ("Wide_CAM_1", "Wide_CAM_1", "wide cam 1"),
    ],
)
def test_names_of_a_camera(camera, short, spoken):
    assert (short_name(camera), spoken_name(camera)) == (short, spoken)
