"""The order in which a loader takes pictures."""

import random
from collections import defaultdict

from torch.utils.data import RandomSampler, Sampler, SequentialSampler


class RandomClassSampler(Sampler):
    """Every batch has ``n_ins`` pictures of each of ``batch_size // n_ins`` classes.

    A class with fewer pictures is drawn from with replacement.
    """

    def __init__(self, data_source, batch_size, n_ins):
        if batch_size < n_ins:
            raise ValueError(f"batch_size ({batch_size}) must be at least n_ins ({n_ins})")
        self.n_ins = n_ins
        self.n_classes = batch_size // n_ins
        self.by_label = _places_by(data_source, "label")
        if len(self.by_label) < self.n_classes:
            raise ValueError(
                f"a batch wants {self.n_classes} classes, the data set has {len(self.by_label)}"
            )
        self.length = len(list(iter(self)))

    def __iter__(self):
        groups = {}
        for label, places in self.by_label.items():
            if len(places) < self.n_ins:
                places = random.choices(places, k=self.n_ins)
            shuffled = random.sample(places, len(places))
            whole = len(shuffled) // self.n_ins * self.n_ins
            groups[label] = [shuffled[i : i + self.n_ins] for i in range(0, whole, self.n_ins)]
        while len(groups) >= self.n_classes:
            for label in random.sample(sorted(groups), self.n_classes):
                yield from groups[label].pop()
                if not groups[label]:
                    del groups[label]

    def __len__(self):
        return self.length


class RandomDomainSampler(Sampler):
    """Every batch has equally many random pictures of each of ``n_domain`` random domains."""

    def __init__(self, data_source, batch_size, n_domain):
        self.by_domain = _places_by(data_source, "domain")
        self.n_domain = n_domain if n_domain > 0 else len(self.by_domain)
        self.per_domain = _per_domain(batch_size, self.n_domain)
        self.length = len(list(iter(self)))

    def __iter__(self):
        left = {k: random.sample(places, len(places)) for k, places in self.by_domain.items()}
        while True:
            chosen = random.sample(sorted(left), self.n_domain)
            if any(len(left[domain]) < self.per_domain for domain in chosen):
                return
            for domain in chosen:
                yield from left[domain][: self.per_domain]
                del left[domain][: self.per_domain]

    def __len__(self):
        return self.length


class SeqDomainSampler(Sampler):
    """Every batch has equally many pictures of each domain, in the domains' order."""

    def __init__(self, data_source, batch_size):
        self.by_domain = _places_by(data_source, "domain")
        self.per_domain = _per_domain(batch_size, len(self.by_domain))
        self.length = len(list(iter(self)))

    def __iter__(self):
        domains = sorted(self.by_domain)
        batches = min(len(places) for places in self.by_domain.values()) // self.per_domain
        for batch in range(batches):
            for domain in domains:
                start = batch * self.per_domain
                yield from self.by_domain[domain][start : start + self.per_domain]

    def __len__(self):
        return self.length


def _places_by(data_source, attribute):
    places = defaultdict(list)
    for place, item in enumerate(data_source):
        places[getattr(item, attribute)].append(place)
    return places


def _per_domain(batch_size, n_domain):
    if batch_size % n_domain:
        raise ValueError(f"batch_size ({batch_size}) is not a multiple of {n_domain} domains")
    return batch_size // n_domain


def build_sampler(sampler_type, cfg=None, data_source=None, batch_size=32, n_domain=0, n_ins=16):
    """Make the sampler that ``sampler_type`` names."""
    if sampler_type == "RandomSampler":
        return RandomSampler(data_source)
    if sampler_type == "SequentialSampler":
        return SequentialSampler(data_source)
    if sampler_type == "RandomDomainSampler":
        return RandomDomainSampler(data_source, batch_size, n_domain)
    if sampler_type == "SeqDomainSampler":
        return SeqDomainSampler(data_source, batch_size)
    if sampler_type == "RandomClassSampler":
        return RandomClassSampler(data_source, batch_size, n_ins)
    raise ValueError(
        "a sampler is RandomSampler, SequentialSampler, RandomDomainSampler, SeqDomainSampler "
        f"or RandomClassSampler, not {sampler_type!r}"
    )
