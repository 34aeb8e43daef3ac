"""Have a language model write the symptoms of a class, and check a symptom file."""

import trainers  # noqa: F401  (registers the methods, and makes dassl importable)
