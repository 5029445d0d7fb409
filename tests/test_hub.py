"""Models on the Hub, over HTTP, with a server on this machine: pushed by `run_docre.py` and by hand, loaded by their name, of an
older revision, private ones, and what is left of a push that breaks off."""

import json
import os
import signal
from types import SimpleNamespace

import pytest
from fresh_process import run_fresh, save_again, write_expected
from helpers import SAMPLE, random_document, run_script, save_backbone, tiny_model, tiny_system
from hub_server import TOKEN, HubServer

from modeling_comm import CommForDocumentRelationExtraction, CommProcessor

ROBERTA = "org/comm-roberta-atlop"
NAME = "org/comm-tiny"
ENCODER = "org/encoder"
PUSH = ["--push_to_hub", "--hub_model_id", NAME]


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """The server after a run that was refused at first, the run's folder, and a folder of what its model predicts."""
    folder = tmp_path_factory.mktemp("hub")
    flags = ["--dataset_config", "redocred", "--data_dir", SAMPLE, "--model_name_or_path", ENCODER]
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
from helpers import run_script
from huggingface_hub.errors import HfHubHTTPError
output = Path(sys.argv[2])
try:
    run_script(*sys.argv[3:], "--hub_token", "wrong")
except HfHubHTTPError as error:
    assert "401" in str(error) and "Invalid credentials" in str(error), error
else:
    raise AssertionError("the wrong token was not refused")
assert not list(output.glob("checkpoint-*")), "refused before any training"
run_script(*sys.argv[3:])
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
    assert f'AutoModel.from_pretrained("{NAME}")' in card
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
    flags = [
        "--dataset_config",
        "redocred",
        "--data_dir",
        str(SAMPLE),
        "--model_name_or_path",
        "missing",
        "--do_train",
        "--use_cpu",
        *PUSH,
    ]
    with pytest.raises(ValueError, match="--push_to_hub"):
        run_script(*flags, "--output_dir", str(tmp_path / "runs"), "--seeds", "3", "4")
    assert not (tmp_path / "runs").exists()


# -------------------------------------------------------------------------------------------------------- pushed by hand

# Run in fresh processes: `push` replaces what is in a repository, by two commits.
BY_HAND = """
from hub_server import TOKEN, use_hub
use_hub(sys.argv[1])
import modeling_comm
from huggingface_hub import HfApi
from transformers import AutoModel, AutoProcessor

def push(folder, name, **options):
    AutoModel.from_pretrained(folder).push_to_hub(name, **options)
    AutoProcessor.from_pretrained(folder).push_to_hub(name, **options)
"""


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Two versions of a tiny RoBERTa system: folders of model and processor (`first`, `second`), and of what they predict."""
    folder = tmp_path_factory.mktemp("versions")
    documents = [random_document(entities=4, words=words, seed=words) for words in (9, 60)]
    found = {}
    for seed, name in enumerate(("first", "second")):
        config, processor = tiny_system("roberta", relation_names={"P17": "country"})
        model = tiny_model(config, seed)
        save_again(folder / name, model, processor)
        write_expected(folder / f"{name}_expected", model, processor, documents)
        found |= {name: folder / name, f"{name}_expected": folder / f"{name}_expected"}
    return SimpleNamespace(**found)


@pytest.fixture(scope="module")
def revisions(versions, tmp_path_factory):
    """The server after both versions were pushed, and the first one's commit, tagged `v1`; the branch `older` has it again."""
    folder = tmp_path_factory.mktemp("revisions")
    with HubServer(folder / "server") as server:
        run_fresh(
            BY_HAND
            + """
name, first, second = sys.argv[2:]
push(first, name)
HfApi().create_tag(name, tag="v1")
push(second, name)
push(first, name, revision="older")
""",
            *(server.address, ROBERTA, versions.first, versions.second),
            home=folder,
        )
        yield server, server.repositories[ROBERTA].tags["v1"]


