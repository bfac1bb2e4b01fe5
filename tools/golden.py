"""Rewrites golden/: for each pair of spec and inventory every representation and the bundle, as text.

    python tools/golden.py [--check] [PAIR ...]

With --check nothing is written; differences are printed and the exit code is 1. The runtime's sources and the hashed
lock are left out of a golden: they are the same for all pairs and have tests of their own.
"""

from __future__ import annotations

import argparse
import difflib
import os
import shutil
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from axoc.ir.plan import Plan

ROOT: Final = Path(__file__).resolve().parent.parent
GOLDEN: Final = ROOT / "golden"
PAIRS: Final = GOLDEN / "pairs.toml"
SAME_FOR_ALL: Final = ("config/target.sh", "config/ray_train.py")
LEFT_OUT: Final = (
    *SAME_FOR_ALL,
    "runtime/",
    "plugins/",
    "launch/",
    "launch.sh",
    "requirements.lock",
    "axoc.bundle.json",
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="*", help="names of pairs; all by default")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where something differs")
    options = parser.parse_args()
    pairs = read_pairs()
    wanted = options.pairs or sorted(pairs)
    differing = [name for name in wanted if update(name, pairs[name], write=not options.check)]
    if not options.pairs and not options.check:
        remove_stale(set(pairs))
    print(f"{len(wanted)} goldens, {len(differing)} changed" + (": " + ", ".join(differing) if differing else ""))
    return 1 if options.check and differing else 0


def read_pairs() -> dict[str, dict[str, str]]:
    """``<spec>__<inventory>`` -> {spec, inventory}."""
    pairs: dict[str, dict[str, str]] = tomllib.loads(PAIRS.read_text(encoding="utf-8"))["pair"]
    return pairs


def update(name: str, pair: dict[str, str], *, write: bool) -> bool:
    """True where the golden changed; with ``write`` it is then rewritten whole."""
    fresh, folder = render(pair), GOLDEN / name
    old = {p.relative_to(folder).as_posix(): p.read_text(encoding="utf-8") for p in folder.rglob("*") if p.is_file()}
    if fresh == old:
        return False
    if write:
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in fresh.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    else:
        print("\n".join(differences(name, old, fresh)))
    return True


def differences(name: str, old: dict[str, str], fresh: dict[str, str]) -> list[str]:
    lines = []
    for path in sorted(set(old) | set(fresh)):
        before, after = old.get(path, "").splitlines(), fresh.get(path, "").splitlines()
        lines += list(difflib.unified_diff(before, after, f"golden/{name}/{path}", "now", lineterm=""))[:60]
    return lines


def render(pair: dict[str, str]) -> dict[str, str]:
    """Every representation of one pair, by file name. Planned from the repository's root, as a user would."""
    from axoc import driver
    from axoc.emit.plan_json import no_plan_dict
    from axoc.emit.terminal import render_no_plan, render_plan
    from axoc.ir.canonical import dumps
    from axoc.ir.plan import NoPlan

    os.chdir(ROOT)
    planned = driver.plan(Path(pair["spec"]), pair["inventory"])
    files = {"1-request.json": dumps(planned.inputs.request), "2-facts.json": dumps(facts_of(planned.inputs))}
    if isinstance(planned.result, NoPlan):
        files |= {"3-no-plan.json": dumps(no_plan_dict(planned.result)), "terminal.txt": render_no_plan(planned.result)}
        return files
    files |= {"3-schedule.json": dumps(planned.result.schedule), "terminal.txt": render_plan(planned.result)}
    bundle = driver.bundle(planned, ROOT / "bundle")
    kept = (f for f in bundle.files if not f.path.startswith(LEFT_OUT))
    files |= {f"bundle/{f.path}": f.content.decode() for f in kept}
    return files | targets_of(planned.result)


def targets_of(plan: Plan) -> dict[str, str]:
    """``targets/<target>/config/...``: the same plan, as each engine is told it; what is the same for all plans is left out."""
    from axoc.emit.launcher import launch_environment
    from axoc.emit.targets.registry import target_files
    from axoc.facts.targets import TARGETS

    found = {}
    for kind in TARGETS:
        told = replace(plan, request=replace(plan.request, target=replace(plan.request.target, type=kind)))
        kept = (f for f in target_files(told) if f.path not in SAME_FOR_ALL)
        found |= {f"targets/{kind}/{f.path}": f.content.decode() for f in kept}
        found[f"targets/{kind}/config/launch.env"] = launch_environment(told).render()
    return found


def facts_of(inputs: object) -> dict[str, object]:
    from axoc.inputs import Inputs

    assert isinstance(inputs, Inputs)
    return {"model": inputs.model, "clusters": inputs.clusters, "data": inputs.data, "notes": inputs.notes}


def remove_stale(known: set[str]) -> None:
    for folder in GOLDEN.iterdir():
        if folder.is_dir() and folder.name not in known:
            shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
