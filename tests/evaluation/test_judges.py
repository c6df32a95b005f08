import dataclasses
import io
import json
import math

import numpy as np
import pytest
import tiny_models
import torch
from openai_server import said, scripted
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

from diffusers_r1.bundles.planners import save_planner
from diffusers_r1.endpoints import Endpoint, EndpointError
from diffusers_r1.evaluation import (
    LocalModel,
    Pixels,
    Sample,
    ScenesExact,
    Verdict,
    VIEScore,
    read_samples,
    selector_of,
    viescore,
)
from diffusers_r1.judging.viescore import AGAIN, QUALITY, SEMANTICS, read_scores
from diffusers_r1.prompts import Prompts
from diffusers_r1.scenes import render, sample_task


SAMPLE = Sample("photos", 3, Image.new("RGB", (8, 6), "teal"), "make it {red}")
RESULT = Image.new("RGB", (8, 6), "red")


@pytest.mark.parametrize(
    ("semantics", "quality", "overall", "low", "high"),
    [
        ((10, 10), (10, 10), 10, 10, 10),
        ((9, 4), (10, 9), 6, 4, 9),  # sqrt(4 * 9)
        ((4, 9), (9, 10), 6, 4, 9),
        ((0, 10), (10, 10), 0, 0, 10),
        ((7, 8), (5, 6), 5.916079783099616, 7, 5),  # sqrt(35)
        ((2.5, 3), (10, 10), 5, 2.5, 10),
        ((1, 1), (2, 2), 1.4142135623730951, 1, 2),
        ((0, 0), (0, 0), 0, 0, 0),
    ],
)
def test_viescore_by_hand(semantics, quality, overall, low, high):
    found = viescore(semantics, quality)
    assert list(found) == ["overall", "semantics", "quality"]
    assert found["overall"] == pytest.approx(overall, abs=1e-9)
    assert (found["semantics"], found["quality"]) == (low, high)


@pytest.mark.parametrize(
    ("text", "scores"),
    [
        ('{"reasoning": "ok", "score": [7, 8]}', (7, 8)),
        ('{"score": [7.5, 0]}', (7.5, 0)),
        ('```json\n{"score": [10, 10], "reasoning": "a {brace} and } and {"}\n```', (10, 10)),
        ('The form is {"reasoning": "...", "score": [1, 2]}. Mine: {"score": [3, 4]}', (3, 4)),
        ('{ broken {"score": [3, 4]} tail', (3, 4)),
        ('{"score": [3, 4]} {"note": "done"}', (3, 4)),
        ("", None),
        ("7 and 8", None),
        ("[7, 8]", None),
        ('{"score": 7}', None),
        ('{"score": [7]}', None),
        ('{"score": [7, 8, 9]}', None),
        ('{"score": ["7", "8"]}', None),
        ('{"score": [7, null]}', None),
        ('{"score": [true, 1]}', None),
        ('{"score": [11, 5]}', None),
        ('{"score": [-1, 5]}', None),
        ('{"score": [NaN, 5]}', None),
        ('{"score": [7, 8]', None),
        ('{"score": [7, 8]} {"score": "none"}', None),
        pytest.param('{"score": [7, 8], "more": ' + '{"a":' * 1500, None, id="nested too deeply"),
    ],
)
def test_only_two_numbers_from_0_to_10_are_scores(text, scores):
    assert read_scores(text) == scores


def png_of(part) -> Image.Image:
    import base64

    with Image.open(io.BytesIO(base64.b64decode(part["image_url"]["url"].partition(",")[2]))) as image:
        return image.convert("RGB")


def test_semantics_see_both_pictures_and_quality_the_result_alone():
    answers = [said('{"score": [7, 5]}', finish_reason="length"), said('{"score": [4, 9]}')]
    with scripted(*((200, answer, {}) for answer in answers)) as judge:
        with Endpoint(judge.url, "judge") as endpoint:
            verdict = VIEScore(endpoint)(SAMPLE, RESULT)
        asked = [json.loads(body) for _, _, body in judge.requests]
    semantics, quality = (request["messages"][0]["content"] for request in asked)
    assert [png_of(part).tobytes() for part in semantics[:-1]] == [SAMPLE.image.tobytes(), RESULT.tobytes()]
    assert semantics[-1]["text"] == SEMANTICS.replace("{instruction}", "make it {red}")
    assert [png_of(part).tobytes() for part in quality[:-1]] == [RESULT.tobytes()]
    assert quality[-1]["text"] == QUALITY
    assert all(request["temperature"] == 0 for request in asked)
    assert verdict.evidence["scores"] == {"semantics": (7, 5), "quality": (4, 9)}
    assert verdict.evidence["finish_reasons"] == ["length", "stop"]

    scores = verdict.evidence["scores"]
    assert verdict.values["overall"] == math.sqrt(min(scores["semantics"]) * min(scores["quality"]))
    assert verdict.evidence["model"] == "judge-2025-01-01" and len(verdict.evidence["raw"]) == 2
    assert len(verdict.evidence["prompts"]) == 64
    assert (verdict.evidence["failed_calls"], verdict.evidence["unreadable"]) == (0, 0)


