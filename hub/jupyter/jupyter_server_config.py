"""What every notebook server of the hub has in common."""

import os

c = get_config()

# Formgrader runs on a course's own server, and only there.
c.ServerApp.jpserver_extensions = {
    "nbgrader.server_extensions.formgrader": bool(os.environ.get("THEATRUM_COURSE")),
    "nbgrader.server_extensions.course_list": False,
    # Dashboards have a service of their own.
    "voila.server_extension": False,
}
# Idle kernels end before the idle server does.
c.MappingKernelManager.cull_idle_timeout = 3600
c.MappingKernelManager.cull_interval = 300
c.LabApp.extension_manager = "readonly"
# Lets the browser tests wait for JupyterLab's own states instead of guessing.
c.LabApp.expose_app_in_browser = True
