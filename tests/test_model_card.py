"""Model cards: a whole one of a real run, the stored ones, and what no card may say or break."""

import copy
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from fresh_process import run_fresh
from helpers import LABELS, ROOT, SAMPLE, random_document, run_script, save_backbone, tiny_model, tiny_processor
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt

import comm_docre
from dataset_scripts import recipe_card
from dataset_scripts.builder import find_data_files
from modeling_comm import CommTrainer, CommTrainingArguments, UnknownFieldError
from modeling_comm.data import get_dataset
from modeling_comm.evaluation.scoring import format_scores
from modeling_comm.reporting.card_tables import results_table, without_folders
from modeling_comm.reporting.model_card import (
    _eval_results,
    read_run,
    render_model_card,
    trainer_record,
    write_model_card,
)
from modeling_comm.reporting.run_record import summarize, write_summary
from modeling_comm.training.script_arguments import parse_arguments

TABLE_1 = sorted(
    f"{backbone}_{encoder}_{setting}"
    for backbone in ("bert", "roberta")
    for encoder in ("atlop", "docunet", "kd_docre")
    for setting in ("redocred", "docred_mixed")
)
SECTIONS = ["How to use it", "Results", "Data", "Training", "How it was run", "Limits", "Licence", "Citation"]


def read(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder with an encoder, a run, and two runs with different seeds."""
    folder = tmp_path_factory.mktemp("cards")
    flags = ["--model_name_or_path", save_backbone(folder / "encoder"), "--data_dir", SAMPLE]
    flags += ["--dataset_config", "redocred"]
    flags += [
        "--cache_dir",
        folder / "cache",
        "--use_cpu",
        "--disable_tqdm",
        "true",
        "--emb_size",
        "16",
        "--block_size",
        "4",
    ]
    flags += ["--max_train_documents", "4", "--max_eval_documents", "3", "--per_device_train_batch_size", "2"]
    flags += ["--do_train", "--do_eval", "--do_predict", "--learning_rate", "1e-3", "--head_learning_rate", "1e-2"]
    flags += ["--max_length", "60", "--max_relations_per_pair", "4", "--logging_steps", "1"]
    run_script(*map(str, flags), "--output_dir", str(folder / "one"), "--num_train_epochs", "3")
    seeds = ["--seeds", "3", "4", "--num_train_epochs", "1"]
    run_script(*map(str, flags), "--output_dir", str(folder / "seeds"), *seeds)
    return folder


@pytest.fixture(scope="module")
def record(work):
    return read(work / "one" / "run.json")


@pytest.fixture(scope="module")
def scores(work):
    return read(work / "one" / "test_scores.json")


@pytest.fixture(scope="module")
def card(work):
    """The card of the run, as it would be pushed."""
    write_model_card(work / "one", repo_id="org/comm-tiny")
    return (work / "one" / "README.md").read_text(encoding="utf-8")


def sections(card):
    """`{heading: text}`; the text before the first one is under ""."""
    parts = re.split(r"^## (.+)\n", ModelCard(card).text, flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def tables(text):
    """Rows of every table of a section, each a list of cells."""
    found = re.findall(r"(?:^\|.*\|\n?)+", text, flags=re.MULTILINE)
    return [[[cell.strip() for cell in row.strip("|").split(" | ")] for row in table.splitlines()] for table in found]


def blocks(card, language):
    return [token.content for token in MarkdownIt().parse(card) if token.type == "fence" and token.info == language]


def percent(value):
    return f"{100 * value:.2f}"


# ------------------------------------------------------------------------------------------------------- a whole card


def test_sections(card):
    found = sections(card)
    assert list(found) == ["", *SECTIONS]
    assert all(text.strip() for text in found.values())
    assert not re.search(r"\n{4}|\{[{%]|None|nan|Undefined", card.replace("{{COMM}", "").replace("{{The", ""))
    assert card.endswith("```\n")
    assert "Not run" not in card


def test_head(card, record):
    start = " ".join(sections(card)[""].split())
    assert start.startswith("# comm-tiny Extracts relations")
    assert (
        "encoder `atlop` around a bert encoder (2 layers, hidden size 32); loss `cmm` (margin = 0.2, gamma = 1.0)"
        in start
    )
    assert f"; {len(record['config']['id2label']) - 1} relations." in start


def test_results(card, record, scores):
    text, metrics = sections(card)["Results"], record["metrics"]
    results, relations = tables(text)
    keys = ("f1", "ign_f1", "precision", "recall", "average_precision")
    assert results[0] == ["", "F1", "Ign F1", "Precision", "Recall", "Average precision"]
    assert results[2] == ["validation", *(percent(metrics[f"eval_{key}"]) for key in keys)]
    assert results[3] == ["test", *(percent(metrics[f"test_{key}"]) for key in keys)]
    prior = scores["type_prior"]
    assert results[4] == ["test, type prior", *(percent(prior[key]) for key in keys[:-1]), "–"]
    reference = record["ign_reference"]
    assert (
        f"leaves out {reference['facts']:,} triples of names of `train_revised.json` (sha256\n  `{reference['sha256']}`)"
        in text
    )
    assert f"```text\n{format_scores(scores['scores'], prior, 'type prior')}\n```" in text
    assert "chosen by its score on the validation documents" in text
    found = {row[0].strip("`"): row[1:] for row in relations[2:]}
    assert found.keys() == scores["scores"]["per_relation"].keys()
    for relation, of in scores["scores"]["per_relation"].items():
        counts = [f"{of[key]:,}" for key in ("gold", "predictions", "correct")]
        rates = [percent(of[key]) for key in ("precision", "recall", "f1")]
        name = record["processor"]["relation_names"][relation]
        assert found[relation] == [name, *counts, *rates, percent(prior["per_relation"][relation]["f1"])]
    gold = [int(row[2].replace(",", "")) for row in relations[2:]]
    assert gold == sorted(gold, reverse=True)


def test_a_metric_that_one_seed_lacks():
    """Such as the cross-fitted F1 of a map that could not be fitted."""
    summary = summarize([{"eval_f1": 0.1}, {"eval_f1": 0.3, "eval_macro_f1": 0.2}])
    assert summary["eval_macro_f1"] == {"mean": 0.2, "std": None, "runs": [None, 0.2]}
    shown = str(results_table(summary, None, [1, 2]))
    assert "validation, seed 1" in shown and "validation, seed 2" in shown


def test_a_summary_of_a_metric_that_one_seed_has(tmp_path):
    lines = write_summary(tmp_path, [1, 2], [{"eval_f1": 0.5, "test_f1": 0.4}, {"eval_f1": 0.6}]).splitlines()
    assert lines == ["eval_f1: 55.00 +- 7.07 over seeds [1, 2]", "test_f1: 40.00 of seed 1 alone"]
    metrics = read(tmp_path / "summary.json")["metrics"]
    results = _eval_results({"data": {"files": {}}}, metrics, 2)
    names = [(one.dataset_split, one.metric_name) for one in results]
    assert names == [("validation", "F1, mean of 2 seeds"), ("test", "F1, of one of 2 seeds")]


def test_data(card, record):
    (rows,) = tables(sections(card)["Data"])
    assert [row[0] for row in rows[2:]] == ["train", "validation", "test"]
    for split, *row in rows[2:]:
        file, report = record["data"]["files"][split], record["data"]["encoding"][split]
        keys = ("documents", "entities", "mentions", "tokens", "windows")
        counts = [f"{report[key]:,}" for key in keys]
        assert row == [f"`{Path(file['source']).name}`", *counts, "0", f"`{file['sha256']}`"]
    assert "Local files (configuration `redocred`)" in sections(card)["Data"]


def test_setting_and_log(card, record):
    setting, log = tables(sections(card)["Training"])
    setting = dict(setting[2:])
    assert setting["`cmm_margin`"] == "0.2"
    assert setting["`cmm_gamma`"] == "1.0"
    assert (setting["`emb_size`"], setting["Documents per step"], setting["Length"]) == ("16", "2", "3 epochs")
    assert (setting["Learning rate of the backbone"], setting["Learning rate of the rest"]) == ("0.001", "0.01")
    assert (setting["Seed"], setting["Relations of a pair, at most"]) == ("42", "4")
    evaluations = [entry for entry in record["log"] if "eval_f1" in entry][:3]
    losses = [entry["loss"] for entry in record["log"] if "loss" in entry]
    assert len(log) == 2 + 3, "the best checkpoint's last evaluation is no further row"
    for index, (entry, row) in enumerate(zip(evaluations, log[2:], strict=True)):
        step = f"**{entry['step']}**" if entry["step"] == record["best_checkpoint_step"] else str(entry["step"])
        mean = sum(losses[2 * index : 2 * index + 2]) / 2
        assert row[:4] == [f"{index + 1}.00", step, f"{mean:.4f}", f"{entry['eval_loss']:.4f}"]
        assert row[4] == percent(entry["eval_f1"])
        assert row[-1] == f"{entry['eval_predicted_positives']:,}"
    assert "**" in "".join(row[1] for row in log)


def test_how_it_was_run(card, record):
    (rows,) = tables(sections(card)["How it was run"])
    found = dict(rows[2:])
    if record["commit"]:
        assert found["Commit"].split()[0] == record["commit"].split("+")[0]
    assert found["Device"] == record["device"]["device"]
    assert (found["Processes"], found["Precision"]) == ("1", "float32")
    assert found["Memory, at most"] == f"{record['device']['peak_memory'] / 2**30:.1f} GiB"
    assert re.fullmatch(r"training 0 min \d+ s, all of it \d min \d+ s", found["Time"])
    assert {package: found[package] for package, version in record["versions"].items() if version} == {
        package: version for package, version in record["versions"].items() if version
    }
    assert blocks(sections(card)["How it was run"], "bash") == [without_folders(record["command"]) + "\n"]


def test_limits(card, record):
    text = sections(card)["Limits"]
    for limit in (
        "Language and domain",
        "Relations",
        "Entities",
        "Threshold class",
        "Scores",
        "Seed",
        "Lost in encoding",
    ):
        assert f"- **{limit}**" in text
    assert "not calibrated" in text
    assert "**Seed**: one, 42." in text
    assert f"4 at most are predicted. This removed {record['metrics']['test_removed_by_cap']:,} on the test" in text
    lost = record["data"]["encoding"]["test"]
    assert lost["lost_tokens"] > 0
    assert f"{lost['lost_tokens']:,} lost tokens (test), {lost['lost_mentions']:,} lost mentions (test)" in text


def test_limits_tell_the_tuned_offset(record):
    for threshold, said in (("th", "which is each pair's own, by more than -2.79."), ("zero", "exceeds -2.79.")):
        processor = {**record["processor"], "decision_threshold": threshold, "threshold_offset": -2.789}
        assert said in sections(render_model_card({**record, "processor": processor}))["Limits"]


def test_records_of_the_first_version_hold_the_processors_settings_in_the_configuration(record, card):
    old = {**record, "config": record["config"] | record["processor"]}
    del old["processor"]
    assert sections(render_model_card(old))["Limits"] == sections(card)["Limits"]


def test_citation_is_that_of_the_repository(card):
    known = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    paper, library = ("".join(re.sub(r"[{}]", "", block).split()) for block in blocks(card, "bibtex"))
    names = " and ".join(f"{x['family-names']}, {x['given-names']}" for x in known["preferred-citation"]["authors"])
    for text in (known["preferred-citation"]["title"], names):
        assert "".join(text.split()) in paper
    for text in (known["title"], known["authors"][0]["name"]):
        assert "".join(text.split()) in library
    assert known["license"] in sections(card)["Licence"]


# ----------------------------------------------------------------------------------------------------------- metadata


def assert_valid(data):
    """Checks a card's head as the Hub does."""
    assert data.license == "apache-2.0"
    assert data.library_name == "transformers"
    assert data.pipeline_tag is None, "the task is not on the Hub's list"
    assert data.tags[0] == "document-relation-extraction"
    name = r"[\w-][\w.-]*(/[\w-][\w.-]*)?"
    for found in (*(data.datasets or []), *([data.base_model] if data.base_model else []), *data.tags):
        assert re.fullmatch(name, found), found
    assert data.language in (None, "en")


def test_metadata(card, record):
    loaded = ModelCard(card)
    assert ModelCard(str(loaded)).data.to_dict() == loaded.data.to_dict()
    assert str(loaded) == card
    assert_valid(loaded.data)
    head = yaml.safe_load(card.split("---\n")[1])
    name, results = model_index_to_eval_results(head["model-index"])
    assert name == "comm-tiny"
    assert "datasets" not in head and "base_model" not in head and "language" not in head
    assert results == loaded.data.eval_results
    values = {(result.dataset_split, result.metric_type): result.metric_value for result in results}
    metrics = record["metrics"]
    assert values == {
        (split, key): round(metrics[f"{prefix}_{key}"], 4)
        for prefix, split in (("eval", "validation"), ("test", "test"))
        for key in head["metrics"]
    }
    assert {"f1", "ign_f1", "precision", "recall"} <= set(head["metrics"])
    for result in results:
        file = record["data"]["files"][result.dataset_split]
        assert result.task_type == "document-relation-extraction"
        assert result.dataset_type == "local-files"
        assert result.dataset_name == f"{Path(file['source']).name}, sha256 {file['sha256']}"


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("docred", ["thunlp/docred"]),
        ("redocred", ["tonytan48/Re-DocRED"]),
        ("docred_mixed", ["thunlp/docred", "tonytan48/Re-DocRED"]),
    ],
)
def test_data_sets_are_named_by_where_files_came_from(record, config, expected):
    """Files of the official names may hold anything: the sample's do."""
    record = copy.deepcopy(record)
    entry, files = get_dataset(config), record["data"]["files"]
    for split, source in find_data_files(config).items():
        files[split]["source"] = source
    record["data"]["published"] = entry.published_sources(files)
    rendered = render_model_card(record)
    for split in ("train", "validation"):
        assert entry.files[split].source.citation in sections(rendered)["Citation"]
    assert "**Language and domain**: English Wikipedia." in sections(rendered)["Limits"]
    data = ModelCard(render_model_card(record)).data
    assert_valid(data)
    assert data.datasets == expected
    assert data.language == "en"
    assert {result.dataset_type for result in data.eval_results} <= set(expected)
    files["train"]["source"] = "/data/train_revised.json"
    record["data"]["published"] = entry.published_sources(files)
    rendered = render_model_card(record)
    assert ModelCard(rendered).data.datasets is None
    assert "Documents of" not in sections(rendered)["Citation"]


