"""Published rows: their models are what the pages say, and the rows that were looked at are still predicted as well."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from asking import facts, request
from axoc.cost.sizes import sizes_of
from axoc.search.choose import all_passes

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from public_rows import SEEN, cluster_of, model_of, predict, public_rows
from scale_document import Point, picture


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("mpt-1b", 1_315_950_592), ("mpt-7b", 6_658_859_008), ("mpt-13b", 12_853_954_560), ("mpt-70b", 64_862_437_376)],
)
def test_models_have_as_many_parameters_as_published(name: str, parameters: int) -> None:
    assert sizes_of(model_of(name), None).total == parameters


def test_rows_that_were_looked_at_are_predicted_within_a_tenth() -> None:
    """It shows only that nothing broke; what the model is worth, docs/scale.md says of the others."""
    found = [predict(row) for row in public_rows(seen=True)]
    assert len(found) == len(SEEN)
    assert statistics.mean(abs(p.error) for p in found) < 0.1
    assert statistics.median(abs(p.error) for p in found) < 0.08


def test_every_row_has_a_source_and_a_machine() -> None:
    rows = public_rows()
    assert len({row["id"] for row in rows}) == len(rows) >= 80
    for row in rows:
        assert row["source"].startswith("https://github.com/") and cluster_of(row).world_size == row["gpus"]


def test_the_picture_shows_plans_and_published_rows() -> None:
    rows = [predict(row) for row in public_rows(seen=True) if row["model"] in ("mpt-7b", "llama-3-8b")]
    points = [Point("llama-3-8b", n, 9000.0 / n**0.01, "fsdp", 0.2) for n in (1, 8, 16384)]
    drawn = ElementTree.fromstring(picture(points, rows))
    kinds = [element.tag.rsplit("}", 1)[1] for element in drawn.iter()]
    assert kinds.count("circle") == len(rows) and kinds.count("polyline") == 2


def test_candidates_hardly_grow_with_the_cluster() -> None:
    """From 64 to 16,384 accelerators there are as many ways to split the work, but for copies on a few nodes."""
    made = request("meta-llama/Meta-Llama-3-70B")
    few, many = (len(all_passes(made, facts(made, f"h100-sxm-80gb:8x{n}"))[0].combinations) for n in (8, 2048))
    assert many < 1.5 * few
