"""A run's page with the token explorer, in a browser."""

import json
from urllib.parse import parse_qs, urlencode

import pytest
from helpers.browser import DESK, PHONE, axe_violations, check_readable, on_all_screens, opened, overflow
from helpers.page_runs import HOSTILE, TOKENS, hostile_samples, minidrive, write_run

from prune2drive.report.run_page import write_report
from prune2drive.sample import unpack_indices

pytestmark = pytest.mark.slow  # opens a browser

SIZE, KEEP, LOST = 30, 6, (3, 14, 15)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of which three answers are lost by pruning, one is gained and one is wrong in any case."""
    path = tmp_path_factory.mktemp("page") / "run"
    dataset, config = minidrive(SIZE)
    samples = [dataset[place] for place in range(SIZE)]
    right = [sample.reference for sample in samples]
    full = ["no" if place in (7, 8) else answer for place, answer in enumerate(right)]
    pruned = ["no" if place in (*LOST, 7) else answer for place, answer in enumerate(right)]
    write_run(path / "full", samples, full, dataset=config)
    write_run(path, samples, pruned, KEEP, config)
    run = json.loads((path / "run.json").read_text())
    write_report(path, run, {"score": 26 / 30, "full/score": 28 / 30, "full/tokens/visual_kept": 384})
    return path


@pytest.fixture
def page(browser, folder):
    with opened(browser, folder / "report.html") as page:
        yield page


@pytest.fixture(scope="module")
def shared(browser, folder):
    with opened(browser, folder / "report.html") as page:
        yield page


@pytest.fixture
def quiet_page(shared):
    """A page for tests that leave it at its first question; the filters are as at first."""
    for name in ("outcome", "kind", "about"):
        shared.locator(f"[data-is={name}]").select_option("")
    return shared


def rows(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def shown(page):
    return page.locator("[data-is=question]").text_content()


def pixels(page, camera=0):
    """The pixels of a camera's canvas."""
    page.wait_for_timeout(50)
    return page.locator("canvas").nth(camera).evaluate("c => c.toDataURL()")


def colours(page, camera=0):
    """How many colours there are on a camera's canvas."""
    data = "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.buffer"
    return page.locator("canvas").nth(camera).evaluate(f"c => new Set(new Uint32Array({data})).size")


@on_all_screens
def test_the_page_fits_its_window_and_can_be_read_by_all(browser, folder, size, scheme):
    with opened(browser, folder / "report.html", size, scheme) as page:
        page.wait_for_timeout(100)
        assert overflow(page) == 0
        page.locator("details").evaluate_all("all => all.forEach(each => each.open = true)")
        check_readable(page)


def test_the_first_screen_is_the_verdict_and_the_cameras_of_a_lost_answer(quiet_page, folder):
    assert quiet_page.locator(".verdict").text_content().startswith("86.7\u00a0% answers right against 93.3\u00a0%")
    lost = [rows(folder)[place]["question"] for place in LOST]
    assert shown(quiet_page) == lost[0]
    assert "no" in quiet_page.locator("dd.bad").text_content()
    canvases = quiet_page.locator("canvas").evaluate_all("all => all.map(each => each.getBoundingClientRect().bottom)")
    assert len(canvases) == 6 and max(canvases) <= DESK[1]
    quiet_page.wait_for_timeout(100)
    assert min(colours(quiet_page, camera) for camera in range(6)) > 100


def test_counts_are_those_of_the_rows(quiet_page, folder):
    captions = quiet_page.locator("figcaption")
    for row in (rows(folder)[place] for place in LOST):
        names = {caption.split("\n")[0]: caption for caption in captions.all_inner_texts()}
        for camera, kept in row["kept_counts"].items():
            assert f"{kept} of {TOKENS}" in names[camera.removeprefix("CAM_")]
        quiet_page.keyboard.press("j")
    for _ in LOST:
        quiet_page.keyboard.press("k")


def test_difference_of_two_runs(page):
    before = pixels(page)
    page.get_by_text("difference", exact=True).first.click()
    assert page.locator("figcaption").first.inner_text().endswith(f"{TOKENS - KEEP} only first, 0 only second")
    assert pixels(page) != before
    assert "only second: tfps" in page.locator("[data-is=key]").inner_text()


def test_pick_order_objects_and_dimming_change_what_is_drawn(page):
    drawn = [pixels(page)]
    for name in ("order", "objects"):
        page.locator(f"[data-is={name}]").check()
        drawn.append(pixels(page))
    page.locator("[data-is=dim]").fill("0")
    drawn.append(pixels(page))
    assert len(set(drawn)) == 4


def outcomes(page):
    return [text.split(" ")[0] for text in page.locator(".x-mark").all_inner_texts()]


