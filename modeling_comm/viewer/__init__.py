"""The HTML page that shows triples."""
