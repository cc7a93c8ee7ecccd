-- Writes the number of events and users by country and event name into unloads/ of the lake, as one CSV file with | between columns and a header, in the place of the last; rows without a country say unknown.
UNLOAD ('
  SELECT
    coalesce(country, ''unknown'') AS country,
    event_name,
    count(*) AS events,
    count(DISTINCT user_id) AS users
  FROM lake.enriched
  WHERE year || ''-'' || month || ''-'' || day BETWEEN ''${since}'' AND ''${until}''
  GROUP BY 1, 2
  ORDER BY 1, 2
')
TO '${lake}/unloads/by_country_and_event_name/events_'
IAM_ROLE default
FORMAT AS CSV
DELIMITER AS '|'
HEADER
PARALLEL OFF
ALLOWOVERWRITE
EXTENSION 'csv'
