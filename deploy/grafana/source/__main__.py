"""Writes the dashboards into ../dashboards, from where Grafana is given them."""

from pathlib import Path

from deploy.grafana.source.dashboards import files

for name, text in files().items():
    (Path(__file__).parents[1] / "dashboards" / name).write_text(text)
