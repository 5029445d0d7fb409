"""One graph of the triples of many documents: which entities are the same, what supports an edge, and files for other tools."""
