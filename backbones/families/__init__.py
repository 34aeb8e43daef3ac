"""One file a family of backbones; each names its class ``FAMILY``."""
