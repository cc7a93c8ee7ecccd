-- Tells the Lambda `names` of each new customer, and of each new name, so that events of theirs carry it within seconds.
--
-- Run it once, where the table `customers` is, as the user who owns it:
--
--     sed "s|NAMES_LAMBDA_ARN|$(clickstream deploy outputs NamesLambdaArn)|" deploy/sql/signup.sql |
--         mysql --host=… --user=… --password --ssl-mode=VERIFY_IDENTITY --ssl-ca=global-bundle.pem clickstream
--
-- lambda_async is a function of Aurora MySQL 3. Who runs this needs the role for it, active whenever they are asked for:
--
--     GRANT AWS_LAMBDA_ACCESS TO 'admin'@'%'; SET DEFAULT ROLE ALL TO 'admin'@'%';
--
-- A sign-up does not wait for the Lambda, and does not fail when it cannot be called: the schedule makes up for that.
-- Loading many at once says `SET @clickstream_bulk = 1` first, and leaves them to the schedule.

DROP TRIGGER IF EXISTS clickstream_signed_up;
DROP TRIGGER IF EXISTS clickstream_renamed;

DELIMITER //

CREATE TRIGGER clickstream_signed_up AFTER INSERT ON customers FOR EACH ROW
BEGIN
  DECLARE told TEXT;
  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
  IF @clickstream_bulk IS NULL THEN
    SET told = lambda_async('NAMES_LAMBDA_ARN', JSON_OBJECT('user_id', NEW.customer_id));
  END IF;
END//

CREATE TRIGGER clickstream_renamed AFTER UPDATE ON customers FOR EACH ROW
BEGIN
  DECLARE told TEXT;
  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
  IF @clickstream_bulk IS NULL AND NEW.name <> OLD.name THEN
    SET told = lambda_async('NAMES_LAMBDA_ARN', JSON_OBJECT('user_id', NEW.customer_id));
  END IF;
END//

DELIMITER ;
