"""The graph of many documents: what is united, what is left out and counted, and that each format gives all of it back."""

import csv
import json
import sys
import tracemalloc
from collections import Counter

import pytest
from test_view import make_record

import comm_docre
from modeling_comm.graph.formats import graph_files, write_graph
from modeling_comm.graph.linking import available_linkers, register_linker
from modeling_comm.graph.rdf import to_rdflib
from modeling_comm.graph.selection import GraphSelection
from modeling_comm.graph.tables import ENTITY_COLUMNS, provenance_rows
from modeling_comm.graph.texts import provenance_fields
from modeling_comm.graph.unite import GraphBuilder, build_graph
from modeling_comm.mentions import normalize_name
from modeling_comm.settings import SettingError
from modeling_comm.utils.spreadsheet import BYTE_ORDER_MARK, csv_rows

NEEDED = 'needs the extra graph: pip install -e ".[graph]"'
FIRST = make_record(
    "Anna lives in Oslo. She was born there.",
    ["Anna", "Oslo"],
    [(0, 1, "P551", 0.9, (1, 0.4), (0, 0.1)), (0, 1, "P19", 0.6)],
    sentences=[[0, 19], [20, 39]],
    types=["PER", "LOC"],
    id="first",
)
SECOND = make_record(
    "ANNA moved to the\nOslo of 1931.",
    ["ANNA", "the\nOslo", "1931"],
    [(0, 1, "P551", 0.95), (0, 2, "P570", 0.7)],
    types=["PER", "LOC", "TIME"],
    id="second",
)


def edges_of(graph):
    return {(edge.head, edge.relation, edge.tail): edge for edge in graph.edges}


def named(name, number, kind="LOC", other="Oslo", **fields):
    """A document that relates an entity of this name to another one."""
    return make_record(
        f"{name} {other}", [name, other], [(0, 1, "P17", 0.9)], types=[kind, "LOC"], id=number, **fields
    )


# ---- Uniting


def test_support_score_and_provenance():
    graph = build_graph([FIRST, SECOND])
    assert [entity.id for entity in graph.entities.values()] == ["PER:anna", "LOC:oslo", "TIME:1931"]
    edges = edges_of(graph)
    assert list(edges) == [
        ("PER:anna", "P551", "LOC:oslo"),
        ("PER:anna", "P570", "TIME:1931"),
        ("PER:anna", "P19", "LOC:oslo"),
    ]
    both = edges["PER:anna", "P551", "LOC:oslo"]
    assert (both.support, both.score, both.probability, both.relation_name) == (2, 0.95, None, "residence")
    assert [place.document.id for place in both.provenance] == ["second", "first"]
    assert provenance_fields(both.provenance[1]) == {
        "document": "first",
        "title": "A document",
        "score": 0.9,
        "marked_by": "attention",
        "sentences": [
            {"number": 1, "start": 20, "text": "She was born there."},
            {"number": 0, "start": 0, "text": "Anna lives in Oslo."},
        ],
        "head_mentions": [{"start": 0, "end": 4, "sentence": 0, "text": "Anna"}],
        "tail_mentions": [{"start": 14, "end": 18, "sentence": 0, "text": "Oslo"}],
    }
    assert both.provenance[0].marked_by == "mentions"
    assert graph.entities["LOC:oslo"].names == Counter({"Oslo": 1, "the Oslo": 1})
    assert (graph.entities["PER:anna"].documents, graph.entities["PER:anna"].mentions) == (2, 2)
    assert (
        graph.summary() == "2 documents, 4 triples -> 3 entities, 3 edges; 2 entities of documents merged into others"
    )


def test_evidence_probability_and_rule():
    record = json.loads(json.dumps(FIRST))
    premises = [[0, 1, "P551"]]
    record["triples"][0] |= {"evidence": [0], "probability": 0.25}
    record["triples"][1] |= {"derived": {"rule": "P551(x, y) => P19(x, y)", "premises": premises}, "evidence": []}
    edges = edges_of(build_graph([record]))
    edge, derived = edges["PER:anna", "P551", "LOC:oslo"], edges["PER:anna", "P19", "LOC:oslo"]
    assert (edge.probability, edge.provenance[0].marked_by) == (0.25, "evidence")
    assert [sentence.number for sentence in edge.provenance[0].sentences] == [0]
    assert derived.provenance[0].rule == "P551(x, y) => P19(x, y)"


