"""What incomplete labels need: rules that complete them, and a map from margins to probabilities with one threshold per
relation."""
