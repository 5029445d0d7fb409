"""This library inside others, each behind its extra: a component of spaCy's pipelines, a graph extractor for LangChain."""
