"""Makes chat templates from the way in which an original asks one question."""

from __future__ import annotations

import json
from collections.abc import Callable

from prune2drive.errors import InputError

SYSTEM_SENTINEL, QUESTION_SENTINEL = "\u2063system\u2063", "\u2063question\u2063"


def one_turn(render: Callable[[str, str], str], system: str) -> str:
    """Returns a Jinja template that renders a system prompt and one question as the original does.

    Args:
        render: returns the original's text for a system prompt and a question.
        system: the default system prompt.

    Raises:
        InputError: the original's text does not hold the system prompt and the question once, in this order.
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
