"""Documents in other formats: the registry, the guess, the readers, the command `comm-docre import`."""

import gzip
import itertools
import json
from pathlib import Path

import pytest
from datasets import Dataset
from helpers import ROOT, SHARED, requires_shared, run_script, save_backbone

import comm_docre
from dataset_scripts.builder import load_splits, relation_labels
from dataset_scripts.provenance import read_provenance
from modeling_comm import CommConfig, CommProcessor
from modeling_comm.commands.import_outputs import write_documents
from modeling_comm.data import get_dataset
from modeling_comm.documents import DocumentError, validate_document
from modeling_comm.formats import (
    ImportReport,
    available_formats,
    format_registry,
    get_format,
    input_files,
    matching_formats,
    read_documents,
    register_format,
)
from modeling_comm.settings import NameTakenError, SettingError
from modeling_comm.utils.relation_names import NULL_LABELS

FIXTURES = ROOT / "tests" / "fixtures" / "formats"
# A file of ours for each format; more than one where a format has several forms.
FILES = {
    "two_texts.pubtator": "pubtator",
    "two_texts.bioc.json": "bioc",
    "one_text.bioc.xml": "bioc",
    "pairs.data": "cdr",
    "chemdisgene.json": "chemdisgene",
    "two_documents.json": "docred",
    "two_documents.jsonl": "docred",
    "two_rows_of_the_hub.json": "docred",
    "two_rows.parquet": "parquet",
    "label_studio.json": "label-studio",
    "doccano.jsonl": "doccano",
    "prodigy.jsonl": "prodigy",
    "brat/vale.ann": "brat",
    "spacy_doc.json": "spacy",
}
# A document of these is in several files.
SINGLE_FILES = [name for name, form in FILES.items() if form != "brat"]
DATA = SHARED / "data"


@pytest.fixture(scope="module", autouse=True)
def parquet(tmp_path_factory):
    """The Hub's rows as Parquet, which no text editor writes."""
    rows = json.loads((FIXTURES / "two_rows_of_the_hub.json").read_text(encoding="utf-8"))
    rows[1]["vertexSet"] = [
        [dict(zip(entity, values, strict=True)) for values in zip(*entity.values(), strict=True)]
        for entity in rows[1]["vertexSet"]
    ]
    path = tmp_path_factory.mktemp("parquet") / "two_rows.parquet"
    Dataset.from_list(rows).to_parquet(path)
    return path


@pytest.fixture
def path_of(parquet):
    return lambda name: parquet if name == parquet.name else FIXTURES / name


def read(source, format=None, **options):
    if ".bioc." in str(source):
        pytest.importorskip("bioc", reason="needs the extra bioc")
    report = ImportReport()
    return list(read_documents(source, format, report, **options)), report


def facts(document):
    """Facts as names of the entities' first mentions."""
    names = [mentions[0]["name"] for mentions in document["vertexSet"]]
    return {(names[label["h"]], label["r"], names[label["t"]]) for label in document["labels"]}


def by_name(document):
    return {mentions[0]["name"]: [mention["name"] for mention in mentions] for mentions in document["vertexSet"]}


# ------------------------------------------------------------------------------------------------------- every format


def test_every_format_has_a_file_here():
    assert set(FILES.values()) == set(available_formats())


@pytest.mark.parametrize(("name", "form"), FILES.items())
def test_the_format_is_guessed_from_the_file(name, form, path_of):
    assert [found.name for found in matching_formats(path_of(name))] == [form]
    assert input_files(path_of(name)) == [(str(path_of(name)), get_format(form))]


@pytest.mark.parametrize("name", FILES)
def test_documents_are_valid_and_counted(name, path_of):
    documents, report = read(path_of(name))
    assert documents and report.documents == len(documents)
    for document in documents:
        validate_document(document, require=("sents", "pos", "type", "labels"))
    assert report.entities == sum(len(document["vertexSet"]) for document in documents)
    assert report.facts == sum(len(document["labels"]) for document in documents) == report.relations.total() > 0


@pytest.mark.parametrize("name", SINGLE_FILES)
def test_a_compressed_file_is_read_alike(name, path_of, tmp_path):
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(path_of(name).read_bytes()))
    assert read(tmp_path / f"{name}.gz")[0] == read(path_of(name))[0]


@pytest.mark.parametrize("name", SINGLE_FILES)
def test_a_compressed_file_that_breaks_off_is_named(name, path_of, tmp_path):
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress(path_of(name).read_bytes())[:-20])
    with pytest.raises(ValueError, match=name):
        read(path, FILES[name])


