import pytest

from diffusers_r1.evaluation.runs import read_variants


@pytest.mark.tiny
def test_a_run_and_its_comparison_with_itself(run, bundle, tmp_path):
    folder = tmp_path / "run"
    words = ["--benchmark", "scenes-simple", "--limit", 3, "--methods", "base", "r1", "--turns", "single", "multi"]
    models = ["--model", bundle, "--max_new_tokens", 4, "--device", "cpu", "--set", "guidance_scale=2.0"]
    code, printed, error = run("evaluate", *words, *models, "--output_dir", folder)
    assert (code, printed) == (0, f"{folder / 'report.md'}\n"), error
    assert {variant["details"]["editor"]["arguments"]["guidance_scale"] for variant in read_variants(folder)} == {2.0}
    assert "| r1 | multi |" in (folder / "report.md").read_text()

    code, printed, _ = run("compare", folder, folder)
    assert code == 0
    assert printed.count("+0.000 (+0.000 to +0.000)") == 3 * 3  # three variants, three metrics


@pytest.mark.tiny
def test_an_argument_that_the_editor_does_not_take(run, bundle, tmp_path):
    words = [
        "--benchmark",
        "scenes-simple",
        "--limit",
        1,
        "--methods",
        "base",
        "--model",
        bundle,
        "--set",
        "strength=1",
    ]
    code, _, error = run("evaluate", *words, "--output_dir", tmp_path / "run")
    assert code == 2 and "takes no `strength`" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "--output_dir", "run"], "at least one benchmark"),
        (["evaluate", "--output_dir", "run", "--benchmark", "coco"], "'coco' is no benchmark"),
        (["evaluate", "--benchmark", "scenes"], "--output_dir"),
        (["evaluate", "--output_dir", "run", "--benchmark", "scenes", "--judge", "viescore"], "judge_model"),
        (["evaluate", "--output_dir", "run", "--benchmark", "scenes", "--device", "abacus"], "abacus"),
        (["compare", "run"], "FOLDER"),
        (["compare", "run", "other"], "has no scores"),
    ],
)
def test_bad_use_is_one_line_and_2(run, tmp_path, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    code, printed, error = run(*words)
    assert (code, printed) == (2, "") and error.count("\n") == 1 and said in error
    assert not list(tmp_path.iterdir())
