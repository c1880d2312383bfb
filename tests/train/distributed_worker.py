"""What each process of tests/train/test_distributed.py does: real processes import it by name."""

from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

from mcliplib.errors import UserError
from mcliplib.losses import clip_loss, reinforced_loss
from mcliplib.train.distributed import average_, check_agreement, gather, own_rows

ROWS, DIMS = 7, (5, 6)  # 7 = 3 + 4 = 2 + 2 + 3


class Towers(nn.Module):
    """Two small towers in float64, the pictures' with BatchNorm as it is in evaluation, and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm1d(16).eval()
        self.image = nn.Sequential(nn.Linear(8, 16), norm, nn.GELU(), nn.Linear(16, 4))
        self.text = nn.Sequential(nn.Linear(9, 16), nn.GELU(), nn.Linear(16, 4))
        self.scale = nn.Parameter(torch.tensor(12.0))
        self.double()

    def forward(self, images: Tensor, texts: Tensor, synthetic: Tensor) -> tuple[Tensor, ...]:
        parts = self.image(images), self.text(texts), self.text(synthetic)
        return *(normalize(part, dim=-1) for part in parts), self.scale


def inputs() -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Rows for the towers, and the teachers' embeddings of pictures, captions and synthetic captions."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(ROWS, width, generator=generator, dtype=torch.float64) for width in (8, 9, 9)]
    embeddings = [
        torch.cat([normalize(torch.randn(ROWS, d, generator=generator, dtype=torch.float64), dim=-1) for d in DIMS], 1)
        for _ in range(3)
    ]
    return tuple(rows), tuple(embeddings)


def loss_of(kind: str, features: tuple[Tensor, ...], scale: Tensor, teachers: tuple[Tensor, ...]) -> Tensor:
    image, text, synthetic = features
    if kind == "clip":
        return clip_loss(image, text, scale)
    return reinforced_loss(
        image, text, scale, *teachers[:2], f_syn=synthetic, t_syn=teachers[2], distill_weight=0.7, teacher_dims=DIMS,
        teacher_scales=(9.0, 20.0),
    )  # fmt: skip


def gradients(kind: str, ddp: bool = False) -> dict[str, Tensor]:
    """Loss and gradients of this process's rows; of all rows where there is one process."""
    model, (rows, embeddings) = Towers(), inputs()
    mine = own_rows(ROWS)
    # clip leaves the synthetic captions' features unused: a gather without a gradient must not disturb
    towers = DistributedDataParallel(model) if ddp else model
    *features, scale = towers(*(part[mine] for part in rows))
    loss = loss_of(kind, gather(features), scale, gather([part[mine] for part in embeddings]))
    loss.backward()
    if not ddp:
        average_(model)
    return {"loss": loss.detach()} | {name: p.grad for name, p in model.named_parameters()}  # type: ignore[return-value]  # all have one


def work(rank: int, world: int, folder: str) -> None:
    """One process."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world)
    found: dict[str, object] = {kind: gradients(kind) for kind in ("clip", "reinforced")}
    found["ddp"] = gradients("reinforced", ddp=True)
    found["statistics"] = statistics(rank)
    check_agreement("the same", "in all")
    try:
        check_agreement("steps", rank)
    except UserError as error:
        found["disagreement"] = str(error)
    torch.save(found, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


def statistics(rank: int) -> tuple[Tensor, Tensor]:
    """Running statistics before they are averaged, and after."""
    norm = nn.BatchNorm1d(2)
    norm(torch.tensor([[0.0, rank], [2.0, rank + 4.0]]))
    before = torch.stack([norm.running_mean.clone(), norm.running_var.clone()])
    average_(norm)
    return before, torch.stack([norm.running_mean, norm.running_var])