def test_card_of_own_data(record):
    """It names no published data set, and no figure or citation of one."""
    rendered = render_model_card({**record, "data": {**record["data"], "config": "local"}})
    assert "Files of somebody's own" in sections(rendered)["Data"]
    assert "DocRED" not in rendered.replace("DocRED's format", "")


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ("bert-base-cased", "bert-base-cased"),
        ("FacebookAI/roberta-large", "FacebookAI/roberta-large"),
        (None, None),
        ("/home/me/bert", None),
        ("./bert", None),
        ("a/b/c", None),
        ("C:\\bert", None),
    ],
)
def test_base_model(record, found, named):
    rendered = render_model_card({**record, "base_model": found})
    assert ModelCard(rendered).data.base_model == named
    assert (f"around `{named}`, bert encoder (2 layers" in rendered) == bool(named)


def test_tags(record):
    tags = ModelCard(render_model_card(record, tags=["mine", "comm"])).data.tags
    assert tags == ["document-relation-extraction", "relation-extraction", "comm", "atlop", "mine"]


# ------------------------------------------------------------------------------------------------- several runs, or none


def test_several_seeds(work):
    record, scores, summary = read_run(work / "seeds")
    assert scores is None
    rendered = render_model_card(record, summary=summary)
    found = sections(rendered)
    assert list(found) == ["", *SECTIONS]
    assert found[""].startswith("\n# seeds\n")
    (results,) = tables(found["Results"])
    rows = {row[0]: row[1:] for row in results}
    runs = [read(work / "seeds" / f"seed-{seed}" / "run.json")["metrics"] for seed in (3, 4)]
    for split, prefix in (("validation", "eval"), ("test", "test")):
        values = [metrics[f"{prefix}_f1"] for metrics in runs]
        mean, half = sum(values) / 2, abs(values[0] - values[1])
        assert rows[split][0] == f"{percent(mean)} ± {percent(half / 2**0.5)}"
        assert [rows[f"{split}, seed {seed}"][0] for seed in (3, 4)] == list(map(percent, values))
        results = [
            x for x in ModelCard(rendered).data.eval_results if (x.dataset_split, x.metric_type) == (split, "f1")
        ]
        assert [(x.metric_value, x.metric_name) for x in results] == [(round(mean, 4), "F1, mean of 2 seeds")]
    assert "- **Seeds**: 3, 4." in found["Limits"]
    assert dict(tables(found["Training"])[0][2:])["Seeds"] == "3, 4"
    assert "The run with seed 3; the others' records" in found["How it was run"]
    write_model_card(work / "seeds")
    assert (work / "seeds" / "README.md").read_text(encoding="utf-8") == rendered


