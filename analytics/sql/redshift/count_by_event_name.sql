-- How many events of each name there are in the lake, counted by Redshift Spectrum; an event that a client sent twice counts twice.
SELECT event_name, count(*) AS events
FROM lake.enriched
WHERE year || '-' || month || '-' || day BETWEEN :since AND :until
GROUP BY event_name
ORDER BY events DESC, event_name
