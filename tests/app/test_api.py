"""Programs call the page: a picture and an instruction in, plans and pictures out, by many at once, and not all of good will."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import hostile_uploads
import httpx
import numpy as np
import openai_server
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


@pytest.fixture(scope="module")
def photo_client(photo_page, tmp_path_factory):
    return Client(photo_page, verbose=False, download_files=tmp_path_factory.mktemp("photos"))


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


def test_the_result_has_the_size_of_the_source_and_the_exif_rotation_applied(photo_client, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 70), "teal").save(tmp_path / "turned.jpg", exif=exif)
    picture, _ = photo_client.predict(
        handle_file(tmp_path / "turned.jpg"), {"requests": ["make the background pink"]}, api_name="/edit"
    )
    assert load_picture(picture).size == (70, 90)


def test_models_of_scenes_refuse_a_photo_with_what_to_load(client, large_photo):
    with pytest.raises(AppError, match="5800 x 4350 pixels.* made for pictures of coloured shapes of 64 x 64 pixels"):
        client.predict(handle_file(large_photo), "make it teal", api_name="/plan")


@pytest.mark.parametrize(
    ("endpoint", "given", "said"),
    [
        ("/plan", [""], "no instruction yet"),
        ("/plan", ["x" * 2001], "2,001 characters"),
        ("/edit", [{}, "single", 0], "plan: `requests` is missing"),
        ("/edit", [{"requests": []}, "single", 0], "at least one sub-request"),
        ("/edit", [{"requests": ["a"] * 21}, "single", 0], "at most 20"),
        ("/edit", [{"requests": ["a"]}, "double", 0], "single, multi, auto, composed"),
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
    assert set(told) == {"served", "3 people are waiting already. Please try again in a minute."}
    assert told.total() == 20 and told["served"] >= 4  # the one that runs and three that wait


def uploaded(address, path):
    with path.open("rb") as file:
        [kept] = httpx.post(f"{address}gradio_api/upload", files={"files": file}, timeout=60).json()
    return {"path": kept, **FILE}


def test_who_goes_round_the_queue_or_cancels_gets_and_gives_no_wrong_picture(client, address, photo):
    plan, picture = {"requests": ["make the background pink"]}, uploaded(address, photo)
    truth = [client.predict(handle_file(photo), plan, "single", seed, api_name="/edit")[0] for seed in range(4)]

    def straight(number):
        if number % 3 == 2:  # asks, and goes away
            job = client.submit(handle_file(photo), plan, "single", number, api_name="/edit")
            job.cancel()
            return "gone"
        data = {"data": [picture, plan, "single", number % 4]}
        answer = httpx.post(f"{address}gradio_api/run/edit", json=data, timeout=300)
        assert answer.status_code == 200, answer.text
        made = httpx.get(answer.json()["data"][0]["url"], timeout=60).content
        return made == Path(truth[number % 4]).read_bytes()

    with ThreadPoolExecutor(12) as pool:
        assert Counter(pool.map(straight, range(24))) == {True: 16, "gone": 8}


def test_twenty_people_plan_at_once_by_a_server_while_another_one_s_edit_takes_its_time(photo_page, photo, models):
    """The server answers the first question of none before all twenty have asked, and the edit only after that."""
    all_here, planned = threading.Barrier(20), threading.Event()
    waited, lock = Counter(), threading.Lock()

    def before_answer(body):
        if body.startswith(b"{"):  # a question for a plan, the first twenty of which are the first ones
            with lock:
                waited["plans"] += 1
                first = waited["plans"] <= 20
            if first:
                all_here.wait(100)
        else:
            with lock:
                waited["edits"] += 1
            assert planned.wait(200)

    def ask(number):
        client = Client(photo_page, verbose=False, download_files=False)
        if number == 20:
            plan = {"requests": ["make it darker"]}
            return bool(client.predict(handle_file(photo), plan, api_name="/edit"))
        return len(client.predict(handle_file(photo), "make it darker", api_name="/plan")["requests"]) == 2

    models.before_answer = before_answer
    try:
        with ThreadPoolExecutor(21) as pool:
            edit = pool.submit(ask, 20)
            plans = [pool.submit(ask, number) for number in range(20)]
            assert all(plan.result(300) for plan in plans)
            assert not edit.done()
            planned.set()
            assert edit.result(300)
    finally:
        models.before_answer = lambda body: None
        planned.set()


def test_a_server_that_refuses_is_an_error_in_words(photo_client, photo, models, tmp_path):
    with openai_server.scripted((400, {"error": {"message": "no such pictures here"}}, {})) as server:
        options = ["--planner", server.url, "--planner_model", "m", *models.editor]
        with serve(tmp_path / "log", *options) as address:
            client = Client(address, verbose=False, download_files=False)
            with pytest.raises(AppError, match="The server of the model has refused this: .*no such pictures here"):
                client.predict(handle_file(photo), "make it darker", api_name="/plan")


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
