"""Whether the words at which mentions are said to be are their names."""

import logging

from ..documents import Document

logger = logging.getLogger(__name__)

_FEW = 0.05  # the share of mentions that may have another name, as hardly any of published files has


class MentionNames:
    """Compares the names of mentions with their words, spaces aside, document by document."""

    def __init__(self) -> None:
        self._mentions = self._others = self._one_before = 0
        self._example = ""

    def add(self, document: Document) -> None:
        """Compares those of a valid document."""
        for number, mentions in enumerate(document["vertexSet"]):
            for place, mention in enumerate(mentions):
                sentence, (start, end) = document["sents"][mention["sent_id"]], mention["pos"]
                name = "".join(mention["name"].split())
                if not name:
                    continue
                self._mentions += 1
                if "".join(sentence[start:end]) == name:
                    continue
                self._others += 1
                self._one_before += start > 0 and "".join(sentence[start - 1 : end - 1]) == name
                if not self._example:
                    found = f"{' '.join(sentence[start:end])!r}, expected the name {mention['name']!r}"
                    field = f"vertexSet[{number}][{place}]"
                    self._example = f"document {document['title']!r}, field {field}: found the words {found}"

    def warn(self, source: str) -> None:
        """Warns, once for all documents of a file, if more than a few mentions have another name."""
        if self._others <= _FEW * self._mentions:
            return
        why = ""
        if 2 * self._one_before > self._others:
            why = "; most of them fit one token before: indices of tokens count from 0"
        found = f"{self._others:,} of {self._mentions:,} mentions are at words that are not their name"
        logger.warning("%s: %s, such as %s%s", source, found, self._example, why)
