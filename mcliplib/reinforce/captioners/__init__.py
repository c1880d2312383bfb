"""Captioners of dataset reinforcement: CoCa as in the paper, and a small decoder trained on our own captions.

`make_captioner` imports a captioner's libraries only when it is made.
"""

from mcliplib.errors import UserError
from mcliplib.reinforce.settings import Captioner


def make_captioner(spec: str, device: str = "cpu") -> Captioner:
    """A captioner from its name.

    Args:
        spec: `decoder` for ours, trained on this repository's captions; `coca` or `coca:ARCHITECTURE/TAG` for
            open_clip's CoCa.
        device: of CoCa; the decoder, which is small, runs on the CPU.

    Raises:
        UserError: an unknown name, or its packages or weights are missing.
    """
    kind, _, rest = spec.partition(":")
    if kind == "decoder" and not rest:
        from mcliplib.reinforce.captioners.decoder import DecoderCaptioner

        return DecoderCaptioner()
    if kind == "coca":
        from mcliplib.reinforce.captioners.coca import DEFAULT, CoCaCaptioner

        architecture, _, tag = rest.partition("/")
        return CoCaCaptioner(architecture or DEFAULT[0], tag or DEFAULT[1], device=device)
    raise UserError(f"unknown captioner {spec!r}; known: decoder, coca, coca:ARCHITECTURE/TAG")
