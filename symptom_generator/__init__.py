"""Have a language model write the symptoms of a class, and check a symptom file."""
