-- The 20 products that brought in most: the prices of their Purchase events summed, one piece each, in the shop's currency to the cent; equal ones by product_id.
SELECT
  additional_data.product_id AS product_id,
  round(sum(additional_data.price), 2) AS revenue,
  count(*) AS purchases,
  count(DISTINCT user_id) AS buyers
FROM enriched
WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
  AND event_name = 'Purchase'
GROUP BY additional_data.product_id
ORDER BY revenue DESC, product_id
LIMIT 20
