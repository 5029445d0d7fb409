"""What several folders share."""
