"""The losses, against hand-computed cases and their own symmetries."""

import math

import open_clip.loss
import pytest
import torch
from torch.nn.functional import normalize

from mcliplib.losses import (
    averaged_distill_loss,
    clip_loss,
    distill_loss,
    multi_positive_loss,
    reinforced_loss,
)


def unit(*shape, seed=0):
    return normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def two_teachers(batch, dims=(5, 7), seed=0):
    return torch.cat([unit(batch, dim, seed=seed + k) for k, dim in enumerate(dims)], dim=1)


def test_equal_captions_are_equally_right():
    f_img, f_txt = unit(4, 6), unit(4, 6, seed=1)
    f_txt[3] = f_txt[1]
    different, same = torch.tensor([[1], [2], [3], [4]]), torch.tensor([[1], [2], [3], [2]])
    torch.testing.assert_close(multi_positive_loss(f_img, f_txt, 20.0, different), clip_loss(f_img, f_txt, 20.0))
    by_image = (20 * f_img @ f_txt.T).log_softmax(1)
    by_text = (20 * f_txt @ f_img.T).log_softmax(1)
    expected = 0.0
    for way in (by_image, by_text):
        expected -= (way[0, 0] + way[2, 2] + (way[1, 1] + way[1, 3] + way[3, 1] + way[3, 3]) / 2) / 4 / 2
    torch.testing.assert_close(multi_positive_loss(f_img, f_txt, 20.0, same), expected)
    order = torch.tensor([2, 3, 0, 1])
    torch.testing.assert_close(multi_positive_loss(f_img[order], f_txt[order], 20.0, same[order]), expected)


def test_distillation_of_two_pairs_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    flat = torch.full((2, 2), 0.5**0.5, dtype=torch.float64)
    # the teacher's rows are softmax(ln 3, 0) = (3/4, 1/4), the student's (1/2, 1/2), in both directions
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    loss = distill_loss(flat, flat, 10.0, eye, eye, teacher_dims=(2,), teacher_scales=(math.log(3),))
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    images, texts = unit(6, 5), unit(6, 5, seed=1)
    assert distill_loss(images, texts, 30.0, images, texts, (5,), (30.0,)).item() == pytest.approx(0, abs=1e-12)
    assert distill_loss(images, texts, 30.0, images, texts, (5,), (60.0,)) > 0.01


def test_teachers_count_alike_each_with_its_scale():
    f_img, f_txt, t_img, t_txt = unit(6, 4), unit(6, 4, seed=1), two_teachers(6), two_teachers(6, seed=9)
    alone = [
        distill_loss(f_img, f_txt, 20.0, t_img[:, part], t_txt[:, part], (dim,), (scale,))
        for part, dim, scale in ((slice(0, 5), 5, 10.0), (slice(5, 12), 7, 50.0))
    ]
    both = distill_loss(f_img, f_txt, 20.0, t_img, t_txt, (5, 7), (10.0, 50.0))
    torch.testing.assert_close(both, (alone[0] + alone[1]) / 2)


def test_the_order_of_the_pairs_does_not_matter():
    f_img, f_txt, t_img, t_txt = unit(6, 4), unit(6, 4, seed=1), two_teachers(6), two_teachers(6, seed=9)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    settings = {"distill_weight": 0.7, "teacher_dims": (5, 7), "teacher_scales": (20.0, 30.0)}
    one = reinforced_loss(f_img, f_txt, 20.0, t_img, t_txt, **settings)
    other = reinforced_loss(f_img[order], f_txt[order], 20.0, t_img[order], t_txt[order], **settings)
    torch.testing.assert_close(one, other)


