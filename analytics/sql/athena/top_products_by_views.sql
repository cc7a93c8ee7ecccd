-- The 20 products viewed most: ViewContent events, the users they came from, and the percent of the page seen on average; equal ones by product_id.
SELECT
  additional_data.product_id AS product_id,
  count(*) AS views,
  count(DISTINCT user_id) AS viewers,
  avg(additional_data.percent_viewed) AS mean_percent_viewed
FROM enriched
WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
  AND event_name = 'ViewContent'
GROUP BY additional_data.product_id
ORDER BY views DESC, product_id
LIMIT 20
