import json
import subprocess
import sys

import numpy as np
import pytest
from helpers import nuscenes_tables as tiny
from helpers.drivelm_files import key_frame, scenes, write
from helpers.nuscenes_tables import FOCAL, SIZE, VERSION, annotation
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.data.drivelm import DriveLM
from prune2drive.data.nuscenes import NuScenesTables, project
from prune2drive.errors import InputError

INTRINSIC = np.array([[FOCAL, 0, 800.0], [0, FOCAL, 450.0], [0, 0, 1]])


def test_a_box_straight_ahead(tmp_path):
    """Its near face is 8 m away and 2 x 2 m large: 1000 / 8 pixels either side of the centre."""
    (thing,) = NuScenesTables(tiny.write(tmp_path, annotation(ahead=10.0)), VERSION).objects("f")
    assert (thing.camera, thing.label, thing.visibility) == ("CAM_FRONT", "vehicle.car", 4)
    assert thing.box == pytest.approx((800 - 125, 450 - 125, 800 + 125, 450 + 125))


def test_sides_edges_and_what_is_behind(tmp_path):
    things = [
        annotation(ahead=10.0, left=2.0, up=0.5, name="left and low", visibility=""),
        annotation(ahead=-10.0, left=2.0, name="behind"),
        annotation(ahead=10.0, left=7.0, name="cut off"),
        annotation(ahead=0.0, left=30.0, name="beside"),
        annotation(ahead=2.0, left=3.0, size=(4.0, 8.0, 2.0), name="passing"),
    ]
    seen = NuScenesTables(tiny.write(tmp_path, *things), VERSION).objects("f")
    found = {thing.label: thing for thing in seen if thing.camera == "CAM_FRONT" or thing.label == "behind"}
    low = found["left and low"]
    assert low.visibility is None
    assert low.box == pytest.approx((800 - 3000 / 8, 450, 800 - 1000 / 12, 450 + 2000 / 8))
    assert found["behind"].camera == "CAM_BACK"
    assert found["behind"].box == pytest.approx((800 + 1000 / 12, 450 - 125, 800 + 3000 / 8, 450 + 125))
    assert found["cut off"].box[0] == 0 and found["cut off"].box[2] == pytest.approx(800 - 6000 / 12)
    assert "beside" not in found
    assert found["passing"].box == pytest.approx((0, 0, 800 - 1000 / 6, 900), abs=1)


def test_calibration_leads_back_to_the_world(tmp_path):
    camera = NuScenesTables(tiny.write(tmp_path), VERSION).cameras("f")["CAM_FRONT"]
    assert (camera.path, camera.size) == ("samples/CAM_FRONT/a.png", SIZE)
    assert camera.intrinsic == pytest.approx(INTRINSIC)
    assert camera.to_world @ [0, 0, 10, 1] == pytest.approx([100, 210, tiny.HEIGHT, 1])
    assert camera.to_world @ [3, 0, 0, 1] == pytest.approx([103, 200, tiny.HEIGHT, 1])


@given(
    st.tuples(*[st.floats(-30, 30)] * 3),
    st.tuples(*[st.floats(0.5, 12)] * 3),
)
def test_a_projection_holds_every_visible_point(centre, size):
    """Points drawn inside the box: those that are in the image are in the rectangle."""
    grid = np.stack(np.meshgrid(*[[-0.5, -0.2, 0.1, 0.5]] * 3), 0).reshape(3, -1)
    signs = np.stack(np.meshgrid(*[[-0.5, 0.5]] * 3), 0).reshape(3, -1)
    centre_3, size_3 = np.array(centre)[:, None], np.array(size)[:, None]
    points = centre_3 + size_3 * grid
    points = points[:, points[2] >= 0.1]
    pixels = (INTRINSIC @ points)[:2] / points[2]
    seen = pixels[:, (pixels > 1e-3).all(0) & (pixels[0] < 1599.99) & (pixels[1] < 899.99)]
    box = project(centre_3 + size_3 * signs, INTRINSIC, SIZE)
    if box is None:
        assert not seen.size
    else:
        x0, y0, x1, y1 = box
        assert 0 <= x0 < x1 <= 1600 and 0 <= y0 < y1 <= 900
        assert (seen >= np.array([[x0], [y0]]) - 1e-3).all() and (seen <= np.array([[x1], [y1]]) + 1e-3).all()


def test_drivelm_with_the_tables(tmp_path):
    objects = {"<c1,CAM_BACK,8.5,4.5>": {"2d_bbox": [1, 2, 3, 4]}}
    frame = key_frame(objects=objects, perception=["A?", "B?"], cameras=["CAM_FRONT", "CAM_BACK"])
    write(tmp_path, scenes(f=frame))
    root = tiny.write(tmp_path / "tables", annotation(ahead=10.0))
    dataset = DriveLM(tmp_path, nuscenes=root, version=VERSION)
    dataset.check()
    for sample in dataset:
        assert sample.cameras == ("CAM_FRONT", "CAM_BACK")
        assert [thing.label for thing in sample.objects] == ["vehicle.car"]
        assert sample.image_sizes["CAM_FRONT"] == SIZE, "the size that boxes are in, not that of a smaller copy"
    assert DriveLM(tmp_path, nuscenes=root, version=VERSION, cameras="CAM_BACK")[0].objects == ()


def test_tables_that_do_not_fit(tmp_path):
    root = tiny.write(tmp_path / "tables", sample="g")
    with pytest.raises(InputError, match="v1.0-mini: no nuScenes tables"):
        NuScenesTables(root, "v1.0-mini")
    write(tmp_path, scenes(f=key_frame(perception=["A?"])))
    with pytest.raises(InputError, match="scene s, frame f: .*sample.json: no sample f; set dataset.version"):
        DriveLM(tmp_path, nuscenes=root, version=VERSION)
    for damage in ("{", None):
        file = root / VERSION / "sample_data.json"
        file.write_text(damage) if damage else file.unlink()
        with pytest.raises(InputError, match="the devkit cannot open it") as caught:
            NuScenesTables(root, VERSION)
        assert "\n" not in str(caught.value)


def test_a_path_out_of_the_data_root_is_refused(tmp_path):
    root = tiny.write(tmp_path)
    file = root / VERSION / "sample_data.json"
    file.write_text(json.dumps([row | {"filename": "../secret.png"} for row in json.loads(file.read_text())]))
    with pytest.raises(InputError, match="sample f: image path '../secret.png' leads out"):
        NuScenesTables(root, VERSION).paths("f")


@pytest.mark.slow
def test_the_devkit_is_imported_where_it_is_needed():
    code = "import sys, prune2drive.data.drivelm; print('nuscenes' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
