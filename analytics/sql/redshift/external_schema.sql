-- Makes the tables of the Glue database known to Redshift as schema lake; run it once, and again is harmless.
CREATE EXTERNAL SCHEMA IF NOT EXISTS lake
FROM DATA CATALOG
DATABASE '${glue_database}'
IAM_ROLE default
