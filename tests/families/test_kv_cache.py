from transformers import DynamicCache

from prune2drive.families.kv_cache import CACHE, cache_of


def test_the_cache_is_found_by_either_name():
    cache = DynamicCache()
    assert CACHE in ("cache", "past_key_values")
    assert all(cache_of({name: cache, "use_cache": True}) is cache for name in (CACHE, "past_key_values"))
    assert cache_of({CACHE: None}) is cache_of({}) is None
