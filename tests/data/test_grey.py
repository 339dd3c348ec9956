"""Questions with grey images."""

import numpy as np
from helpers.drivelmm_o1_files import draw, item, write

from prune2drive.data.grey import GreyImages
from prune2drive.minidrive.dataset import MiniDrive


def test_everything_but_the_images_is_the_datasets():
    whole = MiniDrive("val", size=12)
    grey = GreyImages(whole)
    assert (grey.ids, grey.cameras, len(grey)) == (whole.ids, whole.cameras, 12)
    assert grey.fingerprint != whole.fingerprint
    for index in (0, 11):
        one, other = grey[index], whole[index]
        assert (one.id, one.prompt, one.reference, one.objects) == (
            other.id,
            other.prompt,
            other.reference,
            other.objects,
        )
        assert grey.question(index) == whole.question(index) and grey.frame(index) == whole.frame(index)
        assert list(one.images) == list(other.images)
        for camera, image in one.images.items():
            assert image.size == other.images[camera].size
            assert (np.asarray(image) == 128).all()


def test_a_stitched_picture_is_grey_too(tmp_path):
    draw(tmp_path, "s_f")
    sample = GreyImages(write(tmp_path, item()))[0]
    (picture,) = sample.shown.values()
    assert (np.asarray(picture) == 128).all()
