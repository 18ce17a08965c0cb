"""The pages of the segmentation client: series, templates, rules, nodes, figures.

They stand beside the API and use its actions. Who may see and do what is told by
`people`; a page that somebody may not use is not offered, and refuses them by itself.
"""

from services.dicom_client.pages.mounting import install

__all__ = ["install"]
