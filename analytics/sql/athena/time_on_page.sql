-- How long users stay, in seconds by event name: the mean, and the times that half and nine in ten of the events do not exceed (nearest rank, exact).
WITH times AS (
  SELECT event_name, additional_data.time_on_data AS seconds, count(*) AS events
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
  GROUP BY event_name, additional_data.time_on_data
),
ranked AS (
  SELECT
    event_name,
    seconds,
    events,
    sum(events) OVER (PARTITION BY event_name ORDER BY seconds) AS up_to_here,
    sum(events) OVER (PARTITION BY event_name) AS all_events
  FROM times
)
SELECT
  event_name,
  sum(events) AS events,
  sum(seconds * events) / sum(events) AS mean_seconds,
  min(CASE WHEN 2 * up_to_here >= all_events THEN seconds END) AS median_seconds,
  min(CASE WHEN 10 * up_to_here >= 9 * all_events THEN seconds END) AS p90_seconds
FROM ranked
GROUP BY event_name
ORDER BY event_name