def test_filters(quiet_page, folder):
    assert outcomes(quiet_page)[:5] == ["lost"] * 3 + ["wrong", "gained"] and len(outcomes(quiet_page)) == SIZE
    quiet_page.locator("[data-is=outcome]").select_option("lost")
    assert len(outcomes(quiet_page)) == 3 and "3 of 30" in quiet_page.locator("[data-is=count]").inner_text()
    quiet_page.locator("[data-is=outcome]").select_option("")
    quiet_page.locator("[data-is=kind]").select_option("light")
    kinds = [row["kind"] for row in rows(folder)]
    assert len(outcomes(quiet_page)) == kinds.count("light") > 0
    quiet_page.locator("[data-is=kind]").select_option("")
    named = sum("CAM_BACK_LEFT" in row["question"] + row["reference"] for row in rows(folder))
    spoken = sum("the back left" in row["question"] for row in rows(folder))
    quiet_page.locator("[data-is=about]").select_option(label=f"CAM_BACK_LEFT ({named + spoken})")
    assert len(outcomes(quiet_page)) == named + spoken > 0
    quiet_page.locator("[data-is=outcome]").select_option("gained")
    assert shown(quiet_page) == "No question is like this." and not quiet_page.locator("canvas").first.is_visible()
    assert quiet_page.locator("[data-is=token]").inner_text().startswith("Point at a token")


def choices(page, name):
    """Filter's choice -> the number beside it."""
    texts = page.locator(f"[data-is={name}] option").all_text_contents()[1:]
    return {text.rpartition(" (")[0]: int(text.rpartition(" (")[2].rstrip(")")) for text in texts}


