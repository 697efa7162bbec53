CREATE INDEX jobs_to_leave ON jobs (issuer, stage, lane, others_at)
