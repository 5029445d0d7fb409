"""Finding mentions, and grouping them into entities."""

import json
import re
from collections import Counter

import pytest
import torch
from helpers import SHARED, requires_shared, tiny_text_config, word_piece_tokenizer
from transformers import AutoModelForTokenClassification, pipeline

from modeling_comm import mentions as mentions_module
from modeling_comm.documents import DocumentError
from modeling_comm.mentions import find_mentions, group_mentions, normalize_name
from modeling_comm.text_to_document import split_sentences, text_from_document

# ------------------------------------------------------------------------------------------------------------ grouping


def read(marked):
    """Text and mentions of `... [TYPE:name] ...`; `[name]` has no type."""
    text, mentions = "", []
    for before, kind, name in re.findall(r"([^\[\]]*)(?:\[(?:([A-Z]+):)?([^\]]+)\])?", marked):
        text += before
        if name:
            mentions.append({"start": len(text), "end": len(text) + len(name), "type": kind or None})
        text += name
    return text, mentions


def names(text, entities):
    return [[text[mention["start"] : mention["end"]] for mention in entity["mentions"]] for entity in entities]


@pytest.mark.parametrize(
    "marked, expected",
    [
        ("[LOC:The Nile], [LOC:the nile's] and [LOC:Nile.]", [["The Nile", "the nile's", "Nile."]]),
        (
            "[LOC:U.S.] or [LOC:US], [LOC:Łódź] or [LOC:Ło\u0301dz\u0301]",
            [["U.S.", "US"], ["Łódź", "Ło\u0301dz\u0301"]],
        ),
        ("[PER:Jean-Paul Venn] [PER:Jean  Paul Venn]", [["Jean-Paul Venn", "Jean  Paul Venn"]]),
        (
            "[TIME:1990], [NUM:1990], [NUM:1.5], [NUM:15], [NUM:Two] [NUM:two]",
            [["1990"], ["1990"], ["1.5"], ["15"], ["Two", "two"]],
        ),
        (
            "[MISC:Article 5.1] [MISC:Article 51] [MISC:article 5.1.] [No. 7] [no 7] [No.7] [No7]",
            [["Article 5.1", "article 5.1."], ["Article 51"], ["No. 7", "no 7"], ["No.7", "No7"]],
        ),
        ("[PER:Washington] in [LOC:Washington]", [["Washington"], ["Washington"]]),
        ("[ORG:Oslo] in [LOC:Oslo], [MISC:Oslo], [Oslo]", [["Oslo", "Oslo", "Oslo", "Oslo"]]),
        ("[$$] and [$$] or [€€]", [["$$", "$$"], ["€€"]]),
        ("[LOC:United Nations] ([ORG:UN])", [["United Nations", "UN"]]),
        ("[ORG:University of Oslo] ([ORG:UiO]), [ORG:UIO]", [["University of Oslo", "UiO", "UIO"]]),
        ("the [ORG:Bank of the North] and [ORG:BN], [ORG:BOTN]", [["Bank of the North", "BN", "BOTN"]]),
        ("[ORG:Volkswagen] ([ORG:VW]) sold [ORG:V.W.]", [["Volkswagen", "VW", "V.W."]]),
        (
            "[ORG:The Volkswagen Group] ([ORG:VW]), [ORG:The Oslo Line] ([ORG:TOL])",
            [["The Volkswagen Group", "VW"], ["The Oslo Line", "TOL"]],
        ),
        ("[ORG:Volkswagen] ([ORG:BMW]) or [ORG:Viking]", [["Volkswagen"], ["BMW"], ["Viking"]]),
        (
            "[LOC:United States]. [ORG:Union Stores]. [ORG:US] [LOC:US]",
            [["United States"], ["Union Stores", "US", "US"]],
        ),
        ("[NUM:two million] [ORG:TM]", [["two million"], ["TM"]]),
        ("[PER:Ada Quill] met [PER:Quill]'s son", [["Ada Quill", "Quill"]]),
        ("[PER:Quill] is [PER:Ada Quill Jr.]", [["Quill", "Ada Quill Jr."]]),
        (
            "[PER:Ada Quill] ([PER:AQ]) is [PER:Eve Ada Quill]",
            [["Ada Quill", "AQ", "Eve Ada Quill"]],
        ),
        ("[MISC:C], [MISC:C++], [MISC:C#]", [["C"], ["C++"], ["C#"]]),
        ("[LOC:Quill] and [PER:Ada Quill]; [MISC:Quill]", [["Quill", "Quill"], ["Ada Quill"]]),
        (
            "[PER:Ada Quill]. [PER:Quill]. [PER:Bo Quill]. [PER:Quill]. [PER:Ada Quill]. [PER:Quill]",
            [["Ada Quill", "Quill", "Ada Quill", "Quill"], ["Bo Quill", "Quill"]],
        ),
        ("[PER:Quill] of [PER:Bo Quill], [PER:Ada Quill]", [["Quill", "Bo Quill"], ["Ada Quill"]]),
        ("[PER:Gogh], [PER:van Gogh], [PER:Vincent van Gogh]", [["Gogh", "van Gogh", "Vincent van Gogh"]]),
        ("[ORG:University of Oslo] in [ORG:Oslo]", [["University of Oslo"], ["Oslo"]]),
    ],
    ids=[
        *(
            "articles",
            "unicode",
            "hyphens",
            "amounts",
            "stops_in_numbers",
            "types",
            "confused_types",
            "signs",
            "initials_in_brackets",
        ),
        *(
            "mostly_capitals",
            "small_words",
            "letters_in_brackets",
            "letters_after_an_article",
            "other_in_brackets",
            "most_recent_initials",
            "no_amounts",
        ),
        *(
            "last_name",
            "first_of_all",
            "chain_of_initials",
            "signs_that_tell_apart",
            "persons_only",
            "most_recent",
            "first_after",
            "chain",
            "no_places",
        ),
    ],
)
def test_rules(marked, expected):
    text, mentions = read(marked)
    assert names(text, group_mentions(text, mentions)) == expected
    assert names(text, group_mentions(text, mentions[::-1])) == expected  # their order does not matter


def test_every_name_is_looked_at_a_few_times(monkeypatch):
    """And not once for every other name: what is done for a name is counted, in a text of four hundred."""
    letters = [f"{one}{other}" for one in "ABCDEFGHIJ" for other in "KLMNOPQRST"]
    marked = "".join(f"the [ORG:{one}o {two}i]. [ORG:{one}{two}] and [PER:{one}{two}an Quinn] or [PER:Quinn]. "
                     for one, two in letters)  # fmt: skip
    text, mentions = read(marked)
    calls = Counter()
    for name in ("normalize_name", "_compatible", "_has_letters", "_initials", "_family_name", "_is_abbreviation"):
        whole = getattr(mentions_module, name)
        monkeypatch.setattr(mentions_module, name, lambda *words, n=name, f=whole: calls.update([n]) or f(*words))
    entities = names(text, group_mentions(text, mentions))
    assert max(calls.values()) <= 4 * len(mentions)
    assert len(entities) == 2 * len(letters)
    assert all([f"{one}o {two}i", f"{one}{two}"] in entities for one, two in letters)
    assert entities[1] == ["AKan Quinn", "Quinn"], "the one mentioned last before"


def test_names_within_names_are_looked_at_once(monkeypatch):
    """However many ways there are from a short name to the longest: here 2 ** 14."""
    words = [f"{letter}an" for letter in "BCDFGHJKLMNPQRST"]
    persons = [" ".join(words[start:]) for start in range(len(words))]
    calls, whole = [], mentions_module._last_targets
    monkeypatch.setattr(mentions_module, "_last_targets", lambda name: calls.append(name) or whole(name))
    text, mentions = read(". ".join(f"[PER:{name}]" for name in persons))
    assert names(text, group_mentions(text, mentions)) == [persons]
    assert len(calls) == len(persons)


def test_a_mention_in_no_group_is_an_entity_alone():
    text, mentions = read(" ".join(f"[PER:P{number}]" for number in range(6)))
    found = names(text, group_mentions(text, mentions, lambda *_: [[4, 1]]))
    assert found == [["P0"], ["P1", "P4"], ["P2"], ["P3"], ["P5"]]


def test_types():
    text, mentions = read("[GPE:Oslo] [ORG:Oslo] [ORG:Oslo] [Oslo] and [Nile], [GENE:BRCA]")
    mentions[4]["type"] = ""
    assert [entity["type"] for entity in group_mentions(text, mentions)] == ["ORG", None, "GENE"]
    # What a model calls them itself does not change who is joined.
    text, mentions = read("[GPE:Oslo] [GPE:Oslo] [ORG:Oslo], [PERSON:Ada Quill], [PERSON:Quill]")
    entities = group_mentions(text, mentions, known_types=["GPE", "PERSON"])
    assert [entity["type"] for entity in entities] == ["GPE", "PERSON"]


def test_spans_that_overlap_or_occur_twice():
    text, mentions = read("[PER:Ada Quill] of Oslo")
    twice = [*mentions, {"start": 0, "end": 9, "type": "ORG"}, {"start": 0, "end": 9}, {"start": 0, "end": 3}]
    found = group_mentions(text, twice)
    assert found == [
        {"type": None, "mentions": [{"start": 0, "end": 3}]},
        {"type": "PER", "mentions": [{"start": 0, "end": 9}]},
    ]
    assert group_mentions(text, []) == group_mentions("", []) == []


def test_names():
    assert normalize_name("The  Ｏｓｌｏ’s") == normalize_name("OSLO") == "oslo"
    assert normalize_name("-1.5%", "NUM") == "-1.5%" and normalize_name("'s") == "'s"
    assert {normalize_name(name) for name in ("Tylenol™", "Tylenol®", "TYLENOL℠", "Tylenol")} == {"tylenol"}
    assert normalize_name("邊\U000e0100") == "邊" and normalize_name("H₂O") == "h2o" and normalize_name("m²") == "m2"


@pytest.mark.parametrize("kind", ["NUM", None])
def test_an_exponent_is_no_digit_of_the_number(kind):
    names = ["10⁵ cells", "10⁻⁵ cells", "10⁵² cells", "105 cells", "1052 cells", "10-5 cells"]
    assert len({normalize_name(name, kind) for name in names}) == len(names)
    assert normalize_name(names[0], kind) == normalize_name("10^5 cells", kind)


@pytest.mark.parametrize(
    "groups, expected",
    [
        ([[2, 0]], [["Ada", "she"], ["Oslo"]]),
        ([(1,), {0}, []], [["Ada"], ["Oslo"], ["she"]]),
        ([], [["Ada"], ["Oslo"], ["she"]]),
    ],
    ids=["one", "several", "none"],
)
def test_coreference_replaces_the_rules(groups, expected):
    text, mentions = read("[PER:Ada] of [LOC:Oslo], where [she] was")

    def coreference(whole, flat):
        assert whole == text and [mention["text"] for mention in flat] == ["Ada", "Oslo", "she"]
        return groups

    assert names(text, group_mentions(text, mentions, coreference)) == expected


@pytest.mark.parametrize(
    "groups, found",
    [
        ([[0, 3]], "found 3"),
        ([[0], [0]], r"found \[0\]"),
        ([[True]], "found True"),
        ([0], "found 0"),
        ([["a"]], "found 'a'"),
        (None, "found None"),
    ],
    ids=["range", "twice", "bool", "flat", "text", "none"],
)
def test_coreference_that_does_not_fit(groups, found):
    text, mentions = read("[PER:Ada] of [LOC:Oslo], where [she] was")
    with pytest.raises(DocumentError, match=rf"document 4 \('T'\), field coreference: {found}"):
        group_mentions(text, mentions, lambda *_: groups, "T", index=4)


@pytest.mark.parametrize(
    "mention, message",
    [
        ({"start": 3, "end": 99}, r"field mentions\[1\]: found \[3, 99\]"),
        ({"start": 0, "end": 3, "type": 7}, r"field mentions\[1\].type: found 7"),
        ("Oslo", r"field mentions\[1\]: found 'Oslo'"),
    ],
    ids=["span", "type", "text"],
)
def test_mentions_that_do_not_fit(mention, message):
    with pytest.raises(DocumentError, match=message):
        group_mentions("Ada of Oslo", [{"start": 0, "end": 3}, mention], index=1)


@requires_shared
def test_the_rules_find_docreds_entities():
    """Mentions and types from the annotation, entities by the rules: pairs of mentions that belong together."""
    right = found = wanted = 0
    for document in json.loads((SHARED / "data/redocred-mini/dev_revised.json").read_text(encoding="utf-8")):
        there = text_from_document(document)
        entity_of, mentions = {}, []
        for number, entity in enumerate(there.entities):
            for span, mention in zip(entity["mentions"], document["vertexSet"][number], strict=True):
                entity_of.setdefault((span["start"], span["end"]), number)
                mentions.append({"start": span["start"], "end": span["end"], "type": mention["type"]})
        grouped = {}
        for number, entity in enumerate(group_mentions(there.text, mentions)):
            grouped |= {(span["start"], span["end"]): number for span in entity["mentions"]}
        assert grouped.keys() == entity_of.keys()
        pairs = [(one, other) for one in grouped for other in grouped if one < other]
        right += sum(grouped[one] == grouped[other] and entity_of[one] == entity_of[other] for one, other in pairs)
        found += sum(grouped[one] == grouped[other] for one, other in pairs)
        wanted += sum(entity_of[one] == entity_of[other] for one, other in pairs)
    assert right / found > 0.94 and right / wanted > 0.7, (right, found, wanted)


# ---------------------------------------------------------------------------------------------------- text to mentions


@pytest.fixture(scope="module")
def recognizer():
    """A token classifier, at most 66 subword tokens long, that takes every word for a place."""
    tokenizer = word_piece_tokenizer()
    tokenizer.model_max_length = 66
    config = tiny_text_config("bert", tokenizer, id2label={0: "O", 1: "B-LOC"}, label2id={"O": 0, "B-LOC": 1})
    model = AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 5.0]))
    return {"task": "token-classification", "model": model, "tokenizer": tokenizer, "device": "cpu"}


def test_transformers_pipelines_read_long_texts_to_the_end(recognizer):
    text = "\n".join(f"Omar built a town near Oslo in {year}" for year in ("1901", "1945") * 20)
    found = find_mentions(pipeline(**recognizer, aggregation_strategy="first"), text).mentions
    assert [(mention["start"], mention["end"]) for mention in found] == [
        match.span() for match in re.finditer(r"\S+", text)
    ]
    assert {mention["type"] for mention in found} == {"LOC"}
    assert find_mentions(pipeline(**recognizer, aggregation_strategy="first"), " ") == ([], None)
    whole = find_mentions(pipeline(**recognizer, aggregation_strategy="first"), "Oslo. Nile", lambda text: [(0, 10)])
    assert [mention["start"] for mention in whole.mentions] == [0, 4, 6]


@pytest.mark.parametrize("known", [True, False])
def test_transformers_pipelines_read_long_sentences_to_the_end(recognizer, known):
    tokenizer = word_piece_tokenizer()
    if known:  # else it says that there is no limit
        tokenizer.model_max_length = 66
    ner = pipeline(**{**recognizer, "tokenizer": tokenizer}, aggregation_strategy="first")
    text = " ".join(["Omar Oslo Nile town"] * 40)
    found = find_mentions(ner, text).mentions
    assert [(one["start"], one["end"]) for one in found] == [match.span() for match in re.finditer(r"\S+", text)]


def test_subword_tokens_are_refused(recognizer):
    with pytest.raises(ValueError, match="aggregation_strategy='simple'"):
        find_mentions(pipeline(**recognizer), "Omar built a town")


def test_spacy_pipelines():
    spacy = pytest.importorskip("spacy", reason="needs spaCy, which the extra `text` brings")
    nlp = spacy.blank("en")
    nlp.add_pipe("entity_ruler").add_patterns(
        [{"label": "GPE", "pattern": "Oslo"}, {"label": "PERSON", "pattern": "Ada"}]
    )
    assert find_mentions(nlp, "👍 Ada left Oslo.") == (
        [
            {"start": 2, "end": 5, "type": "PERSON", "text": "Ada"},
            {"start": 11, "end": 15, "type": "GPE", "text": "Oslo"},
        ],
        None,
    )
    nlp.add_pipe("sentencizer")
    text = "Ada left Oslo. Ada came back (to Oslo). " * 5
    whole = find_mentions(nlp, text)
    assert (len(whole.mentions), len(whole.sentences)) == (20, 10)
    # A text that is longer than the pipeline takes is read in parts of whole sentences.
    nlp.max_length = 60
    longest = max(end - start for start, end in split_sentences(text))
    assert find_mentions(nlp, text) == whole and longest < 60 < len(text)
    nlp.remove_pipe("sentencizer")
    # Of a single token, as the last part is, spaCy always knows the sentence.
    parts = [*split_sentences(text), (len(text), len(text) + 4)]
    nlp.max_length = longest
    assert find_mentions(nlp, f"{text}Oslo", lambda _: parts).sentences is None
    nlp.max_length = longest - 1
    with pytest.raises(ValueError, match="max_length"):
        find_mentions(nlp, text)


def test_spacy_pipelines_that_fill_doc_spans():
    spacy = pytest.importorskip("spacy", reason="needs spaCy, which the extra `text` brings")
    nlp = spacy.blank("en")
    nlp.add_pipe("span_ruler").add_patterns([{"label": "PER", "pattern": "Ada"}, {"label": "LOC", "pattern": "Oslo"}])
    doc = nlp("Ada lives in Oslo.")
    doc.spans["coref_clusters_1"] = [doc[0:1]]  # without a label: no named entity

    def found():
        mentions, _ = find_mentions(lambda text: doc, doc.text)
        return [(mention["start"], mention["end"], mention["type"]) for mention in mentions]

    assert found() == [(0, 3, "PER"), (13, 17, "LOC")]
    doc.set_ents([spacy.tokens.Span(doc, 3, 4, "GPE")])  # named entities come before spans
    assert found() == [(13, 17, "GPE")]


@pytest.mark.parametrize(
    "found",
    [None, "Oslo", [(0,)], {"start": 0}, [{"start": 0, "end": 4}, None]],
    ids=["none", "text", "short", "dict", "mixed"],
)
def test_sources_that_give_something_else(found):
    with pytest.raises(ValueError, match="ner"):
        find_mentions(lambda text: found, "Oslo")


def test_mentions_without_offsets_are_refused():
    with pytest.raises(ValueError, match="start or end"):
        find_mentions(lambda text: [{"start": None, "end": None, "entity_group": "PER"}], "Oslo")


def test_any_callable_is_a_source():
    found = [
        {"start": 0, "end": 4, "label": "GPE"},
        {"start": 5, "end": 9, "entity_group": "PER"},
        {"start": 1, "end": 2},
    ]
    mentions, sentences = find_mentions(lambda text: found, "Oslo Anna")
    assert ([mention["type"] for mention in mentions], sentences) == (["GPE", "PER", None], None)
