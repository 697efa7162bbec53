CREATE INDEX domains_by_tenant_state ON domains (tenant, state, name);

CREATE INDEX domains_by_tenant_end ON domains (tenant, ends_at, name)
