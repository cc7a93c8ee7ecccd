-- Tells the Lambda `names` of each customer's new name; how to run it says signup.sql.

CREATE TRIGGER IF NOT EXISTS clickstream_renamed AFTER UPDATE ON customers FOR EACH ROW
BEGIN
  DECLARE told TEXT;
  DECLARE CONTINUE HANDLER FOR SQLEXCEPTION BEGIN END;
  IF @clickstream_bulk IS NULL AND NEW.name <> OLD.name THEN
    SET told = lambda_async('NAMES_LAMBDA_ARN', JSON_OBJECT('user_id', NEW.customer_id));
  END IF;
END
