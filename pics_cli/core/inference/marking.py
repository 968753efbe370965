"""The XMP packet of a result: that a network had a part in it, which, when, and the whole record.

Properties are those of XMP and of the IPTC Photo Metadata Standard 2025.1; the record stands as JSON in a property of
our own, in whatever format a picture is written, and outlives tools that keep XMP.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from pics_cli import __version__
from pics_cli.errors import PicsError

SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/compositeWithTrainedAlgorithmicMedia"
# Where this is set, results have that date (https://reproducible-builds.org/specs/source-date-epoch).
DATE_VARIABLE = "SOURCE_DATE_EPOCH"
_NAMESPACE = "urn:x-pics:1.0/"
_RECORD = f"{{{_NAMESPACE}}}record"
# What no XML text may hold.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/" \
xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:pics="{namespace}">
{properties}
</rdf:Description>
</rdf:RDF>
</x:xmpmeta>
<?xpacket end="r"?>"""


def creation_date() -> str:
    """Now, or what SOURCE_DATE_EPOCH says, in UTC: `2026-11-30T14:05:00Z`.

    Raises:
        PicsError: the variable holds no number of seconds.
    """
    text = os.environ.get(DATE_VARIABLE)
    try:
        seconds = time.time() if not text else int(text)
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
    except (ValueError, OverflowError, OSError):
        raise PicsError(
            f"{DATE_VARIABLE}={text}: expected a whole number of seconds since 1970", "unset it for today's date"
        ) from None


def make_packet(record: Mapping[str, Any], text: str) -> bytes:
    """The XMP packet of a picture.

    Args:
        record: plain data; `date` and `model` are read, where they are there.
        text: the record as JSON of ASCII characters.
    """
    model = record["model"] if isinstance(record.get("model"), Mapping) else {}
    values = {
        "Iptc4xmpExt:DigitalSourceType": SOURCE_TYPE,
        "Iptc4xmpExt:AISystemUsed": model.get("name"),
        "Iptc4xmpExt:AISystemVersionUsed": model.get("fingerprint"),
        "xmp:CreatorTool": f"pics {__version__}",
        "xmp:CreateDate": record.get("date"),
        "pics:record": text,
    }
    lines = [f"<{name}>{_escaped(value)}</{name}>" for name, value in values.items() if value is not None]
    return _PACKET.format(namespace=_NAMESPACE, properties="\n".join(lines)).encode()


def _escaped(value: object) -> str:
    return escape(_FORBIDDEN.sub("\ufffd", str(value)))


def record_text(packet: bytes) -> bytes | None:
    """The record's JSON in an XMP packet, as whatever tool has written it anew; None where there is none."""
    if b"<!" in packet:  # declarations, which XMP has none of and which may expand without end
        return None
    try:
        root = ElementTree.fromstring(packet.strip(b"\0"))
    except (ElementTree.ParseError, ValueError):
        return None
    for node in root.iter():
        text = node.text if node.tag == _RECORD else node.get(_RECORD)
        if text:
            return text.encode()
    return None
