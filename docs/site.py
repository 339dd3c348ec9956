"""A hook of mkdocs: makes pages of files that lie outside docs/, and points links between pages at the site."""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "experiments/LOG.md": "log.md",
    "examples/search_ratios.md": "search_ratios.md",
    "prune2drive/minidrive/checkpoints/1/README.md": "minidrive-model.md",
    "prune2drive/minidrive/checkpoints/2/README.md": "minidrive2-model.md",
}
"""Files of the repository, and the pages of the site that show them."""
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(?=[)#])")


def on_files(files, config):
    """Adds the pages."""
    for source, page in PAGES.items():
        text = (REPOSITORY / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Makes links, which are relative to a file's place in the repository, relative to its place on the site."""
    places = {page: source for source, page in PAGES.items()}
    folder = posixpath.dirname(places.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def on_site(link: re.Match) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[1]))
        if target in PAGES:
            return PAGES[target]
        if target.startswith("docs/"):
            return target.removeprefix("docs/")
        return "#"  # a file of the repository that is no page

    return LINK.sub(on_site, markdown)
