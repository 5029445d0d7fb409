"""Turns the sample's readable markup (`documents/*.md`) into files in DocRED's format.

    python examples/sample/build_sample.py           # write the JSON files beside this script
    python examples/sample/build_sample.py --check   # only say whether they are up to date

The markup is described in `README.md`. Every mistake in it stops the build with its file and line.
"""

import argparse
import json
import re
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
FILES = {"train": "train_revised.json", "dev": "dev_revised.json", "test": "test_revised.json", "check": "check.json"}
TYPES = ("PER", "ORG", "LOC", "TIME", "NUM", "MISC")
RELATIONS = {
    "P17": "country",
    "P19": "place of birth",
    "P22": "father",
    "P26": "spouse",
    "P27": "country of citizenship",
    "P40": "child",
    "P50": "author",
    "P57": "director",
    "P69": "educated at",
    "P108": "employer",
    "P112": "founded by",
    "P131": "located in the administrative territorial entity",
    "P159": "headquarters location",
    "P175": "performer",
    "P206": "located in or next to body of water",
    "P463": "member of",
    "P569": "date of birth",
    "P570": "date of death",
    "P571": "inception",
    "P577": "publication date",
}

HEADING = re.compile(r"## (?P<title>.+) \| split: (?P<split>\w+)")
SENTENCE = re.compile(r"(?P<number>\d+)\. (?P<text>.+)")
FACT = re.compile(r"- (?P<head>\d+) (?P<relation>P\d+) (?P<tail>\d+) @(?P<evidence>\d+(,\d+)*)")
MENTION = re.compile(r"(?<!\S)\[(?P<name>[^\[\]|]+)\|(?P<type>\w+)\|(?P<entity>\d+)\](?!\S)")
GLUED = re.compile(r"\w+('s|[,;:!?()])|[(]\w+")


class MarkupError(ValueError):
    """A mistake in the markup; the message opens with its file and line."""


class Document:
    """One document while it is being read.

    Entities are numbered from 1 in the markup and from 0 in the JSON; sentences from 0 in both.
    """

    def __init__(self, title, split, where):
        self.title, self.split, self.where = title, split, where
        self.sents, self.sentence_lines, self.labels = [], [], []
        self.mentions = {}
        self.facts = set()

    def add_sentence(self, number, text, where):
        """Splits a sentence into tokens and keeps its mentions; raises `MarkupError`."""
        if self.labels:
            raise MarkupError(f"{where}: sentence after the facts of {self.title!r}; sentences come first")
        if number != len(self.sents):
            raise MarkupError(f"{where}: sentence number {number}, expected {len(self.sents)}")
        tokens, end = [], 0
        for match in MENTION.finditer(text):
            tokens += text[end : match.start()].split()
            self._add_mention(match["name"].split(), match["type"], int(match["entity"]), len(tokens), where)
            tokens += match["name"].split()
            end = match.end()
        tokens += text[end:].split()
        for token in tokens:
            if re.search(r"[\[\]|]", token):
                raise MarkupError(f"{where}: broken mention mark at {token!r}, expected ' [name|TYPE|number] '")
            if GLUED.fullmatch(token):
                raise MarkupError(f"{where}: token {token!r} holds punctuation, expected spaces around it")
        self.sents.append(tokens)
        self.sentence_lines.append(where)

    def _add_mention(self, name, type_, entity, start, where):
        if type_ not in TYPES:
            raise MarkupError(f"{where}: unknown type {type_!r}, expected one of {', '.join(TYPES)}")
        mentions = self.mentions.setdefault(entity, [])
        if mentions and mentions[0]["type"] != type_:
            raise MarkupError(f"{where}: entity {entity} is marked {type_} here and {mentions[0]['type']} before")
        mentions.append(
            {"name": " ".join(name), "sent_id": len(self.sents), "pos": [start, start + len(name)], "type": type_}
        )

    def add_fact(self, head, relation, tail, evidence, where):
        """Keeps a fact whose parts all exist; raises `MarkupError`."""
        for entity in (head, tail):
            if entity not in self.mentions:
                raise MarkupError(f"{where}: unknown entity {entity}, {self.title!r} marks {sorted(self.mentions)}")
        if head == tail:
            raise MarkupError(f"{where}: entity {head} is head and tail")
        if relation not in RELATIONS:
            raise MarkupError(f"{where}: unknown relation {relation}, expected one of {', '.join(RELATIONS)}")
        if evidence != sorted(set(evidence)) or evidence[-1] >= len(self.sents):
            raise MarkupError(
                f"{where}: evidence {evidence} out of range or order, expected rising numbers below {len(self.sents)}"
            )
        if (head, relation, tail) in self.facts:
            raise MarkupError(f"{where}: fact {head} {relation} {tail} is repeated")
        self.facts.add((head, relation, tail))
        self.labels.append({"h": head - 1, "t": tail - 1, "r": relation, "evidence": evidence})

    def to_docred(self):
        """Checks the finished document and returns it as DocRED's dictionary; raises `MarkupError`."""
        if not self.labels:
            raise MarkupError(f"{self.where}: document {self.title!r} without facts")
        if sorted(self.mentions) != list(range(1, len(self.mentions) + 1)):
            raise MarkupError(f"{self.where}: entities {sorted(self.mentions)}, expected 1, 2, 3 ... without a gap")
        self._refuse_unmarked_names()
        vertices = [self.mentions[entity] for entity in sorted(self.mentions)]
        return {"title": self.title, "sents": self.sents, "vertexSet": vertices, "labels": self.labels}

    def _refuse_unmarked_names(self):
        """A name marked once must be marked wherever it occurs, or the entity would lose mentions."""
        everything = [mention for mentions in self.mentions.values() for mention in mentions]
        names = {tuple(mention["name"].split()) for mention in everything}
        for sent_id, tokens in enumerate(self.sents):
            marked = {i for m in everything if m["sent_id"] == sent_id for i in range(*m["pos"])}
            for name in names:
                for start in range(len(tokens) - len(name) + 1):
                    span = range(start, start + len(name))
                    if tuple(tokens[start : start + len(name)]) == name and marked.isdisjoint(span):
                        where = self.sentence_lines[sent_id]
                        raise MarkupError(f"{where}: {' '.join(name)!r} has no mark here")


