"""The page of a graph, in a browser: its filters, what choosing shows, phones, and 10,000 edges."""

import json
import random
import re
import time
from contextlib import ExitStack

import pytest
from browser import CONTRAST, chromium_page, visit
from test_graph import FIRST, HOSTILE, SECOND, married
from test_view import make_record, rows, texts

from modeling_comm.graph import page as page_module
from modeling_comm.graph.formats import write_graph
from modeling_comm.graph.page import render_graph
from modeling_comm.graph.unite import build_graph
from modeling_comm.reporting.html_page import utf16_offsets

THIRD = make_record(
    "Bergen lies in Norway. 😀 Oslo lies in Norway, too.",
    ["Bergen", "Norway", "Oslo"],
    [(0, 1, "P17", 0.8, (0, 0.5)), (2, 1, "P17", 0.75)],
    sentences=[[0, 22], [23, 50]],
    id="third",
    title="",
)
THIRD["entities"][1]["mentions"][1]["sentence"] = THIRD["entities"][2]["mentions"][0]["sentence"] = 1
WIDTHS = {1440: 900, 820: 1100, 390: 844}


@pytest.fixture(scope="module")
def browser_page():
    with chromium_page() as page:
        yield page


@pytest.fixture
def show(browser_page, tmp_path):
    """Opens the page of a graph, once in a test; it must stay silent until the test ends."""
    with ExitStack() as stack:

        def open_page(graph, width=1440):
            browser_page.set_viewport_size({"width": width, "height": WIDTHS[width]})
            (file,) = write_graph(graph, tmp_path / "graph.html")
            stack.enter_context(visit(browser_page, file))
            return browser_page

        yield open_page


@pytest.fixture
def graph():
    return build_graph([FIRST, SECOND, THIRD])


def sentences(page):
    """Of each place that is shown, the sentences with their mentions in brackets."""
    return page.locator("#text article").evaluate_all(
        """places => places.map((place) => Array.from(place.querySelectorAll(".sentence"), (sentence) => {
            const copy = sentence.cloneNode(true);
            copy.querySelector(".number").remove();
            for (const mark of copy.querySelectorAll("mark")) mark.textContent = `[${mark.textContent}]${mark.dataset.role}`;
            return copy.textContent;
        }))"""
    )


def test_edges_entities_and_sentences(show, graph):
    page = show(graph)
    assert page.title() == page.locator("h1").text_content() == "graph"
    assert page.locator("#summary").text_content() == "3 documents, 5 entities, 5 facts"
    assert rows(page) == [
        "Anna | residence | Oslo | 2 | 0.950",
        "Bergen | country | Norway | 1 | 0.800",
        "Oslo | country | Norway | 1 | 0.750",
        "Anna | date of death | 1931 | 1 | 0.700",
        "Anna | place of birth | Oslo | 1 | 0.600",
    ]
    assert texts(page, "#list .name") == ["Oslo", "Anna", "Norway", "1931", "Bergen"]
    assert page.locator(".edge").count() == 5 and sentences(page) == []
    page.locator("#rows tr").first.click()
    assert texts(page, "#text h3") == ["A document 0.950", "A document 0.900"]
    assert sentences(page) == [
        ["[ANNA]head moved to [the\nOslo]tail of 1931."],
        ["She was born there.", "[Anna]head lives in [Oslo]tail."],
    ]
    assert "score 0.950, 2 documents" in page.locator("#choice").text_content()
    assert texts(page, "#text .hint") == ["where they are mentioned", "where its attention rests"]
    page.locator("#rows tr").nth(2).click()
    assert sentences(page) == [["😀 [Oslo]head lies in [Norway]tail, too."]]  # its document has no title
    assert texts(page, "#text h3") == ["third 0.750"]
    page.keyboard.press("Escape")
    assert sentences(page) == [] and not page.locator("#choice .fact").count()


def test_an_undirected_edge_has_no_arrow(show):
    parent = make_record("Anna Bo", ["Anna", "Bo"], [(0, 1, "P40", 0.5)], types=["PER"] * 2, id="b")
    page = show(build_graph([married("a", (0, 1, "P26", 0.8)), parent]))
    for place, arrow in enumerate("↔→"):
        page.locator("#rows tr").nth(place).click()
        assert page.locator("#choice .fact").text_content().count(arrow) == 2
        assert page.locator(f'.edge[data-fact="{place}"] polygon').count() == place


def test_filters(show, graph):
    page = show(graph)
    page.locator("#relation").select_option(label="country (2)")
    assert len(rows(page)) == 2 and page.locator("#counts").text_content() == "2 of 5"
    assert page.locator("#matches").text_content() == "3 of 5 entities"
    page.locator("#relation").select_option(label="all")
    page.locator("#type").select_option(label="TIME (1)")
    assert rows(page) == ["Anna | date of death | 1931 | 1 | 0.700"]
    page.locator("#type").select_option(label="all")
    page.get_by_label("Documents from").fill("2")
    assert rows(page) == ["Anna | residence | Oslo | 2 | 0.950"]
    page.locator(".edge[hidden]").nth(3).wait_for(state="attached")  # a moment later
    page.get_by_label("Documents from").fill("1")
    page.get_by_label("Score from").fill("0.75")
    assert [row.split(" | ")[-1] for row in rows(page)] == ["0.950", "0.800", "0.750"]
    page.get_by_label("Score from").fill("0.6")
    page.get_by_label("Search entities and relations").fill("THE OSLO")  # another name of it
    assert len(rows(page)) == 3 and texts(page, "#list .name") == ["Oslo"]
    page.get_by_label("Search entities and relations").fill("resid")
    assert rows(page) == ["Anna | residence | Oslo | 2 | 0.950"]
    page.get_by_label("Search entities and relations").fill("nothing")
    assert rows(page) == [] and page.locator("#none").text_content() == "No fact passes the filters."


