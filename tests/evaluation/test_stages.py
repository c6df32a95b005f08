import base64
import io
import json
import re
import shutil
import weakref

import numpy as np
import pytest
import tiny_models
import torch
from data_sets import write_data_set
from openai_server import editor_reply, planning, scripted
from PIL import Image
from safetensors.torch import load_file, save_file

from diffusers_r1 import ImageEditR1Pipeline, records
from diffusers_r1.evaluation import SPLITS, evaluate, stages
from diffusers_r1.evaluation.benchmarks import SAMPLE_SEED
from diffusers_r1.evaluation.runs import read_edits, read_plans, read_scores, read_variants, unscored
from diffusers_r1.installing import install_line
from diffusers_r1.plan import TURNS
from diffusers_r1.remote_editor import RemoteEditor
from diffusers_r1.scenes import TEST_SEEDS, sample_task
from diffusers_r1.tags import write_decomposition, write_sequence


@pytest.mark.tiny
def test_what_models_of_another_type_made_is_made_again(bundle, tmp_path):
    for dtype, made in ((None, 1), (torch.bfloat16, 2), (torch.float32, 2)):
        evaluate(
            tmp_path, ["scenes-simple"], ["r1"], stage="edit", model=str(bundle), limit=1, max_new_tokens=4,
            device="cpu", dtype=dtype,
        )  # fmt: skip
        assert len({line["settings"] for line in records.read(tmp_path / "plans.jsonl")}) == made
        assert len({line["settings"] for line in records.read(tmp_path / "edits.jsonl")}) == made
        assert len(list((tmp_path / "pictures").rglob("*.png"))) == made
    judges = [
        stages._judge("viescore", None, "m", None, 1, {"device": None, "dtype": dtype})
        for dtype in (None, torch.float32, torch.bfloat16)
    ]
    assert [judge.settings.get("dtype") for judge in judges] == [None, None, "torch.bfloat16"]


@pytest.mark.tiny
def test_every_method_both_ways_under_every_judge(bundle, server, tmp_path):
    remote = server()
    options = {
        "output_dir": tmp_path / "run",
        "benchmarks": ["scenes-simple", "scenes-complex"],
        "methods": ["base", "untrained", "r1", "oracle", "remote"],
        "turns": [*TURNS],
        "judges": ["scenes", "pixels", "viescore"],
        "model": str(bundle),
        "untrained": str(bundle),
        "limit": 2,
        "max_new_tokens": 4,
        "batch_size": 3,
        "remote_url": remote.url,
        "remote_model": "closed",
        "judge_url": remote.url,
        "judge_model": "judge",
        "device": "cpu",
    }
    report = evaluate(**options)
    run = tmp_path / "run"
    variants = [(variant["method"], variant["editor"], variant["turns"]) for variant in read_variants(run)]
    planned = [(name, "tiny", turns) for name in ("untrained", "r1", "oracle") for turns in TURNS]
    assert variants == [("base", "tiny", "single"), *planned, ("remote", "closed", "single")]
    assert len(read_edits(run)) == 4 * len(variants) and all(row["picture"] for row in read_edits(run))
    settings = {row["method"]: row["plans"] for row in read_edits(run)}
    assert all(len(read_plans(run, method, plans)) == 4 for method, plans in settings.items())
    pictures = {row["picture"] for row in read_edits(run)}
    assert len(read_scores(run)) == 3 * len(pictures)
    text = report.read_text()
    for heading in ("scenes: exact", "pixels: ssim", "viescore: overall", "single-turn against the other ways"):
        assert heading in text

    calls, files = remote.counts()["calls"], {path: path.stat().st_mtime_ns for path in run.rglob("pictures/**/*.png")}
    assert calls == 4 + 2 * len(pictures)
    evaluate(**options)
    assert remote.counts()["calls"] == calls
    assert files == {path: path.stat().st_mtime_ns for path in run.rglob("pictures/**/*.png")}


