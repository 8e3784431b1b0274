"""The nouns every other part speaks in: frozen data, no behaviour beyond their own invariants."""
