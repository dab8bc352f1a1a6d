"""One request to an engine and its answer back, byte by byte where that can be."""
