ALTER TABLE domains ADD COLUMN issuers TEXT;

ALTER TABLE domains ADD COLUMN passed_over TEXT;

UPDATE domains SET issuers = JSON_ARRAY(issuer);

ALTER TABLE jobs ADD COLUMN others_at BIGINT
