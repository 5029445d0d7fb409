"""The reference models: trained by their list, the best seed pushed with its card, and loaded back by name."""

import json

import pytest
from fresh_process import run_fresh, write_expected
from golden import backbone_folder
from helpers import ROOT, SAMPLE, SHARED, save_backbone
from hub_server import HubServer

from experiments.reference_models import best_seed, main, read_models
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor

NAME = "comm-bert-atlop-redocred"
LIST = ROOT / "experiments" / "reference_models.yaml"


def encoder_and_data(kind, folder):
    """A tiny encoder on the project's own sample, or a pretrained one on real documents."""
    if kind == "tiny":
        return save_backbone(folder / "encoder"), SAMPLE
    return backbone_folder("minilm"), SHARED / "data" / "redocred-mini"


# A tiny encoder on the bundled sample where the real documents are not at hand.
@pytest.fixture(scope="module", params=["minilm" if SHARED.is_dir() else "tiny"])
def published(request, tmp_path_factory):
    """The Hub after two calls, the folder of the model, the repository's commits after each, and the folder of the data."""
    folder = tmp_path_factory.mktemp("reference")
    encoder, data = encoder_and_data(request.param, folder)
    (folder / "models.yaml").write_text(f"{NAME}: {{recipe: bert_atlop_redocred, seeds: [1, 2]}}", encoding="utf-8")
    short = [
        "--model_name_or_path",
        encoder,
        "--emb_size",
        16,
        "--block_size",
        4,
        "--use_cpu",
    ]
    short += ["--max_train_documents", 6, "--max_eval_documents", 4, "--max_predict_documents", 4]
    short += ["--num_train_epochs", 2, "--head_learning_rate", "1e-2", "--disable_tqdm", "true"]
    words = ["--models", folder / "models.yaml", "--data_dir", data, "--output_dir", folder / "runs"]
    words += ["--push_to_hub", "org", "--", *short, "--cache_dir", folder / "cache"]
    code = """
from hub_server import use_hub
use_hub(sys.argv[1])
sys.path.insert(0, str(ROOT))
from experiments.reference_models import main
assert main(sys.argv[2:]) == 0
"""
    with HubServer(folder / "server") as server:
        commits = []
        for _ in range(2):
            run_fresh(code, server.address, *words, home=folder)
            commits.append(len(server.repositories[f"org/{NAME}"].commits))
        yield server, folder / "runs" / NAME, commits, data


def test_best_seed_is_pushed_once_with_the_card_of_all(published):
    server, folder, commits, _ = published
    assert commits[0] == commits[1], "what is there is not trained and pushed again"
    model = read_models(folder.parents[1] / "models.yaml")[NAME]
    metrics = {seed: json.loads((folder / f"seed-{seed}" / "run.json").read_text())["metrics"] for seed in (1, 2)}
    best = best_seed(folder, model)
    assert metrics[best]["eval_f1"] == max(one["eval_f1"] for one in metrics.values())
    files = server.files(f"org/{NAME}")
    assert files["model.safetensors"] == (folder / f"seed-{best}" / "model.safetensors").read_bytes()
    assert json.loads(files["summary.json"])["seeds"] == [1, 2] and json.loads(files["run.json"])["seed"] == best
    card = files["README.md"].decode()
    assert f'AutoModel.from_pretrained("org/{NAME}")' in card and "1, 2" in card


@pytest.mark.parametrize("package", [True, False])
def test_loaded_back_by_name(published, tmp_path, package):
    server, folder, _, data = published
    best = folder / f"seed-{best_seed(folder, read_models(folder.parents[1] / 'models.yaml')[NAME])}"
    model, processor = (
        CommForDocumentRelationExtraction.from_pretrained(best).eval(),
        CommProcessor.from_pretrained(best),
    )
    documents = json.loads((data / "test_revised.json").read_text(encoding="utf-8"))[:3]
    write_expected(tmp_path / "expected", model, processor, documents)
    run_fresh(
        f"""
from hub_server import use_hub
use_hub(sys.argv[1])
{"import modeling_comm" if package else ""}
load_and_compare(sys.argv[2], sys.argv[3], trust_remote_code={not package})
""",
        *(server.address, f"org/{NAME}", tmp_path / "expected"),
        home=tmp_path,
        package=package,
    )


def test_list_names_recipes_that_exist(tmp_path, capsys):
    models = read_models(LIST)
    assert len(models) >= 8 and all(len(model["seeds"]) == 3 for model in models.values())
    assert main(["--list", "--only", "comm-bert-*", "--output_dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("0 of 3 seeds, not published") == 2
    (tmp_path / "list.yaml").write_text("comm: {recipe: bert, seeds: [1]}", encoding="utf-8")
    with pytest.raises(ValueError, match="comm: found"):
        read_models(tmp_path / "list.yaml")
    with pytest.raises(ValueError, match="--only"):
        read_models(LIST, "gpt-*")
