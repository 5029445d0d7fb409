"""What a trained model needs to run elsewhere, smaller or faster."""
