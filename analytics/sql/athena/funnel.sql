-- How many sessions (30 minutes' gap) came to a Search, from there to a ViewContent, an AddToCart and a Purchase, in this order whatever lay between, and which share (0 to 1) came on from the step before and from the first; a session without a Search is in no step.
WITH clicks AS (
  SELECT
    user_id,
    event_name,
    "timestamp" AS clicked_at,
    sequence_number,
    lag("timestamp") OVER (PARTITION BY user_id ORDER BY "timestamp", sequence_number) AS previous_at
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
),
numbered AS (
  SELECT
    user_id,
    event_name,
    clicked_at,
    sequence_number,
    count_if(clicked_at > previous_at + INTERVAL '30' MINUTE) OVER (
      PARTITION BY user_id ORDER BY clicked_at, sequence_number ROWS UNBOUNDED PRECEDING
    ) AS session
  FROM clicks
),
paths AS (
  SELECT
    -- A session as a word of first letters: S, V, A or P for each event.
    array_join(array_agg(substr(event_name, 1, 1) ORDER BY clicked_at, sequence_number), '') AS path
  FROM numbered
  GROUP BY user_id, session
),
depths AS (
  SELECT
    CASE
      WHEN path LIKE '%S%V%A%P%' THEN 4
      WHEN path LIKE '%S%V%A%' THEN 3
      WHEN path LIKE '%S%V%' THEN 2
      WHEN path LIKE '%S%' THEN 1
      ELSE 0
    END AS depth,
    count(*) AS sessions
  FROM paths
  GROUP BY 1
),
reached AS (
  SELECT steps.step, steps.event_name, coalesce(sum(depths.sessions), 0) AS sessions
  FROM (VALUES (1, 'Search'), (2, 'ViewContent'), (3, 'AddToCart'), (4, 'Purchase')) AS steps (step, event_name)
  LEFT JOIN depths ON depths.depth >= steps.step
  GROUP BY steps.step, steps.event_name
)
SELECT
  step,
  event_name,
  sessions,
  CAST(sessions AS DOUBLE) / nullif(lag(sessions) OVER (ORDER BY step), 0) AS from_previous,
  CAST(sessions AS DOUBLE) / nullif(first_value(sessions) OVER (ORDER BY step), 0) AS from_first
FROM reached
ORDER BY step
