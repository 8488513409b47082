-- Commands of this program to the organization service, each written in the transaction of the work that it belongs to.
CREATE TABLE org_outbox (
    id uuid PRIMARY KEY,                        -- the command id: sent again under it, a command takes effect once
    number bigint GENERATED ALWAYS AS IDENTITY, -- the order of one organization's commands
    org_id uuid NOT NULL,
    type text NOT NULL,                         -- org.create, org.update, ...
    body json NOT NULL,                         -- as it is sent
    actor text,                                 -- on whose behalf, where the service trusts its publishers
    enqueued_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),  -- nobody sends it before: somebody does already, or it failed
    tries integer NOT NULL DEFAULT 0,
    trouble text,                               -- why there is no final outcome yet
    outcome text,                               -- applied, unchanged or rejected, parked until an operator decides
    result json,                                -- all of the outcome, as it is on orgs.results
    decided_at timestamptz                      -- when the final outcome was written
)
-- Rows are rewritten where they are (due_at is in no index), and what is decided leaves the first index.
WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

CREATE INDEX ON org_outbox (org_id, number) WHERE decided_at IS NULL;

CREATE INDEX ON org_outbox (decided_at) WHERE decided_at IS NOT NULL;
