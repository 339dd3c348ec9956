import pytest
from helpers.drivelm_files import SHOWN, SIX
from hypothesis import given
from hypothesis import strategies as st

from prune2drive.data.dataset import multi_view_prompt
from prune2drive.errors import InputError


def test_six_cameras_read_as_in_the_original():
    assert multi_view_prompt(SIX, "What now?") == SHOWN + "What now?"


@pytest.mark.parametrize(
    ("cameras", "shown"),
    [
        (["CAM_BACK_LEFT"], "1: <image>. This image is the back left view of the ego vehicle."),
        (
            ["CAM_BACK", "roof_rear"],
            "1: <image> 2: <image>. These two images are the back view and roof rear view of the ego vehicle.",
        ),
        (
            ["CAM_BACK@0", "CAM_BACK@1", "CAM_BACK@2", "roof@0"],
            "1: <image> 2: <image> 3: <image> 4: <image>. These four images are three of the back view and one of the "
            "roof view of the ego vehicle, from past to current.",
        ),
    ],
)
def test_other_numbers_of_cameras_read_naturally(cameras, shown):
    assert multi_view_prompt(cameras, "Why?") == shown + "Why?"


def test_more_cameras_than_words():
    prompt = multi_view_prompt([f"CAM_{number}" for number in range(13)], "Why?")
    assert "13: <image>. These 13 images are the 0 view, 1 view" in prompt


def test_no_camera_has_no_prompt():
    with pytest.raises(InputError, match="at least one"):
        multi_view_prompt([], "Why?")


@given(st.lists(st.sampled_from(["<image>", "<", "image", ">", "<ima", "ge>", "\n", "a "])).map("".join))
def test_a_question_adds_no_marker(question):
    prompt = multi_view_prompt(SIX, question)
    assert prompt.count("<image>") == 6
    assert "<image>" in question or prompt == SHOWN + question
