from hypothesis import given
from hypothesis import strategies as st

from prune2drive.results import id_index
from prune2drive.results.id_index import IdIndex, IdSet


@given(st.lists(st.text(max_size=3), unique=True, max_size=30), st.lists(st.text(max_size=3)))
def test_an_index_is_a_dict_of_places(ids, others):
    index = IdIndex(ids)
    expected = {name: place for place, name in enumerate(ids)}
    assert [index.place(name) for name in ids + others] == [expected.get(name) for name in ids + others]


def test_ids_with_one_hash_keep_their_places(monkeypatch):
    monkeypatch.setattr(id_index, "_hash", lambda name: len(name))
    index = IdIndex(["a", "bb", "c", "d"])
    assert [index.place(name) for name in ("a", "bb", "c", "d", "e")] == [0, 1, 2, 3, None]


def test_a_set_of_ids():
    index = IdIndex(["a", "b", "c"])
    some = IdSet(index, index._places >= 0)
    some._is_in_N[1] = False
    assert set(some) == {"a", "c"} == some and len(some) == 2
    assert "b" not in some and "x" not in some and 3 not in some
    assert some & {"a", "b"} == {"a"}
