"""Where a step computes, and on which rows."""

import pytest
import torch
from torch.nn.functional import normalize

from mcliplib.errors import UserError
from mcliplib.losses import clip_loss, multi_positive_loss
from mcliplib.train import distributed
from mcliplib.train.batches import Batch, ReinforcedBatch
from mcliplib.train.data import PairData
from mcliplib.train.settings import TrainSettings
from mcliplib.train.step import answers_of, loss_for, rows, to_device


def reinforced(synthetic=True):
    parts = [torch.arange(4.0)[:, None] + 10 * place for place in range(6)]
    return ReinforcedBatch(*parts) if synthetic else ReinforcedBatch(*parts[:4])


def test_a_gpu_is_used_where_there_is_one_each_process_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert distributed.device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert distributed.device() == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert distributed.device() == torch.device("cuda:3")


def test_all_of_a_batch_goes_to_the_device():
    """PyTorch's device without memory stands for a GPU."""
    for batch in (reinforced(), Batch(torch.zeros(2, 3), torch.zeros(2, 4))):
        moved = to_device(batch, torch.device("meta"))
        assert type(moved) is type(batch)
        assert all(part.is_meta for part in moved)
    assert to_device(reinforced(synthetic=False), torch.device("meta")).synthetic_emb is None
    batch = reinforced()
    assert to_device(batch, torch.device("cpu")) is batch


def test_rows_of_all_parts_of_a_batch():
    some = rows(reinforced(), slice(1, 3))
    assert torch.cat(list(some), 1).tolist() == [[n + 10 * place for place in range(6)] for n in (1, 2)]
    assert rows(reinforced(synthetic=False), slice(0, 1)).synthetic_tokens is None


def test_teachers_are_those_of_what_is_encoded():
    settings, batch = TrainSettings(reinforced=True), reinforced()
    assert [part[0].item() for part in answers_of(batch, settings)] == [20, 30, 50]
    assert len(answers_of(reinforced(synthetic=False), settings)) == 2
    assert answers_of(Batch(torch.zeros(2, 3), torch.zeros(2, 4)), TrainSettings()) == ()


def test_plain_training_may_take_all_pairs_with_a_caption_for_right():
    """Which captions are equal is seen from their tokens."""
    features = tuple(normalize(torch.randn(3, 4, generator=torch.Generator().manual_seed(n)), dim=1) for n in (0, 1))
    batch = Batch(torch.zeros(3, 3), torch.tensor([[1, 2], [1, 3], [1, 2]]))
    for many, expected in (
        (False, clip_loss(*features, 10.0)),
        (True, multi_positive_loss(*features, 10.0, torch.tensor([[0], [1], [0]]))),
    ):
        settings = TrainSettings(multi_positive=many)
        loss = loss_for(settings, PairData([]))(features, torch.tensor(10.0), answers_of(batch, settings))
        torch.testing.assert_close(loss, expected)
    with pytest.raises(UserError, match="multi_positive"):
        TrainSettings(reinforced=True, multi_positive=True)
