"""Label Studio's own check of what is imported: predictions against the configuration, as `comm-docre export` writes both."""

import json

import pytest
from helpers import SAMPLE, random_document

pytest.importorskip("label_studio_sdk", reason='needs its SDK: pip install "label-studio-sdk>=2.1"')

from label_studio_sdk.label_interface import LabelInterface

import comm_docre


@pytest.fixture(params=["sample", "random"])
def exported(request, tmp_path):
    """Tasks and the configuration of the sample, and of random documents with other labels and letters."""
    source = SAMPLE / "test_revised.json"
    if request.param == "random":
        documents = [random_document(n, 30, mentions=3, seed=n) for n in range(8)]
        for document in documents:
            for label in document["labels"]:
                label["r"] = f"{label['r']} <\"&'ü"
        source = tmp_path / "documents.json"
        source.write_text(json.dumps(documents), encoding="utf-8")
    output = tmp_path / "tasks.json"
    arguments = ["export", "--format", "label-studio", "--input", str(source), "--output", str(output)]
    assert comm_docre.main(arguments) == 0
    return json.loads(output.read_text(encoding="utf-8")), output.with_suffix(".xml").read_text(encoding="utf-8")


def test_label_studio_accepts_the_predictions(exported):
    tasks, configuration = exported
    interface = LabelInterface(configuration)
    interface.validate()
    assert interface.get_object("text").value == "$text" and len(tasks) > 4
    for task in tasks:
        (prediction,) = task["predictions"]
        assert interface.validate_prediction(prediction, return_errors=True) == []


def test_the_check_finds_what_is_wrong(exported):
    tasks, configuration = exported
    interface = LabelInterface(configuration)
    (prediction,) = tasks[-1]["predictions"]
    prediction["result"][0]["value"]["labels"] = ["no such label"]
    prediction["result"][-1]["to_id"] = "gone"
    assert len(interface.validate_prediction(prediction, return_errors=True)) >= 2
