import re

import pytest
import yaml
from helpers import documents, runs

import prune2drive

README = documents.REPOSITORY / "README.md"
OTHERS = {"ExitStack", "README.md"}
LINKED = [*documents.PAGES, documents.REPOSITORY / "CHANGELOG.md"]


def choices(group: str) -> list[str]:
    return sorted(file.stem for file in (runs.CONFIGS / group).glob("*.yaml"))


def rows(page: str, block: str = "") -> dict[str, list[str]]:
    """The cells of a page's table rows, by the first cell without its code marks."""
    text = (documents.REPOSITORY / page).read_text()
    if block:
        text = text.partition(f"<!-- {block} -->")[2].partition(f"<!-- /{block} -->")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: cells[1:] for cells in lines for name in re.findall(r"`([^`]+)`", cells[0])}


@pytest.mark.parametrize("page", ["README.md", "docs/methods.md"])
@pytest.mark.parametrize("name", choices("pruner"))
def test_a_page_of_methods_has_a_row_for_each_pruner(page, name):
    assert name in rows(page)


@pytest.mark.parametrize("name", choices("model"))
def test_the_page_of_models_has_a_row_for_each_model(name):
    assert name in rows("docs/models.md")


@pytest.mark.parametrize("name", [*choices("ratios"), *choices("search")])
def test_the_page_of_ratios_has_a_row_for_each_way_to_set_and_to_search_them(name):
    assert name in rows("docs/ratios-and-search.md")


def test_the_readme_is_short_and_its_results_are_those_of_the_generated_table():
    assert len(README.read_text().splitlines()) <= 150
    generated = rows("docs/minidrive2.md", "minidrive2:splits")
    text = README.read_text().partition("## Result")[2].partition("## Models")[0]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
    shown = {name.strip("`"): cells for name, *cells in lines}
    assert shown.keys() >= {"salient_tfps", "tfps", "resize", "random"}
    assert shown == {name: generated[name] for name in shown}
    assert f"all tokens: {generated['none'][0]}" in " ".join(text.split())


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", documents.prose(page)):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.is_file(), f"{page.name}: {link}"
        assert not anchor or anchor in documents.anchors(target), f"{page.name}: {link}"


@pytest.mark.parametrize("page", ["docs/architecture.md", "docs/contributing.md"])
def test_pages_for_developers_name_code_that_exists(page):
    package = documents.REPOSITORY / "prune2drive"
    folders = (documents.REPOSITORY, package, package / "pruning", package / "pruning/surgery")
    source = "\n".join(file.read_text() for file in sorted(package.rglob("*.py")))
    for code in re.findall(r"`([^`\n]+)`", documents.prose(documents.REPOSITORY / page)):
        file, _, name = code.partition(": ") if ".py: " in code else ("", "", code)
        if re.fullmatch(r"[\w/]+(\.py|/)", file or code):
            place = file or code
            files = [folder / place for folder in folders if (folder / place).exists()]
            assert files or list(package.rglob(place)), f"{page}: `{code}`"
            name = name if file else ""
        is_name = file or re.fullmatch(r"[A-Z]\w+(\.\w+)?|prune2drive(\.\w+)+", name)
        if name and is_name and name not in OTHERS:
            last = name.rpartition(".")[2]
            assert re.search(rf"\b(def|class) {last}\b|^ *{last} ?[:=]", source, re.MULTILINE), f"{page}: `{code}`"


def test_pictures_are_small_and_name_their_commands():
    sizes = {file.name: file.stat().st_size for file in (documents.REPOSITORY / "docs/images").iterdir()}
    assert sizes.keys() >= {"kept_tokens.png", "page.jpg"} and max(sizes.values()) < 300_000
    assert "--picture docs/images/kept_tokens.png" in README.read_text()
    assert "`python docs/pictures.py RUN`" in (documents.REPOSITORY / "docs/reading-a-page.md").read_text()


def test_every_page_is_in_the_site():
    site = yaml.safe_load((documents.REPOSITORY / "mkdocs.yml").read_text())

    def pages(nav):
        for entry in nav:
            for value in entry.values():
                yield from pages(value) if isinstance(value, list) else [value]

    assert set(pages(site["nav"])) >= {page.name for page in (documents.REPOSITORY / "docs").glob("*.md")}


def test_the_versions_that_are_written_down_agree():
    version = prune2drive.__version__
    assert yaml.safe_load((documents.REPOSITORY / "CITATION.cff").read_text())["version"] == version
    assert f"## [{version}]" in (documents.REPOSITORY / "CHANGELOG.md").read_text()
    ruff = re.search(r"^ruff==(.+)$", (documents.REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)[1]
    hooks = yaml.safe_load((documents.REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["rev"] for repo in hooks if "ruff" in repo["repo"]} == {f"v{ruff}"}
