"""VisionLLM: does an untrained large vision-language model beat the trained methods?

A model at an endpoint is asked about each image in two steps: first which symptoms it shows, then,
given these answers, how probable each class is. The result is a run's folder like any method's.
"""
