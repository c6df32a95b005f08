import pytest
import tiny_models
import torch

from diffusers_r1.prompts import Prompts


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tiny models are fastest on one thread, and sums then come out in one order."""
    torch.set_num_threads(1)


@pytest.fixture
def own_cache(tmp_path_factory, monkeypatch):
    """`datasets` keeps what it has read; a test must not meet what another one read."""
    import datasets

    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(cache))
    datasets.disable_progress_bars()


@pytest.fixture(scope="session")
def planner():
    return tiny_models.tiny_planner()


@pytest.fixture(scope="session")
def text_planner():
    return tiny_models.tiny_text_planner()


@pytest.fixture(scope="session")
def prompts():
    return Prompts(decompose="{instruction}", sequence="in order")


@pytest.fixture
def pix2pix():
    editor = tiny_models.tiny_pix2pix()
    editor.set_progress_bar_config(disable=True)
    return editor