def test_no_format_is_guessed_where_none_fits(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear Ada,\n")
    with pytest.raises(ValueError, match="unknown"):
        input_files(tmp_path / "letter.txt")
    with pytest.raises(FileNotFoundError, match="1 files"):
        input_files(tmp_path)
    (tmp_path / "empty.pubtator").touch()
    with pytest.raises(ValueError, match="found an empty one"):
        input_files(tmp_path / "empty.pubtator")
    with pytest.raises(FileNotFoundError):
        input_files(tmp_path / "absent.json")
    with pytest.raises(SettingError):
        input_files(tmp_path / "letter.txt", "pdf")


def test_files_of_a_folder_that_are_not_read_are_named(tmp_path, capsys):
    content, folder = (FIXTURES / "two_documents.json").read_bytes(), tmp_path / "all"
    folder.mkdir()
    (folder / "a.json").write_bytes(content)
    (folder / "c.json").write_text(content.decode("utf-8"), encoding="utf-16")
    (folder / "d.dat").write_bytes((FIXTURES / "two_texts.pubtator").read_bytes())
    (folder / "rel_info.json").write_text('{"P17": "country"}')
    (folder / "README.md").write_text("About these files.")
    assert run("--input", folder, "--output", tmp_path / "all.json", "--report", tmp_path / "report.json") == 0
    assert "2 files that were not read (c.json, d.dat)" in capsys.readouterr().out
    unread = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["unread_files"]
    assert unread == [str(folder / "c.json"), str(folder / "d.dat")]
    (folder / "b.json.gz").write_bytes(gzip.compress(content)[:-20])
    with pytest.raises(DocumentError, match=r"b\.json\.gz.*is the file complete"):
        read(folder)


def test_links_to_folders_of_documents_are_followed(tmp_path, monkeypatch):
    folder, elsewhere = tmp_path / "all", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "above").symlink_to(tmp_path)  # a folder in which the link is, by way of another one
    for name in ("a.json", "b.dat"):
        (elsewhere / name).write_bytes((FIXTURES / "two_documents.json").read_bytes())
    documents, report = read(folder)
    assert len(documents) == 2 and report.unread_files == [str(folder / "linked" / "b.dat")]
    (elsewhere / "gone.json").symlink_to("nowhere")
    assert read(folder)[1].unread_files == [str(folder / "linked" / name) for name in ("b.dat", "gone.json")]
    iterdir = Path.iterdir

    def failing(self):
        if self.name == "linked":
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", failing)
    with pytest.raises(PermissionError):
        read(folder)


@pytest.mark.parametrize("form", [None, "brat"])
def test_a_text_without_annotations_is_named(form, tmp_path):
    for name in ("vale.txt", "vale.ann"):
        (tmp_path / name).write_bytes((FIXTURES / "brat" / name).read_bytes())
    assert read(tmp_path, form)[1].unread_files == []
    (tmp_path / "lima.txt").write_text("Lima is in Peru.")
    assert read(tmp_path, form)[1].unread_files == [str(tmp_path / "lima.txt")]


def test_a_format_of_ones_own(monkeypatch, tmp_path):
    monkeypatch.setattr(format_registry, "_FORMATS", dict(format_registry._FORMATS))

    def read_nothing(path, report):
        yield {"title": path, "sents": [["Oslo"]], "vertexSet": [], "labels": []}

    register = register_format("own", "ours", (".own",), lambda head, path: head.startswith(b"own"))
    assert register(read_nothing) is read_nothing and "own" in available_formats()
    register(read_nothing)
    with pytest.raises(NameTakenError):
        register(lambda path, report: None)
    (tmp_path / "a.own").write_text("own file")
    assert [document["title"] for document in read(tmp_path)[0]] == [str(tmp_path / "a.own")]
    (tmp_path / "b.pubtator").write_bytes((FIXTURES / "two_texts.pubtator").read_bytes())
    with pytest.raises(ValueError, match="own, pubtator"):
        read(tmp_path)
    assert len(read(tmp_path, "pubtator")[0]) == 2


def _broken_row(row):
    row["labels"]["tail"] = []


# By file the change of its first document after which that cannot be read, and the next can.
BROKEN = {
    "two_texts.pubtator": ("101\tCID\tD900001\tD910001\n", "101\tbroken\n"),
    "pairs.data": ("1:CID:2\tL2R", "CID\tL2R"),
    "two_texts.bioc.json": lambda documents: documents["documents"][0].pop("passages"),
    "two_rows_of_the_hub.json": lambda rows: _broken_row(rows[0]),
    "chemdisgene.json": lambda documents: documents.insert(0, {"docid": "1", "title": None}),
    "two_documents.json": lambda documents: documents.insert(0, None),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_document_that_cannot_be_read_can_be_left_out(name, tmp_path):
    text, change = (FIXTURES / name).read_text(encoding="utf-8"), BROKEN[name]
    if isinstance(change, tuple):
        text = text.replace(*change, 1)
    else:
        change(content := json.loads(text))
        text = json.dumps(content)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError):
        read(tmp_path / name, FILES[name])
    documents, report = read(tmp_path / name, FILES[name], on_bad_document="skip")
    whole, _ = read(FIXTURES / name)
    assert documents == whole[-len(documents) :] and len(report.skipped) == 1


def test_a_row_of_parquet_that_cannot_be_read_can_be_left_out(parquet, tmp_path):
    rows = Dataset.from_parquet(str(parquet), cache_dir=str(tmp_path / "cache")).to_list()
    _broken_row(rows[0])
    Dataset.from_list(rows).to_parquet(tmp_path / "rows.parquet")
    documents, report = read(tmp_path / "rows.parquet", on_bad_document="skip")
    assert [document["title"] for document in documents] == ["Holt"] and len(report.skipped) == 1


# ------------------------------------------------------------------------------------------------------------ PubTator


