"""What people read: records of runs, the model cards made from them, and predicted triples as an HTML page."""
