"""The margin in words: the same sentence in the terminal, in PLAN.md, in plan.json and in ``axoc explain``."""

from __future__ import annotations

from axoc.ir.estimate import Estimate
from axoc.ir.margin import KnobMargin, Margin
from axoc.ir.plan import Plan
from axoc.units import gib


def margin_sentence(plan: Plan) -> str:
    """``fits by 6.1 GiB ...; first to break: sequence length above 9,216 ...``"""
    assert plan.margin is not None
    margin = plan.margin
    kept = f" beyond the {margin.kept_free:.0%} kept free" if margin.kept_free else ""
    return f"fits by {gib(margin.free_bytes)}{kept}; {_first(margin)} ({band_in_words(plan.chosen.estimate)})"


def band_in_words(estimate: Estimate) -> str:
    """What the prediction may be off by, and how that is known."""
    share = f"±{100 * estimate.memory_error_band:.1f}%"
    if not estimate.memory_error_rows:
        return f"{share}, an allowance: no run like it was measured"
    return f"{share} on {estimate.memory_error_rows} measured rows, {estimate.memory_error_measured}"


def knob_rows(margin: Margin) -> list[tuple[str, str, str]]:
    """Setting, planned value, how far it can go."""
    return [(k.label, f"{k.value:,}", _reach(k, margin)) for k in margin.knobs]


def _first(margin: Margin) -> str:
    knob = margin.first_to_break
    if knob is None:
        return "no setting alone breaks it: " + " and ".join(f"{k.label} {_reach(k, margin)}" for k in margin.knobs[:1])
    return f"first to break: {beyond(knob)}"


def beyond(knob: KnobMargin) -> str:
    """Where it stops to fit."""
    return f"fewer than {knob.fits_to:,} {knob.label}" if knob.falls else f"{knob.label} above {knob.fits_to:,}"


def _reach(knob: KnobMargin, margin: Margin) -> str:
    if knob.breaks_at is None:
        return f"fits {'down' if knob.fits_to < knob.value else 'up'} to {knob.fits_to:,}, as far as it goes"
    word = "down to" if knob.falls else "up to"
    first = ", first to break" if knob is margin.first_to_break else ""
    return f"fits {word} {knob.fits_to:,}{first}"
