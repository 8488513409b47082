"""Incidents planted on the local stack, to be found and mended by an operator: `orgs drill`.

Whatever plants damage asks for a `Ground`, which has a `LocalStack`, which only a running `orgs up` of the same folder
gives (`local.stack`): nothing here can be called against other servers. One file an incident; `drills.py` lists them.
"""
