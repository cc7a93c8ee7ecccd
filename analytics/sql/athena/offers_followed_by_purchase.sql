-- Offers (ViewContent with more than 60 percent viewed) by day (UTC), and how many the same user's Purchase followed within 24 hours: of anything, and of the product offered, with the latter's share (0 to 1) and its mean hours; one purchase may follow several offers.
WITH clicks AS (
  SELECT
    event_name,
    "timestamp" AS clicked_at,
    additional_data.percent_viewed AS percent_viewed,
    -- From the last event back, the earliest purchase so far is the next one.
    min(CASE WHEN event_name = 'Purchase' THEN "timestamp" END) OVER (
      PARTITION BY user_id
      ORDER BY "timestamp" DESC, sequence_number DESC ROWS UNBOUNDED PRECEDING
    ) AS next_purchase_at,
    min(CASE WHEN event_name = 'Purchase' THEN "timestamp" END) OVER (
      PARTITION BY user_id, additional_data.product_id
      ORDER BY "timestamp" DESC, sequence_number DESC ROWS UNBOUNDED PRECEDING
    ) AS next_of_product_at
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
    AND event_name IN ('ViewContent', 'Purchase')
),
offers AS (
  SELECT
    CAST(clicked_at AS DATE) AS day,
    next_purchase_at <= clicked_at + INTERVAL '24' HOUR AS followed,
    next_of_product_at <= clicked_at + INTERVAL '24' HOUR AS taken,
    date_diff('second', clicked_at, next_of_product_at) / 3600e0 AS hours
  FROM clicks
  WHERE event_name = 'ViewContent' AND percent_viewed > 60
)
SELECT
  day,
  count(*) AS offers,
  count_if(followed) AS followed_by_any,
  count_if(taken) AS followed_by_product,
  CAST(count_if(taken) AS DOUBLE) / count(*) AS taken_share,
  avg(CASE WHEN taken THEN hours END) AS mean_hours
FROM offers
GROUP BY day
ORDER BY day
