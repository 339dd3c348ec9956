"""Chat templates made from how an original asks one question."""

from __future__ import annotations

import json
from collections.abc import Callable

from prune2drive.errors import InputError

SYSTEM_SENTINEL, QUESTION_SENTINEL = "\u2063system\u2063", "\u2063question\u2063"


def one_turn(render: Callable[[str, str], str], system: str) -> str:
    """A Jinja template that says exactly what `render` says, for a system prompt and one question.

    Args:
        render: from system prompt and question to the text the original feeds its model.
        system: the system prompt where the messages bring none.

    Raises:
        InputError: the original does not repeat both as they are given.
    """
    text = render(SYSTEM_SENTINEL, QUESTION_SENTINEL)
    before, _, rest = text.partition(SYSTEM_SENTINEL)
    between, _, after = rest.partition(QUESTION_SENTINEL)
    if before + SYSTEM_SENTINEL + between + QUESTION_SENTINEL + after != text or SYSTEM_SENTINEL in rest:
        raise InputError("the checkpoint's chat template does not show a system prompt and a question once each")
    return (
        "{%- set asked = namespace(system=" + json.dumps(system, ensure_ascii=False) + ", user='') -%}"
        "{%- for message in messages -%}"
        "{%- set text = message['content'] if message['content'] is string"
        " else message['content'] | map(attribute='text') | join -%}"
        "{%- if message['role'] == 'system' -%}{%- set asked.system = text -%}"
        "{%- else -%}{%- set asked.user = asked.user + text -%}{%- endif -%}"
        "{%- endfor -%}"
        f"{{{{- {json.dumps(before, ensure_ascii=False)} + asked.system + {json.dumps(between, ensure_ascii=False)}"
        f" + asked.user + {json.dumps(after, ensure_ascii=False)} -}}}}"
    )