def test_lambda_goes_from_clip_to_distillation():
    f_img, f_txt, t_img, t_txt = unit(6, 4), unit(6, 4, seed=1), two_teachers(6), two_teachers(6, seed=9)
    teachers = {"teacher_dims": (5, 7), "teacher_scales": (20.0, 30.0)}
    clip = clip_loss(f_img, f_txt, 20.0)
    distilled = distill_loss(f_img, f_txt, 20.0, t_img, t_txt, **teachers)
    for weight in (0.0, 0.75, 1.0):
        mixed = reinforced_loss(f_img, f_txt, 20.0, t_img, t_txt, distill_weight=weight, **teachers)
        torch.testing.assert_close(mixed, (1 - weight) * clip + weight * distilled)


def test_synthetic_captions_are_a_second_term_over_the_same_images():
    f_img, f_txt, f_syn = unit(6, 4), unit(6, 4, seed=1), unit(6, 4, seed=2)
    t_img, t_txt, t_syn = (two_teachers(6, seed=seed) for seed in (0, 9, 19))
    settings = {"distill_weight": 0.7, "teacher_dims": (5, 7), "teacher_scales": (20.0, 30.0)}
    both = reinforced_loss(f_img, f_txt, 20.0, t_img, t_txt, f_syn=f_syn, t_syn=t_syn, **settings)
    real, synthetic = (
        reinforced_loss(f_img, text, 20.0, t_img, teachers, **settings)
        for text, teachers in ((f_txt, t_txt), (f_syn, t_syn))
    )
    torch.testing.assert_close(both, real + synthetic)
    for share in (0.0, 0.2, 1.0):
        mixed = reinforced_loss(
            f_img, f_txt, 20.0, t_img, t_txt, f_syn=f_syn, t_syn=t_syn, synthetic_share=share, **settings
        )
        torch.testing.assert_close(mixed, 2 * ((1 - share) * real + share * synthetic))


def test_the_released_form_has_the_same_gradients_and_another_value():
    f_img, f_txt, t_img, t_txt = unit(6, 4), unit(6, 4, seed=1), two_teachers(6), two_teachers(6, seed=9)
    scale = torch.tensor(20.0, dtype=torch.float64)
    leaves = [tensor.requires_grad_() for tensor in (f_img, f_txt, scale)]
    kl = distill_loss(*leaves, t_img, t_txt, (5, 7), (20.0, 3.0))
    averaged = averaged_distill_loss(*leaves, t_img, t_txt, (5, 7), (20.0, 3.0))
    assert averaged > kl + 0.1  # by the teachers' entropy
    torch.testing.assert_close(torch.autograd.grad(averaged, leaves), torch.autograd.grad(kl, leaves))


def test_the_released_form_by_hand():
    eye = torch.eye(2, dtype=torch.float64)
    flat = torch.full((2, 2), 0.5**0.5, dtype=torch.float64)
    teachers = torch.cat([eye, eye], dim=1)  # rows (3/4, 1/4) and (1/2, 1/2): on average (5/8, 3/8)
    student = torch.tensor([3 / 4, 1 / 4], dtype=torch.float64).log()
    expected = -(5 / 8 * student[0] + 3 / 8 * student[1])
    loss = averaged_distill_loss(eye, eye, math.log(3), teachers, teachers, (2, 2), (math.log(3), 0.0))
    torch.testing.assert_close(loss, expected)
    # against a student that cannot tell, any teacher costs ln 2
    assert averaged_distill_loss(flat, flat, 9.0, eye, eye, (2,), (7.0,)).item() == pytest.approx(math.log(2))


