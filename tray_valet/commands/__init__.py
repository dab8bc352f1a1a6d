"""The commands: each file is one noun. They speak to the running valet over its control API."""
