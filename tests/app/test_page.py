"""A person uses the page, in a real browser, on a desk and on a phone."""

import importlib.util
import re
import threading
from pathlib import Path

import hostile_uploads
import pytest
from playwright.sync_api import expect

from diffusers_r1.images import load_picture
from diffusers_r1.plan import EditPlan
from diffusers_r1.scenes import BACKGROUNDS, TEST_SEEDS, render, sample_task, score_scene


pytestmark = pytest.mark.tiny
PATIENCE = 120_000  # milliseconds
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"  # to be looked at
DESK, PHONE = {"width": 1366, "height": 768}, {"width": 390, "height": 844}


@pytest.fixture
def opened(browser):
    """Opens the page at an address in a window of its own; what goes wrong in the browser is a failure."""
    contexts, errors = [], []

    def open_page(address, size=DESK, **settings):
        contexts.append(browser.new_context(viewport=size, has_touch=size is PHONE, **settings))
        contexts[-1].set_default_timeout(PATIENCE)
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        expect(page.locator("#plan")).to_be_visible(timeout=PATIENCE)
        expect(page.locator("#plan-list .note")).not_to_be_empty(timeout=PATIENCE)
        return page

    yield open_page
    assert errors == []
    for context in contexts:
        context.close()


@pytest.fixture
def page(opened, address):
    return opened(address)


@pytest.fixture(scope="module")
def scene():
    return sample_task(TEST_SEEDS).scene


def upload(page, path):
    page.set_input_files("#picture input[type=file]", path)
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)


def choose_example(page):
    page.click("#examples button >> nth=0")
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
    expect(page.locator("#instruction textarea")).not_to_be_empty()


def field(page, row, name):
    return page.locator(f"#plan-list li >> nth={row} >> [data-field={name}]")


def write(page, row, name, text):
    field(page, row, name).fill(text)
    field(page, row, name).press("Enter")


def rows(page):
    return page.locator("#plan-list li")


def status(page):
    return page.locator("#status")


def wait_for_result(page, results=1):
    expect(page.locator("#history button")).to_have_count(results, timeout=PATIENCE)
    expect(page.locator("#edit")).to_be_enabled(timeout=PATIENCE)


def download(page, button):
    with page.expect_download() as pending:
        page.click(button)
    return pending.value


def downloaded_plan(page):
    return EditPlan.from_json(download(page, ".download-plan").path().read_text())


def in_view(page, selector):
    box, size = page.locator(selector).bounding_box(), page.viewport_size
    whole = box["y"] >= 0 and box["y"] + box["height"] <= size["height"]
    return whole and box["x"] >= 0 and box["x"] + box["width"] <= size["width"]


def test_upload_plan_change_a_row_edit_download(page, tmp_path, scene):
    render(scene).save(tmp_path / "scene.png")
    background, other = [name for name in BACKGROUNDS if name != scene.background][:2]
    item = scene.items[0]

    expect(page.locator("#introduction")).to_contain_text("not for photos")
    upload(page, tmp_path / "scene.png")
    page.fill("#instruction textarea", f"make the background {background} and remove the {item}")
    page.click("#plan")
    expect(field(page, 0, "request")).to_have_value(f"make the background {background}", timeout=PATIENCE)
    expect(field(page, 1, "subject")).to_have_value(str(item))
    expect(page.locator("#result")).to_be_hidden()  # no pixel has been touched

    write(page, 0, "goal", other)
    expect(field(page, 0, "request")).to_have_value(f"make the background {other}", timeout=PATIENCE)
    page.click("#edit")
    wait_for_result(page)

    saved = download(page, ".download-picture")
    assert saved.suggested_filename == "edited.png"
    saved.save_as(tmp_path / "edited.png")
    expected = scene.with_cell(scene.place_of(item), None)
    verdict = score_scene(load_picture(tmp_path / "edited.png"), type(scene)(expected.cells, other))
    assert verdict[-1] and sum(verdict) >= 9  # the background as it was changed; the editor may miss a cell

    plan = downloaded_plan(page)
    assert plan.requests == (f"make the background {other}", f"remove the {item}")
    assert [edit.goal for edit in plan.edits] == [other, "nothing"]