def test_open_clip_agrees():
    f_img, f_txt, t_img, t_txt = unit(6, 4), unit(6, 4, seed=1), unit(6, 5, seed=2), unit(6, 5, seed=3)
    leaves = [f_img.requires_grad_(), f_txt.requires_grad_()]
    contrastive, distilled = open_clip.loss.DistillClipLoss()(*leaves, 20.0, t_img, t_txt, 30.0)
    alone = open_clip.loss.ClipLoss()(*leaves, 20.0)
    ours = clip_loss(*leaves, 20.0)
    averaged = averaged_distill_loss(*leaves, 20.0, t_img, t_txt, (5,), (30.0,))
    kl = distill_loss(*leaves, 20.0, t_img, t_txt, (5,), (30.0,))
    gradients = [torch.autograd.grad(one, leaves, retain_graph=True) for one in (contrastive, distilled)]
    for one in (contrastive, alone):
        torch.testing.assert_close(ours, one)
    torch.testing.assert_close(averaged, distilled)
    torch.testing.assert_close(torch.autograd.grad(ours, leaves, retain_graph=True), gradients[0])
    torch.testing.assert_close(torch.autograd.grad(kl, leaves), gradients[1])


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
def test_bfloat16_features_at_scale_100(weight):
    """Nearly aligned features and a scale of 100: logits in bfloat16 would be wrong by up to a quarter."""
    base = unit(32, 64)
    f_img, f_txt, f_syn = (normalize(base + 0.1 * unit(32, 64, seed=s), dim=-1).bfloat16() for s in (1, 2, 3))
    t_img, t_txt, t_syn = (normalize(base + 0.2 * unit(32, 64, seed=s), dim=-1).bfloat16() for s in (4, 5, 6))

    def loss_and_gradients(dtype):
        leaves = [tensor.to(dtype, copy=True).requires_grad_() for tensor in (f_img, f_txt, f_syn)]
        teachers = [tensor.to(dtype) for tensor in (t_img, t_txt, t_syn)]
        loss = reinforced_loss(
            *leaves[:2],
            torch.tensor(100.0),
            *teachers[:2],
            f_syn=leaves[2],
            t_syn=teachers[2],
            distill_weight=weight,
            teacher_dims=(64,),
            teacher_scales=(100.0,),
        )
        return loss, torch.stack(torch.autograd.grad(loss, leaves)).float()

    half, exact = loss_and_gradients(torch.bfloat16), loss_and_gradients(torch.float32)
    assert half[0].dtype == torch.float32
    torch.testing.assert_close(half[0], exact[0])
    torch.testing.assert_close(half[1], exact[1], rtol=0.01, atol=1e-4 * exact[1].abs().max().item())


def test_softmaxes_are_made_once(monkeypatch):
    """One matrix of the student's and one of each teacher's, for the real and for the synthetic captions."""
    count, original = [], torch.Tensor.log_softmax

    def counting(self, dim):
        count.append(dim)
        return original(self, dim=dim)

    monkeypatch.setattr(torch.Tensor, "log_softmax", counting)
    features, teachers = [unit(6, 4, seed=s) for s in range(3)], [two_teachers(6, seed=s) for s in range(3)]
    settings = {"distill_weight": 0.5, "teacher_dims": (5, 7), "teacher_scales": (9.0, 4.0)}
    reinforced_loss(*features[:2], 20.0, *teachers[:2], f_syn=features[2], t_syn=teachers[2], **settings)
    assert len(count) == 2 * (1 + 2) * 2  # directions, student and teachers, real and synthetic


def test_gradients_are_right_in_float64():
    f_img, f_txt = unit(4, 3).requires_grad_(), unit(4, 3, seed=1).requires_grad_()
    t_img, t_txt = two_teachers(4), two_teachers(4, seed=9)

    def loss(images, texts):
        return reinforced_loss(
            images, texts, 20.0, t_img, t_txt, distill_weight=0.5, teacher_dims=(5, 7), teacher_scales=(9.0, 4.0)
        )

    assert torch.autograd.gradcheck(loss, (f_img, f_txt))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"teacher_dims": (5, 8)}, "do not fit embeddings of 12"),
        ({"teacher_scales": (1.0,)}, "do not fit"),
        ({"distill_weight": 1.5}, "must be in"),
        ({"t_syn": two_teachers(6)}, "give both or neither"),
    ],
)
def test_what_does_not_fit_is_refused(arguments, message):
    settings = {"teacher_dims": (5, 7), "teacher_scales": (1.0, 1.0)} | arguments
    with pytest.raises(ValueError, match=message):
        reinforced_loss(unit(6, 4), unit(6, 4), 20.0, two_teachers(6), two_teachers(6), **settings)
