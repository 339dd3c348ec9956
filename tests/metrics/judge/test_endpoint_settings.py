"""What of an endpoint's settings is refused before a question is asked."""

import pytest

from prune2drive.errors import InputError
from prune2drive.metrics.judge.endpoint import Endpoint


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"base_url": "api.openai.com/v1"}, "judge.base_url=api.openai.com/v1: not a web address"),
        ({"base_url": "http://"}, "not a web address"),
        ({"model": ""}, "judge.model is empty"),
        ({"concurrency": 0}, "judge.concurrency=0: use a whole number, 1 or more"),
        ({"retries": -1}, "judge.retries=-1"),
        ({"attempts": 1.5}, "judge.attempts=1.5"),
        ({"timeout": 0}, "judge.timeout=0: use a number of seconds above 0"),
        (
            {"base_url": "https://example.org/v1"},
            "the environment has no OPENAI_API_KEY, the key of https://example.org",
        ),
        ({"base_url": "https://example.org/v1", "api_key_env": "OTHER"}, "the environment has no OTHER"),
    ],
)
def test_settings_that_cannot_work(settings, message, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match=message) as caught:
        Endpoint(**{"base_url": "http://127.0.0.1:1/v1", "model": "m", "cache": str(tmp_path), **settings})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]:8000/v1"])
def test_no_key_is_needed_on_this_machine(url, tmp_path, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert Endpoint(url, "m", cache=str(tmp_path)).base_url == url
    elsewhere = "https://example.org/v1"
    assert Endpoint(elsewhere, "m", api_key_env=None, cache=str(tmp_path)).base_url == elsewhere


def test_the_package_is_named_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'prune2drive\[judge\]'"):
        Endpoint("http://localhost/v1", "m", cache=str(tmp_path))
