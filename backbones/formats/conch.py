"""CONCH's folder: ``pytorch_model.bin`` and the ``tokenizer.json`` of the authors' code.

Lu et al., Nature Medicine 2024, https://doi.org/10.1038/s41591-024-02856-4. What the tensors do not
tell (heads, epsilons, activation) is as in https://github.com/mahmoodlab/CONCH.
"""

from backbones.backbone import Parts, fingerprint_of
from backbones.encoders.text_transformer import TextShape, TransformerText
from backbones.encoders.vit import ViT
from backbones.formats import Format, Stated, decided_activation, decided_preprocessing
from backbones.names import CONCH_IMAGES, RESBLOCKS, below, renamed
from backbones.tokenizers import read_tokenizer
from backbones.weights import WeightsFile


class ConchFormat(Format):
    name = "CONCH"

    def recognises(self, weights: WeightsFile) -> bool:
        return "visual.attn_pool_contrast.query" in weights.tensors

    def parts(self, weights: WeightsFile, stated: Stated) -> Parts:
        decided_activation(stated.activation, "gelu", "the format of CONCH")
        tensors = weights.tensors
        # Its first query is the contrastive one, as it is the only one.
        image = ViT(renamed(below(tensors, "visual."), CONCH_IMAGES), heads=stated.vision_heads)
        texts = renamed(below(tensors, "text."), RESBLOCKS)
        text = TransformerText(
            texts,
            TextShape("coca", "last", "gelu", 1e-5, stated.text_heads),
            read_tokenizer(weights.folder, pad="<pad>"),
            len(texts["positions"]) - 1,  # the last is the class embedding's
        )
        return Parts(
            image,
            text,
            tensors["logit_scale"].reshape(()),
            decided_preprocessing(image.size, stated),
            fingerprint_of(weights, "CONCH", stated.vision_heads, *text.settings),
        )


FORMAT = ConchFormat()