def test_an_answer_that_cannot_be_read_is_asked_for_again(server):
    with Endpoint(server().url, "judge") as plain, Endpoint(server(garble="once").url, "judge") as garbled:
        first, second = VIEScore(plain)(SAMPLE, RESULT), VIEScore(garbled)(SAMPLE, RESULT)
    assert first.values == second.values
    assert second.evidence["unreadable"] == 2 and second.evidence["raw"][0] == "Ten out of ten!"


def test_it_is_asked_for_a_bounded_number_of_times_and_then_there_is_no_figure(server):
    judge = server(garble="always")
    with Endpoint(judge.url, "judge") as endpoint:
        verdict = VIEScore(endpoint, attempts=4)(SAMPLE, RESULT)
    assert verdict.values is None
    assert judge.counts()["calls"] == 4 == verdict.evidence["unreadable"] == len(verdict.evidence["raw"])
    with pytest.raises(ValueError, match="attempts"):
        VIEScore(endpoint, attempts=0)


def test_prompts_and_model_are_among_the_settings():
    endpoints = [Endpoint("http://x/v1", name) for name in ("a", "b")]
    one, other = (VIEScore(endpoint).settings for endpoint in endpoints)
    assert one != other and one["prompts"] == other["prompts"]
    assert "score" in AGAIN


@pytest.mark.tiny
def test_a_judge_that_is_loaded_here(tmp_path):
    save_planner(tmp_path, *tiny_models.tiny_planner(), Prompts())
    model = LocalModel(str(tmp_path), device="cpu")
    judge = VIEScore(model, concurrency=1, attempts=2, max_tokens=4)
    verdict = judge(SAMPLE, Image.new("RGB", (64, 64), "red"))
    assert verdict.values is None  # a model of random weights
    assert len(verdict.evidence["raw"]) == 2 and verdict.evidence["model"] == str(tmp_path)
    assert judge(SAMPLE, Image.new("RGB", (64, 64), "red")).evidence["raw"] == verdict.evidence["raw"]


def test_scenes_are_judged_cell_by_cell():
    sample = next(read_samples("scenes-complex", limit=1))
    task = sample_task(sample.row, "complex")
    judge = ScenesExact()
    assert judge(sample, task.target_image).values == {"exact": 1.0, "changed": 1.0, "kept": 1.0}
    assert judge(sample, task.image).values == {"exact": 0.0, "changed": 0.0, "kept": 1.0}
    place = next(i for i, (a, b) in enumerate(zip(task.scene.cells, task.target_scene.cells)) if a == b is None)
    spoiled = render(task.target_scene.with_cell(place, task.target_scene.items[0]))
    values = judge(sample, spoiled).values
    changes = sum(a != b for a, b in zip(task.scene.cells, task.target_scene.cells))
    changes += task.scene.background != task.target_scene.background
    assert values == {"exact": 0.0, "changed": 1.0, "kept": pytest.approx(1 - 1 / (10 - changes))}
    assert judge.applies_to({"benchmark": "scenes-simple"}) and not judge.applies_to({"benchmark": "psr"})


def test_scenes_of_a_run_that_called_the_indirect_ones_pointed_are_judged():
    sample = next(read_samples("scenes-indirect", limit=1))
    before = dataclasses.replace(sample, benchmark="scenes-pointed")
    assert ScenesExact().applies_to({"benchmark": before.benchmark})
    assert ScenesExact()(before, sample.target).values["exact"] == 1.0


@pytest.mark.tiny
def test_a_judge_behind_a_server_keeps_the_best_of_n(pipe, server):
    source = Image.new("RGB", (16, 16), "teal")
    with Endpoint(server().url, "judge") as endpoint:
        judge = VIEScore(endpoint)
        seed = torch.Generator().manual_seed(0)
        out = pipe(source, "make it red", num_images_per_plan=6, selector=selector_of(judge), generator=seed)
        sample = Sample("candidates", 0, source, "make it red")
        by_hand = [judge(sample, candidate.image).values["overall"] for candidate in out.candidates[0]]
    assert [candidate.score for candidate in out.candidates[0]] == by_hand and len(set(by_hand)) > 2
    assert out.images[0] is out.candidates[0][by_hand.index(max(by_hand))].image


