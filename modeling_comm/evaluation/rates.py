"""Precision, recall and F1 of counts."""


def ratio(part: float, whole: float) -> float:
    """A share; 0 of nothing."""
    return part / whole if whole else 0.0


def f1_of(precision: float, recall: float) -> float:
    """Their harmonic mean; 0 if both are 0."""
    return ratio(2 * precision * recall, precision + recall)


def rates(correct: int, predictions: int, gold: int) -> dict[str, float]:
    """`precision`, `recall` and `f1`, fractions of 1, and the counts that they are of."""
    precision, recall = ratio(correct, predictions), ratio(correct, gold)
    counts = {"gold": gold, "predictions": predictions, "correct": correct}
    return {"precision": precision, "recall": recall, "f1": f1_of(precision, recall), **counts}
