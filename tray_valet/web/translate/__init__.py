"""Words of one dialect in those of another, and whole answers from streams."""
