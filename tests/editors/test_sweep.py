"""All classes of the installed diffusers that take a picture and a prompt are in one of the two tables."""

from __future__ import annotations

import inspect
import warnings
from functools import cache
from typing import Any

import diffusers
import pytest
from diffusers import DiffusionPipeline, ModularPipeline
from PIL import Image

from diffusers_r1 import EditPlan, ImageEditR1Pipeline
from diffusers_r1.editors import REFUSALS, TRAITS, check_editor
from diffusers_r1.editors.signatures import is_picture


PICTURES = {"image", "images", "input_images"}


@cache
def found() -> dict[str, type]:
    """The classes by name, modular ones by the inputs of their default blocks."""
    classes = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the deprecated ones
        for name in dir(diffusers):
            try:
                value = getattr(diffusers, name)
            except (ImportError, RuntimeError):  # it needs a package that is not there, and then is no class to use
                continue
            pipeline = inspect.isclass(value) and issubclass(value, (DiffusionPipeline, ModularPipeline))
            if pipeline and "prompt" in inputs_of(value):
                classes[name] = value
    return classes


def inputs_of(pipeline: type) -> dict[str, Any]:
    """Names and type hints of what a class takes."""
    if issubclass(pipeline, ModularPipeline):
        if pipeline.default_blocks_name is None:
            return {}
        blocks = getattr(diffusers, pipeline.default_blocks_name)()
        return {entry.name: entry.type_hint for entry in blocks.inputs}
    parameters = inspect.signature(pipeline.__call__).parameters
    return {parameter.name: parameter.annotation for parameter in parameters.values()}


def test_the_sweep_finds_classes_of_each_kind():
    assert {"FluxKontextPipeline", "OmniGenPipeline", "JoyImageEditPlusPipeline", "Flux2ModularPipeline"} <= set(
        found()
    )
    assert len(found()) > 150


def test_each_class_that_takes_a_picture_and_a_prompt_is_served_or_refused():
    takes = {name for name, value in found().items() if PICTURES & set(inputs_of(value))}
    assert len(takes) > 100
    assert takes - set(TRAITS) - set(REFUSALS) == set(), "no row in TRAITS, and no reason in REFUSALS"
    assert not set(TRAITS) & set(REFUSALS)
    assert set(TRAITS) | set(REFUSALS) <= takes, "rows of classes that the installed diffusers has not"


@pytest.mark.parametrize("name", REFUSALS)
def test_what_cannot_return_a_picture_is_refused_before_any_model_runs(name):
    editor = object.__new__(getattr(diffusers, name))  # without any model: nothing could run
    with pytest.raises(TypeError, match=f"{name} cannot be an editor: .{{20}}"):
        check_editor(editor, {})


def test_a_class_without_an_argument_for_the_picture_is_refused():
    """Text to image: what they take is a picture beside it, such as an adapter's or a map of edges."""
    others = {name for name, value in found().items() if not PICTURES & set(inputs_of(value))}
    beside = {name for name in others if any(is_picture(hint) for hint in inputs_of(found()[name]).values())}
    assert {"StableDiffusionPipeline", "FluxControlPipeline"} <= beside
    for name in beside:
        if not issubclass(found()[name], ModularPipeline):
            with pytest.raises(TypeError, match=f"{name} cannot be an editor: it takes no `image`"):
                check_editor(object.__new__(found()[name]), {})


def test_the_pipeline_refuses_it(planner, prompts):
    pipe = ImageEditR1Pipeline(*planner, None, prompts=prompts)
    pipe.__dict__["editor"] = object.__new__(diffusers.QwenImageLayeredPipeline)
    with pytest.raises(TypeError, match="QwenImageLayeredPipeline cannot be an editor: it takes a picture apart"):
        pipe(Image.new("RGB", (64, 64)), plan=EditPlan("", (), ("make it blue",)))


def test_a_class_of_ones_own_is_judged_by_its_nearest_base():
    class Layers(diffusers.QwenImageLayeredPipeline):
        pass

    class Mine(diffusers.QwenImageEditPipeline):
        pass

    with pytest.raises(TypeError, match="layers"):
        check_editor(object.__new__(Layers), {})
    check_editor(object.__new__(Mine), {})
