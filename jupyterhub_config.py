"""The hub of this installation: wiring only.

What an administrator may choose stands in `theatrum.toml` of the home folder or in
`THEATRUM_*` (`docs/administrator.md`); what follows from it is in `hub/wiring.py`.
"""

import os
import sys
from pathlib import Path

from hub import (
    course,
    demo_signin,
    leftovers,
    ports,
    proxy,
    scopes,
    settings,
    system_accounts,
    wiring,
)
from hub.home import Home, private_key
from hub.spawners import AccountSpawner, HomeSpawner
from tile_server.tokens import new_key

c = get_config()

# What the hub and its services write is for their own accounts only.
os.umask(0o077)

# What was chosen, and what is installed.
chosen = settings.load()
home = Home(chosen.home)
home.prepare()
home.note_mode(chosen.mode)
wiring.install_dashboards(home)
os.environ[leftovers.INSTANCE] = leftovers.instance(home.root)
courses = course.installed(home.courses)
here = wiring.Installation(
    settings=chosen,
    home=home,
    courses=courses,
    ports=ports.kept_ports(home.root / "ports.json", wiring.port_names(courses)),
    tile_key=private_key(home.tile_key, new_key()),
)

# One public address; all else stays on loopback.
c.JupyterHub.bind_url = f"http://{chosen.bind}:{chosen.port}{chosen.base_url}"
c.JupyterHub.hub_ip = "127.0.0.1"
c.JupyterHub.hub_port = here.ports["hub"]
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{here.ports['proxy']}"
c.ConfigurableHTTPProxy.command = proxy.command(chosen.proxy)
c.ConfigurableHTTPProxy.pid_file = str(home.proxy_pid)

# State is kept in the home folder.
c.JupyterHub.db_url = f"sqlite:///{home.hub_db}"
c.JupyterHub.cookie_secret_file = str(home.cookie_secret)

# Who may sign in: the accounts that the password file names.
c.JupyterHub.authenticator_class = demo_signin.DemoAuthenticator
demo_signin.passwords(home.demo_accounts, demo=chosen.demo or not here.isolated)
c.DemoAuthenticator.password_file = str(home.demo_accounts)
c.Authenticator.allow_all = True

# What is on the hub's own pages: the mode is said plainly.
c.JupyterHub.template_paths = [str(settings.ROOT / "hub" / "templates")]
c.JupyterHub.logo_file = str(settings.ROOT / "hub" / "static" / "theatrum.svg")
c.JupyterHub.template_vars = {
    "theatrum_demo": not here.isolated,
    "theatrum_courses": courses,
}

# How a person's server is started: under one account, or under the person's own.
c.JupyterHub.spawner_class = AccountSpawner if here.isolated else HomeSpawner
if here.isolated:
    system_accounts.refuse_if_impossible(settings.ROOT, home.root)
    system_accounts.prepare(home, courses)
c.HomeSpawner.homes = str(home.homes)
c.HomeSpawner.base_url = chosen.base_url
c.HomeSpawner.welcome = wiring.welcome(courses)
c.Spawner.cmd = [str(Path(sys.executable).with_name("jupyterhub-singleuser"))]
c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 and not here.isolated else []
c.Spawner.environment = wiring.kernel_environment(here)
c.Spawner.default_url = "/lab/tree/welcome.ipynb" if chosen.demo else "/lab"
c.LocalProcessSpawner.interrupt_timeout = 3
c.LocalProcessSpawner.term_timeout = 2

# What runs beside the hub, and who may use it.
c.JupyterHub.services = wiring.services(here)
c.JupyterHub.custom_scopes = scopes.custom_scopes()
c.JupyterHub.load_groups = wiring.groups(here)
c.JupyterHub.load_roles = wiring.roles(here)
