"""Planner and editor behind addresses in a bundle: what is said of them comes back, by every way in, and nothing else."""

import json

import pytest
import tiny_models
from diffusers import DiffusionPipeline

from diffusers_r1 import ImageEditR1Pipeline
from diffusers_r1.pipelines.nested.loading import load_editor
from diffusers_r1.planners.int8 import to_int8
from diffusers_r1.planners.remote import RemotePlanner
from diffusers_r1.prompts import Prompts
from diffusers_r1.remote_editor import RemoteEditor


pytestmark = pytest.mark.tiny

ADDRESS = "http://localhost:1/v1"
PROMPTS = Prompts(decompose="Own: {instruction}")
DEFAULTS = {"quality": "high", "steps": 3}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("remote") / "bundle"
    planner, editor = RemotePlanner(ADDRESS, "p"), RemoteEditor(ADDRESS, "e")
    ImageEditR1Pipeline(planner, editor=editor, prompts=PROMPTS, editor_defaults=DEFAULTS).save_pretrained(folder)
    return folder


def by_our_class(folder):
    return ImageEditR1Pipeline.from_pretrained(folder)


def by_plain_diffusers(folder):
    return DiffusionPipeline.from_pretrained(folder, trust_remote_code=True)


def by_parts(folder):
    return ImageEditR1Pipeline(RemotePlanner.from_pretrained(folder / "planner"), editor=load_editor(folder))


@pytest.mark.parametrize("way", [by_our_class, by_plain_diffusers, by_parts])
def test_they_come_back(bundle, way):
    pipe = way(bundle)
    assert (type(pipe.planner), pipe.planner.model, pipe.planner.base_url) == (RemotePlanner, "p", ADDRESS)
    assert (type(pipe.editor), pipe.editor.model, pipe.editor.base_url) == (RemoteEditor, "e", ADDRESS)
    assert pipe.editor_defaults == DEFAULTS and pipe.processor is None and pipe.sequencer is None
    assert way is by_parts or pipe.prompts == PROMPTS


def test_each_can_be_replaced_or_left_out(bundle, pix2pix):
    planner, processor = tiny_models.tiny_planner()
    pipe = ImageEditR1Pipeline.from_pretrained(bundle, planner=planner, processor=processor, editor=pix2pix)
    assert (pipe.planner, pipe.processor, pipe.editor) == (planner, processor, pix2pix)
    assert pipe.prompts == Prompts() and pipe.editor_defaults == {}
    pipe = ImageEditR1Pipeline.from_pretrained(bundle, editor=None)
    assert pipe.editor is None and type(pipe.planner) is RemotePlanner
    other = RemotePlanner(ADDRESS, "other")
    assert ImageEditR1Pipeline.from_pretrained(bundle, planner=other).planner is other


def test_one_takes_the_place_of_what_has_weights(tmp_path, pix2pix):
    own, processor = tiny_models.tiny_planner()
    ImageEditR1Pipeline(own, processor, pix2pix).save_pretrained(tmp_path)
    planner, editor = RemotePlanner(ADDRESS, "p"), RemoteEditor(ADDRESS, "e")
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, planner=planner, editor=editor)
    assert (pipe.planner, pipe.processor, pipe.editor) == (planner, None, editor)
    text_planner, tokenizer = tiny_models.tiny_text_planner()
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, planner=text_planner, processor=tokenizer, editor=editor)
    assert (pipe.planner, pipe.processor, pipe.editor) == (text_planner, tokenizer, editor)
    pipe = ImageEditR1Pipeline.from_pretrained(tmp_path, editor=editor)
    assert pipe.editor is editor and type(pipe.planner) is type(own) and type(pipe.processor) is type(processor)


def test_what_is_said_of_them_is_a_file_that_is_easily_read(bundle):
    text = (bundle / "editor" / "belongings.json").read_text()
    assert json.loads(text) == {"defaults": DEFAULTS} and text == json.dumps(json.loads(text), indent=2) + "\n"
    index = json.loads((bundle / "model_index.json").read_text())
    assert [index[name][1] for name in ("planner", "editor")] == ["RemotePlanner", "RemoteEditor"]


def test_a_planner_behind_an_address_hides_no_sequencer_that_cannot_be_saved(tmp_path):
    sequencer, tokenizer = tiny_models.tiny_text_planner()
    pipe = ImageEditR1Pipeline(
        RemotePlanner(ADDRESS, "p"), sequencer=to_int8(sequencer), sequencer_processor=tokenizer
    )
    with pytest.raises(ValueError, match="The sequencer has weights of 8 bits"):
        pipe.save_pretrained(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
