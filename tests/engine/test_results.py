"""Rows and tables of results."""

import torch

from engine.evaluate import as_percent
from engine.metrics import rank_distances
from engine.results import describe_share, format_table, log_rows, mean_metrics, result_row


def test_the_table_counts_the_queries_that_it_leaves_out():
    labels = [torch.tensor(values) for values in ([1, 9], [0, 0], [1, 2], [1, 1])]
    result = rank_distances(torch.tensor([[0.1, 0.2], [0.2, 0.1]]), *labels)
    table = format_table([result_row("last", {"epoch": 1, "split": "test", "eval": {"ori": as_percent(result)}})])
    assert table.splitlines()[2].split() == ["last", "ori", "100.0", "100.0", "100.0", "100.0", "100.0"]
    assert table.splitlines()[-1] == "1 of 2 queries have no match in another group and are not scored."


METRICS = {"mAP": 50.0, "R1": 40.0, "R5": 60.0, "R10": 70.0, "mINP": 30.0, "queries": 2, "queries_without_match": 0}


def test_the_columns_of_the_table_are_aligned():
    rows = [result_row("last", {"eval": {"ori": METRICS, "all": METRICS | {"mAP": 100.0}}})]
    assert format_table(rows).splitlines() == [
        "model  feature    mAP    R1    R5   R10  mINP",
        "---------------------------------------------",
        "last   ori       50.0  40.0  60.0  70.0  30.0",
        "       all      100.0  40.0  60.0  70.0  30.0",
    ]


def test_a_row_holds_what_results_json_shows_and_no_more():
    record = {"epoch": 3, "split": "test", "eval": {}, "selection": {"moved": 1.0}, "score": 5.0, "lr": {}}
    assert result_row("last", record) == {
        "name": "last", "epoch": 3, "split": "test", "eval": {}, "selection": {"moved": 1.0},
    }  # fmt: skip


def test_the_mean_of_rows_is_taken_metric_by_metric():
    rows = [{"eval": {"ori": METRICS}}, {"eval": {"ori": METRICS | {"mAP": 60.0}}}]
    assert mean_metrics(rows) == {"ori": METRICS | {"mAP": 55.0}}


def test_the_log_says_where_the_kept_patches_lie(caplog):
    share = {"kept_on_object": 47.25, "all_on_object": 26.0}
    with caplog.at_level("INFO"):
        log_rows([{"name": "last", "eval": {"ori": METRICS}, "selection": share}])
    assert caplog.messages[1] == "last: 47.2 % of the kept patch area covers the object (26.0 % for all patches)."
    assert describe_share(share | {"oracle_on_object": 68.0, "relative_on_object": 0.506}) == (
        "47.2 % of the kept patch area covers the object (26.0 % for all patches, 68.0 % for the best ones; on the way "
        "from chance to these, 0.51)."
    )