@pytest.mark.parametrize("name", TABLE_1)
def test_recipe_was_not_run(name, monkeypatch):
    """A recipe's card has no score of anybody's."""
    monkeypatch.chdir(ROOT)
    recipe = Path("examples/recipes", f"{name}.yaml")
    rendered = recipe_card.render_recipe_card(recipe)
    found, data, planned = sections(rendered), ModelCard(rendered).data, yaml.safe_load(recipe.read_text())
    assert list(found) == ["", *(heading.replace("How it was run", "How to run it") for heading in SECTIONS)]
    assert "**Not run.**" in found[""]
    assert found["Results"].strip() == "Not run."
    assert data.eval_results is None
    assert data.metrics is None
    assert_valid(data)
    assert data.base_model == planned["model_name_or_path"]
    assert data.datasets[-1] == "tonytan48/Re-DocRED"
    assert ("thunlp/docred" in data.datasets) == name.endswith("docred_mixed")
    assert planned["relation_encoder" if "relation_encoder" in planned else "loss"] in found["Training"]
    assert not re.search(r"\b\d\d\.\d\b", "".join(found[part] for part in ("", "Results", "Training", "Limits")))
    assert blocks(found["How to run it"], "bash") == [f"python run_docre.py {recipe.as_posix()}\n"]