@pytest.mark.tiny
def test_a_second_look_beside_the_method_without_one(bundle, tmp_path):
    # The tiny editor makes noise, so that no look mends anything, and the pictures are the ones without a look.
    options = {"limit": 2, "max_new_tokens": 4, "model": str(bundle), "device": "cpu"}
    methods = ["oracle", "oracle+reflect"]
    report = evaluate(tmp_path / "run", ["scenes-simple"], methods, reflect=1, **options)
    assert [variant["method"] for variant in read_variants(tmp_path / "run")] == methods
    looks = [variant["details"]["editor"].get("looks") for variant in read_variants(tmp_path / "run")]
    assert looks == [None, {"reflect": 1, "critic": "scenes"}]
    edits = {(row["method"], row["sample"]): row["picture"] for row in read_edits(tmp_path / "run")}
    assert len(set(edits.values())) == 4 and "oracle+reflect" in report.read_text()


@pytest.mark.tiny
def test_each_benchmark_of_the_hub_from_a_local_copy(bundle, server, tmp_path):
    copies = {name: write_data_set(name, tmp_path / "copies" / name, count=3, size=(64, 64)) for name in SPLITS}
    report = evaluate(
        tmp_path / "run",
        [f"{name}={folder}" for name, folder in copies.items()],
        methods=["base", "r1"],
        judges=["viescore", "pixels"],
        model=str(bundle),
        limit=2,
        max_new_tokens=4,
        judge_url=server().url,
        judge_model="judge",
        device="cpu",
    )
    lines = report.read_text().splitlines()
    overall = lines.index("## viescore: overall")
    assert lines[overall + 4].split(" | ")[3:9] == list(SPLITS)
    l1 = lines.index("## pixels: l1")
    assert lines[l1 + 4].split(" | ")[3:7] == ["psr", "realedit", "ultraedit", "magicbrush"]
    assert lines[overall + 6].count(", n 2)") == lines[overall + 7].count(", n 2)") == 6


