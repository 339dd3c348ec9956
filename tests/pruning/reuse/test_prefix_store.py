"""The store of tensors that a search remembers frames in."""

import pytest
import torch

from prune2drive.errors import InputError
from prune2drive.pruning.reuse.prefix_store import PrefixStore


@pytest.mark.parametrize("folder", [None, "kept"])
def test_a_store_keeps_what_came_first_within_its_limit(tmp_path, folder):
    where = folder and tmp_path / folder
    store = PrefixStore(1e-6, where)  # 1000 bytes
    small = {"x": torch.arange(100, dtype=torch.float32)}
    assert store.get("a") is None
    assert store.put("a", small) and store.put("b", small) and not store.put("c", small)
    assert store.put("a", small), "what is there already needs no room"
    assert torch.equal(store.get("a")["x"], small["x"]) and store.get("c") is None
    if where:
        again = PrefixStore(1e-6, where)
        assert torch.equal(again.get("b")["x"], small["x"]) and not again.put("c", small)
        (where / "b.safetensors").write_bytes(b"torn")
        with pytest.raises(InputError, match="damaged"):
            PrefixStore(1, where).get("b")


def test_a_store_that_holds_nothing_is_refused():
    with pytest.raises(InputError, match=r"limit_gb=0"):
        PrefixStore(0)