def married(number, *triples, names=("Anna", "Bo")):
    """A document of two people and an undirected relation between them."""
    record = make_record(" met ".join(names), names, triples, types=["PER"] * len(names), id=number)
    for triple in record["triples"]:
        triple["symmetric"] = True
    return record


def test_an_undirected_fact_is_one_edge():
    """However it was predicted: in one direction, in the other, or in both."""
    spouse = (0, 1, "P26", 0.8)
    turned = married("b", (0, 1, "P26", 0.9), names=("Bo", "Anna"))
    both = married("c", (0, 1, "P26", 0.7), (1, 0, "P26", 0.7))
    # The other way to say it comes first here, as it does where types decide which direction a model is asked about.
    both["triples"][0]["derived"] = {"rule": "P26(x, y) => P26(y, x)", "premises": [[1, 0, "P26"]]}
    graph = build_graph([married("a", spouse), turned, both])
    (edge,) = graph.edges
    assert (edge.head, edge.tail, edge.symmetric) == ("PER:anna", "PER:bo", True)
    assert (edge.support, edge.score, graph.counts.same_in_document) == (3, 0.9, 1)
    assert [place.document.id for place in edge.provenance] == ["b", "a", "c"]
    for place in edge.provenance:
        assert [mention.text for mention in (*place.head_mentions, *place.tail_mentions)] == ["Anna", "Bo"]
        assert place.rule is None
    (loop,) = build_graph([married("d", spouse, names=("Anna", "ANNA"))]).edges
    assert loop.head == loop.tail and loop.symmetric


def test_a_directed_fact_stays_so():
    graph = build_graph([make_record("Anna Bo", ["Anna", "Bo"], [(0, 1, "P40", 0.5), (1, 0, "P40", 0.5)])])
    assert [edge.symmetric for edge in graph.edges] == [False, False]


SAME = [
    *(
        "Café Noir",
        "CAFE\u0301 NOIR",
        "The café\u00a0noir",
        "cafe\u0301\u200b noir",
        "\ufeffCafé\nNoir",
        "ca\u00adfé noir",
    ),
    *("\u202acafé noir\u202c", "\uff23afé Noir", "café\ufe0f noir", "café\x07 noir", "a Café Noir’s"),
]


def test_what_nobody_sees_splits_no_entity():
    assert {normalize_name(name) for name in SAME} == {"café noir"}
    graph = build_graph([named(name, number, "ORG") for number, name in enumerate(SAME)])
    assert list(graph.entities) == ["ORG:café noir", "LOC:oslo"]
    assert [edge.support for edge in graph.edges] == [len(SAME)]


def test_a_name_counts_once_a_document():
    """However many of its entities have it."""
    record = named("Oslo", 1)
    record["entities"].append(dict(record["entities"][record["triples"][0]["tail"]]))
    record["triples"].append({**record["triples"][0], "tail": len(record["entities"]) - 1})
    entity = build_graph([record]).entities["LOC:oslo"]
    assert entity.documents == 1 and set(entity.names.values()) == set(entity.types.values()) == {1}


def test_other_names_stay_apart():
    names = ["C", "C++", "C#", "Oslo 2", "Oslo II", "😀", "🎉"]
    assert len({normalize_name(name) for name in names}) == len(names)


def test_entities_without_a_readable_name_stay_apart():
    graph = build_graph([named("\u200b", number) for number in range(3)])
    assert graph.counts.without_name == 3 and len(graph.entities) == 4
    assert "3 entities without a readable name, kept apart" in graph.summary()
    # Their ids are no others', in whatever order these come.
    records = [named("\u200b", "LOC"), named("0", 1)]
    for some in (records, records[::-1]):
        graph = build_graph(some)
        assert len(graph.entities) == 3 and {"LOC:0", "LOC:0'"} < set(graph.entities)