def test_recipe_with_settings_of_its_loss_and_encoder(tmp_path):
    planned = {"loss": "aml", "aml_margin": 2.5, "relation_encoder": "docunet", "unet_down_dim": 128}
    planned |= {"word_leading_space": False, "window_stride": 0, "dataset_config": "redocred", "do_train": True}
    planned |= {"model_name_or_path": "roberta-base", "output_dir": str(tmp_path / "run")}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(planned))
    record = recipe_card.recipe_record(recipe, parse_arguments([str(recipe)]))
    assert record["config"].items() >= {"aml_margin": 2.5, "unet_down_dim": 128, "unet_in_dim": 3}.items()
    assert record["processor"].items() >= {"word_leading_space": False, "window_stride": 0}.items()
    assert "| `aml_margin` | 2.5 |" in recipe_card.render_recipe_card(recipe)

    recipe.write_text(yaml.safe_dump(planned | {"cmm_margin": 0.3}))
    with pytest.raises(UnknownFieldError) as error:
        recipe_card.render_recipe_card(recipe)
    assert error.value.field == "cmm_margin"


def test_stored_card():
    record, scores, summary = read_run(ROOT / "results" / "redocred_mini_cpu")
    stored = (ROOT / "model_cards" / "redocred_mini_cpu.md").read_text(encoding="utf-8")
    assert render_model_card(record, scores, summary=summary) == stored


