-- console/use_link
--
-- Uses up a one-time link. A sign-in by one. Locks the row: of two at once, one finds it.
-- console_ticket_pkey.
--
-- Parameters: $1 digest

DELETE FROM console_ticket WHERE console_ticket.digest = $1::BYTEA AND console_ticket.kind = 'link'
    AND console_ticket.expires_at > clock_timestamp() RETURNING console_ticket.user_id;