@pytest.mark.tiny
def test_editing_and_judging_may_happen_in_two_places(bundle, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    common = {"judges": ["scenes"], "device": "cpu"}
    assert evaluate(here, ["scenes-simple"], ["base"], model=str(bundle), limit=2, stage="edit", **common) == here
    assert not read_scores(here)
    here.rename(there)
    assert evaluate(there, stage="judge", **common) == there / "report.md"
    assert len(read_scores(there)) == 2


@pytest.mark.tiny
def test_the_shipped_planner_is_above_the_bare_editor_beyond_doubt(tmp_path):
    report = evaluate(tmp_path, ["scenes-indirect"], ["base", "r1"], limit=30, batch_size=30, max_new_tokens=160)
    base, trained = json.loads(report.with_suffix(".json").read_text())["tables"][0]["rows"]
    assert trained["average"]["low"] > base["average"]["high"]


@pytest.mark.tiny
def test_a_planner_behind_an_address(bundle, tmp_path):
    tasks = [sample_task(TEST_SEEDS + SAMPLE_SEED + number, "chained") for number in range(2)]
    answers = {
        task.instruction: (write_decomposition(task.edits), write_sequence(task.sub_requests)) for task in tasks
    }
    with planning(answers) as server:
        given = {"planner": server.url, "planner_model": "served", "model": str(bundle), "device": "cpu"}
        evaluate(tmp_path, ["scenes-chained"], ["r1", "oracle"], limit=2, **given)
        times = len(server.requests)
        evaluate(tmp_path, ["scenes-chained"], ["r1", "oracle"], limit=2, **given)
        assert times == len(server.requests) == 4
    pictures = [row["picture"] for row in read_edits(tmp_path)]
    assert sorted(pictures[:2]) == sorted(pictures[2:])  # its plans are the true ones


@pytest.mark.tiny
def test_a_row_that_a_planner_refuses_takes_no_other_along(bundle, tmp_path):
    tasks = [sample_task(TEST_SEEDS + SAMPLE_SEED + number, "chained") for number in range(3)]
    refused = {"error": {"message": "content filter", "code": "content_filter"}}
    with planning({"": (write_decomposition(tasks[0].edits), write_sequence(tasks[0].sub_requests))}) as server:
        answer = server.replies[0]

        def reply(handler):
            body = server.requests[-1][2]
            one = json.dumps(tasks[1].instruction)[1:-1].encode()
            handler.answer(400, refused, {}) if one in body else handler.answer(200, answer[1](body), {})

        server.replies[:] = [reply]
        given = {"planner": server.url, "planner_model": "served", "model": str(bundle), "device": "cpu"}
        evaluate(tmp_path, ["scenes-chained"], ["r1"], limit=3, concurrency=1, **given)
        assert [row["picture"] is None for row in sorted(read_edits(tmp_path), key=lambda row: row["sample"])] == [
            False,
            True,
            False,
        ]
        assert unscored(tmp_path) == (1, 3)
        server.replies[:] = [answer]
        evaluate(tmp_path, ["scenes-chained"], ["r1"], limit=3, concurrency=1, **given)
    assert unscored(tmp_path) == (0, 3)


@pytest.mark.tiny
def test_another_editor_and_another_method_are_added_to_a_run(bundle, tmp_path):
    other = shutil.copytree(bundle / "editor", tmp_path / "other-editor")
    common = {"model": str(bundle), "limit": 2, "device": "cpu"}
    evaluate(tmp_path / "run", ["scenes-simple"], ["base"], **common)
    evaluate(
        tmp_path / "run",
        ["scenes-simple"],
        ["oracle"],
        editors=[str(bundle), str(other)],
        editor_arguments={"num_inference_steps": 1},
        **common,
    )
    variants = [(variant["method"], variant["editor"]) for variant in read_variants(tmp_path / "run")]
    assert variants == [("base", "tiny"), ("oracle", "tiny"), ("oracle", "other-editor")]


@pytest.mark.tiny
def test_two_editors_whose_folders_have_one_name_are_two(bundle, tmp_path):
    one, two = (shutil.copytree(bundle / "editor", tmp_path / place / "pipeline") for place in ("x1", "x2"))
    weights = two / "vae" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(weights).items()}, weights)
    common = {"model": str(bundle), "limit": 2, "device": "cpu", "editor_arguments": {"num_inference_steps": 1}}
    evaluate(tmp_path / "run", ["scenes-simple"], ["base"], editors=[str(one), str(two)], **common)
    assert [variant["editor"] for variant in read_variants(tmp_path / "run")] == ["x1/pipeline", "x2/pipeline"]
    pictures = {row["editor"]: row["picture"] for row in read_edits(tmp_path / "run")}
    assert len({(tmp_path / "run" / picture).read_bytes() for picture in pictures.values()}) == 2
    # One after the other comes to the same: the first keeps the name that it has.
    for editor in (one, two):
        evaluate(tmp_path / "again", ["scenes-simple"], ["base"], editors=[str(editor)], **common)
    assert [variant["editor"] for variant in read_variants(tmp_path / "again")] == ["pipeline", "x2/pipeline"]
    assert len(read_edits(tmp_path / "again")) == 4


@pytest.mark.tiny
def test_one_large_model_at_a_time(bundle, tmp_path, monkeypatch):
    """Of planner and editors, each has gone when the next one comes, and nothing comes that was not asked for."""
    others = [str(shutil.copytree(bundle / "editor", tmp_path / name)) for name in ("a", "b")]
    loaded = []

    def watched(load, part):
        def once_the_others_have_gone(self, *args, **kwargs):
            assert not [name for name, model in loaded if model() is not None]
            result = load(self, *args, **kwargs)
            model = result.pipe.editor.unet if part == "editor" else result.planner
            loaded.append((result.name if part == "editor" else part, weakref.ref(model)))
            return result

        return once_the_others_have_gone

    for part in ("agents", "with_planner", "editor"):
        monkeypatch.setattr(stages._Bundle, part, watched(getattr(stages._Bundle, part), part))
    evaluate(
        tmp_path / "run",
        ["scenes-simple"],
        ["base", "untrained", "r1"],
        model=str(bundle),
        untrained=str(bundle),
        editors=others,
        editor_arguments={"num_inference_steps": 1},
        limit=2,
        max_new_tokens=4,
        device="cpu",
    )
    assert [name for name, _ in loaded] == ["with_planner", "agents", "a", "b"]