def test_evaluation_of_a_checkpoint(work, tmp_path):
    flags = ["--dataset_config", "redocred", "--data_dir", str(SAMPLE), "--cache_dir", str(work / "cache")]
    flags += ["--model_name_or_path", str(work / "one")]
    run_script(*flags, "--do_predict", "--use_cpu", "--disable_tqdm", "true", "--output_dir", str(tmp_path / "later"))
    record, scores, _ = read_run(tmp_path / "later")
    found = sections(render_model_card(record, scores))
    assert found["Training"].strip().startswith("This run evaluated a finished checkpoint")
    assert [row[0] for row in tables(found["Results"])[0][2:]] == ["test", "test, type prior"]
    assert "chosen by its score" not in found["Results"]


def test_run_without_scores(record):
    """Trained without validation documents."""
    metrics = {key: value for key, value in record["metrics"].items() if key.startswith("train_")}
    arguments = {**record["training_arguments"], "load_best_model_at_end": False}
    log = [entry for entry in record["log"] if "loss" in entry]
    changed = {**record, "metrics": metrics, "log": log, "training_arguments": arguments, "best_checkpoint_step": None}
    found = sections(render_model_card(changed))
    assert found["Results"].strip() == "This run was not scored."
    _, rows = tables(found["Training"])
    assert [row[:2] for row in rows[2:]] == [["1.00", "2"], ["2.00", "4"], ["3.00", "**6**"]], "one row per epoch"
    assert rows[2][2] == f"{(log[0]['loss'] + log[1]['loss']) / 2:.4f}"