def test_linkers():
    records = [named("Ada", 1, "PER"), named("ADA", 2, "ORG"), named("Lady Ada", 3, "PER")]
    for record in records[::2]:
        record["entities"][0]["ids"] = ["Q7259", "Q1"]
    assert available_linkers() == ["id", "name", "name_and_type"]
    assert set(build_graph(records).entities) == {"PER:ada", "ORG:ada", "PER:lady ada", "LOC:oslo"}
    by_name = build_graph(records, "name")
    assert set(by_name.entities) == {"ada", "lady ada", "oslo"}
    assert by_name.entities["ada"].types == Counter({"PER": 1, "ORG": 1}) and by_name.counts.several_types == 1
    by_id = build_graph(records, "id")
    assert set(by_id.entities) == {"Q7259", "ORG:ada", "LOC:oslo"}
    assert by_id.entities["Q7259"].knowledge_base_ids == ["Q7259", "Q1"] and by_id.counts.not_linked == 4
    times = [named("the 1930s", 1, "TIME"), named("The 1930s", 2, "MISC")]
    assert set(build_graph(times, "name").entities) == {"1930s", "oslo"}
    own = build_graph(records, lambda entity, record: f"{record['id']}" if entity["type"] == "PER" else None)
    assert set(own.entities) == {"1", "3", "ORG:ada", "LOC:oslo"}


@pytest.mark.parametrize("given", [5, "", b"Oslo"])
def test_a_linker_gives_texts(given):
    with pytest.raises(
        ValueError,
        match=r"the linker gave .* for the entity 'Anna' of document 'first'; expected a text that is not empty, or None",
    ):
        build_graph([FIRST], lambda entity, record: given)


def test_a_linker_that_fails():
    with pytest.raises(
        ValueError, match="the linker raised KeyError: 'Anna' for the entity 'Anna' of document 'first'"
    ):
        build_graph([FIRST], lambda entity, record: {}[entity["name"]])


@pytest.mark.parametrize("named", [True, False])
def test_a_document_whose_linker_failed_can_be_added_again(named):
    """A service behind the linker may be away for a moment."""
    records = [FIRST, SECOND, make_record("* Oslo", ["*", "Oslo"], [(0, 1, "P17", 0.9)], types=["PER", "LOC"])]
    records = [record if named else {**record, "id": "", "title": ""} for record in records]
    asked = []

    def linker(entity, record):
        asked.append(entity)
        if len(asked) in failing:
            raise TimeoutError
        return None

    failing = ()
    expected = build_graph(records, linker)
    failing, asked = {2, 5, 10}, []
    builder = GraphBuilder(linker)
    for record in records:
        while True:
            before = builder.graph(), set(builder.types), dict(builder.relations)
            try:
                builder.add(record)
                break
            except ValueError:
                assert (builder.graph(), builder.types, builder.relations) == before
    assert len(asked) > 10 and builder.graph() == expected


def test_unknown_linker():
    with pytest.raises(SettingError, match="'id', 'name', 'name_and_type'"):
        build_graph([FIRST], "wikidata")


def test_a_relation_has_the_first_name_that_is_not_its_id():
    records = [named("Anna", number) for number in range(3)]
    for record, name in zip(records, ["P17", "country", "state"], strict=True):
        record["triples"][0]["relation_name"] = name
    assert [edge.relation_name for edge in build_graph(records).edges] == ["country"]


def test_triples_that_become_one_count_once():
    record = make_record(
        "Oslo, OSLO, Anna", ["Oslo", "OSLO", "Anna"], [(2, 0, "P551", 0.7), (2, 1, "P551", 0.8), (0, 1, "P17", 0.6)]
    )
    graph = build_graph([record])
    edges = edges_of(graph)
    assert (edges["LOC:anna", "P551", "LOC:oslo"].support, edges["LOC:anna", "P551", "LOC:oslo"].score) == (1, 0.8)
    assert graph.entities["LOC:oslo"].documents == 1 and graph.entities["LOC:oslo"].mentions == 2
    assert (graph.counts.same_in_document, graph.counts.loops, graph.counts.merged_entities) == (1, 1, 1)


