"""Makes the picture of a run's page that README and docs show: `python docs/pictures.py RUN`, with RUN a run folder.

It needs a Chromium on the PATH and the extra `dev`; RUN is that of `python run.py`.
"""

import argparse
import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUALITY = 82  # of the JPEG file, so that it stays small


def main() -> None:
    """Writes docs/images/page.jpg: the first screen, with the order of the picks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, with its report.html")
    page_file = parser.parse_args().run / "report.html"
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if not browser or not page_file.is_file():
        parser.error(f"{page_file}: no such page" if browser else f"no browser on PATH: {', '.join(BROWSERS)}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1440, "height": 900})
        page.goto(page_file.resolve().as_uri())
        page.keyboard.press("o")
        page.wait_for_timeout(500)  # for the photos
        shot = Image.open(io.BytesIO(page.screenshot()))
        chromium.close()
    target = IMAGES / "page.jpg"
    shot.convert("RGB").save(target, quality=QUALITY, optimize=True)
    print(f"{target}: {target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
