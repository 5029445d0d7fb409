"""Scores of predictions, and what they are compared with."""
