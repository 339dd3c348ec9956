"""STSBench's clips and questions, from files of our own in its form."""

from collections import Counter

import pytest
from helpers.stsbench_files import CAMERAS, boxes, draw, photo, tell, write

from prune2drive.cameras import clip_views
from prune2drive.data.dataset import Dataset, group_by_frame
from prune2drive.data.stsbench import INSTRUCTION, QUESTIONS
from prune2drive.errors import InputError

FRONT = ("CAM_FRONT",) * 3


def test_a_clip_and_its_question(tmp_path):
    draw(tmp_path)
    dataset: Dataset = write(tmp_path)
    dataset.check()
    assert dataset.cameras == clip_views(CAMERAS, 3) and dataset.ids == ["0"]
    sample = dataset[0]
    assert sample.cameras == dataset.cameras and sample.prompt.count("<image>") == 18
    assert [image.getpixel((0, 0))[0] for image in sample.images.values()] == [0, 1, 2] * 6
    question, *options = sample.question.split("\n")
    assert question == "Which option says best what the ego vehicle does?"
    assert [line[:3] for line in options] == ["A. ", "B. ", "C. ", "D. ", "E. "]
    assert f"{sample.reference}. Ego is turning" in options and len(set(options)) == 5
    assert sample.prompt.endswith(f"from past to current. {sample.question}\n{INSTRUCTION}")
    row = dataset.row(0)
    assert (row.scene, row.frame, row.kind) == ("n1-log", "n1-log__CAM_FRONT__100+3", "ego: Ego is turning")
    assert sample.objects == () and sample.image_sizes == dict.fromkeys(dataset.cameras, (1600, 900))


@pytest.mark.parametrize(
    ("more", "group", "asked", "option"),
    [
        (
            {"other_agent": boxes(*FRONT)},
            "ego_agent",
            "the ego vehicle does with respect to <c1,CAM_FRONT,200.0,230.0> of the first image?",
            "Ego is trailing c1",
        ),
        ({"ego": ..., "agent": boxes(*FRONT)}, "agent", "<c1,CAM_FRONT,200.0,230.0> of the first image does?", "c1"),
        (
            {"ego": None, "agent": boxes(*FRONT), "other_agent": boxes("CAM_BACK", *FRONT[1:])},
            "agent_agent",
            "<c1,CAM_FRONT,200.0,230.0> of the first image does with respect to <c2,CAM_BACK,200.0,230.0> of the first",
            "c1 is trailing c2",
        ),
    ],
)
def test_who_acts(tmp_path, more, group, asked, option):
    text = {"ego_agent": "Ego is trailing agent", "agent": "Agent is parking"}.get(group, "Agent is trailing agent")
    dataset = write(tmp_path, tell(text, "Agent is waiting", **more))
    assert dataset.row(0).kind == f"{group}: {text}"
    assert asked in dataset.question(0) and f". {option}" in dataset.question(0)


def test_boxes_lie_in_the_views_that_show_them(tmp_path):
    draw(tmp_path)
    moving = tell(ego=None, agent=boxes("CAM_FRONT", "CAM_FRONT_LEFT", "CAM_BACK_LEFT"), other_agent=boxes("CAM_BACK"))
    found = write(tmp_path, moving)[0].objects
    assert [(box.camera, box.label) for box in found] == [
        ("CAM_FRONT@0", "agent"),
        ("CAM_FRONT_LEFT@1", "agent"),
        ("CAM_BACK_LEFT@2", "agent"),
        ("CAM_BACK@0", "other_agent"),
    ]
    assert found[0].box == (100.0, 200.0, 300.0, 260.0)
    ends = write(tmp_path, moving, times=2, cameras=["CAM_BACK_LEFT", "CAM_FRONT"])[0]
    assert ends.cameras == ("CAM_BACK_LEFT@0", "CAM_BACK_LEFT@1", "CAM_FRONT@0", "CAM_FRONT@1")
    assert [image.getpixel((0, 0))[0] for image in ends.images.values()] == [0, 2, 0, 2]
    assert [box.camera for box in ends.objects] == ["CAM_FRONT@0", "CAM_BACK_LEFT@1"]
    assert write(tmp_path, moving, times=1, cameras="CAM_FRONT").cameras == ("CAM_FRONT",)


