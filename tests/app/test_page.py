"""A person uses the page, in a real browser."""

import hostile_uploads
import pytest
from playwright.sync_api import expect

from diffusers_r1.images import load_picture
from diffusers_r1.plan import EditPlan
from diffusers_r1.scenes import BACKGROUNDS, TEST_SEEDS, render, sample_task, score_scene


pytestmark = pytest.mark.tiny
PATIENCE = 120_000  # milliseconds


@pytest.fixture
def page(browser, address):
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(address)
    expect(page.locator("#plan")).to_be_visible(timeout=PATIENCE)
    yield page
    assert page.errors == []
    context.close()


@pytest.fixture(scope="module")
def scene():
    return sample_task(TEST_SEEDS).scene


def upload(page, path):
    page.set_input_files("#picture input[type=file]", path)


def cell(page, row, column):
    return page.locator(f"#plan-table [data-testid=cell-{row}-{column}]")


def write(page, row, column, text):
    cell(page, row, column).dblclick()
    field = cell(page, row, column).locator("textarea, input")
    field.fill(text)
    field.press("Enter")
    expect(cell(page, row, column)).to_contain_text(text, timeout=PATIENCE)


def download(page, button):
    with page.expect_download() as pending:
        page.click(button)
    return pending.value


def test_upload_plan_change_a_row_edit_download(page, tmp_path, scene):
    render(scene).save(tmp_path / "scene.png")
    background, other = [name for name in BACKGROUNDS if name != scene.background][:2]
    item = scene.items[0]

    expect(page.locator("#introduction")).to_contain_text("no photos")
    upload(page, tmp_path / "scene.png")
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
    page.fill("#instruction textarea", f"make the background {background} and remove the {item}")
    page.click("#plan")
    expect(cell(page, 0, 4)).to_have_text(f"make the background {background}", timeout=PATIENCE)
    expect(cell(page, 1, 1)).to_have_text(str(item))
    expect(page.locator("#slider img")).to_have_count(0)  # no pixel has been touched

    write(page, 0, 2, other)
    expect(cell(page, 0, 4)).to_have_text(f"make the background {other}", timeout=PATIENCE)
    page.click("#edit")
    expect(page.locator("#download-picture")).to_be_enabled(timeout=PATIENCE)
    expect(page.locator("#slider img")).to_have_count(2)
    expect(page.locator("#turns img")).to_have_count(1)

    saved = download(page, "#download-picture")
    assert saved.suggested_filename == "edited.png"
    saved.save_as(tmp_path / "edited.png")
    expected = scene.with_cell(scene.place_of(item), None)
    verdict = score_scene(load_picture(tmp_path / "edited.png"), type(scene)(expected.cells, other))
    assert verdict[-1] and sum(verdict) >= 9  # the background as it was changed; the editor may miss a cell

    saved = download(page, "#download-plan")
    assert saved.suggested_filename == "plan.json"
    plan = EditPlan.from_json(saved.path().read_text())
    assert plan.requests == (f"make the background {other}", f"remove the {item}")
    assert [edit.goal for edit in plan.edits] == [other, "nothing"]


def test_all_at_once_then_turn_by_turn_then_back_by_the_history(page, tmp_path, scene):
    render(scene).save(tmp_path / "scene.png")
    first, second = [name for name in BACKGROUNDS if name != scene.background][:2]
    upload(page, tmp_path / "scene.png")
    page.fill("#instruction textarea", f"make the background {first}")
    page.click("#plan-and-edit")
    expect(page.locator("#history img")).to_have_count(1, timeout=PATIENCE)
    expect(cell(page, 0, 4)).to_have_text(f"make the background {first}")

    page.click("#again")
    page.fill("#instruction textarea", f"make the background {second} and remove the {scene.items[0]}")
    page.click("#turns-choice label:has-text('one after the other')")
    page.click("#plan-and-edit")
    expect(page.locator("#history img")).to_have_count(2, timeout=PATIENCE)
    expect(page.locator("#turns img")).to_have_count(2)

    page.click("#history img >> nth=1")  # the newest is the first
    expect(cell(page, 0, 4)).to_have_text(f"make the background {first}", timeout=PATIENCE)
    expect(page.locator("#turns img")).to_have_count(1)
    assert EditPlan.from_json(download(page, "#download-plan").path().read_text()).requests == (
        f"make the background {first}",
    )


def test_a_plan_by_hand_rows_deleted_and_another_seed(page):
    page.click("#examples button >> nth=1")
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
    page.click("#plan")
    rows = page.locator("#plan-table [role=row][data-index]")
    expect(cell(page, 0, 0)).not_to_be_empty(timeout=PATIENCE)
    before = rows.count()
    assert before > 1
    cell(page, 0, 0).click()
    cell(page, 0, 0).locator(".cell-menu-button").click()
    page.click("text=Delete row")
    expect(rows).to_have_count(before - 1)
    write(page, 0, 4, "make the background gray")
    page.click("#dice")
    expect(page.locator("#seed input")).not_to_have_value("0")
    page.click("#edit")
    expect(page.locator("#download-plan")).to_be_enabled(timeout=PATIENCE)
    plan = EditPlan.from_json(download(page, "#download-plan").path().read_text())
    assert len(plan.requests) == before - 1 and plan.requests[0] == "make the background gray"


def test_errors_are_told_in_words(page, tmp_path):
    told = page.locator(".toast-body")
    page.click("#plan")
    expect(told).to_contain_text("There is no picture yet", timeout=PATIENCE)
    page.click("#examples button >> nth=0")
    expect(page.locator("#picture img")).to_be_visible(timeout=PATIENCE)
    page.fill("#instruction textarea", "")
    page.click("#plan")
    expect(told.last).to_contain_text("There is no instruction yet", timeout=PATIENCE)
    page.click("#edit")
    expect(told.last).to_contain_text("The plan has no sub-request yet", timeout=PATIENCE)


@pytest.mark.parametrize("name", ["truncated.png", "bomb.png", "nothing.png", "hidden_drawing.png", "text.png"])
def test_a_hostile_file_is_refused_as_soon_as_it_is_chosen(page, tmp_path, name):
    content, said = hostile_uploads.FILES[name]
    (tmp_path / name).write_bytes(content)
    upload(page, tmp_path / name)
    expect(page.locator(".toast-body")).to_contain_text(said, timeout=PATIENCE)
