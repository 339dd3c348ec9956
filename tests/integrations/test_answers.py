import pytest
from helpers import lmms_tasks, stock
from PIL import Image

from prune2drive import prune
from prune2drive.errors import InputError
from prune2drive.integrations.answers import Question, answer, cut_at, generation_options
from prune2drive.integrations.settings import Settings
from prune2drive.minidrive.model import packaged
from prune2drive.pruning import TFPS
from prune2drive.sample import IMAGE_MARKER, Sample

pytestmark = pytest.mark.slow  # whole runs

KEEP = 0.05
GREEDY = generation_options({"max_new_tokens": 12})


def settings_of(checkpoint, **given):
    settings = Settings.read({"pretrained": str(checkpoint), "dtype": "float32", "device": "cpu", **given})
    settings.load()
    return settings


@pytest.fixture(scope="module")
def ours():
    return settings_of(packaged(), pruner="tfps", keep=KEEP)


def asked(sample, name="a"):
    """The sample's prompt as a chat message, each image in the place of its marker."""
    texts, content = sample.prompt.split(IMAGE_MARKER), []
    for text, image in zip(texts, sample.images.values(), strict=False):
        content += [{"type": "text", "text": text}, {"type": "image", "url": image}]
    return Question(name, [{"role": "user", "content": [*content, {"type": "text", "text": texts[-1]}]}])


def alone(adapter, samples, pruner, keep):
    """What the library answers, one question at a time, and its visual tokens before and after."""
    found = []
    for sample in samples:
        prompts = adapter.collate([sample])
        with prune(adapter.model, pruner, keep, token_map=prompts.token_maps) as trace:
            (said,) = adapter.generate(prompts, **GREEDY)
        found.append((said.text, trace.full_tokens[0], trace.kept_tokens[0]))
    return found


def told(replies):
    return [(reply.text, reply.visual_tokens, reply.kept_tokens) for reply in replies]


def test_a_batch_is_answered_as_each_question_alone(ours):
    samples = [*lmms_tasks.samples(count=3), *lmms_tasks.samples("CAM_FRONT", count=3)]
    expected = alone(ours.adapter, samples, TFPS(), KEEP)
    assert told(answer(ours, [asked(sample) for sample in samples], GREEDY)) == expected
    assert [full for _, full, _ in expected] == [384] * 3 + [128] * 3 and len({text for text, *_ in expected}) > 3
    full = alone(ours.adapter, samples, TFPS(), 1.0)
    assert [text for text, *_ in full] != [text for text, *_ in expected], "pruning shows in the answers"


@pytest.mark.parametrize("family", stock.MODULES)
def test_every_family_answers(family, tmp_path):
    stock.save(family, tmp_path)
    settings = settings_of(tmp_path, pruner="tfps", keep=0.5)
    samples = lmms_tasks.samples("CAM_FRONT", "CAM_BACK", count=3)
    expected = alone(settings.adapter, samples, TFPS(), 0.5)
    assert told(answer(settings, [asked(sample) for sample in samples], GREEDY)) == expected
    assert all(kept * 2 == full for _, full, kept in expected)
    assert expected != alone(settings.adapter, samples, TFPS(), 1.0)


def test_questions_without_images_are_answered_beside_others(ours):
    (sample,) = lmms_tasks.samples(count=1)
    silent = Question("b", [{"role": "user", "content": "Is there a car ?"}])
    replies = answer(ours, [silent, asked(sample), silent], GREEDY)
    assert replies[0] == replies[2] and (replies[0].visual_tokens, replies[0].kept_tokens) == (0, 0)
    assert told(replies[1:2]) == alone(ours.adapter, [sample], TFPS(), KEEP)
    tokens = ours.adapter.processor.tokenizer(ours.adapter.chat("Is there a car ?"))["input_ids"]
    assert replies[0].prompt_tokens == len(tokens)


def test_beams_are_counted_once(ours):
    samples = lmms_tasks.samples(count=2)
    replies = answer(ours, [asked(sample) for sample in samples], {**GREEDY, "num_beams": 2})
    assert [(reply.visual_tokens, reply.kept_tokens) for reply in replies] == [(384, 6 * 3)] * 2


def test_images_are_read_from_files(ours, tmp_path):
    (sample,) = lmms_tasks.samples("CAM_FRONT", count=1)
    sample.images["CAM_FRONT"].save(tmp_path / "a.png")
    content = [{"type": "image", "url": str(tmp_path / "a.png")}, {"type": "text", "text": sample.question}]
    at_front = Sample("a", sample.images, sample.question, IMAGE_MARKER + sample.question)
    replies = answer(ours, [Question("a", [{"role": "user", "content": content}])], GREEDY)
    assert told(replies) == alone(ours.adapter, [at_front], TFPS(), KEEP)
    with pytest.raises(InputError, match="b.png: cannot be read as an image"):
        _ = Question("b", [{"role": "user", "content": [{"type": "image", "url": "b.png"}]}]).images


def test_films_are_refused():
    with pytest.raises(InputError, match="a shows a video: only text and images"):
        _ = Question("a", [{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}]).images


def test_images_are_in_rgb():
    content = [{"type": "image", "url": Image.new("RGBA", (4, 4))}]
    assert [image.mode for image in Question("a", [{"role": "user", "content": content}]).images] == ["RGB"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_new_tokens": 1024, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}),
        ({"temperature": 0, "top_p": 0.9, "do_sample": True}, {"do_sample": False, "temperature": None, "top_p": None}),
        ({"temperature": 0.5}, {"do_sample": True, "temperature": 0.5}),
        ({"do_sample": True, "top_p": 0.5}, {"do_sample": True, "top_p": 0.5}),
        ({"max_new_tokens": 7, "num_beams": 2, "top_p": None}, {"max_new_tokens": 7, "num_beams": 2}),
    ],
)
def test_generation_is_greedy_unless_asked_otherwise(given, expected):
    found = generation_options({**given, "until": ["\n"], "image_aspect_ratio": "pad"})
    assert expected.items() <= found.items() and not {"until", "image_aspect_ratio"} & found.keys()


def test_answers_end_at_the_first_stop_word():
    assert cut_at("a car\nno\n\nb", ["\n\n", "\n"]) == cut_at("a car\nno", "\n") == "a car"
    assert cut_at("a car", None) == cut_at("a car", [""]) == cut_at("a car", ["x"]) == "a car"
