"""What the scripts of `experiments` have in common."""

import pytest

import dataset_scripts  # noqa: F401  (registers the data sets)
from experiments import run_grid, self_training, shared, train_further
from modeling_comm.training.script_arguments import parse_arguments
from modeling_comm.utils.files import read_json, write_json
from modeling_comm.utils.unchanged import SettingsChangedError


@pytest.mark.parametrize(
    ("words", "own", "passed"),
    [
        (["a", "--b", "1"], ["a", "--b", "1"], []),
        (["a", "--", "--c", "--", "d"], ["a"], ["--c", "--", "d"]),
        (["--", "--c"], [], ["--c"]),
        ([], [], []),
    ],
)
def test_words_behind_two_dashes_are_passed_on(words, own, passed):
    assert shared.own_and_passed(words) == (own, passed)


@pytest.mark.parametrize(
    ("main", "words"),
    [
        (run_grid.main, "grid.yaml --list --parallel 0"),
        (run_grid.main, "grid.yaml --list --parallel -1"),
        (train_further.main, "--work_dir work --train_file a.json --folds 1"),
        (self_training.main, "--work_dir work --folds 0"),
        (self_training.main, "--work_dir work --rounds 0"),
        (self_training.main, "--work_dir work --rounds one"),
    ],
)
def test_numbers_that_are_too_small_are_refused(main, words, capsys):
    *_, flag, value = words.split()
    with pytest.raises(SystemExit):
        main(words.split())
    assert f"argument {flag}: found '{value}'; expected an integer, " in capsys.readouterr().err


def test_predictions_say_what_made_them(tmp_path):
    shared.write_predictions(tmp_path / "x.json", [{}, {}], "some-seed1", ["offset +0.082", "commit abc"])
    expected = "x.json: 2 predictions of some-seed1 (results/runs/some-seed1.json); offset +0.082; commit abc\n"
    assert (tmp_path / "x.txt").read_text() == expected


def test_folds_belong_to_the_files_behind_their_flags(tmp_path):
    """Another model or other documents under the same name are refused; settings of before have no hashes."""
    (tmp_path / "first").mkdir()
    files = {"model_name_or_path": tmp_path / "first" / "model.safetensors", "validation_file": tmp_path / "dev.json"}
    for file in files.values():
        file.write_text("1")
    flags = ["--data_dir", str(tmp_path), "--model_name_or_path", str(tmp_path / "first"), "--output_dir", "unused"]
    arguments, settings = parse_arguments([*flags, "--use_cpu"]), tmp_path / "work" / "settings.json"
    write_json(settings, {"folds": 3})
    shared.check_settings(settings, {"folds": 3}, arguments)
    assert {*read_json(settings)["sha256"]} == {*files}
    for name, file in files.items():
        file.write_text("2")
        with pytest.raises(SettingsChangedError) as refused:
            shared.check_settings(settings, {"folds": 3}, arguments)
        assert {*refused.value.changed} == {f"sha256.{name}"}
        file.unlink()  # what is gone cannot be compared, and is not forgotten
        shared.check_settings(settings, {"folds": 3}, arguments)
        file.write_text("1")
    assert {*read_json(settings)["sha256"]} == {*files}
    with pytest.raises(SettingsChangedError, match="folds was 3, is 2"):
        shared.check_settings(settings, {"folds": 2}, arguments)
