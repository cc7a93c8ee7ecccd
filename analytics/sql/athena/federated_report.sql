-- What each user searched for last (one row a user who has searched; times in UTC, seconds and percent as sent), with their last access and location from Redis and their price per click from MySQL, which are empty for a user unknown there.
WITH searches AS (
  SELECT
    user_id,
    "timestamp" AS searched_at,
    additional_data.product_id AS product_id,
    additional_data.price AS price,
    additional_data.percent_viewed AS percent_viewed,
    additional_data.time_on_data AS time_on_data,
    row_number() OVER (
      PARTITION BY user_id
      -- Two searches in one microsecond: the one accepted later; sequence numbers are numbers too long for BIGINT.
      ORDER BY "timestamp" DESC, length(sequence_number) DESC, sequence_number DESC
    ) AS from_the_last
  FROM enriched
  WHERE year || '-' || month || '-' || day BETWEEN ? AND ?
    AND event_name = 'Search'
)
SELECT
  searches.user_id,
  searches.searched_at,
  searches.product_id,
  searches.price,
  searches.percent_viewed,
  searches.time_on_data,
  accesses.last_access,
  accesses.location,
  customers.price_per_click
FROM searches
-- A key is user:<id>: the id begins at position 6.
LEFT JOIN redis.clickstream_redis.users AS accesses ON substr(accesses."_key_", 6) = searches.user_id
LEFT JOIN mysql.clickstream.customers AS customers ON customers.customer_id = searches.user_id
WHERE searches.from_the_last = 1
ORDER BY searches.user_id
