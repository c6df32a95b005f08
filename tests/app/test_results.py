from PIL import Image

from diffusers_r1 import EditPlan, Turn
from diffusers_r1.app.results import LONGEST_SHOWN, forget, keep, remember
from diffusers_r1.app.service import Edited, Order
from diffusers_r1.images import load_picture, load_with_metadata
from diffusers_r1.images.colour import srgb_profile


def edited(before, metadata, after):
    turn = Turn("make it blue", before.size, after.size, after)
    return Edited(before, metadata, Order({}, EditPlan("x", (), ("y",)), "single", 0), [turn], after)


def test_what_is_downloaded_has_what_belongs_to_the_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Ann Other"
    Image.new("RGB", (6, 4), "red").save(tmp_path / "photo.jpg", exif=exif, dpi=(300, 300))
    before, metadata = load_with_metadata(tmp_path / "photo.jpg")
    after = Image.new("RGB", before.size, "blue")
    result = keep(tmp_path, edited(before, metadata, after))
    with Image.open(result.picture) as picture:
        assert picture.tobytes() == after.tobytes() and picture.info["icc_profile"] == srgb_profile()
        assert [round(value) for value in picture.info["dpi"]] == [300, 300]
        assert picture.getexif()[0x013B] == "Ann Other" and 0x0112 not in picture.getexif()
    for path, shown in ((result.before, before), (result.after, after), (result.turns[0][0], after)):
        with Image.open(path) as picture:
            assert picture.tobytes() == shown.tobytes()
    forget([result])
    assert not result.after.parent.exists() and tmp_path.exists()


def test_a_browser_is_sent_a_small_picture_to_look_at_and_the_whole_one_to_keep(tmp_path):
    large = Image.new("RGB", (4000, 3000), "red")
    large.save(tmp_path / "large.png")
    result = keep(tmp_path, edited(*load_with_metadata(tmp_path / "large.png"), large))
    files = (result.before, result.after, result.turns[0][0], result.picture)
    sizes = [load_picture(path).size for path in files]
    assert sizes == [(LONGEST_SHOWN, LONGEST_SHOWN * 3 // 4)] * 3 + [(4000, 3000)]


def test_of_a_long_history_the_oldest_files_go(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    before, metadata = load_with_metadata(tmp_path / "a.png")
    history, made = [], []
    for _ in range(4):
        made.append(keep(tmp_path, edited(before, metadata, before)))
        history = remember(history, made[-1], most=2)
    assert history == made[:1:-1]
    assert [result.picture.exists() for result in made] == [False, False, True, True]
