"""The edge to other programs: guard, control API, router API and the servers that run them."""
