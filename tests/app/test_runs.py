from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1PipelineOutput, Turn
from diffusers_r1.app.runs import forget, keep
from diffusers_r1.images import load_with_metadata
from diffusers_r1.images.colour import srgb_profile


def test_what_is_downloaded_has_what_belongs_to_the_photo(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x013B] = 6, "Ann Other"
    Image.new("RGB", (6, 4), "red").save(tmp_path / "photo.jpg", exif=exif, dpi=(300, 300))
    before, metadata = load_with_metadata(tmp_path / "photo.jpg")
    after = Image.new("RGB", before.size, "blue")
    turn = Turn("make it blue", (4, 6), (4, 6), after)
    run = keep(tmp_path, before, metadata, ImageEditR1PipelineOutput([after], [EditPlan("x", (), ("y",))], [[turn]]))
    with Image.open(run.after) as picture:
        assert picture.tobytes() == after.tobytes() and picture.info["icc_profile"] == srgb_profile()
        assert [round(value) for value in picture.info["dpi"]] == [300, 300]
        assert picture.getexif()[0x013B] == "Ann Other" and 0x0112 not in picture.getexif()
    for path, shown in ((run.before, before), (run.turns[0][0], after)):
        with Image.open(path) as picture:
            assert picture.tobytes() == shown.tobytes()
    forget([run])
    assert not run.after.parent.exists() and tmp_path.exists()