def test_documents_given_again():
    other = {**FIRST, "text": FIRST["text"].replace("lives", "lived")}
    nameless = [{name: value for name, value in {**FIRST, "title": ""}.items() if name != "id"} for _ in range(2)]
    nameless[1] = {**nameless[1], "text": other["text"]}
    graph = build_graph([FIRST, FIRST, other, *nameless, *nameless])
    edge = edges_of(graph)["PER:anna", "P551", "LOC:oslo"]
    assert sorted(place.document.id for place in edge.provenance) == ["#4", "#5", "first", "first (2)"]
    assert (edge.support, graph.counts.documents, graph.counts.repeated_documents) == (4, 4, 3)
    (edge,) = build_graph([named("Anna", "", title="Vale")]).edges  # an empty id is none
    assert edge.provenance[0].document.id == "Vale"


def test_scores_are_of_one_kind():
    """JSON has 1 for 1.0, of which GraphML would make another attribute."""
    records = [named("Anna", number) for number in range(2)]
    records[0]["triples"][0]["score"] = 1
    graph = build_graph([*records, FIRST])
    assert {type(number) for edge in graph.edges for number in (edge.score, *(p.score for p in edge.provenance))} == {
        float
    }


def test_a_graph_that_is_asked_for_twice():
    builder = GraphBuilder(selection=GraphSelection(min_support=2), max_provenance=1)
    for record in (FIRST, SECOND):
        builder.add(record)
    first = builder.graph()
    assert first.counts.edges_below_min_support == 2 and first.counts.provenance_left_out == 1
    assert builder.graph().summary() == first.summary()


def test_provenance_is_bounded():
    records = [named("Anna", number) for number in range(30)]
    for number, record in enumerate(records):
        record["triples"][0]["score"] = (number * 7 % 30) / 30
    graph = build_graph(iter(records), max_provenance=3)
    (edge,) = graph.edges
    assert edge.support == 30 and [place.score for place in edge.provenance] == [29 / 30, 28 / 30, 27 / 30]
    assert graph.counts.provenance_left_out == 27
    for number, record in enumerate(records):
        record["triples"][0]["score"] = 0.9 if number == 2 else 0.5
    (edge,) = build_graph(records, max_provenance=2).edges
    assert [place.document.id for place in edge.provenance] == ["2", "0"]  # of equals the first
    with pytest.raises(SettingError, match="max_provenance"):
        build_graph([], max_provenance=0)


# ---- Which edges


def test_selection_counts_what_it_leaves_out():
    graph = build_graph([FIRST, SECOND], selection=GraphSelection(min_score=0.65, min_support=2))
    assert list(edges_of(graph)) == [("PER:anna", "P551", "LOC:oslo")]
    assert set(graph.entities) == {"PER:anna", "LOC:oslo"}
    assert graph.summary("--") == (
        "2 documents, 4 triples -> 2 entities, 1 edge; 1 triple below --min_score; 1 edge below --min_support; "
        "1 triple of such edges; 2 entities of documents merged into others"
    )
    by_relation = build_graph([FIRST, SECOND], selection=GraphSelection(relations="Residence"))
    assert [edge.support for edge in by_relation.edges] == [2] and by_relation.counts.of_other_relations == 2
    by_type = build_graph([FIRST, SECOND], selection=GraphSelection(tail_types=["DATE"]))
    assert list(edges_of(by_type)) == [("PER:anna", "P570", "TIME:1931")] and by_type.counts.of_other_types == 3


@pytest.mark.parametrize("fields", [{"min_support": 0}, {"min_score": 1.5}, {"relations": []}, {"min_support": True}])
def test_selection_is_checked(fields):
    with pytest.raises(SettingError, match=next(iter(fields))):
        GraphSelection(**fields)


# ---- Files