def test_all_at_once_then_turn_by_turn_then_back_by_the_history(page, tmp_path, scene):
    render(scene).save(tmp_path / "scene.png")
    first, second = [name for name in BACKGROUNDS if name != scene.background][:2]
    upload(page, tmp_path / "scene.png")
    page.fill("#instruction textarea", f"make the background {first}")
    page.click("#plan-and-edit")
    wait_for_result(page)
    expect(field(page, 0, "request")).to_have_value(f"make the background {first}")
    expect(page.locator("#result .turns")).to_be_hidden()

    page.click("#result .again")
    page.fill("#instruction textarea", f"make the background {second} and remove the {scene.items[0]}")
    page.click("#options button")
    page.click("#turns-choice label:has-text('one after the other')")
    page.click("#plan-and-edit")
    wait_for_result(page, 2)
    expect(page.locator("#result .turns button")).to_have_count(2)
    page.click("#look")
    expect(status(page)).to_contain_text(
        "The critic f", timeout=PATIENCE
    )  # finds all of it there, or found what is not
    expect(page.locator("#look")).to_be_enabled(timeout=PATIENCE)
    last = page.locator("#result img.after").get_attribute("src")
    page.click("#result .turns button >> nth=0")
    expect(page.locator("#result .caption")).to_have_text(f"make the background {second}")
    assert page.locator("#result img.after").get_attribute("src") != last

    page.click("#history button >> nth=1")  # the newest is the first
    expect(field(page, 0, "request")).to_have_value(f"make the background {first}", timeout=PATIENCE)
    expect(page.locator("#result .turns")).to_be_hidden()
    assert downloaded_plan(page).requests == (f"make the background {first}",)


def test_sub_requests_are_moved_by_keyboard_and_by_drag_switched_off_deleted_and_added(page):
    choose_example(page)
    page.click("#plan")
    expect(rows(page)).not_to_have_count(0, timeout=PATIENCE)
    requests = [field(page, row, "request").input_value() for row in range(rows(page).count())]
    assert len(requests) == 3

    rows(page).nth(0).get_by_label("Move row 1 down").focus()
    page.keyboard.press("Enter")
    expect(field(page, 1, "request")).to_have_value(requests[0])
    expect(page.locator("#plan-list .said")).to_have_text("Moved to place 2 of 3.")
    page.keyboard.press("Enter")  # the focus has gone along
    expect(field(page, 2, "request")).to_have_value(requests[0])
    page.drag_and_drop("#plan-list li >> nth=2 >> .grip", "#plan-list li >> nth=0")
    expect(field(page, 0, "request")).to_have_value(requests[0])

    rows(page).nth(1).get_by_label("Carry out row 2").focus()
    page.keyboard.press("Space")
    expect(rows(page).nth(1)).to_have_class("off")
    rows(page).nth(2).get_by_label("Delete row 3").click()
    expect(rows(page)).to_have_count(2)
    page.click("#plan-list .add")
    page.keyboard.type("make the background gray")  # into the new row, which has the focus
    page.keyboard.press("Enter")
    page.click("#options button")
    page.click("#dice")
    expect(page.locator("#seed input")).not_to_have_value("0")
    page.click("#edit")
    wait_for_result(page)
    assert downloaded_plan(page).requests == (requests[0], "make the background gray")


