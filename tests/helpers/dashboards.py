"""What a W&B dashboard shows, read from its model."""

from wandb_workspaces.reports.v2.interface import (
    BarPlot,
    CustomChart,
    LinePlot,
    MediaBrowser,
    ScatterPlot,
    WeavePanelSummaryTable,
)


def names(panel) -> set[str]:
    """The names under which a panel looks for what runs log; a regular expression begins with `~`."""
    if isinstance(panel, ScatterPlot):
        return {panel.x.name, panel.y.name}
    if isinstance(panel, BarPlot):
        return {metric.name for metric in panel.metrics}
    if isinstance(panel, CustomChart):
        return {panel.query["summaryTable"]["tableKey"]}
    if isinstance(panel, WeavePanelSummaryTable):
        return {panel.table_name}
    if isinstance(panel, MediaBrowser):
        return set(panel.media_keys)
    assert isinstance(panel, LinePlot)
    return {panel.x, *panel.y} | ({f"~{panel.metric_regex}"} if panel.metric_regex else set())


def sections(dashboard) -> dict[str, set[str]]:
    """Section -> the names of all that its panels show."""
    return {section.name: set().union(*map(names, section.panels)) for section in dashboard.sections}


def columns(dashboard) -> dict[str, set[str]]:
    """Key of a table -> the columns that charts of it need."""
    charts = [panel for section in dashboard.sections for panel in section.panels if isinstance(panel, CustomChart)]
    return {chart.query["summaryTable"]["tableKey"]: set(chart.chart_fields.values()) for chart in charts}
