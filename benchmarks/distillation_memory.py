"""
Whether distillation runs in bounded memory: a made file of documents is labelled by a tiny teacher and streamed to a student by
`run_docre.py`, each in a process of its own, for a tenth of the documents and for all of them. Reported are peak memory (bytes
resident), seconds and bytes on disk; what counts is how little of the memory grows with the documents.

    python benchmarks/distillation_memory.py --documents 100000 --output benchmarks/distillation_memory.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers import LABELS, ROOT, random_document, save_backbone, tiny_model, tiny_system

from modeling_comm.reporting.run_record import command_line, commit_of, versions
from modeling_comm.utils.files import write_json


def write_documents(file, number):
    """One document after another, so that this process stays small, too."""
    with open(file, "w", encoding="utf-8") as output:
        for index in range(number):
            output.write("[" if index == 0 else ",\n")
            json.dump(random_document(entities=4, words=12, seed=index), output)
        output.write("]\n")


def run_script(*flags):
    command = [sys.executable, ROOT / "run_docre.py", *flags, "--use_cpu", "--disable_tqdm", "true", "--streaming"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    finished = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if finished.returncode:
        raise SystemExit(finished.stderr)


def measured(record):
    return {"peak memory": record["device"]["peak_memory"], "seconds": record["seconds"]}


def measure(folder, documents, steps):
    """Labels and trains; `folder` holds the teacher and the student's bare encoder."""
    file, logits, run = (folder / f"{documents}{ending}" for ending in (".json", "-logits", "-run"))
    write_documents(file, documents)
    shared = ["--train_file", file, "--teacher_logits", logits]
    run_script(
        *shared, "--do_predict_teacher", "--model_name_or_path", folder / "teacher", "--per_device_eval_batch_size", 32
    )
    student = ["--model_name_or_path", folder / "encoder", "--emb_size", 16, "--block_size", 4, "--max_steps", steps]
    never = ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    run_script(*shared, "--do_train", *student, *never, "--output_dir", run)
    labelled = json.loads((logits / "teacher.json").read_text(encoding="utf-8"))
    trained = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert labelled["documents"] == documents
    return {
        "documents": documents,
        "pairs": documents * 12,
        "bytes of documents": file.stat().st_size,
        "bytes of logits": sum(path.stat().st_size for path in logits.iterdir()),
        "labelling": measured(labelled["record"]),
        "training": {**measured(trained), "documents": trained["data"]["encoding"]["train"]["documents"]},
    }


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=300, help="of the student, four documents each")
    parser.add_argument("--output")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_backbone(folder / "encoder")
        relations = sorted(set(LABELS.values()) - {LABELS[0]})  # as the student finds them in the documents
        config, processor = tiny_system(id2label=dict(enumerate([LABELS[0], *relations])))
        tiny_model(config).save_pretrained(folder / "teacher")
        processor.save_pretrained(folder / "teacher")
        runs = [
            measure(folder, number, arguments.steps) for number in (arguments.documents // 10, arguments.documents)
        ]
    more = runs[1]["documents"] - runs[0]["documents"]
    growth = {
        stage: round((runs[1][stage]["peak memory"] - runs[0][stage]["peak memory"]) / more, 1)
        for stage in ("labelling", "training")
    }
    for run in runs:
        print(json.dumps(run))
    print(f"bytes of memory a further document: {growth}")
    if arguments.output:
        record = {
            "bytes of memory a further document": growth,
            "runs": runs,
            "settings": {"documents": arguments.documents, "steps": arguments.steps},
            "device": "cpu, 1 thread",
            "command": command_line(),
            "commit": commit_of(ROOT),
            "versions": versions(),
        }
        write_json(arguments.output, record)


if __name__ == "__main__":
    main()
