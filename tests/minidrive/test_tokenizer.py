import json

import pytest

from prune2drive.cameras import CAMERAS
from prune2drive.minidrive.tokenizer import build_tokenizer
from prune2drive.minidrive.vocabulary import COLOURS, KINDS, WORDS, c_tag

ANSWERS = [
    *(f"There is a {colour} {kind} at {c_tag(1, 'CAM_FRONT', 3, 5)}." for colour in COLOURS for kind in KINDS),
    *(f"{camera}." for camera in CAMERAS),
    "Firstly notice that <c1,CAM_BACK,100.0,843.8>.",
    "Keep going.",
    "A",
    "Yes.",
]


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.mark.parametrize("answer", ANSWERS)
def test_answers_survive(tokenizer, answer):
    ids = tokenizer(answer).input_ids
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == answer


def test_every_word_is_one_token(tokenizer):
    assert len(set(WORDS)) == len(WORDS)
    for word in WORDS:
        assert tokenizer(word).input_ids == [tokenizer.convert_tokens_to_ids(word)], word


@pytest.mark.parametrize(
    "text", ["", "<c1,CAM_BACK,1088.3,497.5>?", "Zürich 42 %\n\t☃", "x" * 10_000, "<image", "<c1,"]
)
def test_any_text_is_tokenised(tokenizer, text):
    assert all(0 <= token < len(tokenizer) for token in tokenizer(text).input_ids)


def test_digits_of_unknown_numbers_stay_apart(tokenizer):
    assert tokenizer.tokenize("1088.3") == ["1", "0", "8", "8", ".", "3"]


def test_it_pads_on_the_left_and_reads_messages(tokenizer):
    batch = tokenizer(["Yes.", "Keep going ahead."], padding=True)
    assert batch.attention_mask[0][0] == 0 and batch.input_ids[0][0] == tokenizer.pad_token_id
    parts = [{"type": "image"}, {"type": "text", "text": "What?"}]
    written = tokenizer.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    assert written == "<|user|><image>What?<|assistant|>"


def test_it_is_the_same_from_disk(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again(ANSWERS).input_ids == tokenizer(ANSWERS).input_ids
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["padding_side"] == "left"
