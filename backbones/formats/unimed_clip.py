"""UniMed-CLIP's file: OpenAI's image encoder, and a BERT below ``text_encoder.``.

Khattak et al. 2024, https://arxiv.org/abs/2412.10372. The file does not tell the activation of the
image encoder (QuickGELU), the pooling (class token) and the text length (256): these are arguments
in the authors' code, https://github.com/mbzuai-oryx/UniMed-CLIP.
"""

from backbones.backbone import Parts, fingerprint_of
from backbones.encoders.clip_images import image_encoder_of
from backbones.formats import Format, Stated, decided_activation, decided_preprocessing
from backbones.formats.bert import bert_of
from backbones.names import below
from backbones.weights import WeightsFile

CONTEXT_LENGTH = 256


class UniMedFormat(Format):
    name = "UniMed-CLIP"

    def recognises(self, weights: WeightsFile) -> bool:
        return any(name.startswith("text_encoder.transformer.") for name in weights.tensors)

    def parts(self, weights: WeightsFile, stated: Stated) -> Parts:
        activation = decided_activation(stated.activation, "", weights.path) or "quick_gelu"
        tensors = weights.tensors
        image = image_encoder_of(below(tensors, "visual."), activation, stated.vision_heads)
        texts = below(tensors, "text_encoder.")
        text = bert_of(weights, texts, "first", CONTEXT_LENGTH, heads=stated.text_heads)
        decides = ("UniMed-CLIP", activation, stated.vision_heads, *text.settings)
        return Parts(
            image,
            text,
            tensors["logit_scale"].reshape(()),
            decided_preprocessing(image.size, stated),
            fingerprint_of(weights, *decides),
        )


FORMAT = UniMedFormat()