def test_options_are_drawn_alike_for_all_runs_and_the_first_most_often(tmp_path):
    """Of 6 wrong options of weights 6 to 1, four are drawn without replacement."""
    negative = ",".join(f"Ego is n{number}" for number in range(6))
    clips = [tell(negative=negative) for _ in range(400)]
    dataset = write(tmp_path, *clips)
    assert dataset.fingerprint == write(tmp_path, *clips, seed=5).fingerprint
    assert dataset.fingerprint != write(tmp_path, *clips, options_seed=1).fingerprint
    assert group_by_frame(dataset, range(400)) == [list(range(400))]
    drawn = Counter(line[3:] for at in range(400) for line in dataset.question(at).split("\n")[1:])
    counts = [drawn[f"Ego is n{number}"] for number in range(6)]
    assert drawn["Ego is turning"] == 400 and sum(counts) == 1600
    assert counts[0] > 300 and counts[0] > counts[2] > counts[5] and counts[5] < 200
    assert min(Counter(dataset.row(at).reference for at in range(400)).values()) > 50


def test_clips_of_several_lengths_and_splits_by_recording(tmp_path):
    clips = [tell(times=2), tell(times=4, log="n2-log"), tell(times=2, log="n3-log")]
    dataset = write(tmp_path, *clips, cameras=["CAM_FRONT", "CAM_BACK"])
    assert dataset.cameras == clip_views(("CAM_FRONT", "CAM_BACK"), 4)
    assert write(tmp_path, *clips, scenes=["n2-log"]).ids == ["1"]
    with pytest.raises(InputError, match=r"18 of 18 images are missing, first .*/nuscenes/samples/CAM_FRONT/n1-log"):
        write(tmp_path).check()


@pytest.mark.parametrize(
    ("scenario", "message"),
    [
        ([7], "scenario 0: expected an object with the field 'scenario', found a number"),
        ([tell(scenario=...)], "scenario 0: field 'scenario' should be a string, found nothing"),
        ([tell(negative=" , ")], "scenario 0: 'scenario' or 'negative_scenarios' is empty"),
        ([tell(sensors={})], "scenario 0: 'sensors' needs cameras of nuScenes with equally many photos"),
        ([tell(sensors={"CAM_FRONT": ["a"], "CAM_BACK": []})], "scenario 0: 'sensors' needs cameras"),
        ([tell(sensors={"CAM_FRONT": [1]})], "sensors: field 'CAM_FRONT' should be a list of image paths"),
        ([tell(sensors={"CAM_FRONT": ["../a"]})], "scenario 0: image path '../a' leads out"),
        ([tell(ego=None)], "scenario 0: names neither 'ego' nor 'agent'"),
        ([tell(agent={"camera": {"cam": [], "bb2d": []}})], "scenario 0, agent: 'cam' and 'bb2d' should be as long"),
        (
            [tell(agent={"camera": {"cam": ["a"], "bb2d": [[1, 2]]}})],
            "agent: 'cam' should name a camera and 'bb2d'",
        ),
        ([tell(), tell(sensors={"CAM_FRONT": [photo("CAM_FRONT", at) for at in (0, 5, 6)]})], "scenario 1: its photos"),
    ],
)
def test_wrong_files_say_where(tmp_path, scenario, message):
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, *scenario)
    assert str(caught.value).startswith(str(tmp_path / QUESTIONS)) and "\n" not in str(caught.value)


def test_wrong_options_and_empty_files(tmp_path):
    for content, message in (("[]", "holds no scenario"), ("{}", "expected a list of scenarios, found an object")):
        with pytest.raises(InputError, match=message):
            write(tmp_path, content=content)
    with pytest.raises(InputError, match="dataset.times=0: use a whole number"):
        write(tmp_path, times=0)
    with pytest.raises(InputError, match="dataset.cameras: no camera 'CAM_TOP' in .*; it has CAM_FRONT, "):
        write(tmp_path, cameras=["CAM_TOP"])