def test_pubtator():
    (first, second), report = read(FIXTURES / "two_texts.pubtator")
    assert by_name(first) == {
        "Brinavol": ["Brinavol", "brinavol", "BRV"],
        "night cough": ["night cough", "night cough"],
        "joint pain or swelling": ["joint pain or swelling"],
        "ABX1": ["ABX1"],
    }  # the mention of two diseases is in both of these entities
    assert len(first["vertexSet"]) == 5
    assert facts(first) == {("Brinavol", "CID", "night cough"), ("Brinavol", "CID", "joint pain or swelling")}
    assert [label.get("novelty") for label in first["labels"]] == [None, "Novel"]
    assert facts(second) == {("deletion", "Association", "night cough"), ("ABX1", "Association", "night cough")}
    assert [len(document["sents"]) for document in (first, second)] == [4, 2]
    assert report.dropped == {
        "mentions without an id": 1,
        "facts of an entity without a mention": 1,
        "facts of an entity with itself": 1,
    }


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("101\t34\t42", "101\t35\t43", "line 5"),
        ("101\t34\t42", "101\t34\t4200", "line 5"),
        ("101\tCID\tD900001\tD910001", "103\tCID\tD900001\tD910001", "line 11"),
        ("101\tCID\tD900001\tD910001", "101\tCID", "line 11"),
        ("101|t|", "101 t ", "line 1"),
    ],
)
def test_what_is_wrong_in_pubtator_is_named_by_its_line(old, new, field, tmp_path):
    text = (FIXTURES / "two_texts.pubtator").read_text(encoding="utf-8")
    path = tmp_path / "wrong.pubtator"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DocumentError) as error:
        read(path, "pubtator")
    assert error.value.field == field and error.value.source == str(path)


def test_a_document_whose_offsets_are_wrong_can_be_left_out(tmp_path):
    text = (FIXTURES / "two_texts.pubtator").read_text(encoding="utf-8")
    (tmp_path / "wrong.pubtator").write_text(text.replace("101\t34\t42", "101\t35\t43", 1), encoding="utf-8")
    documents, report = read(tmp_path / "wrong.pubtator", on_bad_document="skip")
    assert [document["title"] for document in documents] == ["102"]
    assert [error.title for error in report.skipped] == ["101"]


@requires_shared
@pytest.mark.parametrize(
    ("name", "documents", "relations", "dropped"),
    [
        ("cdr/CDR_TrainingSet.PubTator.txt.gz", 500, 1_038, {"mentions without an id": 76}),
        ("cdr/CDR_DevelopmentSet.PubTator.txt.gz", 500, 1_012, {"mentions without an id": 59}),
        ("cdr/CDR_TestSet.PubTator.txt.gz", 500, 1_066, {"mentions without an id": 91}),
        (
            "biored/Train.PubTator",
            400,
            4_175,
            {"mentions without an id": 31, "facts of an entity with itself": 3},
        ),
        (
            "biored/Dev.PubTator",
            100,
            1_161,
            {"mentions without an id": 20, "facts of an entity with itself": 1},
        ),
        ("biored/Test.PubTator", 100, 1_163, {"mentions without an id": 12}),
    ],
)
def test_real_pubtator(name, documents, relations, dropped):
    found, report = read(DATA / name)
    assert (len(found), report.facts) == (documents, relations) and report.dropped == dropped


# ---------------------------------------------------------------------------------------------------------------- BioC


def test_bioc():
    (first, second), report = read(FIXTURES / "two_texts.bioc.json")
    assert by_name(first) == {"Brinavol": ["Brinavol", "brinavol"], "night cough": ["night cough", "night cough"]}
    assert first["labels"] == [{"h": 0, "t": 1, "r": "Negative_Correlation", "novelty": "Novel"}]
    assert facts(second) == {("ABX1", "Bind", "brinavol")}
    assert report.dropped == {"mentions in several pieces": 1, "mentions without an id": 1}
    (third,), _ = read(FIXTURES / "one_text.bioc.xml")
    assert {**third, "title": "102"} == second


def test_what_is_wrong_in_bioc_is_named(tmp_path):
    pytest.importorskip("bioc", reason="needs the extra bioc")
    content = json.loads((FIXTURES / "two_texts.bioc.json").read_text(encoding="utf-8"))
    path = tmp_path / "wrong.bioc.json"

    def error_of(change):
        wrong = json.loads(json.dumps(content))
        change(wrong["documents"][0])
        path.write_text(json.dumps(wrong))
        with pytest.raises(DocumentError, match=path.name) as error:
            read(path)
        return error.value

    assert error_of(lambda d: d["passages"][1].update(offset=3)).field == "passages[1].offset"
    assert error_of(lambda d: d["relations"][0]["infons"].pop("entity1")).field == "relations[0]"
    location = content["documents"][0]["passages"][1]["annotations"][0]["locations"][0]["offset"]
    moved = lambda d: d["passages"][1]["annotations"][0]["locations"][0].update(offset=location + 1)  # noqa: E731
    assert error_of(moved).field == "passages[1].annotations[0]"
    assert error_of(lambda d: d.pop("id")).field == "id"
    passage = "passages[1]"
    assert error_of(lambda d: d["passages"][1].update(offset="0")).field == f"{passage}.offset"
    assert error_of(lambda d: d["passages"][1].update(text=5)).field == f"{passage}.text"
    assert error_of(lambda d: d["passages"][1].update(infons=[])).field == f"{passage}.infons"
    assert error_of(lambda d: d["passages"][1].update(annotations=3)).field == f"{passage}.annotations"
    location = f"{passage}.annotations[0].locations[0]"
    text = lambda d: d["passages"][1]["annotations"][0]["locations"][0].update(length="3")  # noqa: E731
    assert error_of(text).field == f"{location}.length"


def test_annotations_of_bioc_without_a_place_are_counted(tmp_path):
    pytest.importorskip("bioc", reason="needs the extra bioc")
    content = json.loads((FIXTURES / "two_texts.bioc.json").read_text(encoding="utf-8"))
    concept = {"id": "9", "infons": {"type": "Chemical", "identifier": "D1"}, "text": "", "locations": []}
    content["documents"][0]["passages"][1]["annotations"].append(concept)
    (tmp_path / "texts.bioc.json").write_text(json.dumps(content))
    found, report = read(tmp_path / "texts.bioc.json")
    assert found == read(FIXTURES / "two_texts.bioc.json")[0]
    assert report.dropped["annotations without a place in the text"] == 1


