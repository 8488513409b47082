-- migrate/show_version
--
-- Reads the version of the server. `orgs migrate`.

SHOW server_version_num;