def test_what_is_clicked_or_tabbed_to_after_typing_is_still_there(page):
    page.click("#plan-list .add")
    page.click("#plan-list .add")
    field(page, 0, "request").click()
    page.keyboard.type("make it warmer")
    field(page, 1, "request").click()
    expect(field(page, 1, "request")).to_be_focused()
    page.keyboard.type("remove the dog")
    page.keyboard.press("Shift+Tab")
    expect(field(page, 1, "goal")).to_be_focused()
    page.keyboard.type("nothing")
    rows(page).nth(0).get_by_label("Move row 1 down").click()
    expect(field(page, 1, "request")).to_have_value("make it warmer")
    expect(field(page, 0, "goal")).to_have_value("nothing")


def test_there_is_nothing_to_look_at_before_a_result(page):
    page.click("#look")
    expect(status(page)).to_contain_text("There is no result yet to look at.", timeout=PATIENCE)


def test_errors_are_told_above_the_plan_which_stays(page):
    told = status(page).get_by_role("alert")
    page.click("#plan")
    expect(told).to_contain_text("There is no picture yet", timeout=PATIENCE)
    choose_example(page)
    page.click("#edit")
    expect(told).to_contain_text("The plan has no sub-request yet", timeout=PATIENCE)
    page.click("#plan")
    expect(rows(page)).not_to_have_count(0, timeout=PATIENCE)
    expect(told).to_be_hidden()
    write(page, 0, "goal", "")
    page.click("#edit")
    expect(told).to_contain_text("action, subject and goal need all three", timeout=PATIENCE)
    error, plan = told.bounding_box(), page.locator("#plan-list").bounding_box()
    assert error["y"] + error["height"] <= plan["y"]
    page.fill("#instruction textarea", "")
    page.click("#plan")
    expect(told).to_contain_text("There is no instruction yet", timeout=PATIENCE)
    expect(rows(page)).not_to_have_count(0)
    assert page.locator(".toast-body").count() == 0


@pytest.mark.parametrize("name", ["truncated.png", "bomb.png", "nothing.png", "hidden_drawing.png", "text.png"])
def test_a_hostile_file_is_refused_as_soon_as_it_is_chosen(page, tmp_path, name):
    content, said = hostile_uploads.FILES[name]
    (tmp_path / name).write_bytes(content)
    page.set_input_files("#picture input[type=file]", tmp_path / name)
    expect(status(page)).to_contain_text(said, timeout=PATIENCE)


def test_a_photo_is_refused_by_models_of_scenes_with_what_to_load(page, large_photo):
    page.set_input_files("#picture input[type=file]", large_photo)
    expect(status(page)).to_contain_text("5800 x 4350 pixels", timeout=PATIENCE)
    expect(status(page)).to_contain_text("made for pictures of coloured shapes of 64 x 64 pixels")
    expect(status(page)).to_contain_text("--planner NAME --editor NAME")


# For photos, with planner and editor behind an address
# ------------------------------------------------------


