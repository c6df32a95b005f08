"""Programs call the page: a picture and an instruction in, plans and pictures out, by many at once, and not all of good will."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import hostile_uploads
import httpx
import numpy as np
import pytest
from app_server import serve
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from diffusers_r1.images import load_picture
from diffusers_r1.plan import EditPlan
from diffusers_r1.scenes import score


pytestmark = pytest.mark.tiny


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    return Client(address, verbose=False, download_files=tmp_path_factory.mktemp("downloads"))


def pixels(path):
    return np.asarray(load_picture(path))


def test_plan_then_edit_is_plan_and_edit(client, photo, task):
    plan = client.predict(handle_file(photo), task.instruction, api_name="/plan")
    assert EditPlan.from_dict(plan).edits == task.edits

    picture, turns = client.predict(handle_file(photo), plan, "single", 5, api_name="/edit")
    assert turns == [{"image": turns[0]["image"], "caption": plan["requests"][0]}]
    assert score(load_picture(picture), task) == [True] * 10

    at_once, _, same_plan = client.predict(
        image=handle_file(photo), instruction=task.instruction, seed=5, api_name="/plan_and_edit"
    )
    assert same_plan == plan
    assert (pixels(at_once) == pixels(picture)).all()


def test_turns_and_seed(client, photo):
    plan = {"requests": ["make the background pink", "make the background teal"]}
    picture, turns = client.predict(handle_file(photo), plan, "multi", 1, api_name="/edit")
    assert [turn["caption"] for turn in turns] == plan["requests"]
    assert (pixels(turns[1]["image"]) == pixels(picture)).all()
    other, _ = client.predict(handle_file(photo), plan, "multi", 2, api_name="/edit")
    assert (pixels(other) != pixels(picture)).any()


def test_the_result_has_the_size_of_the_source_and_the_exif_rotation_applied(client, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 70), "teal").save(tmp_path / "turned.jpg", exif=exif)
    picture, _ = client.predict(
        handle_file(tmp_path / "turned.jpg"), {"requests": ["make the background pink"]}, api_name="/edit"
    )
    assert load_picture(picture).size == (70, 90)


@pytest.mark.parametrize(
    ("endpoint", "given", "said"),
    [
        ("/plan", [""], "no instruction yet"),
        ("/plan", ["x" * 2001], "2,001 characters"),
        ("/edit", [{}, "single", 0], "plan: `requests` is missing"),
        ("/edit", [{"requests": []}, "single", 0], "at least one sub-request"),
        ("/edit", [{"requests": ["a"] * 21}, "single", 0], "at most 20"),
        ("/edit", [{"requests": ["a"]}, "double", 0], '"single", "multi"'),
        ("/edit", [{"requests": ["a"]}, "single", -1], "The seed is a whole number"),
        ("/edit", [[1], "single", 0], "plan must be an object with"),
    ],
)
def test_bad_use_says_what_is_wrong(client, photo, endpoint, given, said):
    with pytest.raises(AppError, match=said):
        client.predict(handle_file(photo), *given, api_name=endpoint)


@pytest.mark.parametrize("endpoint", ["/plan", "/edit"])
@pytest.mark.parametrize("name", hostile_uploads.FILES)
def test_a_hostile_file_is_refused(client, tmp_path, endpoint, name):
    content, said = hostile_uploads.FILES[name]
    (tmp_path / name).write_bytes(content)
    given = ["make it teal"] if endpoint == "/plan" else [{"requests": ["make it teal"]}, "single", 0]
    with pytest.raises(AppError, match=f"The picture .* cannot be used: .*{said}") as error:
        client.predict(handle_file(tmp_path / name), *given, api_name=endpoint)
    assert str(tmp_path) not in str(error.value) and "/" not in str(error.value)


FILE = {"meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize(
    ("picture", "said"),
    [
        ({"path": "{photo}"}, "it was not uploaded"),
        ({"path": "{photo}", **FILE}, "it was not uploaded by a user"),
        ({"path": "/etc/passwd"}, "it was not uploaded"),
        ({"path": "/etc/passwd", **FILE}, "it was not uploaded by a user"),
        ({"path": "../../../../../../etc/passwd"}, "it was not uploaded"),
        ({"path": "{address}config", **FILE}, "failed validation"),
        ({"path": "http://169.254.169.254/latest/meta-data", **FILE}, "failed validation"),
        ({"path": None, "url": "{address}config", **FILE}, "it was not uploaded"),
        ({"url": "data:image/png;base64,aGVsbG8=", **FILE}, "it was not uploaded"),
        (None, "There is no picture yet"),
    ],
)
def test_a_path_or_address_in_place_of_an_upload_is_refused(address, photo, picture, said):
    if picture and picture.get("path"):
        picture = {**picture, "path": picture["path"].format(photo=photo, address=address)}
    call = httpx.post(f"{address}gradio_api/call/plan", json={"data": [picture, "make it teal"]}, timeout=60)
    answer = httpx.get(f"{address}gradio_api/call/plan/{call.json()['event_id']}", timeout=60).text
    assert answer.startswith("event: error") and said in answer


def test_a_file_that_is_too_large_is_refused_before_it_is_kept(address):
    files = {"files": ("large.png", bytes(33 * 2**20))}
    answer = httpx.post(f"{address}gradio_api/upload", files=files, timeout=60)
    assert answer.status_code == 413 and "File size exceeded" in answer.text


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "{photo}"])
def test_no_file_of_the_machine_is_handed_out(address, photo, path):
    answer = httpx.get(f"{address}gradio_api/file={path.format(photo=photo)}", timeout=60)
    assert answer.status_code in (403, 404)


def at_once(address, photo, clients):
    """What each of so many clients gets that ask at the same moment, counted: "served", or the words of the refusal."""
    start = threading.Barrier(clients)

    def ask(seed):
        client = Client(address, verbose=False, download_files=False)
        start.wait(120)
        try:
            picture, _ = client.predict(
                handle_file(photo), {"requests": ["make the background pink"]}, "single", seed, api_name="/edit"
            )
        except Exception as error:
            return str(error)
        return "served" if httpx.get(picture["url"], timeout=60).content.startswith(b"\x89PNG") else "lost"

    with ThreadPoolExecutor(clients) as pool:
        return Counter(pool.map(ask, range(clients)))


def test_twenty_clients_at_once_are_all_served(address, photo):
    assert at_once(address, photo, 20) == {"served": 20}


def test_more_than_may_wait_are_refused_with_a_clear_message_and_none_is_lost(tmp_path, photo):
    with serve(tmp_path / "log", "--max_waiting", "3") as address:
        told = at_once(address, photo, 20)
    assert set(told) == {"served", "Queue is full! Please try again."}
    assert told.total() == 20 and told["served"] >= 4  # the one that runs and three that wait


def test_without_user_and_password_nobody_gets_in(tmp_path, photo, task):
    with serve(tmp_path / "log", "--user", "ann", DIFFUSERS_R1_PASSWORD="correct horse") as address:
        assert httpx.get(f"{address}config", timeout=60).status_code == 401
        call = httpx.post(f"{address}gradio_api/call/plan", json={"data": [None, "make it teal"]}, timeout=60)
        assert call.status_code == 401
        with pytest.raises(Exception, match="Could not fetch config|login|401"):
            Client(address, auth=("ann", "wrong horse"), verbose=False)
        client = Client(address, auth=("ann", "correct horse"), verbose=False)
        plan = client.predict(handle_file(photo), task.instruction, api_name="/plan")
    assert EditPlan.from_dict(plan).edits == task.edits
