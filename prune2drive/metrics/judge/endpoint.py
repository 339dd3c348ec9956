"""A client of any endpoint that speaks OpenAI's chat-completions protocol.

Many questions are asked at a time, and every reply is kept on disk, so that none is paid for twice. The `openai`
package retries what may pass (429, 5xx, time-outs, lost connections) with exponential backoff and jitter, or after the
time that the endpoint asks for. An endpoint that fails several questions in a row, each with all its retries, is asked
no more.
"""

from __future__ import annotations

import hashlib
import importlib.util
import ipaddress
import json
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import track

from prune2drive.errors import InputError
from prune2drive.metrics.judge.response_cache import Replies

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")
PATIENCE = 3  # failed questions in a row
LEAST = {"concurrency": 1, "retries": 0, "attempts": 1}


class Unanswered(Exception):
    """The endpoint stopped answering; what it did answer is in the cache.

    Args:
        missing: how many of the questions have no reply.
        asked: how many there were.
        reason: what it said last.
    """

    def __init__(self, missing: int, asked: int, reason: str) -> None:
        super().__init__(f"no reply to {missing} of {asked} questions: {reason}")
        self.missing, self.asked, self.reason = missing, asked, reason


class Outcome(NamedTuple):
    """What became of a question: its reply as parsed, or None where it could not be."""

    answered: bool
    value: Any = None


@dataclass
class Watch:
    """Notices that an endpoint is dead."""

    in_a_row: int = 0
    reason: str = ""

    @property
    def gave_up(self) -> bool:
        return self.in_a_row >= PATIENCE

    def failed(self, reason: str) -> None:
        self.in_a_row += 1
        self.reason = reason

    def answered(self) -> None:
        if not self.gave_up:
            self.in_a_row = 0


@dataclass(frozen=True)
class Endpoint:
    """An endpoint, and how to ask it.

    Args:
        base_url: up to and without /chat/completions, such as https://api.openai.com/v1.
        model: as the endpoint calls it.
        api_key_env: environment variable that holds the key; null where none is needed. An endpoint on this machine
            is asked without a key if the variable is not set.
        sampling: further fields of each request, such as temperature.
        concurrency: questions asked at a time.
        retries: times that a failed request is sent again.
        attempts: times that a question is asked whose reply cannot be parsed.
        timeout: seconds to wait for a reply.
        cache: folder of the replies.

    Raises:
        InputError: a setting that cannot work, or the `openai` package is missing.
    """

    base_url: str
    model: str
    api_key_env: str | None = "OPENAI_API_KEY"
    sampling: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0, "max_tokens": 512})
    concurrency: int = 8
    retries: int = 6
    attempts: int = 3
    timeout: float = 60
    cache: str = "outputs/judge_cache"

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise InputError(f"judge.base_url={self.base_url}: not a web address; write it as https://host/v1")
        if not self.model:
            raise InputError("judge.model is empty; name the model as the endpoint calls it")
        for name, least in LEAST.items():
            if (value := getattr(self, name)) < least or not isinstance(value, int):
                raise InputError(f"judge.{name}={value}: use a whole number, {least} or more")
        if not self.timeout > 0:
            raise InputError(f"judge.timeout={self.timeout}: use a number of seconds above 0")
        if self.api_key_env and not self._key and not _is_local(url.hostname):
            raise InputError(
                f"the environment has no {self.api_key_env}, the key of {self.base_url}; "
                "set it, or judge.api_key_env=null if none is needed"
            )
        if not importlib.util.find_spec("openai"):
            raise InputError("judge=openai needs the openai package: pip install 'prune2drive[judge]'")
        self._replies  # noqa: B018  # an unusable cache shows now

    @property
    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    @cached_property
    def _replies(self) -> Replies:
        return Replies(self.cache)

    @cached_property
    def _client(self) -> OpenAI:
        from openai import OpenAI

        return OpenAI(
            base_url=self.base_url, api_key=self._key or "none", timeout=self.timeout, max_retries=self.retries
        )

    def ask(self, questions: Mapping[str, str], parse: Callable[[str], T | None]) -> dict[str, T]:
        """Asks questions, equal ones once.

        Args:
            questions: id -> text of the user's message.
            parse: from a reply to what it says; None for a reply to ask again.

        Returns:
            id -> parsed reply, without those that could not be parsed `attempts` times.

        Raises:
            Unanswered: some have no reply.
            InputError: the cache cannot be written.
        """
        watch = Watch()
        texts = list(dict.fromkeys(questions.values()))
        with ThreadPoolExecutor(self.concurrency) as pool:
            outcomes = pool.map(lambda text: self._ask(text, parse, watch), texts)
            try:
                found = dict(zip(texts, _with_progress(outcomes, len(texts)), strict=True))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # which matters after an error or Ctrl-C
        if missing := sum(not found[text].answered for text in questions.values()):
            raise Unanswered(missing, len(questions), watch.reason)
        return {id: found[text].value for id, text in questions.items() if found[text].value is not None}

    def _ask(self, text: str, parse: Callable[[str], T | None], watch: Watch) -> Outcome:
        """Asks one question until its reply can be parsed."""
        for attempt in range(self.attempts):
            key = self._cache_key(text, attempt)
            reply = self._replies.get(key)
            if reply is None:
                if watch.gave_up:
                    return Outcome(answered=False)
                try:
                    reply = self._request(text)
                except _Failure as failure:
                    watch.failed(str(failure))
                    return Outcome(answered=failure.is_refusal)
                watch.answered()
                self._replies.put(key, reply)
            if (value := parse(reply)) is not None:
                return Outcome(True, value)
        return Outcome(answered=True)

    def _cache_key(self, text: str, attempt: int) -> str:
        request = [self.model, text, dict(self.sampling), attempt]
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def _request(self, text: str) -> str:
        """The reply to a message.

        Raises:
            _Failure: the endpoint gave none.
        """
        from openai import BadRequestError, OpenAIError, UnprocessableEntityError

        messages: Any = [{"role": "user", "content": text}]
        for _ in range(self.attempts):
            try:
                completion = self._client.chat.completions.create(
                    model=self.model, messages=messages, extra_body=dict(self.sampling)
                )
                return completion.choices[0].message.content or ""
            except OpenAIError as error:
                cause = f" ({error.__cause__})" if error.__cause__ else ""
                is_refusal = isinstance(error, BadRequestError | UnprocessableEntityError)
                raise self._failure(f"{error}{cause}", is_refusal) from None
            except (AttributeError, IndexError, TypeError, ValueError) as error:
                garbled = error
        raise self._failure(f"its answer is no chat completion ({garbled})")

    def _failure(self, message: str, is_refusal: bool = False) -> _Failure:
        line = " ".join(message.split())
        return _Failure((line.replace(self._key, "***") if self._key else line)[:300], is_refusal)


class _Failure(Exception):
    """A question without a reply.

    Args:
        reason: one line, without the key.
        is_refusal: the endpoint works, and will not answer this one (its content, its length).
    """

    def __init__(self, reason: str, is_refusal: bool) -> None:
        super().__init__(reason)
        self.is_refusal = is_refusal


def _with_progress(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
    """The same behind a progress bar, where there is a terminal to show it."""
    console = Console(stderr=True)
    return track(outcomes, "judging", total, console=console, transient=True, disable=not console.is_terminal)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
