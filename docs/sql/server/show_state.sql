-- server/show_state
--
-- Reads clock and version of the server. An operator's command, seldom. No lock.

SELECT clock_timestamp(), pg_is_in_recovery(), current_setting('server_version'),
(SELECT rolsuper FROM pg_roles WHERE rolname = session_user);