HOSTILE = '"; DROP\r\nTABLE <b>&amp;</b> ]]> \x00\x0b\ufffe\ud83d 😀 \u2028 | \\" \'; =cmd'


@pytest.fixture
def hostile():
    first = make_record(
        f"=1+1 {HOSTILE}", ["=1+1", HOSTILE], [(0, 1, "P17", 0.9)], types=["A;B", "LOC"], id=HOSTILE, title=HOSTILE
    )
    first["triples"][0]["relation_name"] = HOSTILE
    second = json.loads(json.dumps(SECOND))
    second["triples"][0]["probability"] = 0.5
    return build_graph([FIRST, second, first], lambda entity, record: entity["name"] if record is first else None)


def written(graph, tmp_path, suffix):
    files = write_graph(graph, tmp_path / f"graph{suffix}")
    assert files == graph_files(tmp_path / f"graph{suffix}") and all(file.is_file() for file in files)
    return files


def read_csv(file):
    content = file.read_bytes()
    assert content.startswith(BYTE_ORDER_MARK)
    return list(csv.DictReader(content.decode("utf-8-sig").splitlines(keepends=True)))


def test_csv(hostile, tmp_path):
    edges, entities, places = map(read_csv, written(hostile, tmp_path, ".csv"))
    assert len(edges) == len(hostile.edges) == 4 and len(entities) == len(hostile.entities) == 5
    assert len(places) == sum(edge.support for edge in hostile.edges) == 5
    assert edges[0] == {
        **{
            "head_id": "PER:anna",
            "head": "Anna",
            "head_type": "PER",
            "relation": "P551",
            "relation_name": "residence",
        },
        **{
            "tail_id": "LOC:oslo",
            "tail": "Oslo",
            "tail_type": "LOC",
            "support": "2",
            "score": "0.95",
            "probability": "0.5",
        },
        **{"documents": "second | first", "sentences": "ANNA moved to the\nOslo of 1931.", "symmetric": "False"},
    }
    cells = [cell for row in (*edges, *entities, *places) for cell in row.values()]
    assert "'=1+1" in cells and not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    (place,) = [place for place in places if place["document"].startswith('"; DROP')]
    assert json.loads(place["head_mentions"]) == [{"start": 0, "end": 4, "sentence": 0, "text": "=1+1"}]
    assert place["document"] == HOSTILE.replace("\ud83d", "\\ud83d")


