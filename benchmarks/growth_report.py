"""The growth measurements as tables and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib import rcParams
from matplotlib.figure import Figure


def markdown(result: dict[str, Any]) -> str:
    """Two tables: processor time of one unit of work, and memory of one entity."""
    runs = result["runs"]
    sizes = [
        f"{size['users']:,} x {size['items']:,}, {size['interactions']:,}" for size in (run["size"] for run in runs)
    ]
    times = [
        [
            phases[0]["name"],
            phases[0]["unit"],
            *(_number(nanoseconds(phase)) for phase in phases),
            f"{phases[-1]['cpu_seconds']:.2f}",
            f"{result['slopes'][phases[0]['name']]:.2f}",
        ]
        for phases in zip(*(run["phases"] for run in runs), strict=True)
    ]
    memory = [
        ["resident bytes per entity at most", *(f"{peak(run) / entities(run):,.0f}" for run in runs)],
        [
            "resident bytes per interaction at most",
            *(f"{peak(run) / run['size']['interactions']:,.0f}" for run in runs),
        ],
        ["resident MB at most, imports left out", *(f"{peak(run) / 1e6:,.0f}" for run in runs)],
        ["resident MB of the imports", *(f"{run['imports_bytes'] / 1e6:,.0f}" for run in runs)],
        ["in the phase", *(max(run["phases"], key=lambda phase: phase["peak_bytes"])["name"] for run in runs)],
        ["checkpoint, bytes per entity", *(f"{run['checkpoint_bytes'] / known(run):,.0f}" for run in runs)],
        ["id maps, bytes per entity", *(f"{run['id_map_bytes'] / known(run):,.0f}" for run in runs)],
    ]
    return "\n".join(
        [
            f"`{result['command']}`, {result['machine']}, {result['date']}. Users x items, interactions.",
            "",
            *_table(["phase", "unit", *(f"ns, {size}" for size in sizes), "s, largest", "slope"], times),
            "",
            *_table(["memory", *sizes], memory),
            "",
            f"Slope of log memory over log entities: {result['memory_slope']:.2f}.",
            "",
        ]
    )


def draw(result: dict[str, Any], path: Path) -> None:
    """Time of one unit of work, and memory of one entity, over the size of the stream."""
    runs = result["runs"]
    sizes = [run["size"]["interactions"] for run in runs]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = rcParams["axes.prop_cycle"].by_key()["color"]
    for index, phases in enumerate(zip(*(run["phases"] for run in runs), strict=True)):
        name, unit = phases[0]["name"], phases[0]["unit"]
        style = {"score": "--", "entity": ":"}.get(unit, "-")
        # There are more phases than colours.
        turn, place = divmod(index, len(colours))
        left.plot(
            sizes,
            [nanoseconds(phase) for phase in phases],
            style,
            color=colours[place],
            marker="os^"[turn % 3],
            label=f"{name}, per {unit}",
        )
    left.set(
        xscale="log", yscale="log", xlabel="interactions of the stream", ylabel="processor time, ns per unit of work"
    )
    left.legend(fontsize=6.5, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    right.plot(
        sizes, [peak(run) / entities(run) for run in runs], marker="o", label="resident at most, imports left out"
    )
    right.plot(sizes, [run["checkpoint_bytes"] / known(run) for run in runs], marker="o", label="checkpoint on disk")
    right.set(xscale="log", yscale="log", xlabel="interactions of the stream", ylabel="bytes per entity")
    right.legend(frameon=False)
    figure.savefig(path, dpi=110)


def nanoseconds(phase: dict[str, Any]) -> float:
    """Processor time of one unit of a phase's work."""
    return float(phase["cpu_seconds"] / phase["amount"] * 1e9)


def peak(run: dict[str, Any]) -> int:
    """Largest resident size of all phases, the imports left out."""
    return int(max(phase["peak_bytes"] for phase in run["phases"]) - run["imports_bytes"])


def entities(run: dict[str, Any]) -> int:
    """Users and items that were asked for."""
    return int(run["size"]["users"] + run["size"]["items"])


def known(run: dict[str, Any]) -> int:
    """Users and items that came up in an interaction."""
    return next(int(phase["amount"]) for phase in run["phases"] if phase["name"] == "write a checkpoint")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]
