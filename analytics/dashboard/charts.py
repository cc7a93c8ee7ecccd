"""The dashboard's charts as Vega-Lite, without their data: the page hands each its rows under the name `rows`.

The page gives them their colours too, since it knows light from dark: `land`, `point` and `card` are its parameters.
"""

from typing import Any, Final

import altair as alt

ROWS: Final = "rows"
SHAPES: Final = "shapes"
"""The name under which a map gets its topojson."""


def charts(events: list[str]) -> dict[str, dict[str, Any]]:
    """Write each chart by the id of its place in the page."""
    made = {"donut": _donut(events), "states": _states(), "cities": _cities(), "regions": _regions()}
    return {name: chart.to_dict(validate=True) for name, chart in made.items()}


def _donut(events: list[str]) -> Any:
    """Share out the events by name; rows: name, count, share."""
    return (
        alt.Chart(alt.NamedData(ROWS))
        .mark_arc(innerRadius=alt.expr("min(width, height) * 0.28"), padAngle=0.015, cornerRadius=3)
        .encode(
            theta=alt.Theta("count:Q", stack=True),
            order=alt.Order("place:O"),
            color=alt.Color("name:N", scale=alt.Scale(domain=events, range="category"), legend=None),
            tooltip=[
                alt.Tooltip("name:N", title="Event"),
                alt.Tooltip("count:Q", title="Events", format=","),
                alt.Tooltip("share:Q", title="Share", format=".1%"),
            ],
        )
        .properties(width="container", height=230)
    )


def _states() -> Any:
    """Fill each US state by its requests; rows: state, count."""
    return (
        alt.Chart(_shapes("states"))
        .mark_geoshape(strokeWidth=0.7)
        .transform_lookup(
            lookup="properties.name",
            from_=alt.LookupData(data=alt.NamedData(ROWS), key="state", fields=["count"]),
            default="0",
        )
        .transform_calculate(requests="toNumber(datum.count)")
        .encode(
            color=alt.Color(
                "requests:Q",
                scale=alt.Scale(type="sqrt", zero=True),
                legend=alt.Legend(title=None, orient="bottom", gradientLength=180, gradientThickness=8, format="~s"),
            ),
            tooltip=[
                alt.Tooltip("properties.name:N", title="State"),
                alt.Tooltip("requests:Q", title="Requests", format=","),
            ],
        )
        .project(type="albersUsa")
        .properties(width="container", height=260)
    )


def _shapes(feature: str) -> alt.NamedData:
    return alt.NamedData(SHAPES, format=alt.TopoDataFormat(feature=feature, type="topojson"))


def _cities() -> Any:
    """Put a point on each city, as large as its requests; rows: place, count, lat, lon."""
    land = alt.Chart(_shapes("land")).mark_geoshape(fill=alt.ExprRef("land"), stroke=None)
    points = (
        alt.Chart(alt.NamedData(ROWS))
        .mark_circle(fill=alt.ExprRef("point"), stroke=alt.ExprRef("card"), opacity=0.75, strokeWidth=0.7)
        .encode(
            longitude="lon:Q",
            latitude="lat:Q",
            size=alt.Size("count:Q", scale=alt.Scale(zero=True, range=[6, 420]), legend=None),
            order=alt.Order("count:Q", sort="descending"),
            tooltip=[alt.Tooltip("place:N", title="City"), alt.Tooltip("count:Q", title="Requests", format=",")],
        )
    )
    return alt.layer(land, points).project(type="naturalEarth1").properties(width="container", height=280)


def _regions() -> Any:
    """Rank regions by requests; rows: region, count."""
    bars = (
        alt.Chart(alt.NamedData(ROWS))
        .mark_bar(cornerRadiusEnd=3)
        .encode(
            x=alt.X("count:Q", title=None, axis=alt.Axis(format=",d", tickCount=4)),
            y=alt.Y("region:N", title=None, sort=None, axis=alt.Axis(labelLimit=170)),
            tooltip=[alt.Tooltip("region:N", title="Region"), alt.Tooltip("count:Q", title="Requests", format=",")],
        )
    )
    labels = bars.mark_text(align="left", dx=4).encode(text=alt.Text("count:Q", format=","))
    room = bars.transform_calculate(room="datum.count * 1.2").mark_point(opacity=0).encode(x="room:Q", tooltip=[])
    return alt.layer(bars, labels, room).properties(width="container", usermeta={"row_height": 34})  # page.js sets it