def test_roles_of_bioc_say_which_node_is_the_head(tmp_path):
    pytest.importorskip("bioc", reason="needs the extra bioc")
    content = json.loads((FIXTURES / "two_texts.bioc.json").read_text(encoding="utf-8"))
    relation = content["documents"][0]["relations"][0]
    head, tail = (relation["infons"].pop(name) for name in ("entity1", "entity2"))
    for roles in (("Head", "Tail"), ("subject", "object"), ("", ""), ("Chemical", "Disease")):
        nodes = [{"refid": one, "role": role} for one, role in zip((head, tail), roles, strict=True)]
        found = []
        for order in (nodes, nodes[::-1]):
            relation["nodes"] = order
            (tmp_path / "texts.bioc.json").write_text(json.dumps(content))
            (first, _), _ = read(tmp_path / "texts.bioc.json")
            found.append(first["labels"][0])
        assert (found[0] == found[1]) == (roles in (("Head", "Tail"), ("subject", "object"))), roles


def test_a_number_is_an_id_in_bioc(tmp_path):
    pytest.importorskip("bioc", reason="needs the extra bioc")
    content = (FIXTURES / "two_texts.bioc.json").read_text(encoding="utf-8")
    (tmp_path / "texts.bioc.json").write_text(content.replace('"D900001"', "900001"))
    (first, _), _ = read(tmp_path / "texts.bioc.json")
    assert first["entity_ids"] == [["900001"], ["D910001"]] and len(first["labels"]) == 1


@pytest.mark.parametrize(("label", "field"), [({"relation": "P17"}, "labels[0].r"), ({"r": ["P17"]}, "labels[0].r")])
def test_a_label_without_a_relation_is_no_null_label(label, field, tmp_path):
    document = read(FIXTURES / "two_documents.json")[0][0]
    (tmp_path / "one.json").write_text(json.dumps([{**document, "labels": [{"h": 0, "t": 1, **label}]}]))
    with pytest.raises(DocumentError) as error:
        read(tmp_path / "one.json", "docred")
    assert error.value.field == field


@pytest.mark.parametrize("name", [*sorted(NULL_LABELS), "NONE", "No_Relation", " Na", "no  Relation"])
def test_a_name_of_no_relation_is_no_fact_and_no_label_of_training(name, tmp_path):
    document = read(FIXTURES / "two_documents.json")[0][0]
    labels = [{"h": 0, "t": 1, "r": "P19"}, {"h": 0, "t": 1, "r": name}]
    (tmp_path / "one.json").write_text(json.dumps([{**document, "labels": labels}]))
    (found,), report = read(tmp_path / "one.json", "docred")
    assert found["labels"] == labels[:1] and report.dropped == {"labels that mean no relation": 1}
    assert list(report.relations) == ["P19"]
    # Nor where a file of relations has an id for it.
    (found,), report = read(tmp_path / "one.json", "docred", relation_ids={name: "P0"})
    assert found["labels"] == labels[:1] and list(report.relations) == ["P19"]
    with pytest.raises(ValueError, match="means no relation"):
        relation_labels(documents=[{"labels": labels}])


def test_names_of_no_relation_are_where_a_user_reads_of_them():
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    said = next(line for line in page.splitlines() if "`--null_label`" in line)
    help_ = comm_docre.parser_of("import")._option_string_actions["--null_label"].help
    for text in (said, help_, read_documents.__doc__):
        assert all(name in text.casefold() for name in NULL_LABELS)


@requires_shared
def test_real_bioc_is_what_pubtator_is():
    pytest.importorskip("bioc", reason="needs the extra bioc")
    assert read(DATA / "biored/Dev.BioC.JSON", "bioc")[0] == read(DATA / "biored/Dev.PubTator")[0]


# ------------------------------------------------------------------------------------------- the tabular form, ChemDisGene


def test_biomedical_pairs():
    (first, second), report = read(FIXTURES / "pairs.data")
    assert by_name(first) == {
        "Brinavol": ["Brinavol", "brinavol"],
        "night cough": ["night cough", "night cough"],
        "joint pain": ["joint pain"],
    }
    assert first["vertexSet"][1][1] == {"name": "night cough", "sent_id": 2, "pos": [1, 3], "type": "Disease"}
    assert facts(first) == {("Brinavol", "CID", "night cough")} and first["ignored_pairs"] == [[0, 2]]
    assert facts(second) == {("salvotane", "CID", "Rash")}  # the chemical is the head, wherever it stands
    assert "ignored_pairs" not in second and (report.ignored_pairs, report.relations) == (1, {"CID": 2})


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("\t0:7\t1:8\t0:1", "\t0:7\t1:8\t0", "column 11"),
        ("\t0:7\t1:8\t0:1", "\t0:7\t1:9x\t0:1", "column 11"),
        ("\t0:7\t1:8\t0:1", "\t0:4\t1:6\t0:1", "column 11"),
        ("1:CID:2\tL2R", "CID\tL2R", "column 3"),
        ("\tnot_include", "\tx\tnot_include", "column 37"),
    ],
)
def test_what_is_wrong_in_biomedical_pairs_is_named_by_its_column(old, new, field, tmp_path):
    path = tmp_path / "wrong.data"
    path.write_text((FIXTURES / "pairs.data").read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DocumentError) as error:
        read(path, "cdr")
    assert (error.value.field, error.value.title, error.value.source) == (field, "101", str(path))


