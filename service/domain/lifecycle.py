"""Lifecycle: what an API's state of publication means for a request."""

from datetime import UTC, date, datetime, time
from email.utils import format_datetime

from service.domain.api import Api
from service.domain.errors import Gone, NotFound
from service.domain.headers import Field


def refuse_unpublished(api: Api) -> None:
    """Raises NotFound while the API is a draft, Gone once it is retired."""
    if api.lifecycle == "RETIRED":
        raise Gone("This API was retired.")
    if api.lifecycle == "DRAFT":
        raise NotFound("This API is not published yet.")


def lifecycle_fields(api: Api) -> list[Field]:
    """Deprecation (RFC 9745) and Sunset (RFC 8594), where the API is on its way out."""
    if api.lifecycle != "DEPRECATED":
        return []
    since = b"@%d" % _midnight(api.deprecated).timestamp() if api.deprecated else b"true"
    fields = [(b"deprecation", since)]
    if api.sunset:
        fields.append((b"sunset", format_datetime(_midnight(api.sunset), usegmt=True).encode()))
    return fields


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
