"""What a segmentation server does wrong, one field for each thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Scenario:
    """The switches; `..._n` go wrong for the first n requests and then work."""

    health_503_n: int = 0
    models_401: bool = False
    upload_500_n: int = 0
    upload_stall_n: int = 0
    """Takes the package, stores nothing, and never answers."""
    upload_reset_n: int = 0
    """Resets the connection after the body; nothing is stored."""
    upload_drop_after_bytes: int = 0
    """Resets the connection when more than so many bytes of a package are here."""
    upload_drop_n: int = 0
    """Stores the package, then resets the connection: nobody hears of the token."""
    upload_html_n: int = 0
    """Stores the package, and a proxy answers 200 with a page."""
    upload_504_n: int = 0
    """Stores the package, and a gateway has waited long enough."""
    upload_dup_token: bool = True
    """The same package gets the same token again."""
    upload_limit_bytes: int = 64 << 20
    token_name: Literal["transaction_token", "task_id"] = "transaction_token"
    token_expired: bool = False
    """The access token is refused until it is renewed."""
    refresh_way: Literal["v1", "v2", "both", "none"] = "both"
    refresh_fails: bool = False
    refresh_rotates: bool = False
    polls: int = 3
    """How many statuses come before the one that says ready."""
    ready_status: str = "SEGMENTATION COMPLETED"
    status_failed: bool = False
    status_404: bool = False
    status_stuck: bool = False
    status_500_n: int = 0
    download_500_n: int = 0
    download_bad_checksum_n: int = 0
    download_no_checksum: bool = False
    download_upper_checksum: bool = False
    download_truncated_n: int = 0
    download_html: bool = False
    rt_wrong_series: bool = False
    rt_foreign_sop: bool = False
    rt_wrong_for: bool = False
    rt_no_ref: bool = False
    rt_not_rtstruct: bool = False
    rt_extra_roi: bool = False
    rt_missing_roi: bool = False
    rt_empty_roi: bool = False
    rt_duplicate_numbers: bool = False
    rt_odd_points: bool = False
    rt_outside: bool = False
    rt_phi_injected: str = ""
    """A text that is put into the result, as a server would that knows the patient."""
    confirm_500_n: int = 0
    confirm_other_text_n: int = 0
    slow_ms: int = 0
    rate_limit_429_after: int = 0
    """From this request on one in two is answered by 429 with Retry-After."""