@requires_shared
@pytest.mark.parametrize(
    ("name", "documents", "facts", "ignored"),
    [
        ("cdr/train_filter.data", 500, 1_038, 192),
        ("cdr/dev_filter.data", 500, 1_012, 174),
        ("cdr/test_filter.data", 500, 1_066, 201),
        ("gda/test.data", 1_000, 1_502, 0),
    ],
)
def test_real_biomedical_pairs(name, documents, facts, ignored):
    found, report = read(DATA / name)
    assert (len(found), report.facts, report.ignored_pairs) == (documents, facts, ignored) and not report.dropped
    for document in found:
        types = [mentions[0]["type"] for mentions in document["vertexSet"]]
        pairs = {(label["h"], label["t"]) for label in document["labels"]} | set(
            map(tuple, document.get("ignored_pairs", ()))
        )
        assert {(types[head] == "Disease", types[tail]) for head, tail in pairs} <= {(False, "Disease")}


@requires_shared
def test_both_forms_of_cdr_have_the_same_entities_and_facts():
    def by_ids(name):
        documents, _ = read(DATA / "cdr" / name)
        ids = [document["entity_ids"] for document in documents]
        facts = [
            {(*map(tuple, (names[fact["h"]], names[fact["t"]])),) for fact in document["labels"]}
            for document, names in zip(documents, ids, strict=True)
        ]
        entities = [{name for (name,) in names} for names in ids]
        return {d["title"]: found for d, *found in zip(documents, entities, facts, strict=True)}

    assert by_ids("CDR_TestSet.PubTator.txt.gz") == by_ids("test_filter.data")


def test_chemdisgene():
    (document,), report = read(FIXTURES / "chemdisgene.json")
    assert by_name(document) == {
        "Salvotane": ["Salvotane", "Salvotane"],
        "ABX1": ["ABX1", "ABX1"],
        "rash": ["rash", "Rash and cough"],
        "Rash and cough": ["Rash and cough"],
    }
    assert facts(document) == {
        ("Salvotane", "chem_gene:increases^expression", "ABX1"),
        ("Salvotane", "chem_disease:therapeutic", "Rash and cough"),
    }
    assert report.dropped == {"mentions without an id": 1, "facts of an entity without a mention": 1}


@pytest.mark.parametrize(
    ("field", "value"), [("docid", None), ("entity[2].start", "3"), ("relation[0].subj", 7), ("entity[1]", [])]
)
def test_what_is_wrong_in_chemdisgene_is_named(field, value, tmp_path):
    content = json.loads((FIXTURES / "chemdisgene.json").read_text(encoding="utf-8"))
    name, _, rest = field.partition("[")
    if not rest:
        content[0][name] = value
    elif rest.endswith("]"):
        content[0][name][int(rest[0])] = value
        field += ".start"
    else:
        content[0][name][int(rest[0])][rest.partition(".")[2]] = value
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DocumentError) as error:
        read(path, "chemdisgene")
    assert error.value.field == field and error.value.source == str(path)


@requires_shared
def test_real_chemdisgene():
    found, report = read(DATA / "chemdisgene/test.anno_all.json")
    assert (len(found), report.facts, len(report.relations)) == (523, 3_911, 18)
    assert report.dropped == {"mentions without an id": 650}


# -------------------------------------------------------------------------------------------------------- DocRED's forms


@pytest.mark.parametrize("name", ["two_documents.jsonl", "two_rows_of_the_hub.json", "two_rows.parquet"])
def test_the_forms_of_docred_are_the_same_documents(name, path_of):
    documents, report = read(path_of(name))
    expected, _ = read(FIXTURES / "two_documents.json")
    for document in documents:
        for label in document["labels"]:
            if label.get("evidence") == [] and document["title"] == "Holt":
                del label["evidence"]
    assert documents == expected
    assert report.dropped == {
        "facts of an entity with itself": 1,
        "facts that are listed twice": 1,
        "labels that mean no relation": 1,
    }
    if "rows" in name:
        assert report.relation_names["P17"] == "country"


def test_columns_of_different_lengths(tmp_path):
    rows = json.loads((FIXTURES / "two_rows_of_the_hub.json").read_text(encoding="utf-8"))
    rows[1]["labels"]["tail"] = []
    (tmp_path / "wrong.json").write_text(json.dumps(rows))
    with pytest.raises(DocumentError) as error:
        read(tmp_path / "wrong.json")
    assert (error.value.field, error.value.index, error.value.title) == ("labels", 1, "Holt")


def test_a_report_counts_one_as_one():
    report = ImportReport(documents=1, entities=1200, mentions=1, facts=0, ignored_pairs=1)
    assert str(report).startswith("read 1 document, 1,200 entities, 1 mention, 0 facts, 1 ignored pair\n")


def test_a_line_that_is_no_json(tmp_path):
    lines = (FIXTURES / "two_documents.jsonl").read_text(encoding="utf-8")
    (tmp_path / "wrong.jsonl").write_text(lines + '{"title": ')
    with pytest.raises(DocumentError) as error:
        read(tmp_path / "wrong.jsonl")
    assert (error.value.field, error.value.index) == ("line 4", 2)


