"""nbgrader in this installation, the same file for students and graders.

A student is who the hub says (`JUPYTERHUB_USER`), never the system account, which
all share in demo mode. What is released, handed in and given back travels over HTTP
to the courses service, which takes the person from the hub's token.
"""

import os

from nbconvert.preprocessors import CSSHTMLHeaderPreprocessor
from nbgrader.preprocessors import GetGrades

from services.courses.feedback import HideReferences

c = get_config()

c.Authenticator.plugin_class = "nbgrader.auth.jupyterhub.JupyterHubAuthPlugin"
for verb in (
    "exchange",
    "fetch_assignment",
    "fetch_feedback",
    "release_assignment",
    "release_feedback",
    "list",
    "submit",
    "collect",
):
    name = "".join(part.capitalize() for part in verb.split("_"))
    setattr(c.ExchangeFactory, verb, f"services.courses.nbgrader_plugin.Hub{name}")

# Checkpoints are the editor's own; nbgrader would report them as extra notebooks.
c.CourseDirectory.ignore = [
    ".ipynb_checkpoints",
    "*.pyc",
    "__pycache__",
    "feedback",
    # A teacher's own tries of the questions, and an answer that is being written.
    ".tries",
    ".*.part",
]
# Students read the feedback; the references of the hidden tests are not for them.
c.GenerateFeedback.preprocessors = [
    GetGrades,
    HideReferences,
    CSSHTMLHeaderPreprocessor,
]
# The same time limit for a student's validation and for grading.
c.ExecutePreprocessor.timeout = 120

course = os.environ.get("THEATRUM_COURSE", "")
if course:
    c.CourseDirectory.course_id = course
    c.CourseDirectory.root = os.environ["THEATRUM_COURSE_DIR"]
elif os.environ.get("JUPYTERHUB_USER"):
    c.CourseDirectory.student_id = os.environ["JUPYTERHUB_USER"]