def test_run_that_was_scored_while_it_trained(record):
    """Without `--do_eval` the scores are those of the checkpoint that was kept."""
    trained = {key: value for key, value in record["metrics"].items() if key.startswith("train_")}
    log = record["log"][: len(record["log"]) - 1]
    evaluations = [entry for entry in log if "eval_f1" in entry]
    for chosen, kept in ((True, evaluations[1]), (False, evaluations[2])):
        arguments = {**record["training_arguments"], "load_best_model_at_end": chosen}
        changed = {**record, "metrics": trained, "log": log, "training_arguments": arguments}
        found = sections(render_model_card({**changed, "best_checkpoint_step": evaluations[1]["step"]}))
        assert tables(found["Results"])[0][2][:2] == ["validation", percent(kept["eval_f1"])]
        assert ("chosen by its score" in found["Results"]) == chosen
        assert [row[1] for row in tables(found["Training"])[1] if "**" in row[1]] == [f"**{kept['step']}**"]


def test_scores_of_another_run_are_left_out(work, tmp_path, caplog):
    for name in ("run.json", "test_scores.json"):
        shutil.copy(work / "one" / name, tmp_path / name)
    scores = read(tmp_path / "test_scores.json")
    scores["scores"]["f1"] += 0.01
    (tmp_path / "test_scores.json").write_text(json.dumps(scores))
    assert read_run(tmp_path)[1] is None
    assert "test_scores.json is of another run" in caplog.text


def test_trainer_without_the_script(tmp_path):
    documents = [random_document(4, seed=seed) for seed in range(6)]
    model = tiny_model()
    trainer = CommTrainer(
        model=model,
        args=CommTrainingArguments(
            str(tmp_path), num_train_epochs=2, use_cpu=True, disable_tqdm=True, per_device_train_batch_size=2, seed=5
        ),
        train_dataset=documents[:4],
        eval_dataset=documents[4:],
        processing_class=tiny_processor(model.config),
    )
    trainer.train()
    write_model_card(tmp_path, trainer_record(trainer), repo_id="org/own")
    rendered = (tmp_path / "README.md").read_text(encoding="utf-8")
    found = sections(rendered)
    assert list(found) == ["", *SECTIONS]
    assert "From Python, with `CommTrainer`." in found["How it was run"]
    (rows,) = tables(found["Data"])
    assert [row[:2] for row in rows] == [["", "Documents"], ["---", "---"], ["train", "4"], ["validation", "2"]]
    assert "The record names no files." in found["Data"]
    kept = next(x for x in trainer.state.log_history if "eval_f1" in x and x["step"] == trainer.state.best_global_step)
    assert tables(found["Results"])[0][2][1] == percent(kept["eval_f1"])
    assert len(tables(found["Training"])[1]) == 2 + 2
    assert f"; {len(LABELS) - 1} relations." in found[""]
    assert_valid(ModelCard(rendered).data)


# ------------------------------------------------------------------------------------------------------- hostile text


HOSTILE = [
    "a | b",
    "a\n| b |\n\n# c",
    "<script>alert(1)</script>",
    "a\n```\n## c",
    "`a` ``b",
    "[a](javascript:b)",
    "*a* _b_ __c__",
    "{{ a }} {% b %}",
    "\u202eabc\u2028d",
    "---\nlicense: mit\n---",
    "$$a$$ &lt;b&gt; \\",
    "![a](http://b)",
]


