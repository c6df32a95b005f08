import pytest
import tiny_models
from PIL import Image

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.commands import main


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, planner, prompts):
    """A saved pipeline of tiny random models; its planner's answers cannot be used, so its plans fall back."""
    folder = tmp_path_factory.mktemp("bundle")
    editor = tiny_models.tiny_pix2pix()
    pipe = ImageEditR1Pipeline(*planner, editor, prompts=prompts, editor_defaults={"num_inference_steps": 1})
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def photo(tmp_path_factory):
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    Image.linear_gradient("L").convert("RGB").resize((72, 64)).save(path)
    return path


@pytest.fixture
def run(capsys):
    """`main` on words that may be paths or numbers; returns exit code, stdout, stderr."""

    def run(*words):
        code = main([str(word) for word in words])
        return (code, *capsys.readouterr())

    return run
