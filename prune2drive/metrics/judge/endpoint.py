"""A client of any endpoint that speaks OpenAI's chat-completions protocol.

Many questions are asked at a time, and every reply is kept on disk, so that none is paid for twice. The `openai`
package retries temporary failures (429, 5xx, time-outs, lost connections) with exponential backoff and jitter, or after
the time that the endpoint asks for. After several failed questions in a row, each with all its retries, no further
question is sent.
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

from prune2drive.errors import InputError, check_whole
from prune2drive.metrics.base import JudgeUnavailable
from prune2drive.metrics.judge.response_cache import ResponseCache

if TYPE_CHECKING:
    from openai import OpenAI

T = TypeVar("T")
FAILURES_IN_A_ROW = 3  # after which no further question is sent
LEAST = {"concurrency": 1, "retries": 0, "attempts": 1}


class Outcome(NamedTuple):
    """The result of a question.

    Args:
        answered: whether the endpoint replied or refused, rather than failed.
        value: the parsed reply; None where it could not be parsed.
    """

    answered: bool
    value: Any = None


@dataclass
class CircuitBreaker:
    """Opens for good after several failed questions in a row.

    Args:
        failures: failed questions since the last reply.
        reason: the last error, in one line.
    """

    failures: int = 0
    reason: str = ""

    @property
    def is_open(self) -> bool:
        """Whether no further question should be sent."""
        return self.failures >= FAILURES_IN_A_ROW

    def record_failure(self, reason: str) -> None:
        """Counts a failed question."""
        self.failures += 1
        self.reason = reason

    def record_reply(self) -> None:
        """Counts from 0 again, unless the breaker is open."""
        if not self.is_open:
            self.failures = 0


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and the settings of its requests.

    Args:
        base_url: the address up to and without /chat/completions, such as https://api.openai.com/v1.
        model: the name of the model at the endpoint.
        api_key_env: environment variable that holds the key; null where no key is needed. An endpoint on this machine
            is asked without a key if the variable is not set.
        sampling: further fields of every request, such as temperature.
        concurrency: questions asked at a time.
        retries: how often a failed request is sent again.
        attempts: how often a question is asked whose reply cannot be parsed.
        timeout: seconds to wait for a reply.
        cache: folder of the replies.

    Raises:
        InputError: a setting cannot work, or the `openai` package is missing.
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
            raise InputError("judge.model is empty; give the name of the model at the endpoint")
        for name, least in LEAST.items():
            check_whole(f"judge.{name}", getattr(self, name), least)
        if not self.timeout > 0:
            raise InputError(f"judge.timeout={self.timeout}: use a number of seconds above 0")
        if self.api_key_env and not self._key and not _is_local(url.hostname):
            raise InputError(
                f"the environment has no {self.api_key_env}, the key of {self.base_url}; "
                "set it, or judge.api_key_env=null if none is needed"
            )
        if not importlib.util.find_spec("openai"):
            raise InputError("judge=openai needs the openai package: pip install 'prune2drive[judge]'")
        self._cached  # noqa: B018  # refuses an unusable cache now

    @property
    def _key(self) -> str:
        return os.environ.get(self.api_key_env, "").strip() if self.api_key_env else ""

    @cached_property
    def _cached(self) -> ResponseCache:
        return ResponseCache(self.cache)

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
            parse: turns a reply into its value; None for a reply that cannot be parsed, which is asked for again.

        Returns:
            id -> parsed reply, without the questions that got no reply to parse in `attempts` attempts.

        Raises:
            JudgeUnavailable: the endpoint failed; replies until then are in the cache.
            InputError: the cache cannot be written.
        """
        breaker = CircuitBreaker()
        texts = list(dict.fromkeys(questions.values()))
        with ThreadPoolExecutor(self.concurrency) as pool:
            outcomes = pool.map(lambda text: self._ask(text, parse, breaker), texts)
            try:
                outcome_of = dict(zip(texts, _with_progress(outcomes, len(texts)), strict=True))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # after an error or Ctrl-C
        if missing := sum(not outcome_of[text].answered for text in questions.values()):
            raise JudgeUnavailable(missing, len(questions), breaker.reason)
        values = {id: outcome_of[text].value for id, text in questions.items()}
        return {id: value for id, value in values.items() if value is not None}

    def _ask(self, text: str, parse: Callable[[str], T | None], breaker: CircuitBreaker) -> Outcome:
        """Asks one question until its reply can be parsed, at most `attempts` times."""
        for attempt in range(self.attempts):
            key = self._cache_key(text, attempt)
            reply = self._cached.get(key)
            if reply is None:
                if breaker.is_open:
                    return Outcome(answered=False)
                try:
                    reply = self._request(text)
                except _Failure as failure:
                    breaker.record_failure(str(failure))
                    return Outcome(answered=failure.is_refusal)
                breaker.record_reply()
                self._cached.put(key, reply)
            if (value := parse(reply)) is not None:
                return Outcome(True, value)
        return Outcome(answered=True)

    def _cache_key(self, text: str, attempt: int) -> str:
        request = [self.model, text, dict(self.sampling), attempt]
        return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def _request(self, text: str) -> str:
        """Returns the reply to a message.

        Raises:
            _Failure: the endpoint gave no reply.
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
        raise self._failure(f"the endpoint's answer is no chat completion ({garbled})")

    def _failure(self, message: str, is_refusal: bool = False) -> _Failure:
        line = " ".join(message.split())
        return _Failure((line.replace(self._key, "***") if self._key else line)[:300], is_refusal)


class _Failure(Exception):
    """A question without a reply.

    Args:
        reason: the error in one line, without the key.
        is_refusal: whether the endpoint works but refuses this question, for its content or its length.
    """

    def __init__(self, reason: str, is_refusal: bool) -> None:
        super().__init__(reason)
        self.is_refusal = is_refusal


def _with_progress(outcomes: Iterable[Outcome], total: int) -> Iterable[Outcome]:
    """Shows a progress bar while it passes outcomes on, where there is a terminal."""
    console = Console(stderr=True)
    return track(outcomes, "judging", total, console=console, transient=True, disable=not console.is_terminal)


def _is_local(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