@pytest.mark.parametrize("sign", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_no_cell_is_a_formula(sign):
    (row,) = csv.reader(
        csv_rows(["a", "b"], [{"a": f"{sign}1+1", "b": f"1{sign}1"}]).decode().splitlines(keepends=True)
    )
    assert row == [f"'{sign}1+1", f"1{sign}1"]


def test_parquet(hostile, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason=NEEDED)
    edges, entities, places = (parquet.read_table(file).to_pylist() for file in written(hostile, tmp_path, ".parquet"))
    assert (len(edges), len(entities), len(places)) == (4, 5, 5)
    assert list(entities[0]) == list(ENTITY_COLUMNS) and entities[0]["names"] == ["Anna", "ANNA"]
    assert places[1]["tail_mentions"] == [{"start": 14, "end": 18, "sentence": 0, "text": "Oslo"}]
    assert {place["document"] for place in places} == {"first", "second", HOSTILE.replace("\ud83d", "\\ud83d")}
    assert parquet.read_table(written(build_graph([]), tmp_path, ".parquet")[0]).num_rows == 0


def test_graphml(hostile, tmp_path):
    networkx = pytest.importorskip("networkx", reason=NEEDED)
    read = networkx.read_graphml(written(hostile, tmp_path, ".graphml")[0])
    assert (read.number_of_nodes(), read.number_of_edges()) == (5, 4) and read.is_directed() and read.is_multigraph()
    assert read.nodes["LOC:oslo"]["names"] == "Oslo | the Oslo"
    both = read.edges["PER:anna", "LOC:oslo", 0]
    assert (both["relation"], both["support"], both["score"], both["probability"]) == ("P551", 2, 0.95, 0.5)
    assert json.loads(both["provenance"])[1]["sentences"][1] == {
        "number": 0,
        "start": 0,
        "text": "Anna lives in Oslo.",
    }
    (odd,) = [attributes for head, _, attributes in read.edges(data=True) if head == "=1+1"]
    assert json.loads(odd["provenance"])[0]["document"] == HOSTILE  # exact, because JSON escapes it
    assert all(part in odd["relation_name"] for part in ("<b>&amp;</b> ]]>", "\\u0000\\u000b\\ufffe\\ud83d 😀"))


def test_turtle(hostile, tmp_path):
    rdflib = pytest.importorskip("rdflib", reason=NEEDED)
    from rdflib import RDF, Graph, Literal, Namespace, URIRef

    read = Graph().parse(written(hostile, tmp_path, ".ttl")[0])
    comm = Namespace("urn:comm-docre:vocabulary:")
    assert (
        len(set(read.subjects(RDF.type, RDF.Statement))) == 4 and len(set(read.subjects(RDF.type, comm.Entity))) == 5
    )
    anna, lives, oslo = (
        URIRef(f"urn:comm-docre:{name}") for name in ("entity:PER%3Aanna", "relation:P551", "entity:LOC%3Aoslo")
    )
    assert (anna, lives, oslo) in read
    assert sum((head, relation, tail) in read for head, relation, tail in facts(read)) == 4
    found = read.query(
        """
        SELECT ?document ?score ?sentence WHERE {
            ?statement rdf:subject ?head ; rdf:predicate ?relation ; rdf:object ?tail ; comm:support 2 ; comm:foundIn ?place .
            ?place comm:document/dcterms:identifier ?document ; comm:score ?score ; comm:sentence/rdf:value ?sentence
        } ORDER BY ?document ?sentence""",
        initBindings={"head": anna, "relation": lives, "tail": oslo},
    )
    assert [tuple(value.toPython() for value in row) for row in found] == [
        ("first", 0.9, "Anna lives in Oslo."),
        ("first", 0.9, "She was born there."),
        ("second", 0.95, "ANNA moved to the\nOslo of 1931."),
    ]
    shown = HOSTILE.replace("\ud83d", "\\ud83d").replace("\x00\x0b\ufffe", "\\u0000\\u000b\\ufffe")
    assert (None, rdflib.DCTERMS.title, Literal(shown)) in read


def test_ids_in_namespaces_of_others():
    rdflib = pytest.importorskip("rdflib", reason=NEEDED)
    record = named("p53", 1)
    record["entities"][0]["ids"] = ["7157"]
    genes = "http://identifiers.org/ncbigene/"
    for start, name in ((genes, "7157"), ("urn:comm-docre:entity:", "_7157")):
        read = to_rdflib(build_graph([record], "id"), entities=start)
        assert (rdflib.URIRef(start + name), None, rdflib.Literal("p53")) in read


def facts(read):
    from rdflib import RDF

    for statement in read.subjects(RDF.type, RDF.Statement):
        yield tuple(read.value(statement, part) for part in (RDF.subject, RDF.predicate, RDF.object))


def test_neo4j(hostile, tmp_path):
    tables = []
    for file in written(hostile, tmp_path, ".neo4j"):
        content = file.read_text(encoding="utf-8")
        tables.append(list(csv.DictReader(content.split("\n"))))
        assert len(content.splitlines()) >= content.count("\n") == len(tables[-1]) + 1  # no field has a line break
    entities, relations = tables
    assert (len(entities), len(relations)) == (5, 4)
    ids = [row["id:ID"] for row in entities]
    assert len(set(ids)) == 5 and {row[end] for row in relations for end in (":START_ID", ":END_ID")} == set(ids)
    assert {row[":LABEL"] for row in entities} == {"Entity;PER", "Entity;LOC", "Entity;TIME", "Entity;A,B"}
    assert (relations[0][":TYPE"], relations[0]["support:int"], relations[0]["probability:double"]) == (
        "P551",
        "2",
        "0.5",
    )
    assert "=1+1" in ids and any(json.loads(row["provenance"])[0]["document"] == HOSTILE for row in relations)


def test_each_format_says_that_an_edge_is_undirected(tmp_path):
    pytest.importorskip("networkx", reason=NEEDED)
    pytest.importorskip("pyarrow", reason=NEEDED)
    rdflib = pytest.importorskip("rdflib", reason=NEEDED)
    import networkx
    from pyarrow import parquet

    graph = build_graph([married("a", (0, 1, "P26", 0.8))])
    assert [row["symmetric"] for row in provenance_rows(graph)] == [True]
    other = build_graph([married("a", (1, 0, "P26", 0.8))])
    assert read_csv(written(graph, tmp_path, ".csv")[0])[0]["symmetric"] == "True"
    assert parquet.read_table(written(graph, tmp_path, ".parquet")[0]).to_pylist()[0]["symmetric"] is True
    read = networkx.read_graphml(written(graph, tmp_path, ".graphml")[0])
    assert [edge["symmetric"] for _, _, edge in read.edges(data=True)] == [True]
    relations = written(graph, tmp_path, ".neo4j")[1].read_text(encoding="utf-8").split("\n")
    assert [row["symmetric:boolean"] for row in csv.DictReader(relations)] == ["true"]
    statements = set()
    for number, one in enumerate((graph, other)):
        rdf = rdflib.Graph().parse(written(one, tmp_path, ".ttl")[0])
        (statement,) = rdf.subjects(rdflib.URIRef("urn:comm-docre:vocabulary:symmetric"))
        assert len(set(rdf.triples((None, rdflib.URIRef("urn:comm-docre:relation:P26"), None)))) == 2, number
        statements.add(statement)
    assert len(statements) == 1, "the direction in which it was found first"


def test_unknown_suffix(tmp_path):
    with pytest.raises(ValueError, match=r"graph\.xlsx: expected a name that ends in \.html, \.csv, .*\.graphml"):
        write_graph(build_graph([]), tmp_path / "graph.xlsx")


# ---- The command


@pytest.fixture
def triples(tmp_path):
    file = tmp_path / "triples.jsonl"
    file.write_text("".join(f"{json.dumps(record)}\n\n" for record in (FIRST, SECOND)), encoding="utf-8")
    return str(file)


def run(*arguments):
    return comm_docre.main(["graph", *map(str, arguments)])


def test_a_folder_of_records_is_refused_by_name(tmp_path, capsys):
    assert run("--input", tmp_path, "--output", tmp_path / "graph.csv") == 2
    assert f"--input {tmp_path}: found a folder, expected files of predictions" in capsys.readouterr().err


def test_command(triples, tmp_path, capsys):
    output = tmp_path / "new" / "graph.csv"
    assert (
        run(
            "--input",
            triples,
            triples,
            "--output",
            output,
            "--min_score",
            0.65,
            "--relations",
            "RESIDENCE",
            "date of death",
        )
        == 0
    )
    said = capsys.readouterr().err
    assert (
        "2 documents, 4 triples -> 3 entities, 2 edges; 2 documents given again and not counted again; 1 triple below --min_score"
        in said
    )
    assert str(tmp_path / "new" / "graph.entities.csv") in said and "warning" not in said
    assert [row["support"] for row in read_csv(output)] == ["2", "1"]


def test_command_warns_of_what_no_triple_has(triples, tmp_path, capsys):
    assert (
        run("--input", triples, "--output", tmp_path / "g.csv", "--relations", "residense", "--head_types", "PERS")
        == 0
    )
    said = capsys.readouterr().err
    assert "warning: --relations: no triple has the relation 'residense'; is 'residence' meant?" in said
    assert "warning: --head_types: no entity has the type 'PERS'" in said
    for wanted in ("p551", "RESIDENCE", "P551"):  # ids have a case
        assert run("--input", triples, "--output", tmp_path / "g.csv", "--relations", wanted) == 0
        said = capsys.readouterr().err
        assert ("no triple has the relation 'p551'; is 'P551' meant?" in said) == (wanted == "p551")


def test_command_takes_a_linker_of_ones_own(triples, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("modeling_comm.graph.linking._REGISTRY", dict(register_linker.__globals__["_REGISTRY"]))
    own = tmp_path / "own_linker.py"
    own.write_text(
        "from modeling_comm.graph.linking import register_linker\n\n\n"
        "@register_linker('initial')\ndef link_by_initial(entity, record):\n    return entity['name'][0].lower()\n"
    )
    output = tmp_path / "graph.csv"
    assert run("--input", triples, "--output", output, "--extensions", own, "--linker", "initial") == 0
    assert {row["id"] for row in read_csv(tmp_path / "graph.entities.csv")} == {"a", "o", "t", "1"}


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "triples.jsonl, line 5: found no valid JSON"),
        ("5", "triples.jsonl, line 5: found int"),
        (
            json.dumps({**FIRST, "version": 0}),
            "triples.jsonl, line 5: document ('A document'), field version: found 0",
        ),
        (
            json.dumps({**FIRST, "triples": [{**FIRST["triples"][0], "tail": 2}]}),
            "line 5: document ('A document'), field triples[0].tail",
        ),
    ],
)
def test_bad_lines_are_named(triples, tmp_path, capsys, line, message):
    with open(triples, "a", encoding="utf-8") as file:
        file.write(line)
    assert run("--input", triples, "--output", tmp_path / "graph.csv") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and said.count("\n") == 1
    assert not (tmp_path / "graph.csv").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--output", "graph.txt"], "graph.txt: expected a name that ends in"),
        (["--output", "graph.csv", "--min_support", "0"], "--min_support is 0; expected"),
        (["--output", "graph.csv", "--min_score", "2"], "--min_score is 2.0; expected"),
        (["--output", "graph.csv", "--max_provenance", "0"], "--max_provenance is 0; expected"),
        (
            ["--output", "graph.csv", "--linker", "kb"],
            "--linker is 'kb'; expected one of 'id', 'name', 'name_and_type'",
        ),
        (["--output", "graph.csv", "--input", "none.jsonl"], "none.jsonl"),
    ],
)
def test_wrong_arguments_are_one_line(triples, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run("--input", triples, *arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_input_is_not_overwritten(triples, tmp_path, capsys):
    (tmp_path / "graph.provenance.csv").write_text("mine")
    assert run("--input", tmp_path / "graph.provenance.csv", "--output", tmp_path / "graph.csv") == 2
    assert "would be written over the input" in capsys.readouterr().err


@pytest.mark.parametrize("suffix, package", [(".parquet", "pyarrow"), (".graphml", "networkx"), (".ttl", "rdflib")])
def test_what_a_format_lacks_is_named(suffix, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"'{package}', of the extra 'graph': pip install"):
        write_graph(build_graph([FIRST]), tmp_path / f"graph{suffix}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix, package", [(".parquet", "pyarrow"), (".graphml", "networkx"), (".ttl", "rdflib")])
def test_what_a_format_lacks_is_named_before_records_are_read(suffix, package, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "wrong.jsonl").write_text("no record\n")
    assert run("--input", tmp_path / "wrong.jsonl", "--output", tmp_path / f"graph{suffix}") == 2
    said = capsys.readouterr().err
    assert f"'{package}', of the extra 'graph': pip install" in said and said.count("\n") == 1


# ---- Memory


def test_memory_follows_the_graph():
    """Ten times the documents of the same facts: what is kept of each is its name."""
    peaks = []
    for size in (200, 2000):
        tracemalloc.start()
        graph = build_graph(long_record(number) for number in range(size))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [edge.support for edge in graph.edges] == [size] and len(graph.edges[0].provenance) == 20
    assert peaks[1] - peaks[0] < 1800 * 400  # bytes; a record has 20,000 characters


def long_record(number):
    return named("Anna", number) | {"text": f"Anna Oslo {'x' * 20_000}{number}"}
