"""The towers that other packages offer for the same models, in the fastest form that they document; and the inputs.

timm has the image towers; its documented inference form is `reparameterize_model`, eager. open_clip has the text
towers of 12 layers, eager; its image towers are timm's. Weights are random: they do not change the time. Weights and
inputs are such that a loss of precision would show.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mcliplib.errors import UserError
from mcliplib.latency.tuning import Run
from mcliplib.layers import LayerScale
from mcliplib.model import MobileCLIP
from mcliplib.presets import get_config
from mcliplib.quiet import quiet

TowerKind = Literal["image", "text"]
SEED = 0


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

    with quiet():  # open_clip warns that the weights are random; here they are meant to be
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


def randomize_statistics(model: nn.Module, seed: int = SEED) -> None:
    """Give fresh weights the statistics of trained ones, in place.

    A new model's layer scales are nearly zero and its BatchNorms the identity: most of it does not reach the
    features, and any precision would look faithful.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, nn.BatchNorm2d):
                assert part.running_mean is not None
                assert part.running_var is not None
                part.running_mean.uniform_(-0.5, 0.5, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)
            if isinstance(part, LayerScale):
                part.gamma.uniform_(-1.0, 1.0, generator=generator)


def tower_of(model: MobileCLIP, kind: TowerKind) -> nn.Module:
    """The image or the text tower."""
    return model.image_encoder if kind == "image" else model.text_encoder


def example_for(model: MobileCLIP, kind: TowerKind, batch: int = 1, seed: int = SEED) -> Tensor:
    """Random pixels [batch, 3, size, size] in [0, 1], or random token ids [batch, context_length].

    The end-of-text token, the largest id, stands where a short caption has it.
    """
    generator = torch.Generator().manual_seed(seed)
    if kind == "image":
        size = model.config.image.image_size
        return torch.rand(batch, 3, size, size, generator=generator)
    text = model.config.text
    tokens = torch.randint(text.vocab_size - 1, (batch, text.context_length), generator=generator)
    tokens[:, text.context_length // 7] = text.vocab_size - 1
    return tokens
