-- Visitors by day (UTC): how many came for the first time and how many again, with the share (0 to 1) of the latter; the first time is that within the days asked for, so their first day has new visitors only.
WITH visits AS (
  SELECT DISTINCT user_id, CAST("timestamp" AS DATE) AS day
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
),
ordered AS (
  SELECT user_id, day, min(day) OVER (PARTITION BY user_id) AS first_day
  FROM visits
)
SELECT
  day,
  count(*) AS visitors,
  count_if(day = first_day) AS new_visitors,
  count_if(day > first_day) AS repeat_visitors,
  CAST(count_if(day > first_day) AS DOUBLE) / count(*) AS repeat_share
FROM ordered
GROUP BY day
ORDER BY day