def test_an_entity_is_chosen(show, graph):
    page = show(graph)
    page.locator("#list button").nth(2).click()
    assert len(rows(page)) == 2
    page.get_by_role("button", name="Oslo", exact=True).click()
    assert "Also: the Oslo" in page.locator("#choice").text_content()
    assert "LOC, 3 documents, 3 facts" in page.locator("#choice").text_content()
    page.get_by_role("button", name="Clear the choice").click()
    assert len(rows(page)) == 5


@pytest.mark.parametrize("wanted", ["café", "CAFE\u0301", "c\u200bafé", "ｃafé", "ca\u00adf"])
@pytest.mark.parametrize("name", ["Café", "Cafe\u0301", "Ca\u00adfé", "Ｃafé"])
def test_the_search_finds_what_looks_the_same(show, name, wanted):
    page = show(
        build_graph([make_record(f"Anna {name}", ["Anna", name], [(0, 1, "P551", 0.9)], types=["PER", "LOC"])])
    )
    page.get_by_label("Search entities and relations").fill(wanted)
    assert len(rows(page)) == 1
    page.get_by_label("Search entities and relations").fill("cafés")
    assert len(rows(page)) == 0


@pytest.mark.parametrize("width", WIDTHS)
def test_widths(show, graph, width):
    page = show(graph, width)
    for _ in range(2):
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("#rows tr").first.click()  # then once more with what is chosen
    sentence = page.locator("#text .sentence").first
    assert page.evaluate("element => element.getBoundingClientRect().top < innerHeight", sentence.element_handle())
    page.get_by_role("button", name="Clear the choice").click()
    assert page.evaluate("document.getElementById('rows').getBoundingClientRect().top < innerHeight")


def large_graph(edges):
    draw = random.Random(1)
    records, number = [], 0
    while edges > 0:
        size = min(edges, 40)
        names = [f"Name {draw.randrange(edges)}" for _ in range(20)] + [f"Own {number} {other}" for other in range(20)]
        pairs = draw.sample([(head, tail) for head in range(20, 40) for tail in range(20)], size)
        text = " ".join(names)
        triples = [(head, tail, f"P{draw.randrange(90)}", draw.uniform(0.5, 1), (0, 0.5)) for head, tail in pairs]
        records.append(make_record(text, [], triples, id=number))
        records[-1]["entities"] = [
            {
                "name": name,
                "type": "LOC",
                "mentions": [{"start": text.index(name), "end": text.index(name) + len(name), "sentence": 0}],
            }
            for name in names
        ]
        number += 1
        edges -= size
    return build_graph(records)


def test_ten_thousand_edges(show):
    graph = large_graph(10_000)
    assert len(graph.edges) == 10_000
    page = show(graph, 390)
    assert page.locator("#apart").text_content() == "The 60 strongest of 10,000 facts are drawn"
    assert page.locator("#rows tr").count() == 200 and page.locator(".edge").count() == 60
    assert page.evaluate("document.querySelectorAll('*').length") < 6_000
    began = time.monotonic()
    page.get_by_label("Search entities and relations").fill("own 77")
    page.get_by_text("facts are drawn").or_(page.locator("#apart:empty")).wait_for(state="attached")
    assert page.locator("#counts").text_content() == "40 of 10,000"
    page.locator("#rows tr").first.click()
    assert len(sentences(page)) == 1
    assert time.monotonic() - began < 30  # a second or two on an idle machine


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(show, graph, browser_page, scheme):
    browser_page.emulate_media(color_scheme=scheme)
    page = show(graph)
    page.locator("#rows tr").first.click()
    shown = "h1, h2, h3, p, label, output, button, th, td, td *, mark, .sentence, .number, .type, #list *, #choice *"
    assert min(page.locator(shown).evaluate_all(CONTRAST)) >= 4.5
    browser_page.emulate_media(color_scheme="light")


def test_the_offsets_of_a_sentence_are_counted_once(monkeypatch):
    """However many mentions are marked in it."""
    record = make_record("😀 Anna Bo Anna", ["Anna", "Bo"], [(0, 1, "P40", 0.9), (1, 0, "P26", 0.9)])
    counted = []
    monkeypatch.setattr(page_module, "utf16_offsets", lambda text: counted.append(text) or utf16_offsets(text))
    page = render_graph(build_graph([record]))
    assert counted == [record["text"]] and '"mentions":[[3,7,0],[8,10,1],[11,15,0]]' in page


def test_no_text_ends_the_data():
    record = make_record(
        f"a {HOSTILE}</script><!--",
        ["a", f"{HOSTILE}</script><!--"],
        [(0, 1, HOSTILE, 0.9)],
        title=f"{HOSTILE}</script>",
    )
    page = render_graph(build_graph([record]), title=HOSTILE)
    parts = re.findall(r"<script[^>]*>(.*?)</script>", page, flags=re.DOTALL)
    assert len(parts) == page.count("<script") == page.count("</script>") == 2
    data = json.loads(parts[0])
    assert (
        data["title"] == data["triples"][0]["relation"] == HOSTILE
        and data["documents"][0]["title"] == f"{HOSTILE}</script>"
    )


def test_hostile_names_are_text(show):
    record = make_record(f"a {HOSTILE}", ["a", HOSTILE], [(0, 1, "<b>", 0.9)], types=["<i>", "LOC"], title="<h1>")
    page = show(build_graph([record]))
    page.locator("#rows tr").first.click()
    assert not page.locator("#rows b, #list i, #text h1").count() and texts(page, "#text h3") == ["<h1> 0.900"]


def test_an_empty_graph(show):
    page = show(build_graph([]))
    assert page.locator("#none").text_content() == "The graph has no fact."
