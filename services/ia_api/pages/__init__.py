"""The pages for the laboratory's administrator: what runs, what failed, what to do.

They stand beside the addresses of the pathology server and are only there with a hub,
which says who is asking. Two groups may look (`ia-api-viewers`, `ia-api-admins`), one
may act (`ia-api-admins`); slide ids are shown to `ia-api-phi` only. Whoever may not is
told what is told of something that does not exist.
"""

from services.ia_api.pages.mounting import install

__all__ = ["install"]