def test_candidates_without_a_figure_have_no_score(server):
    pictures = [Image.new("RGB", (8, 6), (shade, 0, 0)) for shade in range(6)]
    with Endpoint(server(garble="always").url, "judge") as endpoint:
        assert selector_of(VIEScore(endpoint))(SAMPLE.image, "red", pictures) == [None] * 6
    with Endpoint(server(fail_every=3).url, "judge", max_retries=0) as endpoint:
        scores = selector_of(VIEScore(endpoint, concurrency=1))(SAMPLE.image, "red", pictures)
        assert [score is None for score in scores] == [False, True, False, True, False, True]
    with Endpoint(server(key="right").url, "judge") as endpoint:
        with pytest.raises(EndpointError, match="wrong key"):
            selector_of(VIEScore(endpoint))(SAMPLE.image, "red", pictures)


class Darkness:
    name, settings, concurrency, metrics, shares = "darkness", {}, 2, {"light": False}, ()

    def applies_to(self, sample):
        return True

    def __call__(self, sample, result):
        return Verdict({"light": 100 / np.asarray(result).mean() if sample.instruction == "invert" else 5.0})


def test_less_may_be_better_and_a_fault_of_the_judge_is_raised():
    pictures = [Image.new("RGB", (8, 6), (shade,) * 3) for shade in (50, 200, 100)]
    select = selector_of(Darkness())
    assert select(SAMPLE.image, "invert", pictures) == [-2, -0.5, -1]
    with pytest.raises(TypeError):
        select(SAMPLE.image, "invert", [*pictures, "no picture"])


@pytest.mark.parametrize("judge", [ScenesExact(), Pixels()])
def test_a_judge_that_needs_the_truth_selects_nothing(judge):
    with pytest.raises(ValueError, match=f"{judge.name} needs the truth"):
        selector_of(judge)


def with_target(target: Image.Image) -> Sample:
    return dataclasses.replace(SAMPLE, target=target)


def test_pixel_figures_by_hand():
    target = Image.new("RGB", (16, 16), (0, 0, 0))
    result = Image.new("RGB", (16, 16), (255, 0, 0))
    values = Pixels()(with_target(target), result).values
    assert values["l1"] == pytest.approx(1 / 3) and values["l2"] == pytest.approx(1 / 3)
    grey = Pixels()(with_target(target), Image.new("RGB", (16, 16), (51, 51, 51))).values
    assert grey["l1"] == pytest.approx(0.2) and grey["l2"] == pytest.approx(0.04)
    # Of two flat pictures SSIM is (2 a b + c) / (a^2 + b^2 + c) with c = 0.01^2.
    assert grey["ssim"] == pytest.approx(1e-4 / (0.04 + 1e-4), abs=1e-5)
    assert Pixels()(with_target(target), target).values == {"l1": 0, "l2": 0, "ssim": pytest.approx(1)}


def test_a_result_of_another_size_is_scaled_to_the_target():
    noise = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    target = Image.fromarray(noise).resize((48, 32), Image.Resampling.BICUBIC)
    assert Pixels()(with_target(target), Image.fromarray(noise)).values["l1"] == 0
    assert not Pixels().applies_to({"target": None}) and Pixels().applies_to({"target": "x.png"})


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (6, 6)])
def test_a_target_that_is_too_small_to_be_compared_has_no_figures_and_a_reason(size):
    verdict = Pixels()(with_target(Image.new("RGB", size)), Image.new("RGB", size))
    assert (verdict.values is None) == (min(size) < 6)
    assert verdict.values or verdict.evidence["reason"].startswith(f"a target of {size[0]} x {size[1]} pixels")


@pytest.mark.tiny
def test_clip_similarity_of_a_given_model(tmp_path):
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        vision_config={**small, "image_size": 32, "patch_size": 16}, text_config=small, projection_dim=8
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    model.save_pretrained(tmp_path)
    size = {"height": 32, "width": 32}
    images = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size)
    CLIPProcessor(images, tiny_models.tiny_pix2pix().tokenizer).save_pretrained(tmp_path)
    judge = Pixels(str(tmp_path))
    target, result = (Image.new("RGB", (32, 32), color) for color in ("teal", "orange"))
    assert judge(with_target(target), target).values["clip_i"] == pytest.approx(1, abs=1e-5)
    with torch.no_grad():
        one, other = (
            model.get_image_features(**images(image, return_tensors="pt")).pooler_output[0]
            for image in (target, result)
        )
    cosine = torch.nn.functional.cosine_similarity(one, other, dim=0).item()
    assert judge(with_target(target), result).values["clip_i"] == pytest.approx(cosine, abs=1e-5)
    assert list(judge.metrics) == ["l1", "l2", "ssim", "clip_i"]
