"""The towers that other packages offer for the same models, in the fastest form that those document.

timm has the image towers; its documented inference form is `reparameterize_model`, eager. open_clip has the text
towers of 12 layers, eager; its image towers are timm's. Weights are random: they do not change the time.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mcliplib.errors import UserError
from mcliplib.latency.ways import Run
from mcliplib.presets import get_config

TowerKind = Literal["image", "text"]


@dataclass(frozen=True)
class Peer:
    """Another package's towers of one kind.

    Attributes:
        name: of the package.
        tower: what it is compared in.
        models: our model's name -> the peer's.
        build: the peer's model name, and the width of our features -> tower in eval mode.
    """

    name: str
    tower: TowerKind
    models: Mapping[str, str]
    build: Callable[[str, int], nn.Module]


def timm_image(name: str, embed_dim: int) -> nn.Module:
    """timm's image tower with a projection to `embed_dim`, reparameterized as timm does it."""
    import timm
    from timm.utils.model import reparameterize_model

    return reparameterize_model(timm.create_model(name, num_classes=embed_dim).eval())


def open_clip_text(name: str, embed_dim: int) -> nn.Module:
    """open_clip's text tower; its name settles the width."""
    import open_clip

    with _quiet():
        return open_clip.create_model(name, load_weights=False).text.eval()


TIMM = Peer(
    "timm",
    "image",
    {
        "mobileclip_s0": "fastvit_mci0",
        "mobileclip_s1": "fastvit_mci1",
        "mobileclip_s2": "fastvit_mci2",
        "mobileclip_b": "vit_base_mci_224",
        "mobileclip2_s0": "fastvit_mci0",
        "mobileclip2_s2": "fastvit_mci2",
        "mobileclip2_b": "vit_base_mci_224",
        "mobileclip2_s3": "fastvit_mci3",
        "mobileclip2_s4": "fastvit_mci4",
        "mobileclip2_l14": "vit_large_patch14_clip_224",
    },
    timm_image,
)
OPEN_CLIP = Peer(
    "open_clip",
    "text",
    {
        "mobileclip_s0": "MobileCLIP-S1",  # open_clip has no MCt; this is the Base tower that MCt replaces
        "mobileclip_s1": "MobileCLIP-S1",
        "mobileclip_s2": "MobileCLIP-S2",
        "mobileclip_b": "MobileCLIP-B",
        "mobileclip2_s0": "MobileCLIP2-S0",
        "mobileclip2_s2": "MobileCLIP2-S2",
        "mobileclip2_b": "MobileCLIP2-B",
        "mobileclip2_s3": "MobileCLIP2-S3",
        "mobileclip2_s4": "MobileCLIP2-S4",
        "mobileclip2_l14": "MobileCLIP2-L-14",
    },
    open_clip_text,
)
PEERS: dict[str, Peer] = {peer.name: peer for peer in (TIMM, OPEN_CLIP)}


def get_peer(name: str) -> Peer:
    """The peer of that name.

    Raises:
        UserError: there is none; the known ones are listed.
    """
    if name not in PEERS:
        raise UserError(f"unknown peer {name!r}; known: {', '.join(PEERS)}")
    return PEERS[name]


def peer_run(peer: Peer, model: str) -> Run:
    """The peer's tower for our model of that name, ready to be called with pixels or tokens.

    Raises:
        UserError: the peer has no such tower.
    """
    if model not in peer.models:
        raise UserError(
            f"{peer.name} has no {peer.tower} tower like {model}'s; it has those of {', '.join(peer.models)}"
        )
    tower = peer.build(peer.models[model], get_config(model).embed_dim)

    def run(x: Tensor) -> Tensor:
        with torch.inference_mode():
            return tower(x)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """open_clip warns that the weights are random; here they are meant to be."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