def test_parts_that_do_not_fit_can_be_left_out(tmp_path):
    documents = json.loads((FIXTURES / "two_documents.json").read_text(encoding="utf-8"))
    documents[0]["vertexSet"][0][1]["pos"] = [5, 9]
    documents[1]["ignored_pairs"] = [[0, 99]]
    (tmp_path / "wrong.json").write_text(json.dumps(documents))
    with pytest.raises(DocumentError):
        read(tmp_path / "wrong.json")
    found, report = read(tmp_path / "wrong.json", on_bad_document="drop_part")
    assert by_name(found[0])["Mara Quill"] == ["Mara Quill"]
    assert report.dropped["mentions that do not fit"] == report.dropped["ignored pairs that do not fit"] == 1
    assert len(read(tmp_path / "wrong.json", on_bad_document="skip")[0]) == 0


# By file: the place of a mention, and one where it is not.
UNFIT = [
    ("two_texts.pubtator", "101\t34\t42", "101\t35\t43"),
    ("two_texts.pubtator", "101\t34\t42", "101\t34\t4200"),
    ("two_texts.bioc.json", '"offset": 34', '"offset": 35'),
    ("one_text.bioc.xml", 'offset="11" length="8"', 'offset="11" length="80"'),
    ("pairs.data", "0:7\t1:8\t0:1", "0:70\t1:80\t0:1"),
    ("chemdisgene.json", '"start": 31', '"start": 32'),
    ("chemdisgene.json", '"start": 31', '"start": "31"'),
    ("label_studio.json", '"start": 56', '"start": 54'),
    ("doccano.jsonl", '"start_offset": 67, "end_offset": 73', '"start_offset": 67, "end_offset": 900'),
    ("doccano.jsonl", '"start_offset": 67, "end_offset": 73', '"start_offset": 1, "end_offset": 73'),
    ("prodigy.jsonl", '"start": 66, "end": 72', '"start": 22, "end": 23'),  # white space
    ("brat/vale.ann", "T6\tLOC 66 72", "T6\tLOC 65 71"),
    ("spacy_doc.json", '"end": 42', '"end": 900'),
]


@pytest.mark.parametrize("name, old, new", UNFIT)
def test_a_mention_that_does_not_fit_can_be_left_out(name, old, new, tmp_path):
    path = tmp_path / (FIXTURES / name).name
    for file in (FIXTURES / name).parent.glob(f"{path.stem}.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    whole, of_whole = read(FIXTURES / name)
    with pytest.raises(DocumentError):
        read(path)
    assert len(read(path, on_bad_document="skip")[0]) == len(whole) - 1
    found, report = read(path, on_bad_document="drop_part")
    assert [document["title"] for document in found] == [document["title"] for document in whole]
    assert report.mentions == of_whole.mentions - 1 and report.skipped == []
    assert report.dropped["mentions that do not fit"] == 1 and "drop_mentions" not in report.as_dict()
    (why,) = report.as_dict()["dropped_mentions"]
    assert path.name in why and ": found " in why
    # Without it another entity could be the first.
    found, report = read(path, on_bad_document="drop_part", keep_entities=True)
    assert len(found) == len(whole) - 1 and len(report.skipped) == 1


@pytest.mark.parametrize(("start", "end"), [("-0", "8"), ("0.0", "8.0")])
def test_offsets_of_pubtator_that_are_no_numbers_of_characters_are_no_relation(start, end, tmp_path):
    text = (FIXTURES / "two_texts.pubtator").read_text(encoding="utf-8")
    line = "101\t0\t8\tBrinavol\tChemical\tD900001\n"
    assert line in text
    shorter = f"101\t{start}\t{end}\tBrinavol\tChemical\n"  # as a relation with a fifth column would be
    (tmp_path / "two.pubtator").write_text(text.replace(line, shorter), encoding="utf-8")
    with pytest.raises(DocumentError, match="expected character offsets of a mention") as error:
        read(tmp_path / "two.pubtator")
    assert error.value.field == "line 3"


def test_what_belongs_to_a_mention_that_does_not_fit_is_counted(tmp_path):
    text = (FIXTURES / "pairs.data").read_text(encoding="utf-8")
    (tmp_path / "pairs.data").write_text(text.replace("\t0:7\t1:8\t0:1\t", "\t99:99\t99:99\t0:1\t"), encoding="utf-8")
    (first, _), report = read(tmp_path / "pairs.data", on_bad_document="drop_part")
    assert set(by_name(first)) == {"night cough", "joint pain"} and first["labels"] == []
    assert report.dropped == {
        "mentions that do not fit": 2,
        "facts of an entity without a mention": 1,
        "ignored pairs of an entity without a mention": 1,
    }
    (why,) = report.as_dict()["dropped_facts"]
    assert "pairs.data" in why and "expected ids of entities that have a mention" in why


def test_parquet_that_is_none(tmp_path):
    (tmp_path / "wrong.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"wrong\.parquet"):
        read(tmp_path / "wrong.parquet")


@requires_shared
def test_real_dwie():
    found, report = read(DATA / "dwie/test.json")
    assert (len(found), report.facts) == (99, 2_453) and max(map(len, (d["vertexSet"] for d in found))) <= 81
    assert report.dropped == {"facts that are listed twice": 6}


# --------------------------------------------------------------------------------------------------------- the command


def run(*words):
    return comm_docre.main(["import", *map(str, words)])


def test_mentions_that_are_left_out_are_named(tmp_path, capsys):
    text = (FIXTURES / "two_texts.pubtator").read_text(encoding="utf-8")
    line = next(line for line in text.splitlines() if line.count("\t") > 4)
    identifier, start, rest = line.split("\t", 2)
    (tmp_path / "in.pubtator").write_text(
        text.replace(line, f"{identifier}\t{int(start) + 1}\t{rest}"), encoding="utf-8"
    )
    flags = ["--on_bad_document", "drop_part", "--output", tmp_path / "train.json"]
    assert run("--input", tmp_path / "in.pubtator", *flags) == 0
    printed = capsys.readouterr()
    assert "mentions that do not fit (1)" in printed.out
    assert f"left out: {tmp_path / 'in.pubtator'}: document 0 ({identifier!r}), field line " in printed.err


def test_the_command_writes_documents_and_relations(tmp_path, capsys):
    source = FIXTURES / "two_texts.pubtator"
    assert run("--input", source, "--output", tmp_path / "train.json", "--report", tmp_path / "report.json") == 0
    printed = capsys.readouterr()
    assert "left out: mentions without an id (1)" in printed.out and "format pubtator" in printed.err
    assert json.loads((tmp_path / "train.json").read_text(encoding="utf-8")) == read(source)[0]
    assert json.loads((tmp_path / "rel_info.json").read_text()) == {"Association": "Association", "CID": "CID"}
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["documents"], report["relations"]) == (2, {"CID": 2, "Association": 2})


@pytest.mark.parametrize("name", ["all.json", "all.jsonl"])
def test_half_of_a_surrogate_pair_in_a_further_field_is_written_as_it_is(name, tmp_path):
    document = {**read(FIXTURES / "two_documents.json")[0][0], "note": "\ud83d and \u00e9"}
    (tmp_path / "half.json").write_text(json.dumps([document]))
    assert run("--input", tmp_path / "half.json", "--output", tmp_path / name) == 0
    assert read(tmp_path / name, "docred")[0] == [document]


def test_the_command_keeps_names_of_relations_that_are_known(tmp_path):
    (tmp_path / "rel_info.json").write_text('{"CID": "induces", "P17": "country"}')
    run("--input", FIXTURES, "--format", "pubtator", "--output", tmp_path / "train.jsonl")  # of a folder, what fits
    known = json.loads((tmp_path / "rel_info.json").read_text())
    assert known == {"CID": "induces", "P17": "country", "Association": "Association"}
    lines = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["title"] for line in lines] == ["101", "102"]