def test_fields_of_a_remote_editor(tmp_path):
    after = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(after, "PNG")
    answer = {"data": [{"b64_json": base64.b64encode(after.getvalue()).decode()}]}
    with scripted((200, answer, {})) as remote:
        options = {"remote_url": remote.url, "remote_model": "closed", "editor_arguments": {"quality": "high"}}
        evaluate(tmp_path / "run", ["scenes-simple"], ["remote"], limit=2, device="cpu", **options)
        bodies = [body for _, _, body in remote.requests]
    assert len(bodies) == 2 and all(b'name="quality"\r\n\r\nhigh\r\n' in body for body in bodies)
    (variant,) = read_variants(tmp_path / "run")
    assert variant["details"]["editor"] == {"model": "closed", "arguments": {"quality": "high"}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmarks": []}, "at least one benchmark"),
        ({"benchmarks": ["coco"]}, "'coco' is no benchmark"),
        ({"methods": ["best"]}, "`methods` knows base, untrained, .*, not 'best'"),
        ({"methods": ["base+reflect"]}, "`methods` knows"),
        ({"methods": ["r1+reflect"], "reflect": 0}, "reflect"),
        ({"methods": ["r1+reflect"], "reflect": 1.5}, "`reflect` must be 1 or more, not 1.5"),
        ({"methods": ["base", "r1", "base"]}, "Named twice among the `methods`: base"),
        ({"judges": ["scenes", "scenes"]}, "Named twice among the `judges`: scenes"),
        ({"turns": ["single", "single"]}, "Named twice among the `turns`: single"),
        ({"seed": -1}, "`seed` must be a whole number, 0 or more, not -1"),
        ({"seed": 1.5}, "`seed` must be a whole number"),
        ({"sample_seed": 1.5}, "`sample_seed` must be a whole number"),
        ({"sample_seed": -1}, "`sample_seed` must be a whole number, 0 or more"),
        ({"limit": True}, "`limit` must be 1 or more, not True"),
        ({"limit": 1.5}, "`limit` must be 1 or more, not 1.5"),
        ({"batch_size": 2.5}, "`batch_size` must be 1 or more, not 2.5"),
        ({"editor_arguments": {"num_inference_steps": 0}}, "`num_inference_steps` must be 1 or more"),
        ({"editor_arguments": {"guidance_scale": float("nan")}}, "`guidance_scale` must be a finite number"),
        ({"editor_arguments": {"guidance_scale": [1.0, 2.0]}}, "2 values of `guidance_scale` do not go with 1"),
        ({"methods": ["r1+reflect"], "critic_url": "nowhere"}, "nowhere"),
        ({"methods": ["r1+reflect"], "benchmarks": ["scenes", "psr"]}, "The exact critic is for scenes"),
        ({"turns": ["double"]}, "`turns`"),
        ({"judges": ["taste"]}, "`judges` knows viescore, scenes, pixels"),
        ({"stage": "report"}, "`stage`"),
        ({"stage": "judge"}, "no pictures to judge"),
        ({"methods": ["remote"]}, "`remote_url` and `remote_model`"),
        ({"planner": "http://localhost:1/v1"}, "plans for the method r1"),
        ({"planner": "http://me:secret@host/v1", "methods": ["r1"]}, "holds no names, keys"),
        ({"planner": "org/model", "planner_model": "m", "methods": ["r1"]}, "goes with an address"),
        ({"turns": ["composed"]}, "guidance_scale"),
        ({"methods": ["untrained"], "model": "org/model"}, "org/model has none beside it"),
        ({"editors": ["imageedit-r1-scenes"] * 2}, "Named twice among the editors: imageedit-r1-scenes"),
        ({"judges": ["viescore"]}, "`judge_model`"),
        ({"judges": ["viescore"], "judge_model": "m", "judge_url": "localhost"}, "base_url"),
        ({"judges": ["viescore"], "judge_model": "m", "judge_url": "http://x/v1", "concurrency": 0}, "concurrency"),
        ({"limit": 0}, "limit"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(tmp_path / "run", **{"benchmarks": ["scenes"], "methods": ["base"], **options})
    assert not (tmp_path / "run").exists()


def test_one_editor_in_two_spellings_is_named_twice(bundle, tmp_path):
    editor = str(bundle / "editor")
    with pytest.raises(ValueError, match="Named twice"):
        evaluate(tmp_path / "run", ["scenes-simple"], ["base"], editors=[editor, f"{editor}/"], model=str(bundle))


@pytest.mark.parametrize("option", ["planner", "planner_base", "untrained"])
def test_a_planner_that_is_not_there_is_refused_before_anything_is_written(tmp_path, option):
    named = {"planner": "imageedit-r1-smollm2", option: "no-such-planner"}
    with pytest.raises(OSError, match="no-such-planner"):
        evaluate(tmp_path / "run", ["scenes-simple"], ["base", "r1"], **named)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"num_inference_steps": "five"},
            "`num_inference_steps` of StableDiffusionInstructPix2PixPipeline is a number",
        ),
        ({"negative_prompt": 3}, "`negative_prompt` of StableDiffusionInstructPix2PixPipeline is text"),
        ({"latents": torch.zeros(1, 4, 8, 8)}, "`latents` among the `editor_arguments` is written to the run's files"),
    ],
)
def test_a_value_that_no_editor_can_work_with_is_refused_before_anything_is_planned(tmp_path, arguments, message):
    with pytest.raises(TypeError, match=message):
        evaluate(tmp_path / "run", ["scenes-simple"], ["base"], editor_arguments=arguments)
    assert not (tmp_path / "run").exists()


