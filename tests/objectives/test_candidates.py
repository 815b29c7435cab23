"""Who is a candidate of whom, against the sentence that says it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.objectives.candidates import Columns


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_hidden_columns_are_repeats_and_absent_ones_but_never_the_own(data):
    candidates = data.draw(st.integers(1, 9))
    queries = data.draw(st.integers(0, 6))
    rows = data.draw(st.lists(st.integers(0, 4), min_size=candidates, max_size=candidates))
    absent = data.draw(st.none() | st.lists(st.booleans(), min_size=candidates, max_size=candidates))
    positive = data.draw(st.lists(st.integers(0, candidates - 1), min_size=queries, max_size=queries))
    shared = data.draw(st.booleans())
    start = data.draw(st.integers(0, candidates))
    stop = data.draw(st.integers(start, candidates))

    own_rows = [rows[j] for j in positive]
    columns = Columns(
        torch.tensor(positive, dtype=torch.int64),
        torch.tensor(rows) if shared else None,
        torch.tensor(own_rows, dtype=torch.int64) if shared else None,
        None if absent is None else torch.tensor(absent),
    )
    expected = [
        [j != own and ((shared and rows[j] == row) or (absent is not None and absent[j])) for j in range(start, stop)]
        for own, row in zip(positive, own_rows, strict=True)
    ]
    hidden = columns.hidden(start, stop)
    if not shared and absent is None:
        assert hidden is None
    else:
        assert hidden.shape == (queries, stop - start)
        assert hidden.tolist() == expected
        some = slice(1, 3)
        assert columns.of(some).hidden(start, stop).tolist() == expected[some]
    if absent is not None:
        assert columns.absent.tolist() == absent, "masks are copies"


def test_a_batch_with_a_repeated_row():
    rows = torch.tensor([5, 2, 5, 9])
    assert Columns(torch.arange(4), rows, rows).hidden(0, 4).nonzero().tolist() == [[0, 2], [2, 0]]
