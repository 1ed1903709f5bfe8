"""What the rows of `prefill_attention.py` say about each setting, for tables and pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

OURS = "photomask, "
PLAN = " % dense"
MAIN_IMAGE = 1296
"""The size of images that is measured at every length."""


@dataclass(frozen=True)
class Point:
    """Something that was timed on one setting.

    Attributes:
        name: who.
        version: of its package.
        shape: of which model.
        tokens: length of the prompt.
        image: tokens of an image; None where they do not matter.
        time_ms: median.
        speed: how many times as fast as the fastest dense kernel of the same run; None for peers.
        density: visible pairs of the plan over causal pairs; None for peers.
        note: of the time.
    """

    name: str
    version: str
    shape: str
    tokens: int
    image: int | None
    time_ms: float
    speed: float | None
    density: float | None
    note: str

    @property
    def is_plan(self) -> bool:
        """Whether it is a plan of ours, run as users run it."""
        return self.name.startswith(OURS) and self.name.endswith(PLAN)

    @property
    def percent(self) -> int:
        """Dense heads of a plan of ours."""
        return int(self.name.removeprefix(OURS).removesuffix(PLAN))

    @property
    def share(self) -> float | None:
        """The time that the fastest dense kernel needs for as many pairs, over ours."""
        return None if self.speed is None or self.density is None else self.speed * self.density


def read_points(rows: Sequence[dict[str, str]]) -> list[Point]:
    """Returns all that was timed on the device that was measured last."""
    if not rows:
        return []
    device = max(rows, key=lambda row: row["date"])["device"]
    found: dict[tuple[str, str], dict[str, dict[str, str]]] = {}
    for row in rows:
        if row["device"] == device:
            key = row["implementation"], row["network"]
            found.setdefault(key, {})[row["metric"]] = row
    points = [
        _point(name, network, metrics)
        for (name, network), metrics in found.items()
        if "time" in metrics
    ]
    return sorted(points, key=lambda point: (point.tokens, point.image or 0))


def _point(name: str, network: str, metrics: dict[str, dict[str, str]]) -> Point:
    shape, tokens, *images = network.split(", ")
    timed = metrics["time"]
    speeds = [
        float(row["value"])
        for metric, row in metrics.items()
        if metric.startswith("speed over ") and "FlexAttention" not in metric
        if row["date"] == timed["date"]
    ]
    density = metrics.get("density")
    return Point(
        name,
        timed["version"],
        shape,
        int(tokens.partition(" ")[0]),
        int(images[0].rpartition(" ")[2]) if images else None,
        float(timed["value"]),
        min(speeds, default=None),
        float(density["value"]) if density else None,
        timed["note"],
    )