def test_a_class_that_needs_its_autoencoder_in_one_type_is_told_the_types_of_the_run(tmp_path):
    config = {"_class_name": "ZImageOmniPipeline", "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(config))
    stages._check_editors([str(tmp_path)], {"height": 64}, False, torch.bfloat16)
    with pytest.raises(ValueError, match="needs its autoencoder in"):
        stages._check_editors([str(tmp_path)], {}, False, torch.float32)


@pytest.mark.tiny
def test_whole_numbers_of_numpy_are_whole_numbers(bundle, tmp_path):
    two = {name: np.int64(2) for name in ("limit", "seed", "sample_seed", "max_new_tokens", "batch_size")}
    common = {"model": str(bundle), "device": "cpu", "stage": "edit"}
    evaluate(
        tmp_path, ["scenes-simple"], ["r1"], editor_arguments={"num_inference_steps": np.int64(1)}, **two, **common
    )
    assert len([row for row in read_edits(tmp_path) if row["picture"]]) == 2


@pytest.mark.tiny
def test_a_bundle_among_the_editors_means_its_editor(bundle, tmp_path):
    common = {"limit": 1, "model": "imageedit-r1-scenes", "device": "cpu"}
    evaluate(tmp_path / "run", ["scenes-simple"], ["base"], editors=[str(bundle)], **common)
    assert [row["editor"] for row in read_edits(tmp_path / "run") if row["picture"]] == [bundle.name]


@pytest.mark.tiny
@pytest.mark.parametrize("own", [True, False])
def test_an_editor_that_cannot_work_is_refused_before_anything_is_planned(bundle, tmp_path, own):
    common = {"benchmarks": ["scenes-simple"], "methods": ["r1"], "model": str(bundle), "device": "cpu"}
    editors = [] if own else [str(shutil.copytree(bundle / "editor", tmp_path / "other"))]
    with pytest.raises(TypeError, match="takes no `strength`"):
        evaluate(tmp_path / "run", editors=editors, editor_arguments={"strength": 1}, **common)
    with pytest.raises(OSError, match="nowhere"):
        evaluate(tmp_path / "run", editors=[*editors, str(tmp_path / "nowhere")], **common)
    assert not (tmp_path / "run").exists()


@pytest.mark.tiny
def test_a_modular_editor_is_looked_at_before_anything_is_planned(pipe, tmp_path):
    editor = tiny_models.tiny_qwen_edit_modular()
    ImageEditR1Pipeline(pipe.planner, pipe.processor, editor).save_pretrained(tmp_path)
    for source in (tmp_path, tmp_path / "editor"):
        stages._check_editors([str(source)], {"num_inference_steps": 2}, False, torch.float32)
        with pytest.raises(ValueError, match="`num_inference_steps` must be 1 or more"):
            stages._check_editors([str(source)], {"num_inference_steps": 0}, False, torch.float32)
        with pytest.raises(ValueError, match='cannot be asked with turns="composed"'):
            stages._check_editors([str(source)], {}, True, torch.float32)


@pytest.mark.tiny
def test_the_editor_of_a_bundle_is_behind_an_address(pipe, tmp_path):
    with scripted((200, editor_reply, {})) as server:
        remote = RemoteEditor(server.url, "closed")
        defaults = {"quality": "high"}
        bundle = ImageEditR1Pipeline(pipe.planner, pipe.processor, remote, editor_defaults=defaults)
        bundle.save_pretrained(tmp_path / "bundle")
        given = {"model": str(tmp_path / "bundle"), "limit": 2, "device": "cpu"}
        with pytest.raises(TypeError, match="`n` is not for the caller to give"):
            evaluate(tmp_path / "run", ["scenes-simple"], ["base"], editor_arguments={"n": 2}, **given)
        evaluate(tmp_path / "run", ["scenes-simple"], ["base"], **given)
    assert unscored(tmp_path / "run") == (0, 2)
    assert all(b'name="quality"' in body for _, _, body in server.requests) and len(server.requests) == 2


@pytest.mark.tiny
def test_the_exact_critic_is_not_asked_about_photos_of_an_earlier_call(bundle, tmp_path):
    photos = write_data_set("gedit", tmp_path / "copy", count=1, size=(64, 64))
    given = {"model": str(bundle), "limit": 1, "max_new_tokens": 4, "device": "cpu", "stage": "edit"}
    evaluate(tmp_path / "run", [f"gedit={photos}"], ["base"], **given)
    with pytest.raises(ValueError, match="for photos give `critic_model`"):
        evaluate(tmp_path / "run", ["scenes-simple"], ["r1+reflect"], **given)
    # The true plan of a photo is not known, so nobody looks at it.
    evaluate(tmp_path / "run", ["scenes-simple"], ["oracle+reflect"], reflect=1, **given)


def test_a_planner_that_is_a_part_of_the_editor_is_known_by_what_it_holds(tmp_path):
    def settings():
        bundle = stages._Bundle(str(tmp_path), None, None)
        return stages._method("r1", bundle, {"name": None}, None, 8, 64).settings

    for place in ("text_encoder", "vae"):
        (tmp_path / "editor" / place).mkdir(parents=True)
        (tmp_path / "editor" / place / "config.json").write_text("{}")
    (tmp_path / "model_index.json").write_text("{}")
    assert "shared" not in settings()  # a run from before goes on
    (tmp_path / "model_index.json").write_text('{"_shared": {"planner": "editor.text_encoder"}}')
    first = settings()
    (tmp_path / "editor" / "vae" / "config.json").write_text('{"other": 1}')
    assert settings() == first
    (tmp_path / "editor" / "text_encoder" / "config.json").write_text('{"other": 1}')
    assert settings() != first


def test_a_missing_package_is_named_with_the_line_that_installs_it(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "EXTRA", ("scipy", "package_of_nobody"))
    with pytest.raises(ModuleNotFoundError, match=re.escape(f"needs package_of_nobody: {install_line('eval')}")):
        evaluate(tmp_path / "run", ["scenes"])


def test_pictures_that_no_judge_can_judge_are_not_made(tmp_path):
    folder = write_data_set("gedit", tmp_path / "copy", count=2)
    with pytest.raises(ValueError, match=r"None of the judges \['scenes', 'pixels'\] can judge gedit"):
        evaluate(tmp_path / "run", [f"gedit={folder}"], ["base"], judges=["scenes", "pixels"])
    assert not (tmp_path / "run" / "pictures").exists()
