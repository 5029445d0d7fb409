"""Loading DocRED and Re-DocRED: the builder, its cache, its files, the relations, and the description of what is in
it."""

import ast
import doctest
import functools
import gzip
import http.server
import io
import json
import os
import pickle
import re
import sys
import threading
import tracemalloc
from pathlib import Path

import datasets
import pytest
from helpers import ROOT, SHARED, requires_shared

from dataset_scripts import builder as builder_module
from dataset_scripts import describe
from dataset_scripts.builder import (
    Documents,
    find_data_files,
    load_splits,
    relation_labels,
    to_document,
)
from dataset_scripts.describe import describe_documents, format_description
from dataset_scripts.provenance import read_provenance
from modeling_comm.data import get_dataset
from modeling_comm.data.reading import iterate_documents
from modeling_comm.documents import DocumentError
from modeling_comm.utils.files import file_sha256, iterate_json_array, iterate_json_values
from modeling_comm.utils.relation_names import RELATION_FILE, RELATION_PLACES, names_beside

DATA = SHARED / "data"


@pytest.fixture
def load(tmp_path):
    def load(name="redocred", **arguments):
        return load_splits(name, cache_dir=str(tmp_path / "cache"), **arguments)

    return load


def make_document(title="Ada Quill", **changes):
    document = {
        "title": title,
        "sents": [["Ada", "Quill", "was", "born", "in", "Vénn", "."], ["She", "left", "Vénn", "."]],
        "vertexSet": [
            [{"name": "Ada Quill", "sent_id": 0, "pos": [0, 2], "type": "PER"}],
            [
                {"name": "Vénn", "sent_id": 0, "pos": [5, 6], "type": "LOC"},
                {"name": "Vénn", "sent_id": 1, "pos": [2, 3], "type": "LOC"},
            ],
            [{"name": "She", "sent_id": 1, "pos": [0, 1], "type": "PER"}],
        ],
        "labels": [{"h": 0, "t": 1, "r": "P19", "evidence": [0]}, {"h": 2, "t": 1, "r": "P19", "evidence": []}],
    }
    return {**document, **changes}


def unlabelled(title):
    return {field: value for field, value in make_document(title).items() if field != "labels"}


def write(path, documents):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(documents, ensure_ascii=False), encoding="utf-8")
    return path


# ----------------------------------------------------------------------------------------------------- the real files

# The table of the data's own README: documents, triples (None where there are no labels), per cent of positive pairs.
REAL_FILES = {
    "redocred-mini/train_revised.json": (400, 13_707, "6.8"),
    "redocred-mini/dev_revised.json": (100, 3_577, "7.6"),
    "redocred-mini/test_revised.json": (250, 8_882, "7.1"),
    "redocred-mini/test_blind.json": (250, None, None),
    "docred-mini/train_annotated.json": (801, 9_061, "2.7"),  # 2.749 %; the README has 2.8
    "docred-mini/train_distant.json": (2_582, 34_406, "5.0"),
    "docred-mini/test.json": (999, None, None),
}


@requires_shared
@pytest.mark.parametrize("name", REAL_FILES)
def test_real_file_has_the_figures_of_its_readme(name):
    documents, triples, positive = REAL_FILES[name]
    stats = describe_documents(iterate_documents(DATA / name))
    assert stats["documents"] == documents
    if triples is None:
        assert stats["labelled_documents"] == 0
        assert stats["positive_share"] is None
    else:
        assert stats["labelled_documents"] == documents
        assert stats["triples"] == triples
        assert stats["duplicate_triples"] == 0
        assert f"{100 * stats['positive_share']:.1f}" == positive


