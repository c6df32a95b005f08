import pytest
import tiny_models
from openai_server import serving

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.evaluation import LocalEditor, bare, write_pictures, write_plans, write_samples
from diffusers_r1.evaluation.benchmarks import SCENES


@pytest.fixture(autouse=True)
def surroundings(own_cache, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(scope="session")
def pipe(planner, prompts):
    """A pipeline of tiny random models: its plans fall back, and its pictures are noise."""
    editor = tiny_models.tiny_pix2pix()
    editor.set_progress_bar_config(disable=True)
    return ImageEditR1Pipeline(*planner, editor, prompts=prompts, editor_defaults={"num_inference_steps": 1})


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, pipe):
    """The same, saved."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def edited(tmp_path_factory, pipe):
    """A run of 200 samples whose pictures were made and not judged; copy it before you write to it."""
    folder = tmp_path_factory.mktemp("edited")
    for name in SCENES:
        write_samples(folder, name, limit=50)
    write_plans(folder, bare())
    write_pictures(folder, bare(), LocalEditor("tiny", pipe, {}, batch_size=50))
    return folder


@pytest.fixture
def server():
    """Starts a judge and remote editor as a process of its own: `server(fail_every=3).url`."""
    with serving() as start:
        yield start
