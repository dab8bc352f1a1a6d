"""The control API described as OpenAPI 3.1."""
