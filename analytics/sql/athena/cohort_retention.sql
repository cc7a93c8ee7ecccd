-- Of the users first seen in a week (from Monday, UTC), how many came back so many weeks after, and their share (0 to 1) of the cohort; a week in which none came back has no row, and the first seen is that within the days asked for.
WITH weeks AS (
  SELECT DISTINCT user_id, CAST(date_trunc('week', "timestamp") AS DATE) AS week
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
),
since_first AS (
  SELECT user_id, week, min(week) OVER (PARTITION BY user_id) AS cohort_week
  FROM weeks
),
counted AS (
  SELECT cohort_week, date_diff('week', cohort_week, week) AS weeks_after, count(*) AS users
  FROM since_first
  GROUP BY cohort_week, date_diff('week', cohort_week, week)
)
SELECT
  cohort_week,
  weeks_after,
  users,
  -- Everyone is there in week 0, so the most is the cohort.
  max(users) OVER (PARTITION BY cohort_week) AS cohort_users,
  CAST(users AS DOUBLE) / max(users) OVER (PARTITION BY cohort_week) AS retained
FROM counted
ORDER BY cohort_week, weeks_after