def test_the_lists_of_relations_in_a_folder_are_no_documents(tmp_path):
    (tmp_path / "docred").mkdir()
    (tmp_path / "docred" / "dev.json").write_bytes((FIXTURES / "two_documents.json").read_bytes())
    for name in ("rel2id.json", "rel_info.json"):
        (tmp_path / "docred" / name).write_text('{"Na": 0, "P17": 1}')
    for given in ((), ("--format", "docred")):
        assert run("--input", tmp_path / "docred", *given, "--output", tmp_path / "all.json") == 0
        assert len(json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))) == 2


def test_a_folder_of_lists_alone_says_so(tmp_path):
    (tmp_path / "rel2id.json").write_text('{"Na": 0}')
    with pytest.raises(FileNotFoundError, match=r"none among its 1 files \(1 with a name of DocRED's lists"):
        input_files(tmp_path)
    with pytest.raises(ValueError, match="found one of DocRED's lists, which hold no documents"):
        input_files(tmp_path / "rel2id.json")


def test_the_command_splits_by_the_titles(tmp_path, capsys):
    documents = [{**read(FIXTURES / "two_documents.json")[0][0], "title": f"Letter {number}"} for number in range(200)]
    (tmp_path / "all.json").write_text(json.dumps(documents))
    (tmp_path / "turned.json").write_text(json.dumps(documents[::-1]))
    titles = []
    for name in ("all", "turned"):
        output = tmp_path / f"split_{name}"
        assert run("--input", tmp_path / f"{name}.json", "--output", output, "--split", 70, 10, 20) == 0
        parts = [json.loads((output / f"{part}.json").read_text()) for part in ("train", "dev", "test")]
        titles.append([sorted(document["title"] for document in part) for part in parts])
        assert "P19" in json.loads((output / "rel_info.json").read_text())
    assert titles[0] == titles[1] and sorted(itertools.chain(*titles[0])) == sorted(x["title"] for x in documents)
    sizes = [len(part) for part in titles[0]]
    assert 120 < sizes[0] < 160 and 10 < sizes[1] < 35 and 25 < sizes[2] < 60
    assert f"split into train.json {sizes[0]}, dev.json {sizes[1]}, test.json {sizes[2]}" in capsys.readouterr().out
    assert run("--input", tmp_path / "all.json", "--output", tmp_path / "no", "--split", 70, 10, 30) == 2
    assert "add up to 100" in capsys.readouterr().err and not (tmp_path / "no").exists()


def test_the_command_lists_formats(capsys):
    assert run("--list_formats") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == available_formats()


@pytest.mark.parametrize("words", [["--input", "x"], ["--output", "x"], []], ids=" ".join)
def test_the_command_says_what_it_lacks(words, capsys):
    assert run(*words) == 2
    assert "--list_formats" in capsys.readouterr().err


def test_the_command_writes_over_no_input(tmp_path, capsys):
    path = tmp_path / "a.pubtator"
    path.write_bytes((FIXTURES / "two_texts.pubtator").read_bytes())
    assert run("--input", path, "--output", path) == 2
    assert path.read_bytes() == (FIXTURES / "two_texts.pubtator").read_bytes()


# ------------------------------------------------------------------------------------------------- training from the files


