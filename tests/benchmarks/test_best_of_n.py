"""The comparison of orders, on labels whose best is known by each number."""

from __future__ import annotations

import best_of_n
import pytest

from selfie_adapters.labelling.rows import LabelRow, parse_row


def row(label: str, gain: float, log_prob: float, right: bool) -> LabelRow:
    fields = {"index": 0, "label": label, "raw": label, "scale": 1.0, "sample": 0, "seed": 0}
    numbers = {"log_prob": log_prob, "zero_log_prob": log_prob - 2 * gain, "gain": gain}
    more = {"tokens": 2, "ended": True, "agreement": 0.5, "equal": right}
    found = parse_row({**fields, **numbers, **more}, "row")
    assert isinstance(found, LabelRow)
    return found


def test_orders_are_compared_concept_by_concept():
    # By gain "rare" is best, by likelihood "usual", by their sum (per token) "owl": 3 - 1 = 2.
    three = [
        row("rare", 6.0, -10.0, False),
        row("usual", 0.5, -0.5, False),
        row("owl", 3.0, -2.0, True),
    ]
    # Here the highest gain is right, and both others choose another label.
    other = [row("bee", 4.0, -9.0, True), row("insect", 1.0, -1.0, False)]
    silent = [row("", 9.0, -0.1, False), row("tin", 0.1, -5.0, True)]  # an empty label comes last
    concepts = [f"owl {i}" for i in range(7)] + ["bee", "tin"]
    place = best_of_n.Labelled(
        "12:name", concepts, [rows[0] for rows in [three] * 9], [three] * 7 + [other, silent]
    )
    right = {order: place.right(order).tolist() for order in best_of_n.ORDERS}
    assert right["gain"] == [0.0] * 7 + [1.0, 1.0]
    assert right["likelihood"] == [0.0] * 8 + [1.0]
    assert right["gain + likelihood per token"] == [1.0] * 7 + [0.0, 1.0]
    assert best_of_n.chosen_on([place]) == "gain + likelihood per token"
    table = {one["order"]: one for one in best_of_n.table([place])}
    chosen = table["gain + likelihood per token"]
    assert chosen["over_gain"]["mean"] == pytest.approx(6 / 9)
    assert chosen["over_gain"]["n"] == 9
    assert table["gain"]["over_gain"] is None
    assert chosen["right"].startswith("0.89 [")
    assert table["one greedy label"]["by_place"] == {"12:name": "0.00 [0.00, 0.30]"}