@pytest.mark.parametrize("package", [True, False])
def test_every_revision_loads_by_its_name(revisions, versions, tmp_path, package):
    server, commit = revisions
    run_fresh(
        """
from hub_server import use_hub
use_hub(sys.argv[1])
name, commit, first, second, package = sys.argv[2:]
options = {"trust_remote_code": True}
if package == "True":
    import modeling_comm
    options = {}
load_and_compare(name, second, **options)
for revision in ("v1", commit, "older"):
    model, _ = load_and_compare(name, first, revision=revision, **options)
assert type(model).__module__.startswith("modeling_comm." if package == "True" else "transformers_modules.org.")
from transformers import AutoModel
try:
    AutoModel.from_pretrained(name, revision="v9", **options)
except OSError as error:
    assert "v9 is not a valid git identifier" in str(error), error
else:
    raise AssertionError("a revision that does not exist was loaded")
""",
        *(server.address, ROBERTA, commit, versions.first_expected, versions.second_expected, package),
        home=tmp_path,
        package=package,
    )


def test_what_is_pushed_by_hand(revisions, versions):
    server, _ = revisions
    for revision, folder in (("main", versions.second), ("v1", versions.first), ("older", versions.first)):
        files = server.files(ROBERTA, revision)
        assert files.keys() == {"README.md", *(path.name for path in folder.iterdir())}
        for path, content in files.items():
            assert path.endswith((".json", ".md", ".py", ".safetensors")), path
            if path.endswith((".py", ".safetensors")):
                assert content == (folder / path).read_bytes(), f"{path} is not as it was saved"


def test_a_private_repository(versions, tmp_path):
    with HubServer(tmp_path / "server") as server:
        run_fresh(
            BY_HAND.replace("use_hub(sys.argv[1])", "use_hub(sys.argv[1], token=None)")
            + """
name, folder, expected = sys.argv[2:]

def error_of(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except OSError as error:
        return str(error)
    raise AssertionError(f"{call} was not refused")

for token in (None, "hf_wrong"):
    message = error_of(push, folder, name, token=token)
    assert "401 Unauthorized" in message and "Invalid credentials in Authorization header" in message, message
push(folder, name, token=TOKEN, private=True)
for load in (AutoModel.from_pretrained, AutoProcessor.from_pretrained):
    message = error_of(load, name)
    assert "If this is a private repository, make sure to pass a token having permission" in message, message
    assert "passing `token=<your_token>`" in message and name in message, message
    message = error_of(load, name, token="hf_wrong")
    assert "401 Unauthorized" in message and "Invalid credentials in Authorization header" in message, message
assert not list(Path(os.environ["HF_HOME"]).rglob("*.safetensors"))
load_and_compare(name, expected, token=TOKEN)
""",
            *(server.address, ROBERTA, versions.first, versions.first_expected),
            home=tmp_path,
        )
        assert server.repositories[ROBERTA].private


def test_a_push_that_breaks_off_leaves_what_was_there(versions, tmp_path):
    """The process is killed in the midst of uploading weights; then uploading is refused; then a connection ends in the midst of
    the upload, which the library mends, and another one in the midst of the commit."""
    with HubServer(tmp_path / "server") as server:
        server.add_folder(ROBERTA, versions.first)
        main = server.repositories[ROBERTA].branches["main"]
        process = tmp_path / "process"
        server.fail("PUT /uploads", action=lambda: os.kill(int(process.read_text()), signal.SIGKILL))
        with pytest.raises(AssertionError) as killed:
            run_fresh(
                BY_HAND + "Path(sys.argv[4]).write_text(str(os.getpid()))\npush(*sys.argv[2:4])",
                *(server.address, versions.second, ROBERTA, process),
                home=tmp_path,
            )
        assert "Traceback" not in str(killed.value) and not server.faults_left()
        assert server.repositories[ROBERTA].branches["main"] == main
        server.fail("PUT /uploads", status=403)
        server.fail("PUT /uploads")
        server.fail("POST .*/commit/main")
        run_fresh(
            BY_HAND
            + """
name, folder, before, after = sys.argv[2:]
load_and_compare(name, before)
main = HfApi().model_info(name).sha
for _ in range(2):
    try:
        push(folder, name)
    except Exception as error:  # the library passes on whatever its transport raises
        print(repr(error))
    else:
        raise AssertionError("the push did not fail")
    assert HfApi().model_info(name).sha == main
    load_and_compare(name, before)
push(folder, name)
load_and_compare(name, after)
""",
            *(server.address, ROBERTA, versions.second, versions.first_expected, versions.second_expected),
            home=tmp_path,
        )
        assert not server.faults_left()
