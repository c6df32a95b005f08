import hostile_uploads
import pytest
from PIL import Image

from diffusers_r1.app.uploads import check_instruction, check_plan, check_seed, open_with_metadata
from diffusers_r1.plan import EditPlan


def test_an_upload_is_opened(tmp_path):
    Image.new("RGBA", (4, 3)).save(tmp_path / "a.png")
    picture, _ = open_with_metadata({"path": str(tmp_path / "a.png")}, tmp_path)
    assert (picture.mode, picture.size) == ("RGB", (4, 3))


@pytest.mark.parametrize("name", hostile_uploads.FILES)
def test_a_hostile_file_is_refused_by_its_name_alone(tmp_path, name):
    content, said = hostile_uploads.FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as error:
        open_with_metadata({"path": str(tmp_path / name)}, tmp_path)
    assert f"The picture {name!r} cannot be used: " in str(error.value)
    assert str(tmp_path) not in str(error.value)


def test_nothing_beside_the_uploads_is_opened(tmp_path):
    uploads = tmp_path / "uploads"
    uploads.mkdir()
    private = tmp_path / "private.png"
    Image.new("RGB", (4, 3)).save(private)
    (uploads / "link.png").symlink_to(private)
    for path in (
        private,
        uploads / ".." / "private.png",
        uploads / "link.png",
        "/etc/passwd",
        "http://localhost/a.png",
    ):
        with pytest.raises(ValueError, match="it was not uploaded"):
            open_with_metadata({"path": str(path)}, uploads)


@pytest.mark.parametrize("upload", [None, {}, {"path": None}, {"url": "data:image/png;base64,aGVsbG8="}])
def test_no_file_is_said_to_be_missing(tmp_path, upload):
    with pytest.raises(ValueError, match="no picture yet|not uploaded"):
        open_with_metadata(upload, tmp_path)


def test_the_limit_of_pixels_can_be_set(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="4 x 3 is more than 11 pixels"):
        open_with_metadata({"path": str(tmp_path / "a.png")}, tmp_path, max_pixels=11)


@pytest.mark.parametrize("instruction", [None, 7, "", " \n", "x" * 2001])
def test_an_instruction_is_text_of_a_usable_length(instruction):
    with pytest.raises(ValueError, match="instruction"):
        check_instruction(instruction)
    assert check_instruction("x" * 2000) == "x" * 2000


@pytest.mark.parametrize("requests", [("again",) * 21, ("x" * 2001,)])
def test_a_plan_that_is_too_much_is_refused(requests):
    with pytest.raises(ValueError, match="at most"):
        check_plan(EditPlan("...", (), requests))
    most = EditPlan("...", (), ("x" * 2000,) * 20)
    assert check_plan(most) is most


@pytest.mark.parametrize("seed", [None, "1", -1, 0.5, 2**63, float("nan"), float("inf")])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(ValueError, match="whole number, 0 or more"):
        check_seed(seed)
    assert (check_seed(3), check_seed(3.0)) == (3, 3)
