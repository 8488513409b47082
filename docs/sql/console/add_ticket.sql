-- console/add_ticket
--
-- Keeps the digest of a session or of a one-time link. A sign-in to the operators' page, or `orgs console`.
-- Locks the new row. console_ticket_pkey.
--
-- Parameters: $1 digest, $2 kind, $3 user_id, $4 ttl

INSERT INTO console_ticket (digest, kind, user_id, expires_at) VALUES ($1::BYTEA, $2::VARCHAR, $3::VARCHAR,
    (clock_timestamp() + $4::INTERVAL));
