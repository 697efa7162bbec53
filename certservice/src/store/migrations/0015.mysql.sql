ALTER TABLE changes ADD COLUMN failing_since BIGINT