@pytest.mark.parametrize("text", HOSTILE, ids=map(str, range(len(HOSTILE))))
def test_hostile_text(record, scores, text):
    """Wherever it is in a record, it is shown as it is, in a card of the same structure as with a harmless word."""
    relation = next(iter(scores["scores"]["per_relation"]))

    def rendered(text):
        changed, found = copy.deepcopy(record), copy.deepcopy(scores)
        changed["processor"]["relation_names"][f"P {text}"] = f"name {text}"
        for of in (found["scores"], found["type_prior"]):
            of["per_relation"][f"P {text}"] = of["per_relation"].pop(relation)
        changed["data"]["config"] = changed["config"]["relation_encoder"] = changed["config"]["loss"] = f"own {text}"
        changed["command"] = f"python run_docre.py {shlex.quote(text)}"
        changed["commit"] = changed["device"]["device"] = changed["versions"]["torch"] = f"1 {text}"
        found["scores"]["ign_reference"]["source"] = f"facts {text}"
        return ModelCard(render_model_card(changed, found, name=f"name {text}"))

    def parsed(card):
        return MarkdownIt().enable("table").parse(card.text)

    def shown(token):
        return "".join(child.content for child in token.children)

    card, harmless = rendered(text), rendered("plain")
    assert card.data.to_dict().keys() == harmless.data.to_dict().keys()
    assert card.data.license == "apache-2.0"
    line = re.sub("[\n\u2028-\u202e]+", " ", text)
    replaced = 0
    for token, expected in zip(parsed(card), parsed(harmless), strict=True):
        assert (token.type, token.tag) == (expected.type, expected.tag)
        if token.type == "inline":
            assert re.sub(" +", " ", shown(token)) == re.sub(" +", " ", shown(expected).replace("plain", line).strip())
            replaced += "plain" in shown(expected)
        elif token.type == "fence" and token.content != expected.content:
            if token.info == "python":
                assert json.dumps(f"name {line}", ensure_ascii=False) in token.content
                compile(token.content, "card", "exec")
            else:
                assert text in token.content or shlex.quote(f"name {line}") in token.content
            replaced += 1
    assert replaced > 10


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("python run_docre.py a.yaml --seed 7", "python run_docre.py a.yaml --seed 7"),
        (
            "python run_docre.py examples/a.yaml --output_dir outputs/a",
            "python run_docre.py examples/a.yaml --output_dir outputs/a",
        ),
        ("python a.py --data_dir /home/me/data --cache_dir=/tmp/me/c", "python a.py --data_dir data --cache_dir=c"),
        ("python a.py --data_dir '/home/my user/the data'", "python a.py --data_dir 'the data'"),
        ("python a.py '--data_dir=/home/my user/data'", "python a.py --data_dir=data"),
        ("python a.py --data_dir ~/data --x ../shared/b.json --y ./c", "python a.py --data_dir data --x b.json --y c"),
        ("python a.py --data_dir 'C:\\Users\\me\\data' --x D:/me/b", "python a.py --data_dir data --x b"),
        ("python a.py --x .venv/lib/model --lr .5", "python a.py --x model --lr .5"),
        ("python a.py --x file:///home/me/b", "python a.py --x b"),
        (
            """python a.py --x '{"a": "/home/me/b", "c": [1, "~/d"]}'""",
            """python a.py --x '{"a": "b", "c": [1, "d"]}'""",
        ),
        ("python a.py --x https://huggingface.co/a/b", "python a.py --x https://huggingface.co/a/b"),
        ("python a.py --model_name_or_path org/name", "python a.py --model_name_or_path org/name"),
        ("/usr/bin/python a.py 'unpaired", "python a.py ''\"'\"'unpaired'"),
    ],
)
def test_folders_of_the_machine_stay_out(command, expected):
    assert without_folders(command) == expected


def test_no_path_in_a_card(work, card, record):
    """The test's own run was given absolute paths everywhere."""
    assert str(work) in record["command"] or str(work) in json.dumps(record)
    assert record["data"]["files"]["train"]["source"] == str(SAMPLE / "train_revised.json")
    for folder in (work, ROOT, ROOT.parent, Path.home()):
        assert f"{folder}{os.sep}" not in card


