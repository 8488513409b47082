-- migrate/set_lock_timeout
--
-- Bounds the wait for a table: everybody else waits behind it. `orgs migrate`.

SET lock_timeout = 5000;
