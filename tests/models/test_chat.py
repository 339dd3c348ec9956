import pytest
from helpers import stock

from prune2drive.minidrive.tiny import Tiny
from prune2drive.models.llava_onevision import LlavaOnevision

SHOWN = [{"type": "text", "text": "what"}, {"type": "image"}, {"type": "text", "text": "?"}]


@pytest.fixture
def without_images(tmp_path):
    """A checkpoint whose chat template shows no images."""
    stock.save("llava_onevision", tmp_path)
    return lambda **options: LlavaOnevision(str(tmp_path), **options)


def test_images_stand_where_the_template_puts_them():
    adapter = Tiny()
    text = adapter.chat_messages([{"role": "user", "content": SHOWN}])
    assert text == adapter.chat("what<image>?") == "<|user|>what<image>?<|assistant|>"
    adapter.processor.chat_template = adapter.processor.chat_template.replace("'<image>'", "'picture:<image>'")
    assert adapter.chat_messages([{"role": "user", "content": SHOWN}]) == "<|user|>whatpicture:<image>?<|assistant|>"


def test_a_template_without_images_gets_them_in_the_text(without_images):
    adapter = without_images()
    assert adapter.chat_messages([{"role": "user", "content": SHOWN}]) == "<|user|>what<image>?<|assistant|>"


def test_a_template_that_fails_on_images_gets_them_in_the_text(without_images):
    adapter = without_images()
    adapter.processor.chat_template = adapter.processor.chat_template.replace("part['text']", "'' + part['text']")
    assert adapter.chat_messages([{"role": "user", "content": SHOWN}]) == "<|user|>what<image>?<|assistant|>"


def test_turns_follow_one_another():
    turns = [("user", "what ?"), ("assistant", "a car"), ("user", SHOWN)]
    text = Tiny().chat_messages([{"role": role, "content": content} for role, content in turns])
    assert text == "<|user|>what ?<|assistant|>a car<eos><|user|>what<image>?<|assistant|>"


def test_a_system_prompt_is_the_conversations_or_else_the_models(without_images):
    adapter = without_images(system="the view")
    user = {"role": "user", "content": "what ?"}
    assert adapter.chat_messages([user]) == adapter.chat("what ?") == "<|system|>the view<|user|>what ?<|assistant|>"
    own = {"role": "system", "content": "of a car"}
    assert adapter.chat_messages([own, user]) == "<|system|>of a car<|user|>what ?<|assistant|>"


def test_a_marker_in_a_text_stands_for_no_image():
    text = Tiny().chat_messages([{"role": "user", "content": [{"type": "text", "text": "is <image> it ?"}, *SHOWN]}])
    assert text == "<|user|>is [image] it ?what<image>?<|assistant|>"
