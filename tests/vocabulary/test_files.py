import json

import pytest

from prune2drive.files import write_list


@pytest.mark.parametrize("indent", [2, 4])
@pytest.mark.parametrize("items", [[], [1], [{"a": "x\ny", "b": [1, {"c": []}]}, {}, [], "ü"]])
def test_a_list_written_item_by_item_is_the_list(tmp_path, items, indent):
    write_list(tmp_path / "list.json", iter(items), indent=indent)
    write_list(tmp_path / "object.json", iter(items), {"team": "t", "authors": ["a"]}, "results", indent)
    for name, content in (("list", items), ("object", {"team": "t", "authors": ["a"], "results": items})):
        text = (tmp_path / f"{name}.json").read_text(encoding="utf-8")
        assert json.loads(text) == content
        if items:
            assert text == json.dumps(content, indent=indent, ensure_ascii=False) + "\n"
