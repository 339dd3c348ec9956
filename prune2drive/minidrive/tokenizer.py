"""A word-level tokenizer for MiniDrive's questions and answers, built in code."""

from __future__ import annotations

import re

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prune2drive.minidrive.vocabulary import WORDS
from prune2drive.sample import IMAGE_MARKER

PAD, UNKNOWN, END, VIDEO, USER, ASSISTANT = "<pad>", "<unk>", "<eos>", "<video>", "<|user|>", "<|assistant|>"
SPECIAL = (PAD, UNKNOWN, END, IMAGE_MARKER, VIDEO, USER, ASSISTANT)
CHAT_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|user|>' if message['role'] == 'user' else '<|assistant|>' if message['role'] == 'assistant' else '' -}}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}
{%- for part in message['content'] -%}{{- '<image>' if part['type'] == 'image' else part['text'] -}}{%- endfor -%}
{%- endif -%}
{{- '<eos>' if message['role'] == 'assistant' else '' -}}
{%- endfor -%}
{{- '<|assistant|>' if add_generation_prompt else '' -}}"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Builds MiniDrive's tokenizer.

    Its tokens are MiniDrive's words and the parts of its object identifiers, DriveLM's commonest words, digits and
    punctuation; any other word becomes `<unk>`. Decoding restores MiniDrive's answers to the letter.
    """
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    whole = "|".join(re.escape(word) for word in WORDS if re.match(r"<c|,\d", word))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(
        Regex(rf"(?:{whole})(?!\d)|[A-Za-z_]+|\d|\S"), behavior="removed", invert=True
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"^(?=[A-Za-z<(])"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=,) (?=CAM_)"), ""),
            decoders.Strip(" ", left=1, right=0),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        eos_token=END,
        additional_special_tokens=[IMAGE_MARKER, VIDEO, USER, ASSISTANT],
        padding_side="left",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )
