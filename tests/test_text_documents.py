"""Text and character spans to documents and back: nothing is lost but white space, and every span is found again."""

import json
import random

import pytest
from helpers import SHARED, requires_shared

from modeling_comm.documents import DocumentError, docred_type, validate_document
from modeling_comm.text_to_document import document_from_text, split_sentences, text_from_document


def words(text):
    return [text[start:end] for start, end in word_spans(text)]


def word_spans(text):
    """Words of a text as spans, from the document that it becomes."""
    spans, end = [], 0
    for sentence in document_from_text(text, []).document["sents"]:
        for word in sentence:
            start = text.index(word, end)
            end = start + len(word)
            spans.append((start, end))
    return spans


def sentences(text):
    return [text[start:end] for start, end in split_sentences(text)]


def entity(*spans, **fields):
    return {"mentions": [{"start": start, "end": end} for start, end in spans], **fields}


def check(text, entities, converted):
    """Checks what holds for every text."""
    validate_document(converted.document)
    sents, vertex_set = converted.document["sents"], converted.document["vertexSet"]
    assert "".join(word for sentence in sents for word in sentence) == "".join(text.split())
    assert not any(character.isspace() for sentence in sents for word in sentence for character in word)
    assert [len(sentence) > 0 for sentence in sents] == [True] * len(converted.sentences) or sents == [[]]
    end = 0
    for (low, high), sentence in zip(converted.sentences, sents, strict=False):
        assert end <= low < high and text[low:high] == text[low:high].strip()
        assert "".join(text[low:high].split()) == "".join(sentence)
        end = high
    for given, found, mentions in zip(entities, converted.entities, vertex_set, strict=True):
        for span, there, mention in zip(given["mentions"], found["mentions"], mentions, strict=True):
            inside = text[span["start"] : span["end"]]
            assert there["text"] == text[there["start"] : there["end"]] == inside.strip() == mention["name"]
            low, high = converted.sentences[there["sentence"]]
            assert low <= there["start"] < there["end"] <= high and there["sentence"] == mention["sent_id"]
            start, stop = mention["pos"]
            assert "".join(sents[mention["sent_id"]][start:stop]) == "".join(inside.split())


# ------------------------------------------------------------------------------------------------- sentences and words


@pytest.mark.parametrize(
    "text, expected",
    [
        ("It didn't cost $1,000.50.", ["It", "did", "n't", "cost", "$", "1,000.50", "."]),
        ("Ada's dogs' U.S. visit, 4:23", ["Ada", "'s", "dogs", "'", "U.S.", "visit", ",", "4:23"]),
        ("Dr. J. Quill (b. 1901)", ["Dr.", "J.", "Quill", "(", "b.", "1901", ")"]),
        ("free-to-air R&B -- O’Neill…", ["free", "-", "to", "-", "air", "R&B", "--", "O’Neill", "…"]),
        ("cafe\u0301s हिन्दी\u200c x_y", ["cafe\u0301s", "हिन्दी\u200c", "x", "_", "y"]),
        ("👍🏽 👨\u200d👩 שלום, 東京。", ["👍", "🏽", "👨\u200d", "👩", "שלום", ",", "東京", "。"]),
    ],
    ids=["amount", "apostrophes", "titles", "hyphens", "marks", "scripts"],
)
def test_words(text, expected):
    assert words(text) == expected


GERMAN = ["Er kam am 4. Mai 1931 (z. B. nach Nr. 3) im 19. Jahrhundert an.", "Sie war 12.", "Er ging."]
LIST = ["Things that one needs for a long journey by boat", "ropes and", "knives", "salt"]
TABLE = ["Ada Quill of Oslo, who left in 1901\t12 ships", "Peter\t3", "Venn\t4"]
WRAPPED = [
    "Ada Quill",
    "Her husband, who was Peter Venn of Oslo,\nworked there.",
    "Both lived in the old town.",
    "- One",
]


@pytest.mark.parametrize(
    "text, expected",
    [
        ("He came. She left! Why? So…", ["He came.", "She left!", "Why?", "So…"]),
        ("Dr. Ada J. Quill of the U.S. Navy. Prof. Venn.", ["Dr. Ada J. Quill of the U.S. Navy.", "Prof. Venn."]),
        ("It grew 3.5 percent. In No. 7, e.g. Oslo.", ["It grew 3.5 percent.", "In No. 7, e.g. Oslo."]),
        ('"Stop!" he said. "Go." (Now.) Then', ['"Stop!" he said.', '"Go."', "(Now.)", "Then"]),
        ("Title\n\nFirst line\r\nsecond. Third", ["Title", "First line", "second.", "Third"]),
        ("東京は首都です。人口は多い。はい", ["東京は首都です。", "人口は多い。", "はい"]),
        ("They can't. Wait... Good", ["They can't.", "Wait...", "Good"]),
        ("Er kam am 4. Mai 1931 (z. B. nach Nr. 3) im 19. Jahrhundert an. Sie war 12. Er ging.", GERMAN),
        (
            "Ada Quill\n\nHer husband, who was Peter Venn of Oslo,\nworked there. Both lived in the old town.\n- One",
            WRAPPED,
        ),
        (
            "Ada Quill of Oslo, a physicist and a poet\n\nHer husband\nPeter",
            ["Ada Quill of Oslo, a physicist and a poet", "Her husband", "Peter"],
        ),
        ("Things that one needs for a long journey by boat\nropes and\nknives\nsalt", LIST),
        ("Ada Quill of Oslo, who left in 1901\t12 ships\nPeter\t3\nVenn\t4", TABLE),
        ("One line.\n" + "a " * 61 + "\nanother", ["One line.", ("a " * 61).strip(), "another"]),
        (" \n\t ", []),
    ],
    ids=[
        *(
            "ends",
            "abbreviations",
            "numbers",
            "quotes",
            "lines",
            "full_width",
            "ellipsis",
            "german",
            "wrapped",
            "heading",
        ),
        *("list", "table", "paragraphs", "empty"),
    ],
)
def test_sentences(text, expected):
    assert sentences(text) == expected


@requires_shared
def test_the_rules_agree_with_docred():
    """Sentences and words of real documents, whose tokens are joined by spaces (which misleads the rules at quotes)."""
    documents = json.loads((SHARED / "data/redocred-mini/dev_revised.json").read_text(encoding="utf-8"))
    agree = {"sentences": [0, 0, 0], "words": [0, 0, 0]}
    for document in documents:
        text, (spans, tokens), position = text_from_document(document).text, (set(), set()), 0
        for sentence in document["sents"]:
            for token in sentence:
                tokens.add((position, position + len(token)))
                position += len(token) + 1
            spans.add(position - 1)
        found = {"sentences": {end for _, end in split_sentences(text)}, "words": set(word_spans(text))}
        for name, expected in (("sentences", spans), ("words", tokens)):
            agree[name][0] += len(found[name] & expected)
            agree[name][1] += len(found[name])
            agree[name][2] += len(expected)
    for name, least in (("sentences", 0.95), ("words", 0.99)):
        both, found, expected = agree[name]
        assert both / found > least and both / expected > least, (name, agree[name])


# ---------------------------------------------------------------------------------------------------- there and back


@requires_shared
@pytest.mark.parametrize("name", ["redocred-mini/dev_revised.json", "docred-mini/test.json"])
def test_real_documents_there_and_back(name):
    for document in json.loads((SHARED / "data" / name).read_text(encoding="utf-8"))[:200]:
        there = text_from_document(document)
        assert there.document == {key: document[key] for key in ("title", "sents", "vertexSet")}
        assert there.text == " ".join(" ".join(sentence) for sentence in document["sents"])
        for (start, end), sentence in zip(there.sentences, document["sents"], strict=True):
            assert there.text[start:end] == " ".join(sentence)
        for found, mentions in zip(there.entities, document["vertexSet"], strict=True):
            for span, mention in zip(found["mentions"], mentions, strict=True):
                tokens = document["sents"][mention["sent_id"]][slice(*mention["pos"])]
                assert there.text[span["start"] : span["end"]] == span["text"] == " ".join(tokens)
                assert span["sentence"] == mention["sent_id"]
        back = document_from_text(there.text, there.entities, there.title)
        check(there.text, there.entities, back)
        same = document_from_text(
            there.text, there.entities, sentence_splitter=lambda text, spans=there.sentences: spans
        )
        for found, given in zip(same.entities, there.entities, strict=True):
            for span, before in zip(found["mentions"], given["mentions"], strict=True):
                # Some published mentions begin or end with a token of white space.
                assert (span["text"], span["sentence"]) == (before["text"].strip(), before["sentence"])
                assert before["start"] <= span["start"] < span["end"] <= before["end"]


def test_empty_sentences_and_blank_tokens_of_a_document():
    mention = {"name": "b", "sent_id": 3, "pos": [1, 2], "type": "LOC"}
    document = {"title": "T", "sents": [["a", " "], [], [], ["", "b"], []], "vertexSet": [[mention]]}
    found = text_from_document(document)
    for (start, end), sentence in zip(found.sentences, document["sents"], strict=True):
        assert found.text[start:end] == " ".join(sentence)
    assert found.entities[0]["mentions"][0]["text"] == "b"


