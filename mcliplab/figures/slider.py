"""Figures that a reader can move without a kernel: frames drawn beforehand, under a plain slider."""

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from PIL import Image

from mcliplib.errors import UserError

if TYPE_CHECKING:
    from IPython.display import HTML

CSS_PIXELS = 96  # an inch

_TEMPLATE = """<div id="{id}" class="frames-slider" role="group" aria-label="{label}" style="text-align:center">
<img id="{id}-image" src="{first}" alt="{alt}" style="{style}">
<p style="margin:.3em 0"><label for="{id}-range" style="display:inline">{label}: </label>
<output id="{id}-value" for="{id}-range" style="display:inline">{text}</output></p>
<input id="{id}-range" type="range" min="0" max="{last}" value="{start}" step="1" aria-valuetext="{text}"
 style="width:min(100%,30em)">
<script>(() => {{
const frames = {frames}, at = name => document.getElementById("{id}-" + name);
at("range").addEventListener("input", event => {{
  const [source, alt, text] = frames[event.target.value];
  at("image").src = source; at("image").alt = alt;
  at("value").textContent = text; event.target.setAttribute("aria-valuetext", text);
}});
}})();</script>
</div>"""


def frames_slider(
    frames: Sequence[Any],
    alts: Sequence[str],
    label: str,
    *,
    captions: Sequence[str] | None = None,
    start: int = 0,
) -> "HTML":
    """Show one of several frames, chosen with a slider (mouse, touch or arrow keys).

    Args:
        frames: matplotlib figures (closed once drawn), PIL pictures or PNG files as bytes.
        alts: what each frame shows, in words.
        label: what the slider changes, for example `"training step"`.
        captions: the slider's value in words at each frame; the frame's number unless given.
        start: the frame shown first.

    Returns:
        An object that notebooks and the static book show alike; it refers to nothing outside itself.

    Raises:
        UserError: no frame, a frame without alt text, or `captions` or `start` that do not fit.
    """
    texts = list(captions) if captions is not None else [f"{i + 1} of {len(frames)}" for i in range(len(frames))]
    _check(len(frames), alts, texts, start)
    style = img_style(frames[start])
    content = [[data_uri(frame), alt, text] for frame, alt, text in zip(frames, alts, texts, strict=True)]
    page = _TEMPLATE.format(
        id=f"frames-{uuid4().hex[:12]}",
        label=escape(label),
        first=content[start][0],
        style=style,
        alt=escape(alts[start]),
        text=escape(texts[start]),
        last=len(frames) - 1,
        start=start,
        frames=json.dumps(content).replace("<", "\\u003c"),
    )
    from IPython.display import HTML

    return HTML(page)


def _check(count: int, alts: Sequence[str], texts: Sequence[str], start: int) -> None:
    if count == 0:
        raise UserError("a slider needs at least one frame")
    if len(alts) != count or not all(alt.strip() for alt in alts):
        raise UserError(f"every frame needs an alt text: {count} frames, {sum(bool(a.strip()) for a in alts)} texts")
    if len(texts) != count:
        raise UserError(f"{count} frames need {count} captions, not {len(texts)}")
    if not 0 <= start < count:
        raise UserError(f"start must be from 0 to {count - 1}, not {start}")


def data_uri(frame: Any) -> str:
    """A matplotlib figure (closed once drawn), a PIL picture or a PNG file's bytes as the `src` of an `img` element.

    Raises:
        UserError: something else.
    """
    if hasattr(frame, "savefig"):
        import matplotlib.pyplot as plt

        buffer = io.BytesIO()
        frame.savefig(buffer, format="png", metadata={"Software": None})
        plt.close(frame)
        frame = buffer.getvalue()
    elif isinstance(frame, Image.Image):
        buffer = io.BytesIO()
        frame.save(buffer, format="png")
        frame = buffer.getvalue()
    if not isinstance(frame, bytes) or not frame.startswith(b"\x89PNG"):
        raise UserError("a frame must be a matplotlib figure, a PIL picture or the bytes of a PNG file")
    return "data:image/png;base64," + base64.b64encode(frame).decode()


def img_style(frame: Any) -> str:
    """CSS that shows a figure at its size in inches, as vectors would be, and nothing wider than its page."""
    width = f"width:{round(CSS_PIXELS * frame.get_figwidth())}px;" if hasattr(frame, "savefig") else ""
    return f"{width}max-width:100%;height:auto;background:#fff;border-radius:6px"
