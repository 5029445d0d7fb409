"""Training and evaluation with Transformers' Trainer."""
