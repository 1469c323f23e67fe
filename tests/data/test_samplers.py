"""Orders of examples: theorems about what comes when."""

import pytest
import torch

from bnstudy.data.samplers import (
    batches,
    classwise_order,
    epoch_order,
    evaluation_order,
    generator,
    sequential_order,
)


def draw(seed, purpose):
    return torch.rand(8, generator=generator(seed, purpose))


def test_a_stream_is_named_by_seed_and_purpose():
    assert torch.equal(draw(3, "order"), draw(3, "order"))
    assert not torch.equal(draw(3, "order"), draw(4, "order"))
    assert not torch.equal(draw(3, "order"), draw(3, "init"))
    assert not torch.equal(draw(1, "2/a"), draw(12, "/a"))  # the parts are not run together


def test_streams_stay_what_they_were():
    # golden: a change here changes every result and must bump RESULTS_VERSION
    assert epoch_order(6, generator(0, "order")).tolist() == [3, 4, 2, 0, 5, 1]


def test_an_epoch_is_a_permutation_cut_into_full_batches():
    order = epoch_order(10, generator(0, "order"))
    assert order.sort().values.tolist() == list(range(10))
    cut = batches(order, 4)
    assert cut.shape == (2, 4)
    assert cut.flatten().tolist() == order[:8].tolist()


def test_batches_keep_a_leading_seed_axis():
    orders = torch.stack([epoch_order(10, generator(s, "order")) for s in range(3)])
    assert torch.equal(batches(orders, 4)[2], batches(orders[2], 4))


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(ValueError, match="batch_size=11 is larger than the training set of 10"):
        batches(torch.arange(10), 11)


@pytest.mark.parametrize(("n", "multiple"), [(10, 4), (8, 4), (3, 8), (7, 1)])
def test_evaluation_scores_every_example_once_and_fills_the_last_batch(n, multiple):
    indices, scored = evaluation_order(n, seed=5, multiple=multiple)
    assert scored == n
    assert indices[:n].sort().values.tolist() == list(range(n))
    assert len(indices) % multiple == 0
    assert len(indices) - n < multiple
    assert torch.equal(
        indices[:n], evaluation_order(n, 5, 1)[0]
    )  # one shuffle for every batch size


def test_companions_of_the_last_batch_are_other_examples():
    indices, _ = evaluation_order(10, seed=5, multiple=4)
    assert len(set(indices[8:].tolist())) == 4


@pytest.mark.parametrize("classes", [1, 2, 5, 10])
def test_batches_of_few_classes_hold_equally_many_of_each_in_both_halves(classes):
    labels = torch.arange(10).repeat_interleave(12)
    order = classwise_order(labels, 10 if classes != 5 else 20, classes, generator(0, "order"))
    size = 10 if classes != 5 else 20
    assert len(order.unique()) == len(order), "no example twice in an epoch"
    counts = labels.bincount()
    piece = size // classes
    assert len(order) >= (counts // piece * piece).sum() - size, "almost all examples come"
    for batch in labels[order].view(-1, size):
        found, times = batch.unique(return_counts=True)
        assert len(found) == classes
        assert (times == piece).all()
        if piece % 2 == 0:
            assert torch.equal(batch[: size // 2].unique(), batch[size // 2 :].unique())


def test_a_stream_of_classes_brings_them_group_by_group():
    labels = torch.randint(0, 6, (60,), generator=torch.Generator().manual_seed(0))
    order = sequential_order(labels, 2, generator(0, "order"))
    assert torch.equal(order.sort().values, torch.arange(60))
    groups = labels[order] // 2
    assert torch.equal(groups, groups.sort().values)
    assert not torch.equal(labels[order], labels[order].sort().values), "shuffled within"
