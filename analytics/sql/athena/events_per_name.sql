-- How many events of each name there were, by how many users, and their share of all events (0 to 1); an event that a client sent twice counts twice.
SELECT
  event_name,
  count(*) AS events,
  count(DISTINCT user_id) AS users,
  CAST(count(*) AS DOUBLE) / sum(count(*)) OVER () AS share
FROM enriched
WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
GROUP BY event_name
ORDER BY events DESC, event_name