def test_the_page_for_photos_speaks_of_photos_and_says_who_is_asked(opened, photo_page, models):
    page = opened(photo_page)
    words = page.locator("body").inner_text()
    assert "Photo" in words and "shapes" not in words
    expect(page.locator("#examples img")).to_have_count(3)
    page.wait_for_function("[...document.querySelectorAll('#examples img')].every(one => one.naturalWidth >= 400)")
    choose_example(page)
    expect(page.locator("#instruction textarea")).to_have_value(re.compile("croissant"))
    costs = page.locator("#costs").inner_text()
    assert f"Plan asks plans at {models.planner[1]} two questions" in costs
    assert f"asks edits at {models.editor[1]} for a picture" in costs


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "phone"])
def test_the_result_of_a_photo_is_in_view_at_both_sizes(opened, photo_page, large_photo, size, scheme):
    page = opened(photo_page, size, color_scheme=scheme)
    name = f"{'phone' if size is PHONE else 'desk'}-{scheme}"
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    upload(page, large_photo)
    page.fill("#instruction textarea", "Make the coat as red as the car and remove the man behind it")
    page.click("#plan")
    expect(rows(page)).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("#edit")).to_be_enabled(timeout=PATIENCE)
    page.screenshot(path=SCREENSHOTS / f"{name}-plan.png", full_page=True)
    assert serious(page) == []

    # What a model has written is text, in whole words.
    expect(field(page, 1, "subject")).to_have_value("<img src=x onerror='window.attacked = 1'>")
    expect(field(page, 1, "request")).to_have_value("Remove <b>the man</b> in the background.")
    assert page.evaluate("window.attacked") is None
    assert field(page, 0, "request").bounding_box()["width"] >= 200
    edge, button = page.locator("#plan-list .which >> nth=0").bounding_box(), field(page, 0, "request").bounding_box()
    assert (edge["y"] + edge["height"] <= button["y"]) == (size is PHONE)  # cards there, a table here

    page.click("#edit")
    wait_for_result(page)
    expect(page.locator("#result img.after")).to_be_visible()
    page.wait_for_timeout(500)
    page.screenshot(path=SCREENSHOTS / f"{name}-result.png")
    assert in_view(page, "#result .pair")
    shown = page.evaluate("(i => [i.naturalWidth, i.naturalHeight])(document.querySelector('#result img.after'))")
    assert shown == [1600, 1200]  # all of it, and no more pixels than a screen has
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    assert serious(page) == []
    saved = download(page, ".download-picture")
    assert load_picture(saved.path()).size == (5800, 4350)


def serious(page):
    """What axe-core finds serious or critical."""
    script = Path(importlib.util.find_spec("axe_playwright_python").origin).parent / "axe.min.js"
    page.evaluate(script.read_text(encoding="utf-8") + ";0")
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        (one["id"], [node["html"] for node in one["nodes"]])
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def test_the_slider_compares_by_keyboard(opened, photo_page, photo):
    page = opened(photo_page)
    upload(page, photo)
    page.click("#plan-list .add")
    page.keyboard.type("make it darker")
    page.click("#edit")
    wait_for_result(page)
    slider = page.get_by_label("How much of the edited picture is shown")
    slider.focus()
    page.keyboard.press("Home")
    assert page.locator("#result img.after").evaluate("image => image.style.clipPath") == "inset(0px 0px 0px 100%)"
    page.keyboard.press("End")
    assert page.locator("#result img.after").evaluate("image => image.style.clipPath") in (
        "inset(0px)",
        "inset(0px 0px 0px 0%)",
    )


def test_a_run_is_stopped_between_turns_and_what_was_done_is_shown(opened, photo_page, models, photo):
    page, asked, go = opened(photo_page), threading.Event(), threading.Event()
    upload(page, photo)
    for request in ("make it darker", "make it brighter"):
        page.click("#plan-list .add")
        page.keyboard.type(request)
    page.click("#options button")
    page.click("#turns-choice label:has-text('one after the other')")
    models.before_answer = lambda body: asked.set() or go.wait(60)
    try:
        page.click("#edit")
        assert asked.wait(60)
        expect(page.locator("#plan")).to_be_disabled()
        page.click("#status button:has-text('Stop')")
        page.wait_for_timeout(1000)
    finally:
        models.before_answer = lambda body: None
        go.set()
    expect(status(page)).to_contain_text("Stopped after turn 1. This is what was done.", timeout=PATIENCE)
    wait_for_result(page)


def test_a_plan_is_stopped_at_once_and_a_server_that_fails_is_told(opened, photo_page, models, photo):
    page, go = opened(photo_page), threading.Event()
    upload(page, photo)
    page.fill("#instruction textarea", "make it darker")
    models.before_answer = lambda body: go.wait(60)
    try:
        page.click("#plan")
        expect(status(page)).to_contain_text("Planning", timeout=PATIENCE)
        page.click("#status button:has-text('Stop')")
        expect(status(page)).to_contain_text("Stopped. Nothing was changed.", timeout=PATIENCE)
    finally:
        models.before_answer = lambda body: None
        go.set()
    expect(page.locator("#plan")).to_be_enabled()
