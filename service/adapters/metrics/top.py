"""Top: who used most tokens this hour, as a gauge for each of the first places."""

from collections.abc import Iterator, Mapping, Sequence

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.adapters.metrics.families import Family

TOP = Family(
    "weir_top_subject_tokens",
    "Tokens of those who used most this hour, first places only.",
    ("rank", "subject"),
)


class TopSubjects(Collector):
    """Subjects with their tokens, the first one first; `names` are digests that may be shown in clear."""

    def __init__(self, places: Sequence[tuple[str, int]], names: Mapping[str, str]) -> None:
        self._places = places
        self._names = names

    def collect(self) -> Iterator[Metric]:
        """One metric, or none where there is nobody to show."""
        gauge = GaugeMetricFamily(TOP.name, TOP.help, labels=TOP.labels)
        for rank, (subject, tokens) in enumerate(self._places, 1):
            gauge.add_metric([str(rank), self._names.get(subject, subject)], tokens)
        if self._places:
            yield gauge