def parse(text, source):
    """Reads one file of markup.

    Args:
        text (`str`): The markup.
        source (`str`): Name of the file, for messages.

    Returns:
        `list[tuple[str, dict]]`: Split and document in DocRED's format, in the order of the file.

    Raises:
        `MarkupError`: At the first line that breaks a rule of the markup.
    """
    documents = []
    for number, line in enumerate(text.splitlines(), start=1):
        line, where = line.strip(), f"{source}:{number}"
        if not line or (line.startswith("# ") and not documents):
            continue
        if match := HEADING.fullmatch(line):
            if match["split"] not in FILES:
                raise MarkupError(f"{where}: unknown split {match['split']!r}, expected one of {', '.join(FILES)}")
            documents.append(Document(match["title"], match["split"], where))
        elif documents and (match := SENTENCE.fullmatch(line)):
            documents[-1].add_sentence(int(match["number"]), match["text"], where)
        elif documents and (match := FACT.fullmatch(line)):
            evidence = [int(sent_id) for sent_id in match["evidence"].split(",")]
            documents[-1].add_fact(int(match["head"]), match["relation"], int(match["tail"]), evidence, where)
        else:
            raise MarkupError(
                f"{where}: found {line[:60]!r}, expected '## Title | split: train', '0. sentence' or '- 1 P19 2 @0,2'"
            )
    return [(document.split, document.to_docred()) for document in documents]


def build(folder):
    """Returns the text of every JSON file, by file name, from `folder/documents`; raises `MarkupError`."""
    splits, sources = {split: [] for split in FILES}, {}
    for path in sorted((folder / "documents").glob("*.md")):
        for split, document in parse(path.read_text(encoding="utf-8"), path.name):
            title = document["title"]
            if title in sources:
                raise MarkupError(f"{path.name}: title {title!r} is taken by a document of {sources[title]}")
            sources[title] = path.name
            splits[split].append(json.dumps(document, ensure_ascii=False))
    # One document per line, so that a change shows as one line.
    files = {FILES[split]: "[\n" + ",\n".join(lines) + "\n]\n" for split, lines in splits.items()}
    return files | {"rel_info.json": json.dumps(RELATIONS, indent=1) + "\n"}


def main(arguments=None, folder=FOLDER):
    """Writes the files, or with `--check` compares them; returns the exit status."""
    parser = argparse.ArgumentParser(description="Build the sample documents in DocRED's format.", allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing, fail when a file is out of date")
    check = parser.parse_args(arguments).check
    try:
        files = build(folder)
    except MarkupError as error:
        print(error, file=sys.stderr)
        return 1
    stale = []
    for name, text in files.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8", newline="\n")
    print(f"{'out of date' if check else 'written'}: {', '.join(stale)}" if stale else "up to date")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
