-- Sessions by the day (UTC) they began: a user's events without a gap of more than 30 minutes; their length in seconds is from the first event to the last, so that of one event is 0, and a session is cut where the days asked for begin and end.
WITH clicks AS (
  SELECT
    user_id,
    "timestamp" AS clicked_at,
    sequence_number,
    lag("timestamp") OVER (PARTITION BY user_id ORDER BY "timestamp", sequence_number) AS previous_at
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
),
numbered AS (
  SELECT
    user_id,
    clicked_at,
    -- Without a previous event the comparison is NULL, which counts nothing: the first session is number 0.
    count_if(clicked_at > previous_at + INTERVAL '30' MINUTE) OVER (
      PARTITION BY user_id ORDER BY clicked_at, sequence_number ROWS UNBOUNDED PRECEDING
    ) AS session
  FROM clicks
),
sessions AS (
  SELECT
    user_id,
    min(clicked_at) AS began,
    date_diff('millisecond', min(clicked_at), max(clicked_at)) / 1000e0 AS seconds,
    count(*) AS events
  FROM numbered
  GROUP BY user_id, session
)
SELECT
  CAST(began AS DATE) AS day,
  count(*) AS sessions,
  count(DISTINCT user_id) AS users,
  avg(events) AS mean_events,
  avg(seconds) AS mean_seconds,
  CAST(count_if(events = 1) AS DOUBLE) / count(*) AS one_event_share
FROM sessions
GROUP BY CAST(began AS DATE)
ORDER BY day