ALPHABET = [
    *(
        "a",
        "B",
        "é",
        "e\u0301",
        "ß",
        "ø",
        " ",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\u2028",
        "\u00a0",
        ".",
        "!",
        "?",
        "'",
        "’",
        '"',
    ),
    *("(", ")", "-", "—", "_", "&", ",", "1", "٣", "½", "東", "京", "。", "し", "ה", "ع", "\u200f", "\u202e", "न", "्"),
    *("👍", "🏽", "👨\u200d👩\u200d👧", "🇳🇴", "\u200b", "\ufeff", "\u0000", "\u00ad", "Dr.", "U.S.", "n't", "…"),
]


@pytest.mark.parametrize("seed", range(5))
def test_any_text_with_any_spans(seed):
    draw = random.Random(seed)
    for _ in range(60):
        text = "".join(draw.choices(ALPHABET, k=draw.randrange(120)))
        entities = []
        for _ in range(draw.randrange(6)):
            spans = [sorted(draw.sample(range(len(text) + 1), 2)) for _ in range(draw.randint(1, 3)) if text]
            spans = [span for span in spans if text[slice(*span)].strip()]
            if spans:
                entities.append(entity(*spans, type="LOC"))
        try:
            converted = document_from_text(text, entities)
        except DocumentError as error:
            assert "that begin inside a word" in str(error)  # the only thing that can be wrong with them
        else:
            check(text, entities, converted)


@pytest.mark.parametrize(
    "text", ["", " ", "\n", "\u200b", "." * 20_000, "a." * 10_000, "n't" * 10_000, "e\u0301" * 10_000], ids=range(8)
)
def test_strange_texts(text):
    converted = document_from_text(text, [])
    check(text, [], converted)
    assert converted.title == "" and converted.entities == []


def test_words_and_sentences_go_round_mentions():
    text = "The Norwegian-born author of What? Never! lived in NewYork."
    title, city = (text.index("What?"), text.index(" lived")), (text.index("York"), text.index("."))
    converted = document_from_text(text, [entity(title, type="MISC"), entity(city, type="LOC")])
    assert len(converted.sentences) == 1
    assert converted.document["sents"][0][-3:] == ["New", "York", "."]
    assert [sorted(found["mentions"][0].items()) for found in converted.entities] == [
        sorted({"start": start, "end": end, "text": text[start:end], "sentence": 0}.items())
        for start, end in (title, city)
    ]


def test_names_and_types():
    text = "Ada\nQuill, called Quill, was born in 1901."
    quill, year = entity((18, 23), (0, 9)), entity((37, 41), type="DATE", name="the year 1901")
    named, dated = document_from_text(text, [quill, year]).entities
    assert (named["name"], named["type"]) == ("Ada Quill", "MISC")
    assert (dated["name"], dated["type"]) == ("the year 1901", "TIME")
    kinds = ["PERSON", "per", "I", "GPE", "NORP", "WORK_OF_ART", "MONEY", "Gene"]
    assert [docred_type(kind) for kind in kinds] == ["PER", "PER", "I", "LOC", "LOC", "MISC", "NUM", "Gene"]


# ---------------------------------------------------------------------------------------------------------- what fails

TEXT = "Ada Quill was born in Port Venn. She left for Oslo."


@pytest.mark.parametrize(
    "span, found",
    [
        ((5, 5), "found [5, 5], where the text is 'Ada Quill was born in Por'"),
        ((9, 4), "found [9, 4], where the text is 'Ada Quill was born in Port Ve'"),
        ((-1, 3), "found [-1, 3], where the text is 'Ada Quill was born in P'"),
        ((46, 99), "found [46, 99], where the text is ' Venn. She left for Oslo.'"),
        ((3, 4), "found [3, 4], where the text is ' ', expected a span of more than white space"),
        ((True, 4), "found [True, 4]"),
        (("0", 4), "found ['0', 4]"),
        ((0.0, 4), "found [0.0, 4]"),
        ((None, None), "found [None, None]"),
    ],
    ids=lambda value: None if isinstance(value, str) else "-".join(map(str, value)),
)
def test_spans_that_do_not_fit(span, found):
    entities = [entity((0, 9), type="PER"), entity((22, 31), span, type="LOC")]
    with pytest.raises(DocumentError) as error:
        document_from_text(TEXT, entities, "Ada", index=7, source="file.json")
    message = str(error.value)
    assert message.startswith("file.json: document 7 ('Ada'), field entities[1].mentions[1]: "), message
    assert found in message and "expected " in message
    assert (error.value.index, error.value.title, error.value.source) == (7, "Ada", "file.json")


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((None, []), "field text: found None"),
        (("a\ud800b", []), r"field text: found 'a\\ud800b'"),
        ((TEXT, None), "field entities: found None"),
        ((TEXT, ["Ada"]), r"field entities\[0\]: found 'Ada'"),
        ((TEXT, [{"type": "PER"}]), r"field entities\[0\].mentions:"),
        ((TEXT, [entity(type="PER")]), r"field entities\[0\].mentions: found \[\]"),
        ((TEXT, [{"mentions": ["Ada"]}]), r"field entities\[0\].mentions\[0\]: found 'Ada'"),
        ((TEXT, [entity((0, 9), type=3)]), r"field entities\[0\].type: found 3"),
        ((TEXT, [], 5), "field title: found 5"),
    ],
    ids=["no_text", "surrogate", "no_list", "no_entity", "no_mentions", "no_mention", "no_span", "type", "title"],
)
def test_fields_that_do_not_fit(arguments, message):
    with pytest.raises(DocumentError, match=message):
        document_from_text(*arguments)


