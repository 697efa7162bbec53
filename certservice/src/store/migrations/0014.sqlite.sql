ALTER TABLE domains ADD COLUMN window_start INTEGER;

ALTER TABLE domains ADD COLUMN window_end INTEGER
