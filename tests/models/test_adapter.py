from types import SimpleNamespace

import pytest
import torch
from helpers import runs
from PIL import Image

from prune2drive.data.dataset import multi_view_prompt
from prune2drive.errors import InputError
from prune2drive.minidrive.tiny import Tiny
from prune2drive.minidrive.tokenizer import END, PAD
from prune2drive.sample import IMAGE_MARKER, Sample

GRID = 64  # tokens of an image: 8 x 8
GREEDY = {"max_new_tokens": 3, "do_sample": False}


@pytest.fixture(scope="module")
def adapter() -> Tiny:
    return runs.Lively()


def sample(cameras, question="What is there?", name="a", prompt=None, size=(112, 112)):
    """A sample whose n-th image has the colour n."""
    images = {camera: Image.new("RGB", size, (60 * n, 0, 0)) for n, camera in enumerate(cameras, start=1)}
    return Sample(name, images, question, prompt or multi_view_prompt(cameras, question))


def words(adapter, prompts, row):
    """The row's tokens with runs of image tokens as numbers, and how much padding is left of them."""
    tokens = adapter.processor.tokenizer.convert_ids_to_tokens(prompts.inputs["input_ids"][row])
    padding = tokens.count(PAD)
    assert tokens[:padding] == [PAD] * padding
    assert prompts.inputs["attention_mask"][row].tolist() == [0] * padding + [1] * (len(tokens) - padding)
    shown = []
    for token in tokens[padding:]:
        if token != IMAGE_MARKER:
            shown.append(token)
        elif shown and isinstance(shown[-1], int):
            shown[-1] += 1
        else:
            shown.append(1)
    return shown, padding


def test_each_marker_becomes_its_images_run(adapter):
    prompts = adapter.collate([sample(["CAM_BACK", "CAM_FRONT"], prompt=f"1:{IMAGE_MARKER}2:{IMAGE_MARKER}red?")])
    run = GRID + 1  # an image's tokens and a newline
    assert words(adapter, prompts, 0) == (["<|user|>", "1", ":", run, "2", ":", run, "red", "?", "<|assistant|>"], 0)
    (token_map,) = prompts.token_maps
    assert token_map.length == 2 * run + 8 and prompts.lengths == [token_map.length]
    assert token_map.cameras == ("CAM_BACK", "CAM_FRONT")
    assert token_map.counts == {"CAM_BACK": GRID, "CAM_FRONT": GRID}
    first, second = 3, 3 + run + 2
    assert token_map.positions("CAM_BACK").tolist() == list(range(first, first + GRID))
    assert token_map.positions("CAM_FRONT").tolist() == list(range(second, second + GRID))
    assert token_map.row_P[first + 10].item() == 1 and token_map.col_P[first + 10].item() == 2


def test_images_go_in_the_order_of_the_cameras(adapter):
    prompts = adapter.collate([sample(["A", "B", "C"]), sample(["C", "A"])])
    shades = [round(float(pixels[0, 0].mean()), 2) for pixels in prompts.inputs["pixel_values"]]
    colours = [round((60 * n / 255 - 0.5) / 0.5, 2) for n in (1, 2, 3, 1, 2)]
    assert shades == colours
    assert prompts.inputs["batch_num_images"].tolist() == [3, 2]
    assert [token_map.cameras for token_map in prompts.token_maps] == [("A", "B", "C"), ("C", "A")]


def test_shorter_prompts_are_padded_on_the_left(adapter):
    prompts = adapter.collate(
        [sample(["A", "B"], "red?"), sample(["A", "B"], "red, red, red, red?"), sample(["A", "B"])]
    )
    rows = [words(adapter, prompts, row) for row in range(3)]
    assert [padding for _, padding in rows] == [6, 0, 4]
    assert all(shown[-1] == "<|assistant|>" for shown, _ in rows)
    alone = adapter.collate([sample(["A", "B"], "red?")])
    assert alone.token_maps[0].view_P.equal(prompts.token_maps[0].view_P), "maps know no padding"
    assert prompts.lengths == [int(mask.sum()) for mask in prompts.inputs["attention_mask"]]


