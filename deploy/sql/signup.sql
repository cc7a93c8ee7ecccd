-- Tells the Lambda `names` of each new customer, so that their events carry their name within seconds. Run it once, after
-- customers.sql; again is harmless. Then renamed.sql the same way, which tells of new names.
--
--     aws rds-data execute-statement --database clickstream --sql "$(grep -v '^--' deploy/sql/signup.sql |
--             sed "s|NAMES_LAMBDA_ARN|$(clickstream deploy outputs NamesLambdaArn)|")" \
--         --resource-arn "$(clickstream deploy outputs DatabaseClusterArn)" \
--         --secret-arn "$(clickstream deploy outputs DatabaseSecretArn)"
--
-- lambda_async is a function of Aurora MySQL 3; who runs this needs the role for it:
-- `GRANT AWS_LAMBDA_ACCESS TO clickstream`, by the same command.
--
-- A sign-up does not wait for the Lambda, and does not fail when it cannot be called: the schedule makes up for that.
-- Who loads many at once says `SET @clickstream_bulk = 1` first, and leaves them to the schedule.

CREATE TRIGGER IF NOT EXISTS clickstream_signed_up AFTER INSERT ON customers FOR EACH ROW
BEGIN
  DECLARE told TEXT;
  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
  IF @clickstream_bulk IS NULL THEN
    SET told = lambda_async('NAMES_LAMBDA_ARN', JSON_OBJECT('user_id', NEW.customer_id));
  END IF;
END
