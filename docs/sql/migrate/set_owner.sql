-- migrate/set_owner
--
-- Makes orgs_owner the owner of what follows. `orgs migrate`.

SET ROLE orgs_owner;
