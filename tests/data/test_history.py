from __future__ import annotations

from ccd_lightning.data.history import History

from ..tiny import block


def two_blocks() -> History:
    first = block(0, (2, 2), (0, 0), [(0, 0), (1, 1)], valid=[(0, 1)], test=[(1, 0)])
    second = block(1, (3, 4), (2, 2), [(2, 3), (0, 0)])
    return History((first, second))


def test_history_spans_the_present_block_or_all_of_them():
    history = two_blocks()
    assert history.block.index == 1
    assert history.train("block") is history.block.train
    assert history.train("cumulative").users.tolist() == [0, 1, 2, 0]
    assert history.train("cumulative").items.tolist() == [0, 1, 3, 0]


def test_observed_holds_train_pairs_alone_in_the_present_shape():
    history = two_blocks()
    for span, expected in (("block", [(0, 0), (2, 3)]), ("cumulative", [(0, 0), (1, 1), (2, 3)])):
        found = history.observed(span)
        assert list(zip(found.rows.tolist(), found.columns.tolist(), strict=True)) == expected
        assert (found.num_rows, found.num_columns) == (3, 4)


def test_observed_is_built_once():
    history = two_blocks()
    assert history.observed("block") is history.observed("block")
    assert history.observed("block") is not history.observed("cumulative")


def test_blocks_that_a_model_has_missed_are_one_to_it():
    history = two_blocks()
    third = block(2, (4, 4), (3, 4), [(3, 0)])
    longer = History((*history.blocks, third))
    news = longer.since(0)
    assert len(news.blocks) == 2
    assert news.blocks[0] is history.blocks[0]
    assert list(zip(*(column.tolist() for column in news.block.train), strict=True)) == [(2, 3), (0, 0), (3, 0)]
    sizes = (news.block.num_users, news.block.num_items, news.block.num_old_users, news.block.num_old_items)
    assert sizes == (4, 4, 2, 2)
    assert news.past.users.tolist() == [0, 1]
    for known in (-1, 1, 2):
        assert longer.since(known) is longer
