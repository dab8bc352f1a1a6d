"""The router API: what it answers itself, and what it hands to the relay."""
