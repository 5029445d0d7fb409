"""DocRED and Re-DocRED: loading (`docred`, needs `datasets`) and description (`describe`, needs nothing)."""
