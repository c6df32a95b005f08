"""Only formats that people send are opened, by every door, and opening a picture starts no other program."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_uploads
import pytest
from PIL import Image

import diffusers_r1


ROOT = Path(diffusers_r1.__file__).parents[2]
DOORS = """
import io, json, sys
from pathlib import Path

import datasets
from PIL import Image

from diffusers_r1.app.uploads import open_with_metadata
from diffusers_r1.commands import main
from diffusers_r1.data import load_rows
from diffusers_r1.images import load_picture

folder = Path(sys.argv[1])
names = [path.name for path in folder.iterdir() if path.name != "metadata.jsonl"]
rows = [{"file_name": name, "instruction": "x"} for name in names]
(folder / "metadata.jsonl").write_text("\\n".join(map(json.dumps, rows)), encoding="utf-8")
kept = load_rows(str(folder), on_bad_row="keep")
stored = {"image": [{"bytes": (folder / name).read_bytes(), "path": name} for name in names], "instruction": names}
features = datasets.Features({"image": datasets.Image(), "instruction": datasets.Value("string")})
datasets.Dataset.from_dict(stored, features=features).to_parquet(folder.parent / "stored" / "a.parquet")
doors = {
    "path": lambda name: load_picture(folder / name),
    "file": lambda name: load_picture(io.BytesIO((folder / name).read_bytes())),
    "page": lambda name: open_with_metadata({"path": str(folder / name)}, folder),
    "PIL": lambda name: load_picture(Image.open(folder / name)),
    "row": lambda name: kept[names.index(name)]["image"],
}
opened = []
for name in names:
    for door, opening in doors.items():
        try:
            opening(name)
        except (ValueError, Image.UnidentifiedImageError):
            continue
        opened.append([name, door])
for source in (folder, folder.parent / "stored"):
    try:
        opened.append([str(source), len(load_rows(str(source), on_bad_row="skip"))])
    except ValueError:
        pass
for name in names:
    for verb in ("edit", "plan"):
        if main([verb, str(folder / name), "x"]) != 2:
            opened.append([name, verb])
print(json.dumps(opened))
"""
TRAP = '#!/bin/sh\necho "$@" >> "{}"\necho 10.0\n'


def run(program: str, bin_folder: Path, *arguments: object) -> str:
    """The program's output, with our own `gs` in place of whichever there is."""
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout


@pytest.fixture
def trap(tmp_path):
    """A folder with a `gs` that leaves a trace when it is started, and the place of the trace."""
    folder, trace = tmp_path / "bin", tmp_path / "started"
    folder.mkdir()
    (folder / "gs").write_text(TRAP.format(trace), encoding="utf-8")
    (folder / "gs").chmod(0o755)
    return folder, trace


@pytest.mark.skipif(sys.platform == "win32", reason="the trap is a script of a shell")
def test_files_of_other_formats_start_no_program(tmp_path, trap):
    files = tmp_path / "files"
    files.mkdir()
    for name, content in hostile_uploads.OTHER_PROGRAMS.items():
        (files / name).write_bytes(content)
    said = run(DOORS, trap[0], files)
    assert json.loads(said.splitlines()[-1]) == [] and not trap[1].exists()
    # The trap works: Pillow, left to itself, walks into it.
    run(f"from PIL import Image\ntry: Image.open({str(files / 'eps.png')!r}).load()\nexcept OSError: pass", trap[0])
    assert trap[1].exists()


def test_every_call_of_pillow_names_the_formats():
    """The page, the command line and the scripts included."""
    found = []
    for folder in ("src", "examples", "benchmarks"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Image.open", "PIL.Image.open"):
                    if "formats" not in {keyword.arg for keyword in node.keywords}:
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not found


def test_pictures_of_other_formats_that_somebody_has_decoded_are_taken(tmp_path):
    """Pillow has started then whatever it starts."""
    from diffusers_r1.images import load_picture

    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.pcx")
    with Image.open(tmp_path / "a.pcx") as picture:
        with pytest.raises(ValueError, match="PCX is no picture of a known format"):
            load_picture(picture)
        picture.load()
        assert load_picture(picture).getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(ValueError, match="a.pcx.*no picture of a known format: JPEG, PNG"):
        load_picture(tmp_path / "a.pcx")


@pytest.mark.parametrize("kind", ["JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "PPM"])
def test_what_people_send_is_opened(tmp_path, kind):
    from diffusers_r1.images import load_picture

    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "blue")]
    several = {"save_all": True, "append_images": frames[1:]} if kind == "MPO" else {}
    frames[0].save(tmp_path / "picture", kind, **several)
    red, green, blue = load_picture(tmp_path / "picture").getpixel((2, 2))
    assert red > 240 and green < 15 and blue < 15