def test_numbers_of_a_filter_count_what_the_others_leave(quiet_page, folder):
    kinds = [row["kind"] for row in rows(folder)]
    assert choices(quiet_page, "kind") == {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    quiet_page.locator("[data-is=outcome]").select_option("lost")
    lost = [kinds[place] for place in LOST]
    assert choices(quiet_page, "kind") == {kind: lost.count(kind) for kind in sorted(set(kinds))}
    assert 0 in choices(quiet_page, "kind").values(), "a choice that would leave nothing is there, with 0"
    assert choices(quiet_page, "outcome")["lost: right before, worse now"] == len(LOST), (
        "its own choice does not narrow it"
    )
    quiet_page.locator("[data-is=kind]").select_option(lost[0])
    assert choices(quiet_page, "outcome")["lost: right before, worse now"] == lost.count(lost[0])
    assert sum(choices(quiet_page, "outcome").values()) == kinds.count(lost[0])
    quiet_page.locator("[data-is=outcome]").select_option("")
    for name, count in choices(quiet_page, "about").items():
        quiet_page.locator("[data-is=about]").select_option(label=f"{name} ({count})")
        assert len(outcomes(quiet_page)) == count


def lost_ids(folder):
    return [rows(folder)[place]["id"] for place in LOST]


def address(page):
    """What the address names, once a timer of the page has rung after the one that writes it."""
    hash = page.evaluate("new Promise(done => setTimeout(() => done(location.hash), 300))")
    return {name: values[0] for name, values in parse_qs(hash[1:]).items()}


def test_the_address_shows_the_same_again(browser, page, folder):
    assert address(page) == {}, "nobody has chosen anything"
    page.locator("[data-is=outcome]").select_option("lost")
    page.keyboard.press("j")
    page.keyboard.press("d")
    asked = address(page)
    expected = {"sample": lost_ids(folder)[1], "first": "all tokens", "second": "tfps", "view": "difference"}
    assert asked == {**expected, "answers": "lost"}
    again = folder / "report.html"
    with opened(browser, again, hash=f"#{urlencode({**asked, 'type': rows(folder)[LOST[1]]['kind']})}") as other:
        assert shown(other) == shown(page) == rows(folder)[LOST[1]]["question"]
        assert other.locator("[value=difference]").is_checked() and set(outcomes(other)) == {"lost"}
        assert other.locator("[data-is=kind]").input_value() == rows(folder)[LOST[1]]["kind"]
    with opened(browser, again, hash="#type=no%20such&sample=<b>&first=x&camera=y&view=z&answers=%F0") as other:
        assert len(outcomes(other)) == SIZE and shown(other) == rows(folder)[LOST[0]]["question"]


def test_rows_of_tables_lead_to_their_questions(page, folder):
    kind = rows(folder)[LOST[0]]["kind"]
    row = page.locator("tr", has=page.get_by_role("link", name=kind.replace("_", " "), exact=True)).first
    row.get_by_role("link").first.click()
    assert len(outcomes(page)) == sum(each["kind"] == kind for each in rows(folder))
    assert page.locator(".explorer").evaluate("each => Math.abs(each.getBoundingClientRect().top) < 5")
    row.get_by_role("link").last.click()
    page.wait_for_function("document.querySelector('[data-is=outcome]').value === 'lost'")
    assert set(outcomes(page)) == {"lost"} and page.locator("[data-is=kind]").input_value() == kind
    page.get_by_role("link", name="BACK_LEFT", exact=True).click()
    page.wait_for_function("document.querySelector('[data-is=kind]').value === ''")
    assert page.locator("[data-is=about] option:checked").inner_text().startswith("CAM_BACK_LEFT (")
    assert address(page)["camera"] == "CAM_BACK_LEFT" and "type" not in address(page)


def test_pointing_at_a_token_says_what_it_is(quiet_page, folder):
    row = rows(folder)[LOST[0]]
    front_left = quiet_page.locator("canvas").first
    box = front_left.bounding_box()
    kept = unpack_indices(row["kept"]["CAM_FRONT_LEFT"])[0].item()
    across, down = (kept % 8 + 0.5) / 8 * box["width"], (kept // 8 + 0.5) / 8 * box["height"]
    front_left.hover(position={"x": across, "y": down})
    said = quiet_page.locator("[data-is=token]").inner_text()
    assert f"token {kept}, row {kept // 8}, column {kept % 8}" in said and f"of {KEEP} by tfps" in said
    assert quiet_page.locator(".x-tip").inner_text() == said
    quiet_page.mouse.move(1, 1)
    assert quiet_page.locator(".x-tip").is_hidden()


def test_an_object_is_named_by_the_tokens_that_touch_it(quiet_page):
    data = json.loads(quiet_page.locator(".x-data").text_content())
    frame = data["frames"][data["questions"][0][1]]
    camera, x0, y0, x1, y1, label = frame[1][0]
    canvas = quiet_page.locator("canvas").nth(camera)
    box = canvas.bounding_box()
    canvas.hover(position={"x": (x0 + x1) / 2 * box["width"], "y": (y0 + y1) / 2 * box["height"]})
    assert label in quiet_page.locator("[data-is=token]").inner_text()


def test_keyboard(page, folder):
    first = shown(page)
    page.keyboard.press("j")
    assert shown(page) == rows(folder)[LOST[1]]["question"] != first
    page.keyboard.press("k")
    assert shown(page) == first
    page.keyboard.press("d")
    assert page.locator("[value=difference]").is_checked()
    page.keyboard.press("2")
    assert page.locator("canvas:visible").count() == 1
    page.keyboard.press("Escape")
    assert page.locator("canvas:visible").count() == 6
    page.keyboard.press("o")
    page.locator("[data-is=on]").focus()
    page.keyboard.press("ArrowDown")
    assert shown(page) != first
    page.locator("canvas").first.focus()
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("Shift+ArrowRight")
    assert "token 1, row 0, column 1" in page.locator("[data-is=token]").inner_text()


def test_touch(browser, folder):
    with opened(browser, folder / "report.html", PHONE, has_touch=True, is_mobile=True) as page:
        page.locator("canvas").nth(1).tap()
        assert "CAM_FRONT · token" in page.locator("[data-is=token]").inner_text()
        before = shown(page)
        page.locator("[data-is=on]").tap()
        assert shown(page) != before


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_hostile_texts_run_nothing_and_break_nothing(browser, tmp_path, size):
    samples = hostile_samples()
    write_run(tmp_path / "full", samples, [sample.reference for sample in samples])
    write_run(tmp_path, samples, list(HOSTILE[1:]) + [HOSTILE[0]], KEEP)
    run = json.loads((tmp_path / "run.json").read_text())
    names = {"pruner": HOSTILE[0], "model": HOSTILE[1], "dataset": HOSTILE[6][:300]}
    run |= {"command": HOSTILE[3], "choices": names, "dataset": dict.fromkeys(HOSTILE, "x")}
    write_report(tmp_path, run, {f"full/tokens/{HOSTILE[0]}": 1, HOSTILE[1]: 2})
    with opened(browser, tmp_path / "report.html", size) as page:
        texts = set()
        for _ in samples:
            texts.add(shown(page).split(" … (")[0])
            page.locator("canvas:visible").first.hover()
            assert overflow(page) == 0
            page.keyboard.press("j")
        assert len(texts) == len(HOSTILE) and HOSTILE[0] in texts and HOSTILE[1] in texts
        assert page.locator("img, b:has-text('CAM')").count() == 0
        assert "There are no photos" in page.locator(".explorer details").text_content()
        assert axe_violations(page) == []


def test_a_run_without_references_or_orders(browser, tmp_path):
    dataset, config = minidrive(10)
    samples = [dataset[place] for place in range(10)]
    write_run(tmp_path, samples, [None, *"abcdefghi"], KEEP, config, ordered=False)
    (tmp_path / "run.json").write_text((tmp_path / "run.json").read_text().replace("exact_match.", "gone."))
    write_report(tmp_path, json.loads((tmp_path / "run.json").read_text()), {})
    with opened(browser, tmp_path / "report.html") as page:
        assert set(outcomes(page)) == {"not"} and len(outcomes(page)) == 10
        assert page.locator("[data-is=order]").is_disabled() and page.locator("[data-is=views]").is_hidden()
        for sample in samples:
            assert shown(page) == sample.question
            page.keyboard.press("j")
