"""Tools that several folders share."""
