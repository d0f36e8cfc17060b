"""The shares of a batch, and what is drawn for their rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from training.parallel.draws import drawing_for, dropout, integers, normal, uniform
from training.parallel.share import Share, share_of, sharing


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_the_shares_of_a_batch_are_its_units_once_each(processes: int) -> None:
    for total in range(processes, 30):
        shares = [share_of(total, rank, processes) for rank in range(processes)]
        assert [unit for each in shares for unit in range(each.start, each.stop)] == list(range(total))
        sizes = [each.stop - each.start for each in shares]
        assert max(sizes) - min(sizes) <= 1 and min(sizes) > 0
        assert sum(each.weight for each in shares) / processes == pytest.approx(1.0)


def test_fewer_units_than_processes_are_everywhere() -> None:
    assert all(share_of(2, rank, 3) == Share(0, 2, 2) and share_of(2, rank, 3).is_whole for rank in range(3))


def test_own_rows_are_those_of_each_block() -> None:
    views = torch.arange(10)  # two blocks: first and second views of 5 pairs
    assert [share_of(5, rank, 2).own(views).tolist() for rank in (0, 1)] == [[0, 1, 5, 6], [2, 3, 4, 7, 8, 9]]


def draws(rows: int) -> list[Tensor]:
    torch.manual_seed(0)
    first = [uniform(rows, 3), normal(rows, 2), integers(9, rows), dropout(torch.ones(rows, 4), 0.5, True)]
    return [*first, normal(2 * rows, generator=torch.Generator().manual_seed(5)), uniform(rows)]


def test_a_process_draws_what_one_process_would_for_its_rows() -> None:
    """The last draw is only right if the draws before it were for all rows."""
    whole = draws(10)
    for rank in (0, 1):
        share = share_of(5, rank, 2)
        with sharing(share):
            for own, every in zip(draws(2 * (share.stop - share.start)), whole, strict=True):
                assert torch.equal(own, share.own(every))


def test_draws_for_some_rows_are_those_of_the_rows_and_leave_the_generator_as_draws_for_all() -> None:
    torch.manual_seed(0)
    every, following = uniform(8, 2), uniform(8)
    torch.manual_seed(0)
    rows = torch.tensor([6, 1])
    with drawing_for(rows, 8):
        some = uniform(2, 2)
    assert torch.equal(some, every[rows]) and torch.equal(uniform(8), following)
