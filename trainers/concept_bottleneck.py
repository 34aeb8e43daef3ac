"""A concept bottleneck: class scores are learned weights over the scores of symptoms."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from backbones.backbone import Backbone
from backbones.numerics import at_least_fp32
from core.errors import InputError
from engine.method import Method, PromptedModel, register
from engine.prompts import check_phrases, encode_texts
from engine.symptom_model import ClassSums, SymptomModel
from symptoms import Symptoms


@register
class ConceptBottleneck(Method):
    """Learn how much each symptom counts for each class; a score is linear in the cosines.

    Yang et al., CVPR 2023 (LaBo), https://arxiv.org/abs/2211.11158, sections 3.1 and 3.3.

    Ours differs: the concepts are the phrases of the symptom file, not a submodular choice of an
    LLM's; features are unit and the temperature is the backbone's, where the released code types in
    100 and leaves the features as they are (``use_img_norm`` and ``use_txt_norm`` are False). Its
    checkpoints do not name their concepts, so they cannot be read here.
    """

    DEFAULTS = {
        "SYMPTOMS": "",  # a symptom file; empty: the dataset's own
    }
    place = 86
    sets = ("strong",)
    checkpoint_name = "concept_weights"
    reads_symptoms = True
    explainable = True

    def per_class(self) -> tuple[str, ...]:
        # A class that training did not see brings symptoms that have no weight for any class, so
        # there is no row that means anything for it.
        return ("weights",)

    def build(
        self, backbone: Backbone, classnames: Sequence[str], symptoms: Symptoms | None = None
    ) -> PromptedModel:
        if symptoms is None:
            raise InputError(
                "ConceptBottleneck needs the symptoms of every class; give them to build()"
            )
        check_phrases(symptoms, backbone, n_ctx=0)
        return BottleneckCLIP(backbone, symptoms.phrases)


class ConceptWeights(nn.Module):
    """The weights A [K, M], before the softmax, of classes over concepts.

    Its state names the concepts by a hash of each phrase. Loading finds the columns by it, so a
    file's order has no meaning and concepts may be left out.

    Args:
        owns: [K, M] True where a concept is the class's own: A starts from 1 there, else from 0.
        concepts: M phrases.
    """

    concepts: Tensor

    def __init__(self, owns: Tensor, concepts: Sequence[str]) -> None:
        super().__init__()
        self.weights = nn.Parameter(owns.float())
        self.phrases = list(concepts)
        self.register_buffer("concepts", torch.tensor([number_of(phrase) for phrase in concepts]))

    def forward(self) -> Tensor:
        """[K, M], each row summing to one."""
        return self.weights.softmax(dim=-1)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        error_messages = args[-1]
        rows, known = (state_dict.get(prefix + name) for name in ("weights", "concepts"))
        if rows is not None and known is not None and rows.shape[1:] == known.shape:
            columns = {number: j for j, number in enumerate(known.tolist())}
            wanted = self.concepts.tolist()
            if new := [p for p, n in zip(self.phrases, wanted, strict=True) if n not in columns]:
                error_messages.append(f"the symptom {new[0]!r} has no learned weight")
                return
            chosen = [columns[number] for number in wanted]
            state_dict[prefix + "weights"] = rows[:, chosen]
            state_dict[prefix + "concepts"] = known[chosen]
        super()._load_from_state_dict(state_dict, prefix, *args)


def number_of(phrase: str) -> int:
    """A 63-bit number that the phrase determines."""
    return int.from_bytes(hashlib.sha256(phrase.encode()).digest()[:8], "big") >> 1


class BottleneckCLIP(SymptomModel):
    """Logits s f . (softmax(A) C), of an image's unit feature f and the concepts' unit features C.

    The class feature softmax(A) C is not normalised: a logit is a weighted mean of s times the
    cosines with the concepts. A phrase that several classes have is one concept.

    Args:
        phrases: class name -> symptoms, in the order of the classes.

    Source: Yang et al., CVPR 2023, equations 1 and 5.
    """

    learned: ConceptWeights
    constant: Tensor | None
    start: Tensor
    shared = True

    def __init__(self, backbone: Backbone, phrases: Mapping[str, Sequence[str]]) -> None:
        concepts = list(dict.fromkeys(phrase for own in phrases.values() for phrase in own))
        owns = torch.tensor([[c in own for c in concepts] for own in phrases.values()])
        super().__init__(backbone, ConceptWeights(owns, concepts).to(backbone.device))
        self.phrases = dict.fromkeys(phrases, concepts)
        self.register_buffer("constant", None, persistent=False)
        self.register_buffer("start", owns.to(backbone.device), persistent=False)
        self.register_buffer("mask", torch.ones_like(self.start), persistent=False)

    @property
    def known(self) -> Tensor:
        """[M, d], C: nothing learned changes the concepts, so they are encoded once."""
        if self.constant is None:
            with torch.no_grad(), torch.autocast(self.start.device.type, enabled=False):
                self.constant = F.normalize(self._encode_concepts(), dim=-1)
        return self.constant

    @known.setter
    def known(self, features: Tensor) -> None:
        self.constant = features

    def _encode_concepts(self) -> Tensor:
        if (kept := self.kept_features()) is None:
            return encode_texts(self.backbone, self.learned.phrases)
        keys = [("untrained", text) for text in self.learned.phrases]
        return kept.of(keys, lambda key: encode_texts(self.backbone, key[1:]))

    @property
    def owns(self) -> Tensor:
        return self.start

    def concept_shares(self) -> Tensor:
        """[K, M] softmax(A), reweighed where asked for."""
        return self.reweighed(self.learned(), self.shares)

    def class_features(self) -> Tensor:
        return self.concept_shares() @ self.known

    def score(self, image_features: Tensor, class_features: Tensor) -> Tensor:
        image = F.normalize(at_least_fp32(image_features), dim=-1)
        return self.logit_scale.exp() * image @ class_features.T

    def symptom_features(self) -> Tensor:
        return self.known.expand(len(self.start), -1, -1)

    def untrained_features(self) -> Tensor:
        return self.symptom_features()

    def sums(self, features: Tensor) -> ClassSums:
        weight = self.concept_shares().double()
        terms = self.logit_scale.double().exp() * weight.unsqueeze(-1) * features.double()
        return ClassSums(weight, terms, torch.zeros_like(terms[:, 0]))

    def subset_features(self, label: int, subsets: Tensor) -> Tensor:
        rows = self.learned.weights[label].double().expand(len(subsets), -1)
        weight = rows.masked_fill(~subsets, float("-inf")).softmax(dim=-1)
        weight = self.reweighed(weight, self.shares_of(label))
        return self.logit_scale.double().exp() * weight @ self.known.double()
