"""Training losses, as pure functions of feature tensors.

Shapes: B pairs, D dimensions of the student, K teachers of D_1 ... D_K dimensions whose unit vectors lie side by side.
Features in half precision are compared in float32: at a scale of 100, bfloat16 rounds a logit by up to 0.25.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

Scale = Tensor | float


def clip_loss(f_img: Float[Tensor, "b d"], f_txt: Float[Tensor, "b d"], logit_scale: Scale) -> Float[Tensor, ""]:
    """The symmetric contrastive loss of CLIP (2103.00020): each image must find its text among all, and back.

    Args:
        f_img: normalised image features; row i belongs to row i of `f_txt`.
        f_txt: normalised text features.
        logit_scale: inverse temperature that multiplies the cosines.

    Returns:
        The mean of the two cross-entropies, in nats; ln(batch) is chance.
    """
    return _contrast(_compare(f_img, f_txt, logit_scale))


def multi_positive_loss(
    f_img: Float[Tensor, "b d"], f_txt: Float[Tensor, "b d"], logit_scale: Scale, captions: Shaped[Tensor, "b t"]
) -> Float[Tensor, ""]:
    """CLIP's loss where all pairs with the same caption are right for each other (UniCL, 2204.03610, equation 3).

    Args:
        f_img: normalised image features.
        f_txt: normalised text features.
        logit_scale: inverse temperature that multiplies the cosines.
        captions: the tokens of each pair's caption, or anything else whose rows are equal where the captions are.

    Returns:
        Nats. A row's target is shared out evenly, so it is `clip_loss` where all captions differ.
    """
    student = _compare(f_img, f_txt, logit_scale)
    _, caption = captions.unique(dim=0, return_inverse=True)  # a number for each, as [b, b, t] would be large
    same = (caption[:, None] == caption).to(student.by_image.dtype)
    target = same / same.sum(1, keepdim=True)  # symmetric in what is zero; all rows of a caption share alike
    return -((target * student.by_image).sum(1).mean() + (target * student.by_text).sum(1).mean()) / 2


def distill_loss(
    f_img: Float[Tensor, "b d"],
    f_txt: Float[Tensor, "b d"],
    logit_scale: Scale,
    t_img: Float[Tensor, "b teachers"],
    t_txt: Float[Tensor, "b teachers"],
    teacher_dims: Sequence[int] = (768, 768),
    teacher_scales: Sequence[float] = (100.0, 100.0),
) -> Float[Tensor, ""]:
    """The student's similarities against its teachers' (MobileCLIP, 2311.17049, section 3.2).

    For each direction and each teacher k, KL(T_k || S) of the rows' softmaxes; the mean over rows, teachers and the
    two directions.

    Args:
        f_img: the student's normalised image features.
        f_txt: its normalised text features.
        logit_scale: the student's inverse temperature.
        t_img: the teachers' image features, unit vectors side by side.
        t_txt: their text features.
        teacher_dims: dimensions of each teacher; they sum to the width of `t_img`.
        teacher_scales: inverse temperature of each teacher.

    Returns:
        Nats; 0 where the student's softmaxes are those of all its teachers.

    Raises:
        ValueError: dimensions that do not add up, or another number of scales.
    """
    return _divergence(
        _compare(f_img, f_txt, logit_scale), _compare_teachers(t_img, t_txt, teacher_dims, teacher_scales)
    )


def averaged_distill_loss(
    f_img: Float[Tensor, "b d"],
    f_txt: Float[Tensor, "b d"],
    logit_scale: Scale,
    t_img: Float[Tensor, "b teachers"],
    t_txt: Float[Tensor, "b teachers"],
    teacher_dims: Sequence[int] = (768, 768),
    teacher_scales: Sequence[float] = (100.0, 100.0),
) -> Float[Tensor, ""]:
    """The form in MobileCLIP's released training: cross-entropy with the average of the teachers' softmaxes.

    It is `distill_loss` plus the mean entropy of the teachers' softmaxes. That is a constant for the student, so the
    gradients agree; only this one's value does not reach 0. With one teacher it is open_clip's `DistillClipLoss`.

    Args:
        f_img: as `distill_loss`, and all that follow.

    Returns:
        Nats; at least the mean entropy of the teachers.

    Raises:
        ValueError: as `distill_loss`.
    """
    student = _compare(f_img, f_txt, logit_scale)
    teachers = _compare_teachers(t_img, t_txt, teacher_dims, teacher_scales)
    rows, columns = (torch.stack([log_p.exp() for log_p in way]).mean(0) for way in zip(*teachers, strict=True))
    by_image, by_text = -(rows * student.by_image).sum(1), -(columns * student.by_text).sum(1)
    return (by_image.mean() + by_text.mean()) / 2


def reinforced_loss(
    f_img: Float[Tensor, "b d"],
    f_txt: Float[Tensor, "b d"],
    logit_scale: Scale,
    t_img: Float[Tensor, "b teachers"],
    t_txt: Float[Tensor, "b teachers"],
    *,
    f_syn: Float[Tensor, "b d"] | None = None,
    t_syn: Float[Tensor, "b teachers"] | None = None,
    distill_weight: float = 1.0,
    synthetic_share: float = 0.5,
    teacher_dims: Sequence[int] = (768, 768),
    teacher_scales: Sequence[float] = (100.0, 100.0),
) -> Float[Tensor, ""]:
    """The multi-modal reinforced loss: L(real captions) + L(synthetic captions), over the same images.

    L = (1 - lambda) * `clip_loss` + lambda * `distill_loss` (MobileCLIP, 2311.17049, equations 2 and 3).

    Args:
        f_img: as `distill_loss`, and `f_txt`, `logit_scale`, `t_img`, `t_txt`, `teacher_dims`, `teacher_scales` too.
        f_syn: the student's features of one synthetic caption of each image; None leaves that term out.
        t_syn: the teachers' features of these captions.
        distill_weight: lambda, from 0 (CLIP's loss) to 1 (distillation alone).
        synthetic_share: s in 2 ((1 - s) L(real) + s L(synthetic)); at a half, the paper's, both count once. Without
            `f_syn` it has no meaning.

    Raises:
        ValueError: as `distill_loss`; lambda or share outside of [0, 1]; only one of `f_syn` and `t_syn`.
    """
    for name, value in (("distill_weight", distill_weight), ("synthetic_share", synthetic_share)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    if (f_syn is None) != (t_syn is None):
        raise ValueError("f_syn and t_syn belong together: give both or neither")

    def part(texts: Tensor, teachers_texts: Tensor) -> Tensor:
        student, loss = _compare(f_img, texts, logit_scale), f_img.new_zeros(())
        if distill_weight < 1:
            loss = loss + (1 - distill_weight) * _contrast(student)
        if distill_weight > 0:
            teachers = _compare_teachers(t_img, teachers_texts, teacher_dims, teacher_scales)
            loss = loss + distill_weight * _divergence(student, teachers)
        return loss

    real = part(f_txt, t_txt)
    if f_syn is None or t_syn is None:
        return real
    return 2 * ((1 - synthetic_share) * real + synthetic_share * part(f_syn, t_syn))


class _LogSoftmaxes(NamedTuple):
    """Log-probabilities of one similarity matrix, in both directions: made once, as every term of a loss needs them."""

    by_image: Float[Tensor, "b b"]  # each image's, over the texts
    by_text: Float[Tensor, "b b"]  # each text's, over the images


def _compare(images: Float[Tensor, "b d"], texts: Float[Tensor, "b d"], scale: Scale) -> _LogSoftmaxes:
    precision = torch.promote_types(images.dtype, torch.float32)  # of the logits: see the top of the file
    logits = scale * images.to(precision) @ texts.to(precision).T
    return _LogSoftmaxes(logits.log_softmax(dim=1), logits.T.log_softmax(dim=1))


def _compare_teachers(
    t_img: Float[Tensor, "b teachers"], t_txt: Float[Tensor, "b teachers"], dims: Sequence[int], scales: Sequence[float]
) -> list[_LogSoftmaxes]:
    dims = tuple(dims)
    if len(scales) != len(dims) or sum(dims) != t_img.shape[1]:
        raise ValueError(
            f"teachers of {list(dims)} dimensions with scales {list(scales)} do not fit embeddings of {t_img.shape[1]}"
        )
    parts = zip(t_img.split(dims, dim=1), t_txt.split(dims, dim=1), scales, strict=True)
    return [_compare(images, texts, scale) for images, texts, scale in parts]


def _contrast(student: _LogSoftmaxes) -> Float[Tensor, ""]:
    """The mean of the two cross-entropies, the diagonal being right."""
    target = torch.arange(len(student.by_image), device=student.by_image.device)
    return (F.nll_loss(student.by_image, target) + F.nll_loss(student.by_text, target)) / 2


def _divergence(student: _LogSoftmaxes, teachers: Sequence[_LogSoftmaxes]) -> Float[Tensor, ""]:
    """The mean over teachers and directions of KL(T_k || S)."""
    terms = [_kl(one.by_image, student.by_image) + _kl(one.by_text, student.by_text) for one in teachers]
    return torch.stack(terms).mean() / 2


def _kl(teacher: Float[Tensor, "b c"], student: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """KL between the rows of two matrices of log-probabilities; the mean over the rows."""
    return F.kl_div(student, teacher, log_target=True, reduction="batchmean")