# ----------------------------------------------------------------------------------------------------- the card's code


def test_examples_compile(card):
    examples = blocks(card, "python")
    assert len(examples) == 3
    for source in examples:
        assert '"org/comm-tiny"' in source
        compile(source, "card", "exec")
    assert "comm-docre predict --model org/comm-tiny " in blocks(card, "bash")[0]


def examples(work):
    """The examples of the run's card, under the name of its folder."""
    record, scores, _ = read_run(work / "one")
    return blocks(render_model_card(record, scores), "python")


def test_example_with_the_auto_classes(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    namespace = {}
    exec(compile(examples(work)[1], "card", "exec"), namespace)
    assert namespace["outputs"].logits.shape == (6, len(namespace["model"].config.id2label))
    assert len(capsys.readouterr().out.splitlines()) == len(namespace["triples"])


def test_example_without_the_package(work, tmp_path):
    _, full, loading = examples(work)
    rest = full[full.index("document = {") :]
    code = f"os.chdir(sys.argv[1])\n{loading}\n{rest}\nassert len(outputs.logits) == 6"
    run_fresh(code, work, home=tmp_path, package=False)


@pytest.mark.skipif(find_spec("modeling_comm.pipeline_comm") is None, reason="needs the pipeline")
def test_example_with_the_pipeline(work, monkeypatch, capsys):
    monkeypatch.chdir(work)
    namespace = {}
    exec(compile(examples(work)[0], "card", "exec"), namespace)
    document = namespace["document"]
    spans = [
        [document["text"][mention["start"] : mention["end"]] for mention in entity["mentions"]]
        for entity in document["entities"]
    ]
    assert spans == [["Marie Curie", "She"], ["Warsaw"], ["Paris"]]


# ---------------------------------------------------------------------------------------------------------- the command


def test_command(work, card, capsys):
    assert comm_docre.main(["card", "--run", str(work / "one"), "--repo_id", "org/comm-tiny"]) == 0
    assert capsys.readouterr().out == card
    words = ["card", "--run", str(work / "one"), "--repo_id", "org/comm-tiny", "--output", str(work / "card.md")]
    assert comm_docre.main(words) == 0
    assert (work / "card.md").read_text(encoding="utf-8") == card
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("main", "flags"), [(comm_docre.main, ["card", "--run", "nowhere"]), (recipe_card.main, ["nowhere.yaml"])]
)
def test_command_with_a_wrong_file(main, flags, capsys):
    assert main(flags) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert flags[-1] in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("broken", ["run.json", "test_scores.json"])
def test_a_broken_record_is_named(broken, tmp_path):
    shutil.copy(ROOT / "results" / "redocred_mini_cpu" / "run.json", tmp_path)
    (tmp_path / broken).write_text('{"metrics": ')
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / broken))):
        read_run(tmp_path)


def test_a_record_of_another_shape_is_named(tmp_path):
    (tmp_path / "run.json").write_text('{"training_arguments": {}, "config": {}}')
    with pytest.raises(ValueError, match=r"run\.json: .*'data'"):
        read_run(tmp_path)
    shutil.copy(ROOT / "results" / "redocred_mini_cpu" / "run.json", tmp_path)
    for content in ("[1]", "{}", '{"scores": 1, "type_prior": null}'):
        (tmp_path / "test_scores.json").write_text(content)
        with pytest.raises(ValueError, match=r"test_scores\.json: "):
            read_run(tmp_path)


def test_card_of_a_run_needs_no_extra(work):
    """A run's folder is enough to render its card, without the packages of training."""
    code = """
import importlib.machinery, sys
find = importlib.machinery.PathFinder.find_spec
def find_others(name, *arguments):
    return None if name.partition(".")[0] in ("accelerate", "datasets", "evaluate") else find(name, *arguments)
importlib.machinery.PathFinder.find_spec = staticmethod(find_others)
import comm_docre
sys.exit(comm_docre.main(sys.argv[1:]))
"""
    command = [sys.executable, "-c", code, "card", "--run", str(work / "one")]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("---\n")
