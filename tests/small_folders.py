"""Small random backbones of every kind, in the files and folders that each is published as."""

import json

import timm
import torch
import transformers
from open_clip.transformer import TextTransformer
from small_clip import make_clip
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn

D, WIDTH, SIZE = 48, 64, 32
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
WORDS = ["red", "blue", "green", "grey", "a", "photo", "of", "warm", "color", "like", "the", "sea"]


def save_vocabulary(folder):
    """BERT's vocab.txt: a few words, and letters for the others."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokens = dict.fromkeys([*special, *WORDS, *pieces])
    (folder / "vocab.txt").write_text("\n".join(tokens))
    return len(tokens)


def save_tokenizer(folder, special, template):
    """A tokenizer.json of words and letters, with ``template`` around a text."""
    tokens = dict.fromkeys([*special, *WORDS, *LETTERS, "."])
    vocabulary = {token: i for i, token in enumerate(tokens)}
    pieces = models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=9)
    tokenizer = Tokenizer(pieces)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [(name, vocabulary[name]) for name in special if name in template]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def trunk(pool="token"):
    """A random vision transformer of timm's."""
    return timm.models.VisionTransformer(
        img_size=SIZE,
        patch_size=16,
        embed_dim=WIDTH,
        depth=2,
        num_heads=1,
        num_classes=0,
        class_token=pool == "token",
        global_pool=pool,
    )


def bert(folder):
    """A random BERT with BiomedCLIP's projection, and its vocabulary in ``folder``."""
    size = save_vocabulary(folder)
    config = transformers.BertConfig(
        vocab_size=size,
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=1,
        intermediate_size=128,
        max_position_embeddings=96,
    )
    tower = nn.Module()
    tower.transformer = transformers.BertModel(config, add_pooling_layer=False)
    tower.proj = nn.Sequential(
        nn.Linear(WIDTH, 56, bias=False), nn.GELU(), nn.Linear(56, D, bias=False)
    )
    return tower


def named(prefix, module):
    return {f"{prefix}.{name}": value for name, value in module.state_dict().items()}


def clip_vit(folder):
    torch.save(make_clip(embed_dim=D).state_dict(), folder / "clip.pt")
    return folder / "clip.pt"


def clip_resnet(folder):
    torch.save(make_clip("resnet", embed_dim=D).state_dict(), folder / "clip.pt")
    return folder / "clip.pt"


def biomedclip(folder):
    """An open_clip folder: BERT's text encoder and timm's image encoder."""
    state = named("text", bert(folder)) | named("visual.trunk", trunk())
    state["visual.head.proj.weight"] = torch.randn(D, WIDTH) / 8
    state["logit_scale"] = torch.tensor(4.4454)
    model = {
        "embed_dim": D,
        "vision_cfg": {
            "timm_model_name": "vit_tiny_patch16_32",
            "timm_model_pretrained": False,
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": SIZE,
        },
        "text_cfg": {
            "hf_model_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
            "hf_tokenizer_name": "microsoft/BiomedNLP-BiomedBERT-base-uncased-abstract",
            "hf_proj_type": "mlp",
            "hf_pooler_type": "cls_last_hidden_state_pooler",
            "context_length": 96,
        },
    }
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    torch.save(state, folder / "open_clip_pytorch_model.bin")
    return folder


def unimed_clip(folder):
    """One file with OpenAI's image encoder and BERT's text encoder, beside a vocabulary."""
    state = named("text_encoder", bert(folder)) | named("visual", make_clip(embed_dim=D).visual)
    state["logit_scale"] = torch.tensor(4.6052)
    torch.save({"epoch": 1, "state_dict": state}, folder / "unimed_clip_vit_b16.pt")
    return folder


def siglip(folder):
    """A folder of transformers' SigLIP."""
    size = save_tokenizer(folder, ["<pad>", "</s>", "<unk>"], "$A </s>")
    layers = {"hidden_size": D, "intermediate_size": 96, "num_hidden_layers": 2}
    layers["num_attention_heads"] = 2
    config = transformers.SiglipConfig(
        text_config={
            **layers,
            "vocab_size": size,
            "max_position_embeddings": 40,
            "pad_token_id": 0,
            "bos_token_id": None,
            "eos_token_id": 1,
        },
        vision_config={**layers, "image_size": SIZE, "patch_size": 16},
    )
    model = transformers.SiglipModel(config)
    with torch.no_grad():
        model.logit_scale.fill_(4.6)
    model.save_pretrained(folder)
    prepared = {"size": {"height": SIZE, "width": SIZE}, "resample": 3}
    prepared |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    prepared["image_processor_type"] = "SiglipImageProcessor"
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    (folder / "preprocessor_config.json").write_text(json.dumps(prepared))
    return folder


def conch(folder):
    """CONCH's file and tokenizer: CoCa's text encoder, and an image encoder pooled by attention."""
    special = ["<pad>", "<start_of_text>", "<end_of_text>", "<unk>"]
    size = save_tokenizer(folder, special, "<start_of_text> $A <end_of_text>")
    texts = TextTransformer(
        context_length=95,
        vocab_size=size,
        width=WIDTH,
        heads=1,
        layers=2,
        output_dim=D,
        embed_cls=True,
    )
    pool = nn.Module()
    pool.query = nn.Parameter(torch.randn(1, D))
    pool.attn = nn.MultiheadAttention(D, 8, kdim=WIDTH, vdim=WIDTH)
    pool.ln_q, pool.ln_k = nn.LayerNorm(D), nn.LayerNorm(WIDTH)
    state = named("text", texts) | named("visual.trunk", trunk())
    state |= named("visual.attn_pool_contrast", pool) | named("visual.ln_contrast", nn.LayerNorm(D))
    state["visual.proj_contrast"] = torch.randn(D, D) / 7
    state["logit_scale"] = torch.tensor(4.6)
    torch.save(state, folder / "pytorch_model.bin")
    return folder


# Kind, as the README names it -> function that saves one into a folder and returns its path.
KINDS = {
    "CLIP, ViT": clip_vit,
    "CLIP, ResNet": clip_resnet,
    "BERT (BiomedCLIP)": biomedclip,
    "BERT (UniMed-CLIP)": unimed_clip,
    "SigLIP": siglip,
    "CoCa (CONCH)": conch,
}


def save_backbone(kind, folder):
    """The path of a random backbone of this kind below ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    return KINDS[kind](folder)
