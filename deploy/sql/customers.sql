-- The users table in Aurora. Run it once; again is harmless. It needs no way into the VPC:
--
--     aws rds-data execute-statement --database clickstream --sql "$(grep -v '^--' deploy/sql/customers.sql)" \
--         --resource-arn "$(clickstream deploy outputs DatabaseClusterArn)" \
--         --secret-arn "$(clickstream deploy outputs DatabaseSecretArn)"

CREATE TABLE IF NOT EXISTS customers (
  customer_id VARCHAR(128) NOT NULL,
  pixel_id VARCHAR(128) NOT NULL,
  name VARCHAR(255) NOT NULL,
  price_per_click NUMERIC(12, 4) NOT NULL,
  PRIMARY KEY (customer_id)
) CHARSET = utf8mb4 COLLATE = utf8mb4_bin
