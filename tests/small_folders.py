"""A small random backbone of every kind, in the file or folder that it is published as."""

from pathlib import Path

import library_models
import torch
from small_clip import make_clip


def _saved(visual: str, folder: Path) -> None:
    torch.save(make_clip(visual).state_dict(), folder / "clip.pt")


# Kind, as the README's table names it -> function that saves one into a folder.
KINDS = {
    "CLIP, ViT": lambda folder: _saved("vit", folder),
    "CLIP, ResNet": lambda folder: _saved("resnet", folder),
    "BERT (BiomedCLIP)": library_models.biomedclip,
    "BERT (UniMed-CLIP)": library_models.unimed_clip,
    "SigLIP": library_models.hugging_face_siglip,
    "CoCa (CONCH)": library_models.conch,
}


def save_backbone(kind: str, folder: Path) -> Path:
    """The path of a random backbone of this kind in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    KINDS[kind](folder)
    return folder / "clip.pt" if (folder / "clip.pt").exists() else folder
