"""The bundled sample documents: built from their markup, sound, and free of what would give the facts away."""

import importlib.util
import json
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import combinations

import pytest
from helpers import ROOT, SHARED, requires_shared

FOLDER = ROOT / "examples" / "sample"
SCRIPT = FOLDER / "build_sample.py"


def _load_builder():
    spec = importlib.util.spec_from_file_location("build_sample", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


build_sample = _load_builder()
SPLITS = {split: json.loads((FOLDER / name).read_text(encoding="utf-8")) for split, name in build_sample.FILES.items()}
CHECK = SPLITS.pop("check")  # of real subjects; nothing is trained on them
RELATION_INFO = json.loads((FOLDER / "rel_info.json").read_text(encoding="utf-8"))
DOCUMENTS = [document for documents in SPLITS.values() for document in documents]

each_document = pytest.mark.parametrize("document", DOCUMENTS + CHECK, ids=lambda document: document["title"])


def _facts(document, relation=None):
    return {(x["h"], x["t"]) for x in document["labels"] if relation in (None, x["r"])}


def _sentences_of(entity):
    return {mention["sent_id"] for mention in entity}


def _is_inter(document, label):
    head, tail = document["vertexSet"][label["h"]], document["vertexSet"][label["t"]]
    return _sentences_of(head).isdisjoint(_sentences_of(tail))


def _masked(document, sent_id):
    """A sentence's tokens with one placeholder for every mention."""
    tokens = list(document["sents"][sent_id])
    mentions = [mention for entity in document["vertexSet"] for mention in entity if mention["sent_id"] == sent_id]
    for mention in sorted(mentions, key=lambda mention: mention["pos"], reverse=True):
        start, end = mention["pos"]
        tokens[start:end] = ["[entity]"]
    return tokens


def _name_pairs(document):
    names = [{mention["name"] for mention in entity} for entity in document["vertexSet"]]
    return {
        (head, tail)
        for i, heads in enumerate(names)
        for j, tails in enumerate(names)
        if i != j
        for head in heads
        for tail in tails
    }


# Up to date and complete


def test_json_files_are_up_to_date():
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_number_of_documents_and_relations():
    assert {split: len(documents) for split, documents in SPLITS.items()} == {"train": 110, "dev": 20, "test": 20}
    assert len(CHECK) == 20
    assert len({document["title"] for document in DOCUMENTS + CHECK}) == len(DOCUMENTS + CHECK)
    train = Counter(label["r"] for document in SPLITS["train"] for label in document["labels"])
    test = Counter(label["r"] for document in SPLITS["test"] for label in document["labels"])
    assert set(train) == set(RELATION_INFO) == set(test) and len(train) >= 14
    assert min(train.values()) >= 15


def test_readme_figures_are_up_to_date():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    counts = [
        Counter(label["r"] for d in documents for label in d["labels"]) for documents in (*SPLITS.values(), CHECK)
    ]
    for relation, name in RELATION_INFO.items():
        row = " | ".join(str(of_split[relation]) for of_split in counts)
        assert f"| {relation} | {name} | {row} |" in readme
    row = " | ".join(f"{of_split.total():,}" for of_split in counts)
    assert f"| facts | {row} |" in readme


@requires_shared
def test_relation_names_are_those_of_docred():
    official = json.loads((SHARED / "data" / "meta" / "rel_info.json").read_text(encoding="utf-8"))
    assert {relation: official.get(relation) for relation in RELATION_INFO} == RELATION_INFO


# Structure


@each_document
def test_structure(document):
    assert list(document) == ["title", "sents", "vertexSet", "labels"]
    sents, entities = document["sents"], document["vertexSet"]
    assert 5 <= len(sents) <= 10 and 6 <= len(entities) <= 12
    assert all(token and not token.isspace() for tokens in sents for token in tokens)
    assert all(tokens[-1] in (".", "?") for tokens in sents)
    spans = []
    for entity in entities:
        assert entity and len({mention["type"] for mention in entity}) == 1
        for mention in entity:
            assert set(mention) == {"name", "sent_id", "pos", "type"} and mention["type"] in build_sample.TYPES
            start, end = mention["pos"]
            assert mention["name"] == " ".join(sents[mention["sent_id"]][start:end])
            spans += [(mention["sent_id"], position) for position in range(start, end)]
    assert len(spans) == len(set(spans)), "mentions overlap"


@each_document
def test_facts_and_evidence(document):
    labels = document["labels"]
    assert len({(x["h"], x["r"], x["t"]) for x in labels}) == len(labels) > 0
    for label in labels:
        assert set(label) == {"h", "t", "r", "evidence"} and label["r"] in RELATION_INFO
        assert label["h"] != label["t"]
        assert {label["h"], label["t"]} <= set(range(len(document["vertexSet"])))
        evidence = label["evidence"]
        assert evidence and evidence == sorted(set(evidence)) and evidence[-1] < len(document["sents"])


@each_document
def test_every_capitalised_word_is_marked(document):
    for sent_id in range(len(document["sents"])):
        inner = _masked(document, sent_id)[1:]
        assert not [token for token in inner if token[0].isupper() or token[0].isdigit()], sent_id


# Consistent facts


@each_document
def test_family_facts_agree(document):
    spouses, fathers, children = (_facts(document, relation) for relation in ("P26", "P22", "P40"))
    assert spouses == {(tail, head) for head, tail in spouses}
    assert {(parent, child) for child, parent in fathers} <= children
    for parent in {parent for _, parent in fathers}:
        assert {child for p, child in children if p == parent} == {child for child, p in fathers if p == parent}
    assert max(Counter(child for child, _ in fathers).values(), default=0) <= 1


@each_document
def test_places_agree(document):
    inside, countries = _facts(document, "P131"), _facts(document, "P17")
    assert max(Counter(head for head, _ in countries).values(), default=0) <= 1
    assert _facts(document, "P159") <= inside
    states = {state for _, state in countries}
    for inner, outer in inside:
        assert {(inner, beyond) for place, beyond in inside if place == outer} <= inside
        assert outer not in states or (inner, outer) in countries
    for relation in ("P19", "P569", "P570"):
        assert max(Counter(head for head, _ in _facts(document, relation)).values(), default=0) <= 1


@each_document
def test_types_fit_the_relations(document):
    heads = {"P17": "LOC ORG MISC", "P131": "LOC ORG MISC", "P112": "ORG LOC MISC", "P571": "ORG LOC MISC"}
    heads |= {"P50": "MISC", "P57": "MISC", "P175": "MISC", "P577": "MISC", "P159": "ORG", "P206": "LOC ORG"}
    tails = dict.fromkeys(("P22", "P26", "P40", "P50", "P57", "P112"), "PER")
    tails |= dict.fromkeys(("P17", "P19", "P27", "P131", "P159", "P206"), "LOC")
    tails |= dict.fromkeys(("P69", "P108", "P463"), "ORG") | dict.fromkeys(("P569", "P570", "P571", "P577"), "TIME")
    tails |= {"P175": "PER ORG"}
    for label in document["labels"]:
        head, tail = (document["vertexSet"][label[key]][0]["type"] for key in ("h", "t"))
        assert head in heads.get(label["r"], "PER").split() and tail in tails[label["r"]].split(), label


# Nothing that gives the facts away


def test_documents_are_not_templates():
    titles = defaultdict(set)
    for document in DOCUMENTS:
        for sent_id in range(len(document["sents"])):
            tokens = [token.lower() for token in _masked(document, sent_id)]
            for start in range(len(tokens) - 5):
                titles[tuple(tokens[start : start + 6])].add(document["title"])
    repeated = {" ".join(gram): sorted(where) for gram, where in titles.items() if len(where) > 5}
    assert not repeated


@pytest.mark.parametrize(("first", "second"), [("train", "dev"), ("train", "test"), ("dev", "test")])
def test_splits_share_no_pair_of_names(first, second):
    pairs = [set().union(*map(_name_pairs, SPLITS[split])) for split in (first, second)]
    assert not pairs[0] & pairs[1]


COUNTRIES = {
    document["vertexSet"][label["t"]][0]["name"]
    for document in DOCUMENTS + CHECK
    for label in document["labels"]
    if label["r"] in ("P17", "P27")
} | {"Australia", "England", "Kenya", "Namibia", "Portugal", "Slovenia", "Sweden"}


def _names(documents):
    """Names that are somebody's own: countries, years and numbers are everybody's."""
    return {
        mention["name"]
        for document in documents
        for entity in document["vertexSet"]
        for mention in entity
        if mention["type"] not in ("TIME", "NUM")
    }


def test_splits_share_no_name_but_those_of_countries():
    names = {split: _names(documents) for split, documents in {**SPLITS, "check": CHECK}.items()}
    for first, second in combinations(names, 2):
        shared = (names[first] & names[second]) - COUNTRIES
        assert not shared, (first, second)


@pytest.mark.parametrize("split", SPLITS)
def test_a_third_of_the_facts_crosses_sentences(split):
    inter = [_is_inter(document, label) for document in SPLITS[split] for label in document["labels"]]
    assert sum(inter) >= len(inter) / 3


def test_most_pairs_have_no_relation():
    positive = sum(len(_facts(document)) for document in DOCUMENTS)
    pairs = sum(len(document["vertexSet"]) * (len(document["vertexSet"]) - 1) for document in DOCUMENTS)
    assert 0.08 <= positive / pairs <= 0.18


# The builder's errors

GOOD = """# Heading

## A | split: dev

0. [Ada Roy|PER|1] , born in [Ville|LOC|2] .
1. She left .

- 1 P19 2 @0
"""


def test_parse_reads_the_markup():
    [(split, document)] = build_sample.parse(GOOD, "x.md")
    assert split == "dev"
    assert document == {
        "title": "A",
        "sents": [["Ada", "Roy", ",", "born", "in", "Ville", "."], ["She", "left", "."]],
        "vertexSet": [
            [{"name": "Ada Roy", "sent_id": 0, "pos": [0, 2], "type": "PER"}],
            [{"name": "Ville", "sent_id": 0, "pos": [5, 6], "type": "LOC"}],
        ],
        "labels": [{"h": 0, "t": 1, "r": "P19", "evidence": [0]}],
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("split: dev", "split: final", "x.md:3: unknown split 'final'"),
        ("0. [Ada", "1. [Ada", "x.md:5: sentence number 1, expected 0"),
        ("|PER|", "|HUM|", "x.md:5: unknown type 'HUM'"),
        ("She left", "[Ada|LOC|1] left", "x.md:6: entity 1 is marked LOC here and PER before"),
        ("She left", "Ville slept", "x.md:6: 'Ville' has no mark here"),
        ("[Ville|LOC|2] .", "[Ville|LOC|2].", "x.md:5: broken mention mark"),
        ("She left .", "She left, alone .", "x.md:6: token 'left,' holds punctuation"),
        ("|LOC|2", "|LOC|3", "x.md:8: unknown entity 2"),
        ("|LOC|2] .", "|LOC|2] and [Bo|PER|4] .", "x.md:3: entities \\[1, 2, 4\\], expected"),
        ("1 P19 2", "1 P19 1", "x.md:8: entity 1 is head and tail"),
        ("P19", "P999", "x.md:8: unknown relation P999"),
        ("@0", "@2", "x.md:8: evidence \\[2\\] out of range"),
        ("@0", "@0,0", "x.md:8: evidence \\[0, 0\\] out of range or order"),
        ("- 1 P19 2 @0\n", "- 1 P19 2 @0\n- 1 P19 2 @1\n", "x.md:9: fact 1 P19 2 is repeated"),
        ("- 1 P19 2 @0\n", "- 1 P19 2 @0\n2. Late .\n", "x.md:9: sentence after the facts"),
        ("- 1 P19 2 @0\n", "", "x.md:3: document 'A' without facts"),
        ("- 1 P19 2 @0\n", "- 1 P19 2\n", "x.md:8: found '- 1 P19 2', expected"),
    ],
)
def test_errors_name_file_line_and_fault(old, new, message):
    assert old in GOOD
    with pytest.raises(build_sample.MarkupError, match=message):
        build_sample.parse(GOOD.replace(old, new, 1), "x.md")


def _write_markup(folder, **files):
    (folder / "documents").mkdir()
    for name, text in files.items():
        (folder / "documents" / f"{name}.md").write_text(text, encoding="utf-8")


def test_check_writes_nothing_and_fails_on_stale_files(tmp_path, capsys):
    _write_markup(tmp_path, x=GOOD)
    assert build_sample.main(["--check"], tmp_path) == 1
    assert "out of date" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.json"))
    assert build_sample.main([], tmp_path) == 0
    assert build_sample.main(["--check"], tmp_path) == 0


def test_a_mistake_stops_the_build(tmp_path, capsys):
    _write_markup(tmp_path, x=GOOD, y=GOOD)
    assert build_sample.main([], tmp_path) == 1
    assert "y.md: title 'A' is taken by a document of x.md" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))
