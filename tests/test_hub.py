"""A model that `run_docre.py` trains and pushes, and that others load by its name: over HTTP, with a server on this machine."""

import json

import pytest
from fresh_process import run_fresh, write_expected
from helpers import SAMPLE, save_backbone
from hub_server import TOKEN, HubServer

import run_docre
from modeling_comm import CommForDocumentRelationExtraction, CommProcessor

NAME = "org/comm-tiny"
ENCODER = "org/encoder"
PUSH = ["--push_to_hub", "--hub_model_id", NAME]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The server after a run that was refused at first, the run's folder, and a folder of what its model predicts."""
    folder = tmp_path_factory.mktemp("hub")
    flags = ["--data_dir", SAMPLE, "--model_name_or_path", ENCODER]
    flags += ["--emb_size", "16", "--block_size", "4", "--head_learning_rate", "1e-2"]
    flags += ["--max_train_documents", "6", "--max_eval_documents", "3", "--per_device_train_batch_size", "2"]
    flags += ["--do_train", "--num_train_epochs", "1", "--use_cpu", "--disable_tqdm", "true"]
    flags += ["--output_dir", folder / "run", *PUSH]
    with HubServer(folder / "server") as server:
        server.add_folder(ENCODER, save_backbone(folder / "encoder"))
        run_fresh(
            """
from hub_server import use_hub
use_hub(sys.argv[1])
import run_docre
from huggingface_hub.errors import HfHubHTTPError
output = Path(sys.argv[2])
try:
    run_docre.main([*sys.argv[3:], "--hub_token", "wrong"])
except HfHubHTTPError as error:
    assert "401" in str(error) and "Invalid credentials" in str(error), error
else:
    raise AssertionError("the wrong token was not refused")
assert not list(output.glob("checkpoint-*")), "refused before any training"
run_docre.main(sys.argv[3:])
""",
            *(server.address, folder / "run", *flags),
            home=folder,
        )
        model = CommForDocumentRelationExtraction.from_pretrained(folder / "run").eval()
        processor = CommProcessor.from_pretrained(folder / "run")
        documents = json.loads((SAMPLE / "test_revised.json").read_text(encoding="utf-8"))[:3]
        write_expected(folder / "expected", model, processor, documents)
        yield server, folder / "run", folder / "expected"


def test_what_is_pushed(pushed):
    server, run, _ = pushed
    files = server.files(NAME)
    needed = {"model.safetensors", "config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json"}
    assert needed | {"README.md", "run.json"} <= files.keys()
    assert {path for path in files if path.endswith(".py")} == {path.name for path in run.glob("*.py")}
    modules = json.loads(files["config.json"])["auto_map"].values()
    assert {f"{module.partition('.')[0]}.py" for module in modules} <= files.keys()
    for path, content in files.items():
        assert content == (run / path).read_bytes(), f"{path} is not as it is in the run's folder"
        assert path.endswith((".json", ".md", ".py", ".safetensors", ".txt")), path
        assert path == "model.safetensors" or content.decode(), f"{path} is not text"
        assert TOKEN.encode() not in content, path
    card = files["README.md"].decode()
    assert f"\nbase_model: {ENCODER}\n" in card
    assert "on the redocred dataset." in card
    assert list(run.glob("checkpoint-*/optimizer.pt")), "checkpoints are there, and they stay"
    assert not [path for path in files if "/" in path]
    assert len(server.repositories[NAME].commits) == 2, "once, at the end"


@pytest.mark.parametrize("package", [True, False])
def test_it_loads_by_its_name(pushed, tmp_path, package):
    server, _, expected = pushed
    run_fresh(
        """
from hub_server import use_hub
use_hub(sys.argv[1])
options = {"trust_remote_code": True}
if sys.argv[4] == "True":
    import modeling_comm
    options = {}
model, processor = load_and_compare(*sys.argv[2:4], **options)
assert type(model).__module__.startswith("modeling_comm." if not options else "transformers_modules.")
assert type(model).__name__ == "CommForDocumentRelationExtraction"
assert type(processor).__name__ == "CommProcessor"
""",
        *(server.address, NAME, expected, package),
        home=tmp_path,
        package=package,
    )


def test_several_seeds_cannot_be_pushed(tmp_path):
    """They would overwrite each other."""
    flags = ["--data_dir", str(SAMPLE), "--model_name_or_path", "missing", "--do_train", "--use_cpu", *PUSH]
    with pytest.raises(ValueError, match=r"--push_to_hub with --seeds 3 4: .* one --seed"):
        run_docre.main([*flags, "--output_dir", str(tmp_path / "runs"), "--seeds", "3", "4"])
    assert not (tmp_path / "runs").exists()
