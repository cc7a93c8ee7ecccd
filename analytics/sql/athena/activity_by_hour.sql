-- Events, users and purchases by hour of the day (UTC, by the client's clock), all days asked for taken together; each of the 24 hours has its row.
WITH hourly AS (
  SELECT
    extract(HOUR FROM "timestamp") AS hour_of_day,
    count(*) AS events,
    count(DISTINCT user_id) AS users,
    count_if(event_name = 'Purchase') AS purchases
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
  GROUP BY 1
)
SELECT
  hours.hour_of_day,
  coalesce(hourly.events, 0) AS events,
  coalesce(hourly.users, 0) AS users,
  coalesce(hourly.purchases, 0) AS purchases
FROM UNNEST(sequence(0, 23)) AS hours (hour_of_day)
LEFT JOIN hourly ON hourly.hour_of_day = hours.hour_of_day
ORDER BY hours.hour_of_day