@requires_shared
def test_indices_of_words_are_recognised():
    """Word indices that are taken for characters are caught in nearly all real documents; true offsets in none."""
    documents = json.loads((SHARED / "data/redocred-mini/dev_revised.json").read_text(encoding="utf-8"))
    caught = 0
    for document in documents:
        there = text_from_document(document)
        first = [0]
        for sentence in document["sents"]:
            first.append(first[-1] + len(sentence))
        entities = [
            entity(*[[first[m["sent_id"]] + p for p in m["pos"]] for m in mentions], type="MISC")
            for mentions in document["vertexSet"]
        ]
        try:
            document_from_text(there.text, entities)
        except DocumentError as error:
            caught += "are these indices of words" in str(error) or "white space" in str(error)
    assert caught > 0.95 * len(documents)


def test_mentions_that_cut_words(caplog):
    cut = [entity((1, 3), type="PER"), entity((5, 8), type="LOC")]
    with pytest.raises(DocumentError) as error:
        document_from_text(TEXT, cut, index=3)
    assert error.value.found.startswith("[1, 3]") and "indices of words" in error.value.expected
    finnish = "Helsingissä ja Turussa"
    document_from_text(finnish, [entity((0, 7), type="LOC"), entity((15, 19), type="LOC")], index=4)
    assert caplog.messages == [
        "document 4: 2 of 2 mentions begin or end inside a word, such as 'Helsing' in 'Helsingissä ja Turussa'"
    ]
    caplog.clear()
    document_from_text(finnish, [entity((0, 7), type="LOC"), entity((12, 14), type="LOC")])  # half of them
    document_from_text("東京は日本の首都です", [entity((0, 2), type="LOC"), entity((3, 5), type="LOC")])
    assert not caplog.messages


def test_white_space_round_a_mention_is_reported(caplog):
    converted = document_from_text(TEXT, [entity((21, 32 - 1), (45, 50), type="LOC")], "Ada", index=2)
    assert [mention["text"] for mention in converted.entities[0]["mentions"]] == ["Port Venn", "Oslo"]
    assert caplog.messages == [
        "document 2 ('Ada'), entities[0].mentions[0]: the white space around ' Port Venn' at [21, 31] is left out",
        "document 2 ('Ada'), entities[0].mentions[1]: the white space around ' Oslo' at [45, 50] is left out",
    ]


@pytest.mark.parametrize(
    "spans, found",
    [
        ([(0, 10), (12, 51)], "'wa'"),
        ([(0, 32)], "She left"),
        ([(0, 40), (30, 51)], "[30, 51]"),
        ([(0, 99)], "[0, 99]"),
        (None, "found None"),
        ([5], "found 5"),
        ([(0, 32.0)], "(0, 32.0)"),
    ],
    ids=["gap", "end", "overlap", "range", "none", "number", "floats"],
)
def test_sentence_splitters_that_lose_text(spans, found):
    with pytest.raises(DocumentError, match="field sentence_splitter") as error:
        document_from_text(TEXT, [], sentence_splitter=lambda text: spans)
    assert found in str(error.value)


def test_a_sentence_splitter_replaces_the_rules():
    halves = document_from_text(
        TEXT, [entity((4, 9), type="PER")], sentence_splitter=lambda text: [(0, 6), (6, 30), (30, 51)]
    )
    assert halves.sentences == [(0, 30), (30, 51)]  # none ends inside "Quill"