def test_a_single_image_has_an_overview_and_details(adapter):
    prompts = adapter.collate([sample(["CAM_BACK"], prompt=f"{IMAGE_MARKER}red?")])
    details = 8 * (8 + 1)  # each row ends in a newline
    assert words(adapter, prompts, 0)[0] == ["<|user|>", GRID + details, "red", "?", "<|assistant|>"]
    (token_map,) = prompts.token_maps
    rows_of_details = [range(1 + GRID + 9 * row, 1 + GRID + 9 * row + 8) for row in range(8)]
    expected = [*range(1, 1 + GRID), *(at for row in rows_of_details for at in row)]
    assert token_map.positions("CAM_BACK").tolist() == expected
    assert [(view.rows, view.cols) for view in token_map.views] == [(8, 8), (8, 8)]


def test_mixed_numbers_of_cameras_answer_as_alone(adapter):
    shown = (["A"], ["A", "B", "C"], ["B", "A"], ["C"])
    questions = ("What is there?", "Is the car red or blue?", "What is there?", "What is there?")
    samples = [sample(names, text, name="".join(names)) for names, text in zip(shown, questions, strict=True)]
    together = adapter.collate(samples)
    assert [len(each.cameras) for each in together.token_maps] == [1, 3, 2, 1]
    alone = [adapter.collate([each]) for each in samples]
    for mine, batched in zip(alone, together.token_maps, strict=True):
        assert mine.token_maps[0].view_P.equal(batched.view_P) and mine.token_maps[0].cameras == batched.cameras
    expected = [adapter.generate(prompts, **GREEDY)[0] for prompts in alone]
    assert adapter.generate(together.with_images, **GREEDY) == expected
    assert len({answer.text for answer in expected}) == 4


def test_images_that_are_not_square(adapter):
    wide, tall = (sample(["A", "B"], size=size, name=str(size)) for size in ((160, 90), (90, 160)))
    prompts = adapter.collate([wide, tall])
    assert all(each.counts == {"A": GRID, "B": GRID} for each in prompts.token_maps)
    x0, y0, x1, y1 = prompts.token_maps[0].views[0].frame
    margin = (160 - 90) / 2 / 90
    assert (x0, y0, x1, y1) == pytest.approx((0, -margin, 1, 1 + margin))
    assert prompts.token_maps[1].views[0].frame == pytest.approx((y0, x0, y1, x1))


def test_a_marker_too_many_is_an_error(adapter):
    with pytest.raises((InputError, ValueError, IndexError)):
        adapter.collate([sample(["A", "B"], prompt=IMAGE_MARKER * 3)])


def test_prompts_move_to_a_device(adapter):
    prompts = adapter.collate([sample(["A", "B"])])
    moved = prompts.to("meta")
    assert all(value.is_meta for value in moved.inputs.values())
    assert moved.token_maps == prompts.token_maps and not prompts.inputs["input_ids"].is_meta


class Said:
    """A model that says given tokens behind the prompt."""

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, tokens, end):
        self.tokens, self.generation_config = tokens, SimpleNamespace(eos_token_id=end)

    def generate(self, input_ids, **options):
        return torch.cat([input_ids, torch.tensor(self.tokens)], dim=1)


def test_answers_end_at_the_end_token():
    adapter = Tiny()
    tokenizer = adapter.processor.tokenizer
    yes, no, end, pad, comma = tokenizer.convert_tokens_to_ids(["yes", "no", END, PAD, ","])
    said = [[yes, end, pad, pad], [yes, no, yes, no], [end, pad, pad, pad], [yes, end, end, end], [no, comma, end, pad]]
    prompts = adapter.collate([sample(["A", "B"])] * len(said))
    for ends, counts in ((end, [2, 4, 1, 2, 3]), ([pad, end], [2, 4, 1, 2, 3]), ([comma, end], [2, 4, 1, 2, 2])):
        adapter.model = Said(said, ends)
        answers = adapter.generate(prompts)
        assert [answer.text for answer in answers] == ["yes", "yes no yes no", "", "yes", "no,"]
        assert [answer.new_tokens for answer in answers] == counts
    adapter.model = Said(said, None)
    assert [answer.new_tokens for answer in adapter.generate(prompts)] == [4] * 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 0}, "generation: .*max_new_tokens"),
        ({"max_new_tokens": "many"}, "generation: "),
        ({"num_return_sequences": 2}, "generation: .*num_return_sequences"),
        ({"temprature": 1.0}, r"generation\.temprature: `generate` has no such option"),
    ],
)
def test_options_are_looked_at_without_a_model(options, message):
    adapter = Tiny()
    with pytest.raises(InputError, match=message) as caught:
        adapter.check_options({"do_sample": False, **options})
    assert "\n" not in str(caught.value)
    adapter.check_options(GREEDY)
    assert "model" not in vars(adapter)
