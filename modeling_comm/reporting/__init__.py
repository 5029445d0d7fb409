"""Records of runs and the model cards made from them."""