@requires_shared
def test_real_files_through_the_builder(load):
    folders = [DATA / "docred-mini", DATA / "redocred-mini"]
    loaded = load("docred_mixed", data_dir=folders)
    names = {"train": folders[0] / "train_annotated.json"}
    names |= {"validation": folders[1] / "dev_revised.json", "test": folders[1] / "test_revised.json"}
    assert {split: rows.num_rows for split, rows in loaded.items()} == {"train": 801, "validation": 100, "test": 250}
    for split, path in names.items():
        assert [to_document(row) for row in loaded[split]] == json.loads(path.read_text(encoding="utf-8"))
        record = {"source": str(path), "sha256": file_sha256(path), "skipped": []}
        assert read_provenance(loaded)[split] == record
    redocred = load("redocred", data_dir=DATA / "redocred-mini")
    assert {split: rows.num_rows for split, rows in redocred.items()} == {"train": 400, "validation": 100, "test": 250}
    labels, readable = relation_labels(DATA / "redocred-mini", redocred["train"])
    order = json.loads((DATA / "meta" / "rel2id.json").read_text(encoding="utf-8"))
    assert {label: index for index, label in enumerate(labels)} == order
    assert labels[0] == "Na"
    assert readable == json.loads((DATA / "meta" / "rel_info.json").read_text(encoding="utf-8"))


@requires_shared
def test_real_distant_file_as_a_stream(load):
    loaded = load("docred", data_dir=DATA / "docred-mini", splits=["train_distant"], streaming=True)
    titles = [row["title"] for row in loaded["train_distant"]]
    documents = json.loads((DATA / "docred-mini" / "train_distant.json").read_text(encoding="utf-8"))
    assert titles == [document["title"] for document in documents]


# -------------------------------------------------------------------------------------------------------- the builder


def test_rows_and_back(tmp_path, load):
    documents = [
        make_document("labelled"),
        make_document("nothing related", labels=[]),
        unlabelled("unlabelled"),
        make_document("no evidence", labels=[{"h": 1, "t": 0, "r": "P1"}]),
        make_document("no entities", vertexSet=[], labels=[]),
        make_document("empty sentence", sents=[*make_document()["sents"], []]),
    ]
    extra = json.loads(json.dumps(documents))
    extra[0]["vertexSet"][0][0] |= {"global_pos": [0, 2], "index": "0_0"}
    loaded = load(data_files={"train": write(tmp_path / "mine.json", extra)})["train"]
    assert [row["has_labels"] for row in loaded] == [True, True, False, True, True, True]
    assert [row["labels"] for row in loaded][1:3] == [[], None]
    assert [to_document(row) for row in loaded] == documents
    streamed = load(data_files={"train": str(tmp_path / "mine.json")}, streaming=True)["train"]
    assert list(streamed) == list(loaded)
    assert read_provenance(streamed) == read_provenance(loaded)


def test_edited_file_gives_new_rows(tmp_path, load):
    """Also where neither the file's name, nor its size, nor its time has changed."""
    path = write(tmp_path / "train_revised.json", [make_document("one")])
    times = path.stat()
    first = load(data_dir=tmp_path)
    write(path, [make_document("two")])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    second = load(data_dir=tmp_path)
    assert [first["train"][0]["title"], second["train"][0]["title"]] == ["one", "two"]
    assert read_provenance(first)["train"]["sha256"] != read_provenance(second)["train"]["sha256"]


def test_unchanged_file_is_answered_from_the_cache(tmp_path, load, monkeypatch):
    write(tmp_path / "train_revised.json", [make_document()])
    first = load(data_dir=tmp_path)
    monkeypatch.setattr(builder_module, "iterate_documents", lambda *_: pytest.fail("the file was read again"))
    assert list(load(data_dir=tmp_path)["train"]) == list(first["train"])


AS_CHARACTERS = {"name": "Ada", "sent_id": 0, "pos": [0, 8], "type": "PER"}


