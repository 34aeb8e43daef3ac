"""How fast, beside what: ``python -m benchmarks``."""
