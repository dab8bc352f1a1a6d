"""The software that holds models: one file a kind, each behind the Provider port."""