@pytest.mark.parametrize(
    ("changes", "field", "found", "expected"),
    [
        ({"title": None}, "title", "None", "a title"),
        ({"sents": "Ada"}, "sents", "'Ada'", "a list of sentences, each a list of tokens"),
        ({"vertexSet": [[]]}, "vertexSet[0]", "[]", "at least one mention"),
        (
            {"vertexSet": [[AS_CHARACTERS]]},
            "vertexSet[0][0].pos",
            "[0, 8]",
            "token indices [start, end), 0 <= start < ",
        ),
        ({"labels": [{"h": 0, "t": 3, "r": "P19"}]}, "labels[0].t", "3", "the index of an entity (an integer, 0 <= t"),
        ({"labels": [{"h": 0, "t": 1, "r": "P20"}]}, "labels[0].r", "'P20'", "one of the 1 known relations (P19, ."),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_bad_document_is_named(tmp_path, load, changes, field, found, expected, streaming):
    path = write(tmp_path / "dev.json", [make_document("good"), {**make_document("bad"), **changes}])
    title = "" if "title" in changes else " ('bad')"
    with pytest.raises(DocumentError) as caught:
        list(load("docred", data_dir=tmp_path, relations={"P19"}, streaming=streaming)["validation"])
    assert str(caught.value).startswith(
        f"{path}: document 1{title}, field {field}: found {found}, expected {expected}"
    )


@pytest.mark.parametrize(("documents", "skipped"), [([], 0), (["no document"], 1)])
def test_file_without_documents(tmp_path, load, documents, skipped):
    path = write(tmp_path / "train_revised.json", documents)
    with pytest.raises(ValueError, match=rf"{path}.*\b{skipped} skipped"):
        load(data_dir=tmp_path, on_bad_document="skip")


def test_skipped_documents_are_counted_and_listed(tmp_path, load, caplog):
    bad = make_document("bad", labels=[{"h": 0, "t": 0, "r": "P19"}])
    path = write(tmp_path / "train_revised.json", [bad, make_document("good"), "no document"])
    for _ in ("prepared", "from the cache"):
        caplog.clear()
        loaded = load(data_dir=tmp_path, on_bad_document="skip")
        assert [row["title"] for row in loaded["train"]] == ["good"]
        skipped = read_provenance(loaded)["train"]["skipped"]
        assert [(error["index"], error["title"], error["field"]) for error in skipped] == [
            (0, "bad", "labels[0].t"),
            (2, None, None),
        ]
        assert skipped[0]["source"] == str(path)
        assert skipped[0]["found"] == "0"
        assert f"{path}: skipped 2 documents and kept 1; skipped were the ones with index 0, 2" in caplog.messages
    assert read_provenance(loaded["train"].filter(lambda row: True))["train"]["skipped"] == skipped
    with pytest.raises(DocumentError):  # the cache of one setting does not answer the other
        load(data_dir=tmp_path)


def test_skipping_a_stream_logs_each_document(tmp_path, load, caplog):
    path = write(tmp_path / "train_revised.json", [make_document("bad", sents=[]), make_document("good")])
    rows = load(data_dir=tmp_path, on_bad_document="skip", streaming=True)["train"]
    assert [row["title"] for row in rows] == ["good"]
    message = f"Skipped: {path}: document 0 ('bad'), field sents: found [], expected at least one sentence"
    assert caplog.messages == [message]


def test_unknown_way_with_bad_documents(tmp_path, load):
    write(tmp_path / "train_revised.json", [make_document()])
    with pytest.raises(ValueError, match="on_bad_document"):
        load(data_dir=tmp_path, on_bad_document="ignore")


def test_builder_alone(tmp_path):
    path = str(write(tmp_path / "mine.json", [make_document()]))
    builder = Documents(config_name="docred", data_files={"test": path}, cache_dir=str(tmp_path / "cache"))
    builder.download_and_prepare()
    assert builder.as_dataset("test").num_rows == 1
    assert read_provenance(builder.as_dataset())["test"]["sha256"] == file_sha256(path)
    assert pickle.loads(pickle.dumps(builder)).config == builder.config
    with pytest.raises(ValueError, match="data_files"):
        Documents(config_name="docred")
    with pytest.raises(ValueError, match=r"data_files\['test'\]"):
        Documents(config_name="docred", data_files={"test": [path, str(write(tmp_path / "other.json", []))]})


# ------------------------------------------------------------------------------------------------------ finding files


def test_official_names(tmp_path, load):
    entries = [get_dataset(name) for name in ("docred", "redocred", "docred_mixed", "local")]
    for name in {file.name for entry in entries for file in entry.files.values()}:
        write(tmp_path / name, [make_document(name)])
    for entry in entries:
        config = entry.name
        loaded = load(config, data_dir=tmp_path)
        assert {split: rows[0]["title"] for split, rows in loaded.items()} == {
            split: file.name for split, file in entry.files.items() if split != "train_distant"
        }
        loaded = load(config, data_dir=tmp_path, splits=["train_distant"])
        assert loaded["train_distant"][0]["title"] == "train_distant.json"
    assert get_dataset("docred_mixed").files["train"].name == "train_annotated.json"
    assert get_dataset("docred_mixed").files["test"].name == "test_revised.json"


def test_folders_with_odd_names_and_compressed_files(tmp_path, load):
    folder = tmp_path / "runs[1] *"
    folder.mkdir()
    (folder / "dev.json.gz").write_bytes(gzip.compress(json.dumps([make_document()]).encode("utf-8-sig")))
    assert to_document(load("docred", data_dir=folder)["validation"][0]) == make_document()


def test_missing_files(tmp_path, load):
    write(tmp_path / "train_revised.json", [make_document()])
    assert set(load(data_dir=tmp_path)) == {"train"}
    with pytest.raises(FileNotFoundError, match="dev_revised"):
        load(data_dir=tmp_path, splits=["train", "validation"])
    with pytest.raises(FileNotFoundError, match=r"train_annotated.*dev.*test"):
        load("docred", data_dir=tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no such file; others are named by --train_distant_file \("):
        load(data_dir=tmp_path, splits=["train_distant"])
    with pytest.raises(FileNotFoundError, match=r"test_revised.*no such file$"):
        load(data_files={"train": tmp_path / "train_revised.json"}, splits=["test"])
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load(data_files={"train": tmp_path / "nowhere.json"})


@pytest.mark.parametrize(
    ("shift", "names", "message"),
    [
        (0, "{}", None),
        (0, " {} ", None),  # spaces aside
        (
            1,
            "{}",
            "4 of 4 mentions are at words that are not their name, .*one token before: indices of tokens count from 0",
        ),
        (0, "", None),  # which says nothing
        (0, "the {}", "4 of 4 mentions .* found the words 'Ada', expected the name 'the Ada'$"),
    ],
)
def test_mentions_at_other_words_are_warned_of(tmp_path, caplog, shift, names, message):
    words = ["In", "1901", "Ada", "left", "Oslo", "."]
    mentions = [
        [{"name": names.format(words[place]), "sent_id": 0, "pos": [place + shift, place + shift + 1], "type": "MISC"}]
        for place in (2, 4)
    ]
    document = {"title": "Ada", "sents": [words], "vertexSet": mentions}
    path = write(tmp_path / "two.json", [document, document])
    assert len(list(iterate_documents(path))) == 2
    found = [text for text in caplog.messages if str(path) in text]
    assert len(found) == (message is not None) and all(re.search(message, text) for text in found)


def test_arguments_that_make_no_sense(tmp_path):
    with pytest.raises(ValueError, match="'tacred'"):
        find_data_files("tacred")
    with pytest.raises(ValueError, match="data_dir"):
        find_data_files("local", data_dir=tmp_path, data_files={"train": "x.json"})
    with pytest.raises(ValueError, match="dev"):
        find_data_files("local", data_files={"dev": "x.json"})


def test_public_addresses():
    docred_address = "https://huggingface.co/datasets/thunlp/docred/resolve/main/data/"
    redocred_address = "https://raw.githubusercontent.com/tonytan48/Re-DocRED/main/data/"
    assert find_data_files("docred_mixed") == {
        "train": f"{docred_address}train_annotated.json.gz",
        "validation": f"{redocred_address}dev_revised.json",
        "test": f"{redocred_address}test_revised.json",
    }
    assert find_data_files("redocred", splits=["train_distant"]) == {
        "train_distant": f"{docred_address}train_distant.json.gz"
    }
    assert get_dataset("redocred").relation_info_address == f"{docred_address}rel_info.json.gz"
    with pytest.raises(FileNotFoundError, match="train"):
        find_data_files("local")


@pytest.fixture
def server(tmp_path, monkeypatch):
    """Serves `tmp_path / "served"` on this machine."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    (tmp_path / "served").mkdir()
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    handler = functools.partial(Handler, directory=tmp_path / "served")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_download(tmp_path, load, server):
    content = gzip.compress(json.dumps([make_document()]).encode())
    (tmp_path / "served" / "dev.json.gz").write_bytes(content)
    address = f"{server}/dev.json.gz"
    loaded = load("docred", data_files={"validation": address})
    assert to_document(loaded["validation"][0]) == make_document()
    assert read_provenance(loaded)["validation"]["source"] == address
    write(tmp_path / "served" / "bad.json", [{}])
    with pytest.raises(DocumentError) as caught:
        load(data_files={"train": f"{server}/bad.json"})
    error = caught.value
    assert (error.source, error.index, error.field, error.found) == (f"{server}/bad.json", 0, "title", "no such field")
    with pytest.raises(ConnectionError, match=rf"{server}/no\.json"):
        load(data_files={"train": f"{server}/no.json"})


# ------------------------------------------------------------------------------------------------------------ reading

ARRAY = r' [ {"a": "é\u00e9\ud83d\ude00,]}{[\"\\"} , [1, {"b": []}] ,12345, -1.5e3,"x", true, null , {} ] '
ARRAY = ARRAY.replace(" ", " \t\r\n")


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 5, 7, 11, 64, 1 << 20])
def test_array_in_chunks(chunk_size):
    assert list(iterate_json_array(io.StringIO(ARRAY), chunk_size=chunk_size)) == json.loads(ARRAY)
    assert list(iterate_json_array(io.StringIO(" [ \n] "), chunk_size=chunk_size)) == []


@pytest.mark.parametrize("chunk_size", [1, 1 << 20])
def test_array_cut_off_anywhere(chunk_size):
    whole = json.loads(ARRAY)
    for length in range(ARRAY.rindex("]")):
        items = []
        with pytest.raises(DocumentError) as caught:
            items.extend(iterate_json_array(io.StringIO(ARRAY[:length]), "mine.json", chunk_size))
        assert items == whole[: len(items)]
        assert caught.value.source == "mine.json"
        assert caught.value.index <= len(whole)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "document 0: found the end of the file, expected a JSON array"),
        ('{"title": 1}', "document 0: found '{\"title\": 1}', expected a JSON array"),
        ("[{} {}]", "document 0: found '{}]', expected ',' or ']' after it"),
        ("[{},]", "document 1: found Expecting value at ']', expected a JSON object"),
        ('[{}, {"a": tru}]', "document 1: found Expecting value at 'tru}]', expected a JSON object"),
        ("[{}] []", "document 1: found '[]', expected nothing after the array"),
        ('[{"a": 1', "document 0: found Expecting ',' delimiter at '', expected a JSON object; is the file complete?"),
    ],
)
def test_no_array(text, message):
    with pytest.raises(DocumentError) as caught:
        list(iterate_json_array(io.StringIO(text), "mine.json"))
    assert str(caught.value).startswith(f"mine.json: {message}")


@pytest.fixture
def other_words(monkeypatch):
    """A decoder whose messages say nothing."""
    decode = json.JSONDecoder.raw_decode

    def raw_decode(decoder, text, start=0):
        try:
            return decode(decoder, text, start)
        except json.JSONDecodeError as error:
            raise json.JSONDecodeError("something is wrong", error.doc, error.pos) from None

    monkeypatch.setattr(json.JSONDecoder, "raw_decode", raw_decode)


@pytest.mark.parametrize("chunk_size", [1, 7, 20, 50, 64])
@pytest.mark.parametrize(
    "item",
    ["x" * 100, 'say "yes" \\' * 20, "\n" * 50, "é😀" * 40, {"a" * 90: "b"}, [10**40, -1.25e-10, 1.5e300], -(10**60)],
    ids=["text", "escapes", "lines", "surrogates", "key", "numbers", "number"],
)
def test_strings_and_numbers_cut_at_the_end_of_a_piece(item, chunk_size, other_words):
    for text in (json.dumps([item, item]), json.dumps([item, item], ensure_ascii=False)):
        assert list(iterate_json_array(io.StringIO(text), chunk_size=chunk_size)) == [item, item]


@pytest.mark.parametrize("chunk_size", [1, 64, 1 << 20])
@pytest.mark.parametrize(
    "wrong",
    ['{"a": "b" "c": 1}', '{"a": "b}, {"c": 1}', '"a\tb"', r'"a\x"', "[1, 2}", "-"],
    ids=["colon", "quote", "tab", "escape", "bracket", "number"],
)
@pytest.mark.parametrize("rest", ["", ", " + json.dumps(["x" * 30] * 100)], ids=["at the end", "in the middle"])
def test_a_broken_item_is_found_wherever_it_is(wrong, rest, chunk_size, other_words):
    file, items = io.StringIO(f'["before", {wrong}{rest}]'), []
    with pytest.raises(DocumentError) as caught:
        items.extend(iterate_json_array(file, "mine.json", chunk_size))
    assert items == ["before"] and caught.value.index == 1
    assert file.tell() < 200 or chunk_size > 200, "the rest was read"


@pytest.mark.parametrize("chunk_size", [1, 64, 1 << 20])
@pytest.mark.parametrize("begun", ['"' + "x" * 100, '{"a": "b\\', '{"a": "b\\u00', '{"a": 1', "[-"])
def test_a_file_that_ends_within_an_item_is_said_to_be_incomplete(begun, chunk_size, other_words):
    with pytest.raises(DocumentError, match=r"document 1: .*; is the file complete\?"):
        list(iterate_json_array(io.StringIO(f"[{{}}, {begun}"), "mine.json", chunk_size))


def test_the_file_of_relation_names_is_declared_once():
    """Its name, its places and its check."""
    folders = (ROOT / "modeling_comm", ROOT / "dataset_scripts")
    texts = {path: path.read_text(encoding="utf-8") for folder in folders for path in folder.rglob("*.py")}
    named = [path.name for path, text in texts.items() for node in ast.walk(ast.parse(text))
             if isinstance(node, ast.Constant) and node.value == "rel_info.json"]  # fmt: skip
    assert named == ["relation_names.py"]
    assert [path.name for path, text in texts.items() if "an object of relations and their names" in text] == named


@pytest.mark.parametrize("place", RELATION_PLACES)
def test_relation_names_are_found_in_all_their_places(place, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / place).mkdir(exist_ok=True)
    (tmp_path / "data" / place / RELATION_FILE).write_text('{"P17": "country"}')
    assert names_beside(tmp_path / "data" / "dev.json") == {"P17": "country"}
    assert relation_labels(tmp_path / "data")[1] == {"P17": "country"}
    (tmp_path / "data" / place / RELATION_FILE).write_text('{"P17": 1}')
    message = r"rel_info\.json: found \{'P17': 1\}, expected an object of relations and their names"
    for read in (lambda: names_beside(tmp_path / "data" / "dev.json"), lambda: relation_labels(tmp_path / "data")):
        with pytest.raises(ValueError, match=message):
            read()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("size", [1, 2000])
def test_values_of_a_pipe(size, compressed):
    """A pipe is opened and read once."""
    values = [{"text": "é" * size, "number": number} for number in range(3)]
    lines = "\n".join(["", *map(json.dumps, values), "  "])
    for content in (json.dumps(values), f" \n {json.dumps(values)}", lines, lines.replace("\n", "\r\n"), ""):
        expected = values if content else []
        content = gzip.compress(content.encode()) if compressed else content.encode()
        source, target = os.pipe()
        os.write(target, content)
        os.close(target)
        assert list(iterate_json_values(f"/dev/fd/{source}")) == expected
        os.close(source)


def test_a_wrong_line_is_named(tmp_path):
    (tmp_path / "a.jsonl").write_text('{}\n\n{"a": ' + "1" * 2000 + "}\n{]\n")
    with pytest.raises(DocumentError, match=r"a\.jsonl.*line 4"):
        list(iterate_json_values(tmp_path / "a.jsonl"))


def test_broken_item_is_reported_before_the_rest_is_read():
    file = io.StringIO('[{"a": nonsense, "b": "' + "x" * 100 + '"}' + " " * 100_000 + "]")
    with pytest.raises(DocumentError):
        list(iterate_json_array(file, chunk_size=64))
    assert file.tell() < 1_000


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (json.dumps([make_document("Zoë")], ensure_ascii=False).encode("latin-1"), "utf-8"),
        (gzip.compress(json.dumps([make_document()]).encode())[:-20], "end-of-stream"),
    ],
    ids=["not UTF-8", "cut-off gzip"],
)
def test_unreadable_file(tmp_path, content, found):
    path = tmp_path / "mine.json"
    path.write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        list(iterate_documents(path, on_bad_document="skip"))  # the rest of the file cannot be read
    assert (caught.value.source, caught.value.index, caught.value.field) == (str(path), 0, None)
    assert found in caught.value.found


def test_stream_reads_in_bounded_memory(tmp_path, load):
    path, copies = tmp_path / "train_distant.json", 2_000
    text = json.dumps(make_document("TITLE", note="x" * 10_000))
    documents = (text.replace("TITLE", f"document {index}") for index in range(copies))
    path.write_text(f"[{','.join(documents)}]", encoding="utf-8")
    stream = load("docred", data_dir=tmp_path, splits=["train_distant"], streaming=True)["train_distant"]
    next(iter(stream))  # whatever is imported or built once does not count
    tracemalloc.start()
    try:
        assert sum(1 for _ in stream) == copies
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < path.stat().st_size / 3


# ---------------------------------------------------------------------------------------------------------- relations


def test_relation_files_are_looked_for_in_and_beside_the_folder(tmp_path):
    write(tmp_path / "meta" / "rel_info.json", {"P9": "nine", "P10": "ten"})
    folder = tmp_path / "mine"
    folder.mkdir()
    beside = (["Na", "P10", "P9"], {"P9": "nine", "P10": "ten"})
    assert relation_labels(folder) == beside
    assert relation_labels([folder / "nothing", folder]) == beside
    assert relation_labels(rel_info=str(tmp_path / "meta" / "rel_info.json")) == beside
    write(folder / "meta" / "rel2id.json", {"P9": 1, "P11": 2, "NA": 0})
    assert relation_labels(folder) == (["NA", "P9", "P11"], {"P9": "nine", "P11": "P11"})
    write(folder / "rel2id.json", {"Na": 0, "P11": 1})
    assert relation_labels(folder) == (["Na", "P11"], {"P11": "P11"})


def test_relations_of_the_documents(tmp_path):
    labels, names = relation_labels(tmp_path, [make_document(), unlabelled("none")])
    assert (labels, names) == (["Na", "P19"], {"P19": "P19"})
    with pytest.raises(ValueError, match="rel2id"):
        relation_labels(tmp_path, [unlabelled("none")])
    with pytest.raises(ValueError, match="'Na'"):
        relation_labels(tmp_path, [make_document(labels=[{"h": 0, "t": 1, "r": "Na"}])])
    assert relation_labels(tmp_path, [make_document()], null_label="no_relation")[0] == ["no_relation", "P19"]
    path = write(tmp_path / "rel_info.json", {"P1": "one"})
    with pytest.raises(ValueError, match=rf"{path}.*P19 \(first in document '.*', field labels\[0\].r\)$"):
        relation_labels(tmp_path, [make_document()])


@pytest.mark.parametrize(
    "content", [{"Na": 0, "P1": 2}, {"Na": 0, "P1": 1, "P2": 1}, {"Na": "0"}, ["Na"], {}], ids=repr
)
def test_malformed_label_order(tmp_path, content):
    path = write(tmp_path / "rel2id.json", content)
    shown = list(content.values()) if isinstance(content, dict) and "0" not in content.values() else content
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + re.escape(repr(shown))):
        relation_labels(tmp_path)
    path.write_text("{")
    with pytest.raises(ValueError, match=str(path)):
        relation_labels(tmp_path)


# -------------------------------------------------------------------------------------------------------- description


def test_description_counts():
    label = {"h": 0, "t": 1, "r": "P19"}
    related = make_document(
        labels=[label, {**label, "evidence": [0]}, {**label, "r": "P20"}, {"h": 0, "t": 2, "r": "P19"}],
    )
    stats = describe_documents(iter([related, make_document(labels=[]), unlabelled("unlabelled")]))
    relations = stats.pop("relations")
    assert list(relations.items()) == [("P19", {"count": 2, "share": 2 / 3}), ("P20", {"count": 1, "share": 1 / 3})]
    assert stats == {
        "documents": 3,
        "labelled_documents": 2,
        "sentences": 6,
        "tokens": 33,
        "entities": 9,
        "mentions": 12,
        "pairs": 18,
        "labelled_pairs": 12,
        "positive_pairs": 2,
        "triples": 3,
        "duplicate_triples": 1,
        "triples_without_evidence": 2,
        "entities_per_document": 3.0,
        "max_entities": 3,
        "positive_share": 2 / 12,
        "most_frequent_share": 2 / 3,
        "max_triples_per_pair": 2,
        "intra_share": 2 / 3,
        "ignored_pairs": 0,
        "unasked_triples": 0,
    }


def test_description_of_nothing():
    stats = describe_documents([])
    assert stats["documents"] == stats["pairs"] == stats["max_triples_per_pair"] == 0
    assert stats["positive_share"] is stats["entities_per_document"] is stats["intra_share"] is None
    assert "share of positive" in format_description({"empty": stats})


def test_description_table():
    stats = {"train": describe_documents([make_document()]), "test": describe_documents([unlabelled("x")])}
    encoding = {"tokens": 1_234, "mentions": 8, "lost_mentions": 2, "windows": 3}
    published = {"positive_share": "3.18 %", "most_frequent_share": "over 23 %"}
    table = format_description(stats, {"train": encoding}, {"P19": "place of birth"}, published)
    rows = {line[: line.index("  ", 2)].strip(): line.split("  ") for line in table.splitlines()[1:]}
    cells = {name: [cell.strip() for cell in row if cell.strip()][1:] for name, row in rows.items()}
    assert cells["share of positive"] == ["33.33 %", "-", "3.18 %"]
    assert cells["most frequent"] == ["P19 100.00 %", "-", "over 23 %"]
    assert cells["without evidence"] == ["1 (50.00 %)", "0 (-)"]
    assert cells["subword tokens"] == ["1,234", "-"]
    assert cells["mentions truncated"] == ["2 (25.00 %)", "-"]
    assert cells["windows"] == ["3", "-"]
    assert cells["P19 place of birth"] == ["2 (100.00 %)", "0 (-)"]
    assert "entities with no mention left" not in table
    numeric = [line for line in table.splitlines() if not line.rstrip().endswith("%")][1:]
    assert len({len(line) for line in numeric}) == 1
    own = format_description(stats)
    assert "subword tokens" not in own
    assert own.splitlines()[0].split() == ["train", "test"], "no column of figures that belong to other documents"


def test_description_needs_little_beside_the_standard_library():
    tree = ast.parse(Path(describe.__file__).read_text(encoding="utf-8"))
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {"modeling_comm.candidate_pairs", "modeling_comm.documents"}  # which need NumPy
    assert {module.partition(".")[0] for module in modules - own} <= sys.stdlib_module_names


def test_examples():
    assert doctest.testmod(describe).failed == 0