@requires_shared
@pytest.mark.parametrize(
    ("name", "folder", "sizes", "left_out"),
    [
        ("cdr_filtered", "cdr", {"train": 1_038, "validation": 1_012, "test": 1_066}, {}),
        ("biored", "biored", {"train": 4_175, "validation": 1_161, "test": 1_163}, {"mentions without an id": 12}),
        ("dwie", "dwie", {"validation": 2_620, "test": 2_453}, {"facts that are listed twice": 6}),
    ],
)
def test_a_data_set_is_loaded_from_the_files_of_its_publisher(name, folder, sizes, left_out, tmp_path):
    loaded = load_splits(name, DATA / folder, splits=list(sizes), cache_dir=str(tmp_path))
    assert {split: sum(map(len, rows["labels"])) for split, rows in loaded.items()} == sizes
    provenance = read_provenance(loaded)["test"]
    assert provenance["format"] == get_dataset(name).format and provenance["left_out"] == left_out


@requires_shared
@pytest.mark.parametrize(
    ("name", "file", "facts", "others"),
    [
        ("cdr", "cdr/CDR_TrainingSet.PubTator.txt.gz", 1_038, 0),
        ("cdr_filtered", "cdr/test_filter.data", 1_066, 0),
        ("gda", "gda/test.data", 1_502, 0),
        ("biored", "biored/Train.PubTator", 4_174, 1),  # a gene and a variant
        ("biored", "biored/Test.PubTator", 1_163, 0),
        ("chemdisgene", "chemdisgene/test.anno_all.json", 3_911, 0),
        ("dwie", "dwie/test.json", 2_453, 0),
    ],
)
def test_pairs_that_an_entry_asks_about_are_those_with_facts(name, file, facts, others):
    candidates, counts = get_dataset(name).candidates, [0, 0]
    for document in read(DATA / file)[0]:
        types = [mentions[0]["type"] for mentions in document["vertexSet"]]
        asked = candidates.candidate_pairs
        for fact in document["labels"]:
            pair = types[fact["h"]], types[fact["t"]]
            turned = pair if candidates.directed else pair[::-1]
            counts[asked is not None and pair not in asked and turned not in asked] += 1
    assert counts == [facts, others]


def test_relations_of_another_data_set_beside_the_folder_are_not_its_own(tmp_path):
    """A folder `meta` beside that of the data set has DocRED's relations."""
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "rel2id.json").write_text('{"Na": 0, "P17": 1}')
    (tmp_path / "cdr").mkdir()
    for file in get_dataset("cdr").files.values():
        (tmp_path / "cdr" / file.name).write_bytes((FIXTURES / "two_texts.pubtator").read_bytes())
    save_backbone(tmp_path / "encoder")
    flags = ["--model_name_or_path", tmp_path / "encoder", "--dataset_config", "cdr", "--use_cpu", "--do_train"]
    flags += ["--data_dir", tmp_path / "cdr", "--cache_dir", tmp_path / "cache", "--disable_tqdm", "true"]
    flags += ["--emb_size", "16", "--block_size", "4", "--max_steps", "1"]
    run_script(*flags, "--output_dir", tmp_path / "out")
    config = CommConfig.from_pretrained(tmp_path / "out")
    assert set(config.label2id) == {"NR", "CID", "Association"}
    processor = CommProcessor.from_pretrained(tmp_path / "out")
    assert processor.candidates == get_dataset("cdr").candidates


def test_training_reads_the_format_of_its_data_set_and_documents_that_were_imported(tmp_path, capsys):
    save_backbone(tmp_path / "encoder")
    for folder in ("published", "imported"):
        (tmp_path / folder).mkdir()
        for file in get_dataset("cdr").files.values():
            target = tmp_path / folder / file.name
            if folder == "published":
                target.write_bytes((FIXTURES / "two_texts.pubtator").read_bytes())
            else:
                write_documents(target, read(FIXTURES / "two_texts.pubtator")[0])
    flags = ["--model_name_or_path", tmp_path / "encoder", "--emb_size", "16", "--block_size", "4", "--use_cpu"]
    flags += ["--dataset_config", "cdr", "--cache_dir", tmp_path / "cache", "--disable_tqdm", "true"]
    flags += ["--do_train", "--do_predict", "--max_steps", "2"]
    results = []
    for folder in ("published", "imported"):
        output = tmp_path / f"out_{folder}"
        run_script(*flags, "--data_dir", tmp_path / folder, "--output_dir", output)
        scores = json.loads((output / "test_scores.json").read_text())["scores"]
        results.append((scores["f1"], scores["gold"]))
        data = json.loads((output / "run.json").read_text())["data"]
        assert (data["files"]["test"].get("format") == "pubtator") == (folder == "published")
    assert results[0] == results[1] and results[0][1] == 4  # two of them of pairs that are not asked about


def test_files_of_ones_own_are_read_in_the_format_that_they_look_like(parquet, tmp_path):
    files = {"train": FIXTURES / "two_texts.pubtator", "validation": parquet, "test": FIXTURES / "chemdisgene.json"}
    loaded = load_splits("local", data_files=files, cache_dir=str(tmp_path))
    assert {split: rows["title"] for split, rows in loaded.items()} == {
        "train": ["101", "102"],
        "validation": ["Mara Quill", "Holt"],
        "test": ["201"],
    }
    provenance = read_provenance(loaded)
    assert {split: file["format"] for split, file in provenance.items()} == {
        "train": "pubtator",
        "validation": "parquet",
        "test": "chemdisgene",
    }
    assert provenance["validation"]["left_out"]["facts of an entity with itself"] == 1
