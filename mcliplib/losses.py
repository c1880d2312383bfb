"""Training losses, as pure functions of feature tensors.

Shapes: B pairs, D dimensions of the student, K teachers of D_1 ... D_K dimensions whose unit vectors lie side by side.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
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
    logits = logit_scale * f_img @ f_txt.T
    target = torch.arange(logits.shape[0], device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


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
    teacher_dims = tuple(teacher_dims)
    if len(teacher_scales) != len(teacher_dims) or sum(teacher_dims) != t_img.shape[1]:
        raise ValueError(
            f"teachers of {list(teacher_dims)} dimensions with scales {list(teacher_scales)} do not fit embeddings "
            f"of {t_img.shape[1]}"
        )
    student = logit_scale * f_img @ f_txt.T
    parts = zip(t_img.split(teacher_dims, dim=1), t_txt.split(teacher_dims, dim=1), teacher_scales, strict=True)
    teachers = [scale * images @ texts.T for images, texts, scale in parts]
    terms = [_kl(teacher, student) + _kl(teacher.T, student.T) for teacher in teachers]
    return torch.stack(terms).mean() / 2


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

    Raises:
        ValueError: as `distill_loss`; lambda outside of [0, 1]; only one of `f_syn` and `t_syn`.
    """
    if not 0 <= distill_weight <= 1:
        raise ValueError(f"distill_weight must be in [0, 1], got {distill_weight}")
    if (f_syn is None) != (t_syn is None):
        raise ValueError("f_syn and t_syn belong together: give both or neither")

    def part(student: Tensor, teachers: Tensor) -> Tensor:
        loss = f_img.new_zeros(())
        if distill_weight < 1:
            loss = loss + (1 - distill_weight) * clip_loss(f_img, student, logit_scale)
        if distill_weight > 0:
            distilled = distill_loss(f_img, student, logit_scale, t_img, teachers, teacher_dims, teacher_scales)
            loss = loss + distill_weight * distilled
        return loss

    real = part(f_txt, t_txt)
    return real if f_syn is None or t_syn is None else real + part(f_syn, t_syn)


def _kl(teacher: Float[Tensor, "b c"], student: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """KL(softmax(teacher) || softmax(student)), the mean over the rows."""
    return F.kl_div(student.log_softmax(dim=1), teacher.log_softmax(dim=1), log_target=True, reduction="batchmean")
