-- Loads what unload_by_country_and_event_name wrote into a table of Redshift, in the place of what was there (all in one transaction), and shows it.
CREATE TABLE IF NOT EXISTS events_by_country_and_event_name (
  country VARCHAR(16) NOT NULL,
  event_name VARCHAR(32) NOT NULL,
  events BIGINT NOT NULL,
  users BIGINT NOT NULL
);

DELETE FROM events_by_country_and_event_name;

COPY events_by_country_and_event_name (country, event_name, events, users)
FROM '${lake}/unloads/by_country_and_event_name/events_'
IAM_ROLE default
FORMAT AS CSV
DELIMITER AS '|'
IGNOREHEADER 1;

SELECT country, event_name, events, users
FROM events_by_country_and_event_name
ORDER BY country, event_name
